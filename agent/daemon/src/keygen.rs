//! The node's key: `blixard keygen`, and the agent's own when there is none.

use std::error::Error;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use blixard_net::NodeKey;
use blixard_store::DiskFault;

use super::config::Config;

/// Where the configuration is unless told otherwise.
const DEFAULT_CONFIG: &str = "/etc/blixard/config.toml";

/// A new key could not be kept, and its disk is to blame.
#[derive(Debug, thiserror::Error)]
#[error("a new node key cannot be kept")]
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

/// systemd was to hand the key over, and did not: no other key is made in its place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyNotHandedOver {
    /// The unit says so itself: it hands over its word for a file that it cannot read.
    #[error(
        "{file} is missing, or is not a file: it was to have this node's key (services.blixard.keyFile). Put \
         the key there, and the agent goes on by itself; it makes no other one in its place"
    )]
    Missing {
        /// The file on the machine.
        file: String,
    },
    /// A directory was handed over, which systemd does file by file.
    #[error(
        "LoadCredential=node.key: names a directory (it has {name}): name the file in it that has this \
         node's key"
    )]
    Directory {
        /// A file of the directory, as part of a credential's name.
        name: String,
    },
    /// The configuration counts on a credential that there is not.
    #[error(
        "{} is not there: the unit that runs the agent hands it over while it runs, with \
         LoadCredential=node.key:FILE. No other key is made in its place", .path.display()
    )]
    NoCredential {
        /// Where it was to be.
        path: PathBuf,
    },
}

/// What the unit hands over in place of a key that it cannot read: this and the file's path.
const MISSING: &str = "missing:";

/// Makes the key in `key_file`, else where the configuration in `config` says, if there is none, and prints
/// its endpoint id.
///
/// # Errors
/// The key can neither be read nor made.
pub fn keygen(key_file: Option<PathBuf>, config: Option<PathBuf>) -> anyhow::Result<()> {
    let path = key_path(key_file, config)?;
    let key = load_or_make_at(&path, credentials_dir(&path).as_deref())?;
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

/// Where the credentials are that this path counts on: those of the unit that runs this process, or those of
/// another unit, for somebody with the right to look, as root on the command line.
pub(crate) fn credentials_dir(path: &Path) -> Option<PathBuf> {
    let of_another = || path.starts_with(CREDENTIALS).then(|| path.parent().map(Path::to_owned));
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from).or_else(|| of_another().flatten())
}

/// Where systemd has the credentials of running units, each unit's in a directory that it guards.
const CREDENTIALS: &str = "/run/credentials";

/// Whether the key is there, if it is systemd that hands it over.
fn check_handed_over(path: &Path, credentials_dir: &Path) -> Result<(), KeyNotHandedOver> {
    let part_of_directory =
        std::fs::read_dir(credentials_dir).into_iter().flatten().flatten().find_map(|entry| {
            entry.file_name().to_string_lossy().strip_prefix("node.key_").map(str::to_owned)
        });
    if !path.starts_with(credentials_dir) {
        // Without a word in the configuration a credential is used where there is one.
        return part_of_directory.map_or(Ok(()), |name| Err(KeyNotHandedOver::Directory { name }));
    }
    match read_beginning(path) {
        Ok(text) => match text.strip_prefix(MISSING) {
            Some(file) => Err(KeyNotHandedOver::Missing { file: file.trim_end().to_owned() }),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(match part_of_directory {
            Some(name) => KeyNotHandedOver::Directory { name },
            None => KeyNotHandedOver::NoCredential { path: path.to_owned() },
        }),
        // Whoever reads the key finds the same, and says so.
        Err(_) => Ok(()),
    }
}

/// As much of a file as a path may be long, and a word before it.
fn read_beginning(path: &Path) -> io::Result<String> {
    const LEN_MAX: u64 = 4_200;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LEN_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn load_or_make_at(path: &Path, credentials_dir: Option<&Path>) -> anyhow::Result<NodeKey> {
    if let Some(dir) = credentials_dir {
        check_handed_over(path, dir)?;
    }
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
    #[error("cannot write the node key /keys/node.key")]
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
        assert!(code == 1 && line.starts_with("cannot write the node key"), "{code} {line}");
    }

    /// What is said of a configuration, given the credentials: by name, with their text.
    fn refused(key_file: Option<&str>, credentials: &[(&str, &str)]) -> Option<String> {
        let (data, credentials_dir) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        for (name, text) in credentials {
            std::fs::write(credentials_dir.path().join(name), text).expect("written");
        }
        let mut text = format!("node_name = \"n1\"\ndata_dir = {:?}\n", data.path());
        if let Some(name) = key_file {
            text += &format!("key_file = {:?}\n", credentials_dir.path().join(name));
        }
        let file = data.path().join("config.toml");
        std::fs::write(&file, text).expect("written");
        let config = Config::load(&file).expect("a configuration");
        let result = load_or_make(&config, Some(credentials_dir.path()));
        let made = data.path().join("node.key").exists();
        assert_eq!(made, result.is_ok() && key_file.is_none(), "{result:?}");
        result.err().map(|error| format!("{error:#}"))
    }

    #[test]
    fn a_key_that_was_to_be_handed_over_is_never_made_in_its_place() {
        let missing = refused(Some("node.key"), &[("node.key", "missing:/run/keys/50%.key")]);
        let line = missing.expect("no key");
        assert!(line.starts_with("/run/keys/50%.key is missing, or is not a file"), "{line}");
        let line = refused(Some("node.key"), &[]).expect("no credential");
        assert!(line.contains("LoadCredential=node.key:FILE"), "{line}");
        for key_file in [Some("node.key"), None] {
            let line = refused(key_file, &[("node.key_n1.key", "")]).expect("a directory");
            assert!(line.contains("names a directory (it has n1.key)"), "{line}");
        }
        let line = refused(Some("node.key"), &[("node.key", "")]).expect("an empty file");
        assert!(line.contains("holds no node key"), "{line}");
    }

    #[test]
    fn without_any_credential_a_key_is_made() {
        assert_eq!(refused(None, &[("join.ticket", "removed")]), None);
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
