//! Gives hostile bytes to a decoder inside an ordinary test. For tests only; no crate of the agent runs it.
//!
//! [`Target::run`] begins with valid encodings and mutates them (`mutate`) until the time is up. Each
//! execution must return: a panic, more than [`HANG_MAX`] of time, or more memory than the target's limit
//! fails the test, and the input is stored as a file. What an execution returns (for example the text of an
//! error) distinguishes inputs: an input with an outcome that was not seen before is mutated further. So the
//! search gets past the first check of a format without an instrumented build.
//!
//! The settings are environment variables: `BLIXARD_FUZZ_SECONDS` (time for each target, 1 s by default),
//! `BLIXARD_FUZZ_SEED` (repeats a run), `BLIXARD_FUZZ_INPUT` (a file: only this input is executed). Linking
//! this crate replaces the allocator of the test binary by one that counts for each thread.

mod kept;
mod mutate;
pub mod strings;
mod watch;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

pub use watch::HANG_MAX;

use kept::keep;
use mutate::Mutator;
use watch::Watch;

/// Longest input, in bytes, unless the target sets another limit.
pub const INPUT_LEN_MAX: usize = 64 << 10;
/// Most memory that one execution may hold at a time, in bytes, unless the target sets another limit.
pub const HEAP_MAX: u64 = 4 << 20;

/// Time for each target, in seconds, unless `BLIXARD_FUZZ_SECONDS` is set.
const SECONDS_DEFAULT: f64 = 1.0;
/// Inputs that are kept to be mutated further, not counting the valid encodings.
const CORPUS_MAX: usize = 512;
/// How many bytes of an outcome are compared with other outcomes.
const OUTCOME_LEN_MAX: usize = 80;

/// A decoder under test: its name, the inputs to begin with, and its limits.
#[derive(Debug, Clone)]
pub struct Target {
    name: &'static str,
    valid: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    heap_max: u64,
    len_max: usize,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FuzzReport {
    /// How many inputs were executed.
    pub executions: u64,
    /// How many different outcomes were seen.
    pub outcomes: usize,
    /// The most memory that one execution held at a time, in bytes.
    pub heap_peak: u64,
}

impl Target {
    /// A target without valid encodings yet.
    pub fn new(name: &'static str) -> Self {
        Self { name, valid: Vec::new(), words: Vec::new(), heap_max: HEAP_MAX, len_max: INPUT_LEN_MAX }
    }

    /// Adds a valid encoding. The more kinds of encodings there are, the more of the decoder is reached.
    #[must_use]
    pub fn valid(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.valid.push(bytes.into());
        self
    }

    /// Adds pieces that mean something to the decoder. They are inserted into inputs, and replace parts of
    /// them.
    #[must_use]
    pub fn words<W: AsRef<[u8]>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.words.extend(words.into_iter().map(|word| word.as_ref().to_vec()));
        self
    }

    /// Sets the most memory that one execution may hold at a time, in bytes.
    #[must_use]
    pub fn heap_max(mut self, bytes: u64) -> Self {
        self.heap_max = bytes;
        self
    }

    /// Sets the longest input, in bytes.
    #[must_use]
    pub fn len_max(mut self, bytes: usize) -> Self {
        self.len_max = bytes;
        self
    }

    /// Executes inputs until the time is up, and prints how many there were.
    ///
    /// # Panics
    /// When an execution panicked, took too long or held too much memory. The message, with which the test
    /// fails, holds the seed and the file with the input.
    pub fn run<O: Into<String>>(self, execute: impl FnMut(&[u8]) -> O) -> FuzzReport {
        let seconds = setting("BLIXARD_FUZZ_SECONDS").unwrap_or(SECONDS_DEFAULT);
        let seed = setting("BLIXARD_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
        let only = std::env::var_os("BLIXARD_FUZZ_INPUT").map(|path| std::fs::read(path).expect("the input"));
        let mut run = FuzzRun::new(&self, seed, execute);
        if let Some(input) = only {
            run.execute(&input);
            return run.report;
        }
        let begun = Instant::now();
        let budget = Duration::from_secs_f64(seconds);
        let mut first = self.valid.clone();
        first.extend(mutate::bombs(&self.words, self.len_max));
        first.iter().for_each(|input| run.execute(input));
        let mut mutator = Mutator::new(seed, &self.words, self.len_max);
        while begun.elapsed() < budget {
            let input = mutator.mutate(&run.corpus);
            run.execute(&input);
        }
        let FuzzReport { executions, outcomes, heap_peak } = run.report;
        println!(
            "fuzz {}: {executions} executions in {:.1} s, {outcomes} outcomes, at most {} KiB of heap, \
             seed {seed}",
            self.name,
            begun.elapsed().as_secs_f64(),
            heap_peak.div_ceil(1024)
        );
        run.report
    }
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

struct FuzzRun<'a, F> {
    target: &'a Target,
    seed: u64,
    work: F,
    watch: Watch,
    corpus: Vec<Vec<u8>>,
    seen: HashSet<u64>,
    report: FuzzReport,
}

impl<'a, O: Into<String>, F: FnMut(&[u8]) -> O> FuzzRun<'a, F> {
    fn new(target: &'a Target, seed: u64, work: F) -> Self {
        let report = FuzzReport { executions: 0, outcomes: 0, heap_peak: 0 };
        let corpus = target.valid.clone();
        Self { target, seed, work, watch: Watch::new(target.name), corpus, seen: HashSet::new(), report }
    }

    fn execute(&mut self, input: &[u8]) {
        self.watch.begin(input);
        let begun = Instant::now();
        let mut ended = None;
        let work = &mut self.work;
        // Caught inside of the measurement, because the counter keeps a stack that a panic would leave
        // unbalanced.
        let heap = allocation_counter::measure(|| {
            ended = Some(catch_unwind(AssertUnwindSafe(|| work(input).into())));
        });
        let took = begun.elapsed();
        self.watch.end();
        self.report.executions += 1;
        self.report.heap_peak = self.report.heap_peak.max(heap.bytes_max);
        let Some(Ok(outcome)) = ended else { self.fail("it panicked", input) };
        if took > HANG_MAX {
            self.fail(&format!("it took {took:?}, {HANG_MAX:?} is the most"), input);
        }
        if heap.bytes_max > self.target.heap_max {
            let (held, most) = (heap.bytes_max, self.target.heap_max);
            self.fail(&format!("it held {held} bytes of memory, {most} is the most"), input);
        }
        self.note(&outcome, input);
    }

    /// Keeps an input whose outcome is new. Digits are not compared, because numbers are positions and sizes.
    fn note(&mut self, outcome: &str, input: &[u8]) {
        let mut hasher = DefaultHasher::new();
        let told = outcome.bytes().filter(|byte| !byte.is_ascii_digit()).take(OUTCOME_LEN_MAX);
        told.for_each(|byte| byte.hash(&mut hasher));
        let is_new = self.seen.len() < 16 * CORPUS_MAX && self.seen.insert(hasher.finish());
        self.report.outcomes = self.seen.len();
        if is_new && self.corpus.len() < self.target.valid.len() + CORPUS_MAX {
            self.corpus.push(input.to_vec());
        }
    }

    fn fail(&self, why: &str, input: &[u8]) -> ! {
        let file = keep(self.target.name, input);
        panic!(
            "fuzz {}: {why}\ninput of {} bytes in {}\nrepeat: BLIXARD_FUZZ_INPUT={} cargo test ...\n\
             the whole run: BLIXARD_FUZZ_SEED={} (execution {})",
            self.target.name,
            input.len(),
            file.display(),
            file.display(),
            self.seed,
            self.report.executions,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(target: Target, execute: impl FnMut(&[u8]) -> String) -> String {
        let failed = catch_unwind(AssertUnwindSafe(|| target.run(execute))).expect_err("found");
        failed.downcast_ref::<String>().expect("words").clone()
    }

    /// A format with three checks, one after the other: a length, a word and a number.
    fn decode(bytes: &[u8]) -> String {
        let Some((len, rest)) = bytes.split_first() else { return "empty".into() };
        if usize::from(*len) != rest.len() {
            return "length".into();
        }
        let Some(number) = rest.strip_prefix(b"go ") else { return "word".into() };
        let number: u32 = std::str::from_utf8(number).ok().and_then(|n| n.parse().ok()).unwrap_or(0);
        assert_ne!(number, u32::MAX, "the fault");
        "ok".into()
    }

    #[test]
    fn a_fault_behind_valid_encodings_is_found_with_its_input() {
        let target = Target::new("self-test-fault").valid(*b"\x0dgo 4294967290").words(["4294967295"]);
        let words = failure(target, decode);
        assert!(words.contains("it panicked") && words.contains("BLIXARD_FUZZ_SEED="), "{words}");
        let file = words.split(" in ").nth(1).and_then(|rest| rest.lines().next()).expect("a file");
        assert_eq!(std::fs::read(file).expect("kept"), b"\x0dgo 4294967295");
    }

    #[test]
    fn memory_over_the_limit_is_found_even_when_it_is_given_back() {
        let target = Target::new("self-test-memory").valid(*b"\x01").heap_max(1 << 20);
        let words = failure(target, |bytes| {
            let len = bytes.first().map_or(0, |byte| usize::from(*byte)) << 16;
            vec![0u8; len].len().to_string()
        });
        assert!(words.contains("bytes of memory"), "{words}");
    }

    #[test]
    fn slow_executions_are_found() {
        let target = Target::new("self-test-slow").valid(*b"a");
        let words = failure(target, |_| {
            let begun = Instant::now();
            while begun.elapsed() <= HANG_MAX {
                std::thread::park_timeout(HANG_MAX);
            }
            String::new()
        });
        assert!(words.contains("it took"), "{words}");
    }

    #[test]
    fn inputs_with_new_outcomes_are_mutated_further() {
        // There is no valid encoding to begin with, so each check is passed by an input made from one that
        // passed the check before.
        let report = Target::new("self-test-outcomes").words(["go ", "\u{5}"]).run(decode);
        assert!(report.executions > 1_000 && report.outcomes >= 3, "{report:?}");
    }
}
