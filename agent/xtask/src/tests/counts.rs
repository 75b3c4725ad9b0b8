//! Reads the numbers of tests from what test runners print.

use std::fmt;
use std::ops::AddAssign;

/// How many tests ended in each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that passed.
    pub(crate) passed: u32,
    /// Tests that failed.
    pub(crate) failed: u32,
    /// Tests that were not run.
    pub(crate) skipped: u32,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// The sum of all `test result:` lines of `cargo test`.
pub(crate) fn cargo_test(text: &str) -> Tally {
    let mut tally = Tally::default();
    for line in text.lines().filter(|line| line.starts_with("test result:")) {
        tally += Tally {
            passed: number_before(line, "passed"),
            failed: number_before(line, "failed"),
            skipped: number_before(line, "ignored"),
        };
    }
    tally
}

/// Reads what `python3 -m unittest` prints last: `Ran 5 tests in 0.1s`, then `OK` or
/// `FAILED (failures=1, errors=1)`.
pub(crate) fn python_unittest(text: &str) -> Tally {
    let ran = text.lines().find_map(|line| line.strip_prefix("Ran ")).map_or(0, leading_number);
    let last = text.lines().rev().find(|line| line.starts_with("OK") || line.starts_with("FAILED"));
    let named = |name: &str| {
        let (_, rest) = last.and_then(|line| line.split_once(name))?;
        rest.strip_prefix('=').map(leading_number)
    };
    let failed = named("failures").unwrap_or(0) + named("errors").unwrap_or(0);
    let skipped = named("skipped").unwrap_or(0);
    Tally { passed: ran.saturating_sub(failed + skipped), failed, skipped }
}

/// The number in front of a word: 3 for `passed` in `ok. 3 passed;`.
fn number_before(line: &str, word: &str) -> u32 {
    let mut before = None;
    for part in line.split_whitespace() {
        if part.trim_end_matches(';') == word {
            return before.and_then(|text: &str| text.parse().ok()).unwrap_or(0);
        }
        before = Some(part);
    }
    0
}

fn leading_number(text: &str) -> u32 {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn all_binaries_of_cargo_test_are_summed_up() {
        let text = "\
running 2 tests
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 10 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        assert_eq!(cargo_test(text), Tally { passed: 12, failed: 3, skipped: 1 });
        assert_eq!(cargo_test("error: could not compile"), Tally::default());
    }

    #[test]
    fn the_numbers_of_unittest_are_read() {
        let text = |end: &str| format!("....\n------\nRan 5 tests in 0.018s\n\n{end}\n");
        assert_eq!(python_unittest(&text("OK")), Tally { passed: 5, failed: 0, skipped: 0 });
        assert_eq!(python_unittest(&text("OK (skipped=2)")), Tally { passed: 3, failed: 0, skipped: 2 });
        let failed = text("FAILED (failures=1, errors=2, skipped=1)");
        assert_eq!(python_unittest(&failed), Tally { passed: 1, failed: 3, skipped: 1 });
    }

    #[test]
    fn a_tally_has_one_form() {
        assert_eq!(Tally { passed: 1, failed: 2, skipped: 3 }.to_string(), "1 passed, 2 failed, 3 skipped");
    }
}
