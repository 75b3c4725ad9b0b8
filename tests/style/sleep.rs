//! A test that sleeps is slow or wrong. It has to wait for what it wants to see.

use super::Finding;
use super::rust::RustFile;

/// Finds every call or import of a function `sleep` in test code.
pub(crate) fn check(file: &RustFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (n, token) in file.tokens.iter().enumerate() {
        let near =
            |index: Option<usize>| index.and_then(|index| file.tokens.get(index)).map(|token| &*token.text);
        let called =
            near(n.checked_add(1)) == Some("(") && !matches!(near(n.checked_sub(1)), Some("." | "fn"));
        let imported = near(n.checked_sub(1)) == Some(":");
        if token.text == "sleep" && (called || imported) && file.is_test_line(token.line) {
            findings.push(Finding::new(
                &file.path,
                token.line,
                "sleeps: wait for what the test wants to see",
            ));
        }
    }
    findings
}

#[test]
fn a_sleep_is_found_in_tests_only() {
    let text = "\
use tokio::time::sleep;
fn pace() { sleep(TICK); }
fn sleep() {}
";
    let lines = |path: &str| -> Vec<usize> {
        let file = RustFile::parse(path, text).expect("Rust");
        check(&file).iter().map(|finding| finding.line).collect()
    };
    assert_eq!(lines("agent/net/src/x.rs"), [0usize; 0]);
    assert_eq!(lines("agent/net/tests/x.rs"), [1, 2]);
    let inside = "#[cfg(test)]\nmod tests {\n    fn a() { std::thread::sleep(x); clock.sleep(x); }\n}\n";
    assert_eq!(check(&RustFile::parse("agent/net/src/x.rs", inside).expect("Rust")).len(), 1);
}
