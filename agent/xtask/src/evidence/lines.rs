//! How large each crate is.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A crate, in lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct CrateLines {
    files: usize,
    /// Of its sources, down to the tests in them.
    source: usize,
    /// Of the tests in its sources and in `tests/`.
    tests: usize,
}

/// A table of the crates in this directory, by name.
///
/// # Errors
/// A file cannot be read.
pub(super) fn table(agent: &Path) -> Result<String> {
    let mut text =
        "\n## Size\n\nLines with comments and blank ones; tests in the sources count as tests.\n\n\
                    | crate | files | lines | lines of tests |\n|---|---|---|---|\n"
            .to_owned();
    let mut all = CrateLines::default();
    for krate in entries(agent)?.into_iter().filter(|path| path.join("Cargo.toml").exists()) {
        let name = krate.file_name().unwrap_or_default().display();
        let CrateLines { files, source, tests } = count(&krate)?;
        writeln!(text, "| `{name}` | {files} | {source} | {tests} |")?;
        (all.files, all.source, all.tests) = (all.files + files, all.source + source, all.tests + tests);
    }
    writeln!(text, "| all | {} | {} | {} |", all.files, all.source, all.tests)?;
    Ok(text)
}

fn count(krate: &Path) -> Result<CrateLines> {
    let mut lines = CrateLines::default();
    for file in rust_files(&krate.join("src"))? {
        let (source, tests) = split(&read(&file)?);
        lines.files += 1;
        lines.source += source;
        lines.tests += tests;
    }
    for file in rust_files(&krate.join("tests"))? {
        lines.tests += read(&file)?.lines().count();
    }
    Ok(lines)
}

/// The lines of a source file before its tests, and those of its tests.
fn split(text: &str) -> (usize, usize) {
    let source = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
    (source, text.lines().count() - source)
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for path in entries(directory)? {
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("{} cannot be read", directory.display());
    let mut paths = Vec::new();
    for entry in directory.read_dir().with_context(unreadable)? {
        paths.push(entry.with_context(unreadable)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn the_tests_of_a_file_are_not_its_source() {
        assert_eq!(split("fn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n"), (2, 3));
        assert_eq!(split("fn a() {}\n"), (1, 0));
        assert_eq!(split(""), (0, 0));
    }

    #[test]
    fn this_crate_is_counted() {
        let lines = count(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("counted");
        assert!(lines.files > 10 && lines.source > 1_000 && lines.tests > 100, "{lines:?}");
    }
}
