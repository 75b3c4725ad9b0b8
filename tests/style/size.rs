//! What fits on a screen: the length of lines, functions and files.

use super::Finding;
use super::rust::RustFile;

/// Longest line, in characters.
const COLUMNS_MAX: usize = 110;
/// Longest function from `fn` to its closing brace, in lines.
const FUNCTION_LINES_MAX: usize = 70;
/// Longest file without its test code, in lines.
const FILE_LINES_MAX: usize = 600;
/// Longest of files that are read as a whole, or that grow with every addition, in lines with their tests.
const LINES_MAX_OF: &[(&str, usize)] = &[("agent/blixard/src/main.rs", 59), ("agent/docs/testing.md", 149)];
/// Kinds of files whose lines have to fit beside another file.
const CODE: &[&str] = &[".rs", ".py", ".nix", ".sh"];

/// Finds long lines, long files of the kinds in which test code is not told apart, and files that are longer
/// than they are to be.
pub(crate) fn check_text(path: &str, text: &str) -> Vec<Finding> {
    let (limit, lines) = (LINES_MAX_OF.iter().find(|(of, _)| *of == path), text.lines().count());
    let too_long = limit.filter(|(_, most)| lines > *most);
    let mut findings: Vec<Finding> = too_long
        .map(|(_, most)| Finding::new(path, 1, format!("{lines} lines, {most} is the most")))
        .into_iter()
        .collect();
    if !CODE.iter().any(|kind| path.ends_with(kind)) {
        return findings;
    }
    for (n, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            findings.push(Finding::new(path, n + 1, format!("{columns} columns, {COLUMNS_MAX} is the most")));
        }
    }
    if !path.ends_with(".rs") {
        findings.extend(long_file(path, text.lines().count()));
    }
    findings
}

/// Finds long functions, and a file that is long without its test code.
pub(crate) fn check_rust(file: &RustFile) -> Vec<Finding> {
    let mut findings: Vec<Finding> = file
        .functions
        .iter()
        .filter_map(|function| {
            let lines = function.lines.clone().count();
            let what = format!("fn {} has {lines} lines, {FUNCTION_LINES_MAX} is the most", function.name);
            (lines > FUNCTION_LINES_MAX).then(|| Finding::new(&file.path, *function.lines.start(), what))
        })
        .collect();
    findings.extend(long_file(&file.path, file.code_lines()));
    findings
}

fn long_file(path: &str, lines: usize) -> Option<Finding> {
    let what = format!("{lines} lines without tests, {FILE_LINES_MAX} is the most");
    (lines > FILE_LINES_MAX).then(|| Finding::new(path, 1, what))
}

#[test]
fn long_lines_are_found_in_code_only() {
    let text = format!("{}\n{}\n", "ä".repeat(COLUMNS_MAX), "x".repeat(COLUMNS_MAX + 1));
    let lines: Vec<usize> = check_text("a.py", &text).iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [2]);
    assert_eq!(check_text("a.md", &text), []);
}

#[test]
fn long_functions_are_found() {
    let function = |lines: usize| {
        let text = format!("\nfn long() {{\n{}}}\n", "    call();\n".repeat(lines - 2));
        check_rust(&RustFile::parse("a/src/x.rs", &text).expect("Rust"))
    };
    assert_eq!(function(FUNCTION_LINES_MAX), []);
    let found = function(FUNCTION_LINES_MAX + 1);
    assert_eq!((found.len(), found[0].line), (1, 2));
}

#[test]
fn long_files_are_found_and_tests_do_not_count() {
    let code = "const A: u8 = 1;\n".repeat(FILE_LINES_MAX);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "const A: u8 = 1;\n".repeat(FILE_LINES_MAX));
    let check = |text: &str| check_rust(&RustFile::parse("a/src/x.rs", text).expect("Rust")).len();
    assert_eq!(check(&format!("{code}{tests}")), 0);
    assert_eq!(check(&format!("{code}const B: u8 = 1;\n")), 1);
    assert_eq!(check_text("a.py", &"a = 1\n".repeat(FILE_LINES_MAX + 1)).len(), 1);
}

#[test]
fn a_file_that_is_to_stay_short_is_found_when_it_is_not() {
    for (path, most) in LINES_MAX_OF {
        let found = |lines| check_text(path, &"\n".repeat(lines));
        assert_eq!(found(*most), []);
        assert_eq!(found(most + 1).len(), 1, "{path}");
    }
}
