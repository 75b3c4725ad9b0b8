//! The style as a test: what a reviewer would have to say again and again. Every check is a function from a
//! text to findings, with its own small test beside it. Here the checks are applied to the repository.

mod circles;
mod doc_comments;
mod docs;
mod errors;
mod findings;
mod layers;
mod manifests;
mod panics;
mod rust;
mod size;
mod sleep;
mod tree;
mod type_names;
mod words;

use std::collections::BTreeSet;
use std::fmt;

/// Something to change, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

#[track_caller]
fn none(findings: impl IntoIterator<Item = Finding>) {
    let texts: Vec<String> = findings.into_iter().map(|finding| finding.to_string()).collect();
    assert!(texts.is_empty(), "{} to change:\n{}\n", texts.len(), texts.join("\n"));
}

#[test]
fn no_word_of_something_unfinished() {
    none(tree::files().iter().flat_map(|file| words::check(&file.path, &file.text)));
}

#[test]
fn no_doc_comment_is_one_word() {
    let sources = tree::files().iter().filter(|file| file.path.ends_with(".rs"));
    none(sources.flat_map(|file| doc_comments::check(&file.path, &file.text)));
}

#[test]
fn lines_files_and_functions_are_short() {
    none(tree::files().iter().flat_map(|file| size::check_text(&file.path, &file.text)));
    none(tree::rust().iter().flat_map(size::check_rust));
}

#[test]
fn nothing_outside_tests_panics_on_purpose() {
    none(tree::rust().iter().filter(|file| panics::applies(&file.path)).flat_map(panics::check));
}

#[test]
fn each_cause_of_an_error_is_printed_once() {
    none(
        tree::files()
            .iter()
            .filter(|file| errors::applies(&file.path))
            .flat_map(|file| errors::check(&file.path, &file.text)),
    );
    let parsed = |path: &str| tree::rust().iter().find(|file| file.path == path);
    let printing = tree::files().iter().filter(|file| errors::prints_for_people(&file.path));
    none(printing.flat_map(|file| errors::check_printed(parsed(&file.path).expect("parsed"), &file.text)));
}

#[test]
fn no_test_sleeps() {
    none(tree::rust().iter().flat_map(sleep::check));
}

#[test]
fn time_chance_and_runtimes_stay_outside_the_pure_crates() {
    none(tree::rust().iter().filter(|file| layers::is_pure(&file.path)).flat_map(layers::check_pure));
    none(tree::rust().iter().flat_map(layers::check_clockless));
}

#[test]
fn crates_depend_in_one_direction() {
    let manifests = tree::manifests();
    assert!(manifests.len() > 5, "the manifests are where they are looked for");
    none(manifests.iter().flat_map(|file| layers::check_manifest(&file.path, &file.text)));
}

#[test]
fn modules_of_a_crate_import_each_other_in_no_circle() {
    none(circles::check(tree::files(), is_test));
}

#[test]
fn no_two_types_of_the_workspace_have_one_name() {
    none(type_names::check(tree::files(), is_test));
}

/// Whether the whole source file is test code.
fn is_test(path: &str) -> bool {
    tree::rust().iter().any(|file| file.path == path && file.is_test)
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let of =
        |extension: &'static str| tree::files().iter().filter(move |file| file.path.ends_with(extension));
    let stories =
        of(".py").filter_map(|file| file.path.strip_prefix("vm-tests/stories/")?.strip_suffix(".py"));
    let mut known: BTreeSet<String> = stories.map(str::to_owned).collect();
    known.extend(of(".rs").flat_map(|file| docs::functions(&file.text)));
    known.extend(of(".py").flat_map(|file| docs::fields(&file.text)));
    // In the other documents, long names are those of settings and metrics.
    let about_tests = documents().filter(|file| {
        ["docs/testing.md", "docs/chaos.md", "docs/evidence/"].iter().any(|name| file.path.contains(name))
    });
    none(about_tests.flat_map(|file| docs::check(&file.path, &file.text, &known)));
}

#[test]
fn every_file_that_a_document_names_is_there() {
    let known: BTreeSet<&str> = tree::files().iter().map(|file| file.path.as_str()).collect();
    none(documents().flat_map(|file| docs::check_paths(&file.path, &file.text, &known)));
}

/// What is written for contributors and operators: the texts in the root and in `agent/docs`.
fn documents() -> impl Iterator<Item = &'static tree::TextFile> {
    let is_one =
        |path: &str| path.ends_with(".md") && (!path.contains('/') || path.starts_with("agent/docs/"));
    tree::files().iter().filter(move |file| is_one(&file.path))
}

#[test]
fn every_manifest_says_what_its_crate_is() {
    none(tree::manifests().iter().flat_map(|file| manifests::check(&file.path, &file.text)));
}

#[test]
fn every_finding_can_be_run_and_names_its_package() {
    let scripts = tree::files().iter().filter(|file| findings::applies(&file.path));
    none(scripts.flat_map(|file| findings::check(&file.path, &file.text, tree::is_executable(&file.path))));
}
