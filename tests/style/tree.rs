//! The repository's files, which are read once.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::rust::RustFile;

/// Directories that hold nothing written by hand.
const SKIPPED_DIRS: &[&str] = &[".git", ".direnv", "target", "result", "__pycache__"];
/// Files whose text comes from somebody else: lock files and licences.
const SKIPPED_FILES: &[&str] = &["Cargo.lock", "flake.lock", "LICENSE-APACHE", "LICENSE-MIT", "LICENSE"];
/// Size above which a file is taken for no text that somebody wrote, in bytes.
const FILE_LEN_MAX: u64 = 1 << 20;

/// A text file of the repository. Its path is relative to the repository's root.
#[derive(Debug)]
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every text file, by path.
pub(crate) fn files() -> &'static [TextFile] {
    static FILES: OnceLock<Vec<TextFile>> = OnceLock::new();
    FILES.get_or_init(|| {
        let root = root();
        let mut paths = Vec::new();
        walk(root, &mut paths);
        paths.sort();
        paths.iter().filter_map(|path| read(root, path)).collect()
    })
}

/// Every Rust file, parsed.
pub(crate) fn rust() -> &'static [RustFile] {
    static FILES: OnceLock<Vec<RustFile>> = OnceLock::new();
    FILES.get_or_init(|| {
        let sources = files().iter().filter(|file| file.path.ends_with(".rs"));
        let mut parsed: Vec<RustFile> = sources
            .map(|file| RustFile::parse(&file.path, &file.text).unwrap_or_else(|error| panic!("{error}")))
            .collect();
        let tests: BTreeSet<String> = parsed.iter().flat_map(RustFile::test_module_paths).collect();
        for file in &mut parsed {
            file.is_test |= tests.iter().any(|prefix| file.path.starts_with(prefix.as_str()));
        }
        parsed
    })
}

/// The manifests of the crates.
pub(crate) fn manifests() -> Vec<&'static TextFile> {
    files()
        .iter()
        .filter(|file| file.path.starts_with("agent/") && file.path.ends_with("/Cargo.toml"))
        .collect()
}

/// Whether the file's owner may execute it.
pub(crate) fn is_executable(path: &str) -> bool {
    let path = root().join(path);
    let metadata = path.metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    metadata.permissions().mode() & 0o100 != 0
}

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

fn walk(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a type");
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if kind.is_dir() && !SKIPPED_DIRS.contains(&&*name) {
            walk(&entry.path(), paths);
        } else if kind.is_file() && !SKIPPED_FILES.contains(&&*name) {
            paths.push(entry.path());
        }
    }
}

/// Reads a file; `None` if it is not text.
fn read(root: &Path, path: &Path) -> Option<TextFile> {
    if path.metadata().ok()?.len() > FILE_LEN_MAX {
        return None;
    }
    let text = String::from_utf8(std::fs::read(path).ok()?).ok()?;
    let path = path.strip_prefix(root).ok()?.to_str()?.to_owned();
    Some(TextFile { path, text })
}

#[test]
fn the_walk_finds_this_file_and_knows_that_it_is_a_test() {
    assert!(files().iter().any(|file| file.path == "agent/model/src/api.rs"));
    assert!(files().iter().all(|file| !file.path.starts_with("target/")));
    let this = rust().iter().find(|file| file.path == "tests/style/tree.rs").expect("this file");
    assert!(this.is_test);
}
