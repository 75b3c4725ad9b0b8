//! Deliberate panics: a library and an agent return errors instead.

use super::Finding;
use super::rust::RustFile;

/// The crates that run on a node.
const CRATES: &[&str] = &[
    "model",
    "core",
    "consensus",
    "store",
    "node",
    "net",
    "launcher",
    "systemd",
    "cli",
    "daemon",
    "blixard",
];
const METHODS: &[&str] = &["unwrap", "expect", "unwrap_err", "expect_err"];

/// Whether the rule applies to this file.
pub(crate) fn applies(path: &str) -> bool {
    CRATES
        .iter()
        .any(|name| path.strip_prefix("agent/").is_some_and(|rest| rest.starts_with(&format!("{name}/src/"))))
}

/// Finds every `unwrap`, `expect` and `panic!` outside test code.
pub(crate) fn check(file: &RustFile) -> Vec<Finding> {
    let patterns = METHODS.iter().flat_map(|method| [[".", method], [":", method]]).chain([["panic", "!"]]);
    let mut findings: Vec<Finding> = patterns
        .flat_map(|pattern| {
            let found: Vec<_> = file.find(&pattern).map(|token| (token.line, pattern.concat())).collect();
            found
        })
        .filter(|(line, _)| !file.is_test_line(*line))
        .map(|(line, what)| Finding::new(&file.path, line, format!("{what} outside a test: return an error")))
        .collect();
    findings.sort();
    findings
}

#[test]
fn panics_are_found_in_code_and_in_macros_but_not_in_tests() {
    let text = "\
fn a() {
    x.unwrap();
    select! { y => y.expect(\"z\") };
    list.map(Option::unwrap);
    x.unwrap_or(1); // .unwrap()
    panic!(\"x\");
}
#[cfg(test)]
mod tests {
    fn b() { x.unwrap(); panic!() }
}
";
    let file = RustFile::parse("agent/core/src/x.rs", text).expect("Rust");
    let lines: Vec<usize> = check(&file).iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [2, 3, 4, 6]);
}

#[test]
fn the_rule_applies_to_the_crates_that_run_on_a_node() {
    assert!(applies("agent/core/src/lib.rs") && applies("agent/cli/src/lib.rs"));
    assert!(
        !applies("agent/xtask/src/main.rs") && !applies("agent/core/tests/a.rs") && !applies("tests/main.rs")
    );
}
