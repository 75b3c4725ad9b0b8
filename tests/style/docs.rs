//! Tests that the documents name: each must be there under that name.

use std::collections::BTreeSet;

use super::Finding;

/// A name of so many words is a test's or a story's; shorter ones are also of other things.
const WORDS_MIN: usize = 4;

/// Every long name in a document that is neither a function nor a story.
pub(crate) fn check(path: &str, text: &str, known: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (n, line) in text.lines().enumerate() {
        // Between two backticks is every second part.
        for name in line.split('`').skip(1).step_by(2).filter(|name| is_long(name)) {
            if !known.contains(name) {
                findings.push(Finding::new(path, n + 1, format!("there is no test {name}")));
            }
        }
    }
    findings
}

/// The functions that a file of Rust defines.
pub(crate) fn functions(text: &str) -> impl Iterator<Item = String> + '_ {
    let name =
        |rest: &str| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().map(str::to_owned);
    text.split("fn ").skip(1).filter_map(name)
}

fn is_long(name: &str) -> bool {
    name.split('_').count() >= WORDS_MIN
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn a_name_that_nothing_has_is_found() {
    let known: BTreeSet<String> = functions("async fn a_test_that_is() {}\nfn other<T>() {}").collect();
    assert!(known.contains("other"));
    let text = "| `a_test_that_is`, short `a_b_c` |\n| `a_test_that_was` and `A_B_C_D` |";
    let found = check("a.md", text, &known);
    assert_eq!(found, [Finding::new("a.md", 2, "there is no test a_test_that_was")]);
}
