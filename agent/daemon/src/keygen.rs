//! The node's key: `blixard keygen`, and the agent's own when there is none.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use blixard_net::NodeKey;
use blixard_store::DiskFault;

use super::config::Config;

/// Where the configuration is unless told otherwise.
const DEFAULT_CONFIG: &str = "/etc/blixard/config.toml";

/// A new key could not be kept, and its disk is to blame.
#[derive(Debug, thiserror::Error)]
#[error("a new node key can not be kept")]
pub(crate) struct KeyNotKept {
    path: PathBuf,
    /// What is wrong with the disk.
    pub(crate) fault: DiskFault,
    source: Box<dyn Error + Send + Sync>,
}

impl KeyNotKept {
    /// The directory that was to hold it.
    pub(crate) fn directory(&self) -> &Path {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or(Path::new("."))
    }
}

/// Makes the key in `key_file`, else where the configuration in `config` says, if there is none, and prints
/// its endpoint id.
///
/// # Errors
/// The key can neither be read nor made.
pub fn keygen(key_file: Option<PathBuf>, config: Option<PathBuf>) -> anyhow::Result<()> {
    let path = key_path(key_file, config)?;
    let key = load_or_make_at(&path, None)?;
    println!("{}", key.endpoint_id());
    Ok(())
}

/// The configuration's key needs a configuration; a bare file needs none.
fn key_path(key_file: Option<PathBuf>, config: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(path) = key_file {
        return Ok(path);
    }
    let config = config.unwrap_or_else(|| DEFAULT_CONFIG.into());
    let config =
        Config::load(&config).context("name a file with --key-file, or a configuration with --config")?;
    Ok(config.key_path(None))
}

/// The agent's key: as configured, made if it is missing.
///
/// # Errors
/// As [`keygen`].
pub(crate) fn load_or_make(config: &Config, credentials_dir: Option<&Path>) -> anyhow::Result<NodeKey> {
    load_or_make_at(&config.key_path(credentials_dir), credentials_dir)
}

fn load_or_make_at(path: &Path, credentials_dir: Option<&Path>) -> anyhow::Result<NodeKey> {
    match NodeKey::load(path, credentials_dir) {
        Ok(key) => Ok(key),
        Err(error) if error.is_not_found() => {
            let key = NodeKey::generate();
            match key.save(path) {
                Ok(()) => Ok(key),
                // Somebody else was faster: theirs it is.
                Err(error) if error.is_already_there() => Ok(NodeKey::load(path, credentials_dir)?),
                Err(error) => Err(not_kept(path, error)),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Why a key was not kept: an error of its own if the disk is to blame.
fn not_kept(path: &Path, error: impl Error + Send + Sync + 'static) -> anyhow::Error {
    match io_cause(&error).and_then(DiskFault::of) {
        Some(fault) => KeyNotKept { path: path.to_owned(), fault, source: error.into() }.into(),
        None => error.into(),
    }
}

/// The system's error that this one came from.
fn io_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    anyhow::Chain::new(error).find_map(|cause| cause.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk_fault;

    /// As saving a key fails.
    #[derive(Debug, thiserror::Error)]
    #[error("can not write the node key /keys/node.key")]
    struct NotSaved(#[source] io::Error);

    fn ended(errno: i32) -> (u8, String) {
        let error = not_kept(Path::new("/keys/node.key"), NotSaved(io::Error::from_raw_os_error(errno)));
        let explained = disk_fault::explain(error, Path::new("/data"));
        (disk_fault::exit_code(&explained), format!("{explained:#}"))
    }

    #[test]
    fn a_key_on_a_full_or_failed_disk_ends_with_its_code_and_what_to_do() {
        const ENOSPC: i32 = 28;
        const EIO: i32 = 5;
        const EACCES: i32 = 13;
        let (code, line) = ended(ENOSPC);
        assert_eq!(code, disk_fault::EXIT_DISK_FULL, "{line}");
        assert!(line.starts_with("the file system of /keys is full: free space on it"), "{line}");
        assert!(line.matches("No space left").count() == 1, "{line}");
        let (code, line) = ended(EIO);
        assert_eq!(code, disk_fault::EXIT_DISK_FAILED, "{line}");
        assert!(line.starts_with("the disk of /keys failed"), "{line}");
        assert!(!line.contains("put the node's key back") && line.contains("nput/output error"), "{line}");
        let (code, line) = ended(EACCES);
        assert!(code == 1 && line.starts_with("can not write the node key"), "{code} {line}");
    }

    #[test]
    fn a_key_beside_the_one_who_asks_has_a_directory_with_a_name() {
        let error = NotSaved(io::Error::from_raw_os_error(28));
        let error = not_kept(Path::new("node.key"), error);
        let kept = error.downcast_ref::<KeyNotKept>().expect("of the disk");
        assert_eq!(kept.directory(), Path::new("."));
    }

    #[test]
    fn what_the_system_said_is_found_below_a_key_that_was_not_saved() {
        let dir = tempfile::tempdir().expect("dir");
        let missing = dir.path().join("missing").join("node.key");
        let error = NodeKey::generate().save(&missing).expect_err("there is no such directory");
        assert_eq!(io_cause(&error).map(io::Error::kind), Some(io::ErrorKind::NotFound));
        assert!(not_kept(&missing, error).downcast_ref::<KeyNotKept>().is_none(), "no fault of a disk");
    }
}
