//! Tests and files that the documents name: each of them must exist under that name.

use std::collections::BTreeSet;

use super::Finding;

/// A name of at least this many words is that of a test or a story. Shorter names may be those of other
/// things.
const WORDS_MIN: usize = 4;

/// Finds every long name in a document that is neither a function nor a story.
pub(crate) fn check(path: &str, text: &str, known: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (n, line) in text.lines().enumerate() {
        // Every second part is between two backticks.
        for name in line.split('`').skip(1).step_by(2).filter(|name| is_long(name)) {
            if !known.contains(name) {
                findings.push(Finding::new(path, n + 1, format!("there is no test {name}")));
            }
        }
    }
    findings
}

/// Finds every file that a document names between backticks and that the repository does not have. A path may
/// begin at the root, in `agent/`, or, in a section whose heading is a crate, in that crate's sources. Braces
/// stand for several files.
pub(crate) fn check_paths(path: &str, text: &str, known: &BTreeSet<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut sources: Option<String> = None;
    for (n, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            sources = line.split('`').nth(1).filter(|name| name.starts_with("agent/")).map(str::to_owned);
        }
        let names = line.split('`').skip(1).step_by(2).filter(|name| is_path(name, sources.is_some()));
        for name in names.flat_map(alternatives) {
            let in_crate = sources.as_ref().map(|of| format!("{of}/src/{name}"));
            let places = [Some(name.clone()), Some(format!("agent/{name}")), in_crate];
            if !places.iter().flatten().any(|place| known.contains(place.as_str())) {
                findings.push(Finding::new(path, n + 1, format!("there is no file {name}")));
            }
        }
    }
    findings
}

/// Kinds of files that are checked. Files of other kinds may be created only when something runs.
const KINDS: &[&str] = &[".rs", ".py", ".nix"];

/// Whether this is the name of a file. It has to include a folder, unless the section is about a folder. A
/// name with capitals stands for any name.
fn is_path(name: &str, has_folder: bool) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-./{},".contains(c);
    (has_folder || name.contains('/'))
        && !name.starts_with('/')
        && KINDS.iter().any(|kind| name.ends_with(kind))
        && name.chars().all(is_plain)
}

/// The names for which `a/{b,c}.rs` stands.
fn alternatives(name: &str) -> Vec<String> {
    let parts = name.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    match parts {
        Some((before, (among, after))) => {
            among.split(',').map(|one| format!("{before}{one}{after}")).collect()
        }
        None => vec![name.to_owned()],
    }
}

/// The names of the functions that a Rust file defines.
pub(crate) fn functions(text: &str) -> impl Iterator<Item = String> + '_ {
    let name =
        |rest: &str| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().map(str::to_owned);
    text.split("fn ").skip(1).filter_map(name)
}

/// The fields of the objects that a Python file prints.
pub(crate) fn fields(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split('"').filter(|word| is_long(word)).map(str::to_owned)
}

fn is_long(name: &str) -> bool {
    name.split('_').count() >= WORDS_MIN
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn a_name_that_nothing_has_is_found() {
    let known: BTreeSet<String> = functions("async fn a_test_that_is() {}\nfn other<T>() {}").collect();
    assert!(known.contains("other"));
    let known = known.into_iter().chain(fields("return {\"a_field_it_prints\": 1}")).collect();
    let text =
        "| `a_test_that_is`, `a_field_it_prints`, short `a_b_c` |\n| `a_test_that_was` and `A_B_C_D` |";
    let found = check("a.md", text, &known);
    assert_eq!(found, [Finding::new("a.md", 2, "there is no test a_test_that_was")]);
}

#[test]
fn a_file_that_is_not_there_is_found() {
    let known: BTreeSet<&str> = ["agent/a/src/b.rs", "agent/a/src/c.rs", "tests/d.py"].into();
    let text = "`a/src/b.rs`, `agent/a/src/{b,c}.rs`, `tests/d.py`, `b.rs`, `/etc/x.nix`, `a/NAME.rs`\n\
                `a/src/{b,gone}.rs` and `tests/gone.py`";
    let found = check_paths("a.md", text, &known);
    let gone = |name: &str| Finding::new("a.md", 2, format!("there is no file {name}"));
    assert_eq!(found, [gone("a/src/gone.rs"), gone("tests/gone.py")]);
    let text = "## `agent/a`\n`b.rs`\n`b/c.rs`\n## other\n`d.rs`";
    assert_eq!(check_paths("a.md", text, &known), [Finding::new("a.md", 3, "there is no file b/c.rs")]);
}
