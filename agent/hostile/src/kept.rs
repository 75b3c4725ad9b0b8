//! Stores inputs that failed as files, so that they can be executed again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

/// Stores an input under `target/hostile/`. Returns the path of the file.
pub(crate) fn keep(target: &str, input: &[u8]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let ours = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target"));
    let dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(ours, PathBuf::from).join("hostile");
    let file = dir.join(format!("{target}-{:016x}", hasher.finish()));
    let written = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&file, input));
    if let Err(error) = written {
        eprintln!("{}: {error}", file.display());
    }
    std::fs::canonicalize(&file).unwrap_or(file)
}
