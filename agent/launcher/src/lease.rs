//! The file in which a node's agent says until when the VMs that may be failed over may run, and which of
//! them: how the agent writes it, and what it allows one VM.
//!
//! The file is the only way by which a lease reaches a supervisor. Whatever is wrong with it allows nothing.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use blixard_model::{BootId, ClusterId, LeaseFile, VmName, mutant};
use nix::unistd::{AccessFlags, access};

use crate::files::{ensure_dir, read_at_most, write_new};

/// The directory that the agent writes the file to. Every user may read it, because each VM has a user of its
/// own.
pub const LEASE_DIR: &str = "/run/blixard-lease";

/// The name of the file in that directory.
pub const LEASE_FILE: &str = "lease.json";

/// Largest file, in bytes. One with 10,000 VMs of the longest names is still smaller.
pub const LEASE_LEN_MAX: usize = 1024 * 1024;

/// What is written before it gets its name. No supervisor reads it.
const PARTIAL: &str = ".lease.json";

/// Why the file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The file system refused.
    #[error("{path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The file is larger than [`LEASE_LEN_MAX`].
    #[error("{path}: larger than {LEASE_LEN_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file does not say what such a file says.
    #[error("{path}: not a lease (line {line}, column {column})")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1; 0 stands for the position before the first byte of a line.
        column: usize,
    },
    /// The lease could not be encoded.
    #[error("the lease is not JSON")]
    Encode(#[source] serde_json::Error),
}

/// The directory of the file. It lies on a tmpfs, so its blocking calls take microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseDir(PathBuf);

impl Default for LeaseDir {
    fn default() -> Self {
        Self::new(LEASE_DIR)
    }
}

impl LeaseDir {
    /// Uses this directory. It is created (mode 0755) when the file is first written; its parent must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes the file (mode 0644), replacing an earlier one: a supervisor sees the one or the other. There
    /// may be one writer only.
    ///
    /// # Errors
    /// The lease is too large, or the file system refused.
    pub fn write(&self, lease: &LeaseFile) -> Result<(), LeaseError> {
        let path = self.file();
        let bytes = serde_json::to_vec(lease).map_err(LeaseError::Encode)?;
        if bytes.len() > LEASE_LEN_MAX {
            return Err(LeaseError::TooLarge { path });
        }
        ensure_dir(&self.0, 0o755).map_err(at(&self.0))?;
        let partial = self.0.join(PARTIAL);
        write_new(&partial, &bytes, 0o644).map_err(at(&partial))?;
        fs::rename(&partial, &path).map_err(at(&path))
    }

    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    /// The file is too large or not a lease, or the file system refused.
    pub fn read(&self) -> Result<Option<LeaseFile>, LeaseError> {
        let path = self.file();
        let bytes = match read_at_most(&path, LEASE_LEN_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(at(&path))?,
        };
        let Some(bytes) = bytes else { return Err(LeaseError::TooLarge { path }) };
        let read = serde_json::from_slice(&bytes);
        read.map(Some).map_err(|error| LeaseError::Malformed {
            path,
            line: error.line(),
            column: error.column(),
        })
    }

    /// Why this process cannot write the file, or why no supervisor would see it.
    pub fn problem(&self) -> Option<String> {
        let path = self.0.display();
        let found = match fs::metadata(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Some(format!("{path} is missing"));
            }
            Err(error) => return Some(format!("{path}: {error}")),
            Ok(found) => found,
        };
        if !found.is_dir() {
            return Some(format!("{path} is not a directory"));
        }
        // A mount shows it still, and nobody else does.
        if found.nlink() == 0 {
            return Some(format!("{path} was removed"));
        }
        let cannot = access(&self.0, AccessFlags::W_OK | AccessFlags::X_OK).err()?;
        Some(format!("{path} cannot be written: {}", cannot.desc()))
    }

    fn file(&self) -> PathBuf {
        self.0.join(LEASE_FILE)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LeaseError + use<> {
    let path = path.to_owned();
    move |source| LeaseError::Io { path, source }
}

/// What a VM that may be failed over needs a lease for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseNeed {
    /// This boot of the machine.
    pub boot_id: BootId,
    /// The cluster that placed the VM.
    pub cluster_id: ClusterId,
    /// The VM.
    pub name: VmName,
    /// The generation of its placement.
    pub generation: u64,
}

/// What the file allows one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeasePermission {
    /// It may not run, for this reason.
    Denied(NoLease),
    /// It may run until then, in milliseconds of CLOCK_BOOTTIME; at that moment no more.
    Until(u64),
    /// It may run without an end.
    Endless,
}

/// Why a file allows a VM nothing. Displayed as the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoLease {
    /// There is no file.
    NoFile,
    /// It cannot be read, for this reason.
    Unreadable(String),
    /// It is of another boot of the machine, whose clock says nothing now.
    OtherBoot,
    /// It is another cluster's.
    OtherCluster,
    /// The VM is not one of those that may run here.
    NotListed,
    /// The VM may run here, but by this generation of its placement.
    OtherGeneration(u64),
}

impl NoLease {
    /// Whether the file is of this boot and takes the VM's right away. Otherwise it merely says nothing new:
    /// what it said before holds as long as it said.
    ///
    /// Another cluster's takes it away as well: after `cluster recover` or `restore` the node is of a new
    /// cluster, whose agent counts on its file being obeyed by whatever runs here. Nobody renews the right of
    /// the old one.
    pub fn revokes(&self) -> bool {
        match self {
            Self::OtherCluster | Self::NotListed | Self::OtherGeneration(_) => true,
            Self::NoFile | Self::Unreadable(_) | Self::OtherBoot => false,
        }
    }
}

impl fmt::Display for NoLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile => f.write_str("the agent has written no lease (does blixard.service run?)"),
            Self::Unreadable(why) => write!(f, "the agent's lease cannot be read: {why}"),
            Self::OtherBoot => f.write_str("the agent's lease is of an earlier boot of this machine"),
            Self::OtherCluster => f.write_str("the agent's lease is of another cluster than the VM"),
            Self::NotListed => f.write_str("the VM is not one of those that may run on this node"),
            Self::OtherGeneration(listed) => {
                write!(f, "generation {listed} of its placement may run on this node, this is another one")
            }
        }
    }
}

impl LeaseNeed {
    /// What the file allows this VM.
    pub fn permission(&self, found: Result<Option<LeaseFile>, LeaseError>) -> LeasePermission {
        match found {
            Ok(Some(file)) => self.allowed_by(&file),
            Ok(None) if mutant::lives("no-file-no-end") => LeasePermission::Endless,
            Ok(None) => LeasePermission::Denied(NoLease::NoFile),
            Err(error) => {
                LeasePermission::Denied(NoLease::Unreadable(blixard_model::words::with_causes(&error)))
            }
        }
    }

    /// What this file, which could be read, allows this VM.
    pub fn allowed_by(&self, file: &LeaseFile) -> LeasePermission {
        let denied = |why| LeasePermission::Denied(why);
        if file.boot_id != self.boot_id && !mutant::lives("file-of-another-boot-obeyed") {
            return denied(NoLease::OtherBoot);
        }
        if file.cluster_id != self.cluster_id {
            return denied(NoLease::OtherCluster);
        }
        match (file.vms.get(&self.name), file.until_ms) {
            (None, _) => denied(NoLease::NotListed),
            (Some(listed), _) if *listed != self.generation && !mutant::lives("any-generation-permitted") => {
                denied(NoLease::OtherGeneration(*listed))
            }
            (Some(_), Some(until_ms)) => LeasePermission::Until(until_ms),
            (Some(_), None) => LeasePermission::Endless,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use blixard_model::GrantId;

    use super::*;

    const BOOT: BootId = BootId::from_bytes([7; 16]);

    fn lease() -> LeaseFile {
        LeaseFile {
            boot_id: BOOT,
            cluster_id: cluster(1),
            until_ms: Some(5_000),
            grant: Some(GrantId { term: 3, number: 9, index: 4 }),
            enforces: None,
            vms: [("web".parse().expect("name"), 7)].into(),
        }
    }

    fn cluster(number: u8) -> ClusterId {
        format!("{number:02x}").repeat(16).parse().expect("a cluster id")
    }

    fn need() -> LeaseNeed {
        LeaseNeed { boot_id: BOOT, cluster_id: cluster(1), name: "web".parse().expect("name"), generation: 7 }
    }

    #[test]
    fn a_lease_is_replaced_whole_and_readable_by_every_user() {
        let parent = tempfile::tempdir().expect("tempdir");
        let dir = LeaseDir::new(parent.path().join("lease"));
        assert_eq!(dir.read().expect("read"), None);
        for until_ms in [Some(1), None] {
            fs::create_dir_all(dir.path()).expect("mkdir");
            fs::write(dir.path().join(PARTIAL), b"left by a crash").expect("write");
            let lease = LeaseFile { until_ms, ..lease() };
            dir.write(&lease).expect("write");
            assert_eq!(dir.read().expect("read"), Some(lease));
        }
        let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(&dir.file()), 0o644);
        let names = fs::read_dir(dir.path()).expect("read").count();
        assert_eq!(names, 1, "nothing is left");
        let made = LeaseDir::new(parent.path().join("made"));
        made.write(&lease()).expect("write");
        assert_eq!(mode(made.path()), 0o755);
    }

    #[test]
    fn a_directory_that_is_missing_or_was_removed_is_said_to_be() {
        let parent = tempfile::tempdir().expect("tempdir");
        let dir = LeaseDir::new(parent.path().join("lease"));
        assert!(dir.problem().is_some_and(|why| why.ends_with("lease is missing")));
        fs::create_dir(dir.path()).expect("mkdir");
        assert_eq!(dir.problem(), None);
        // As a mount shows it.
        let held = fs::File::open(dir.path()).expect("open");
        let seen = LeaseDir::new(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held)));
        assert_eq!(seen.problem(), None);
        fs::remove_dir(dir.path()).expect("removed");
        assert!(seen.problem().is_some_and(|why| why.ends_with("was removed")));
        fs::write(dir.path(), b"").expect("write");
        assert!(dir.problem().is_some_and(|why| why.ends_with("is not a directory")));
    }

    #[test]
    fn what_is_no_lease_is_refused_and_not_shown() {
        let parent = tempfile::tempdir().expect("tempdir");
        let dir = LeaseDir::new(parent.path());
        fs::write(dir.file(), vec![b' '; LEASE_LEN_MAX + 1]).expect("write");
        assert!(matches!(dir.read(), Err(LeaseError::TooLarge { .. })));
        let whole = serde_json::to_vec(&lease()).expect("json");
        for bytes in [&whole[..whole.len() / 2], b"", b"\"hunter2\"", b"{\"hunter2\":1}"] {
            fs::write(dir.file(), bytes).expect("write");
            let LeasePermission::Denied(why) = need().permission(dir.read()) else { panic!("{bytes:?}") };
            assert!(why.to_string().contains("not a lease (line 1, column "), "{why}");
            assert!(!why.to_string().contains("hunter2") && !why.revokes(), "{why}");
        }
        fs::remove_file(dir.file()).expect("removed");
        fs::create_dir(dir.file()).expect("mkdir");
        assert!(matches!(dir.read(), Err(LeaseError::Io { .. })));
    }

    #[test]
    fn the_largest_cluster_fits() {
        let name = |number: usize| format!("v{number:047}").parse().expect("name");
        let vms = (0..10_000).map(|number| (name(number), u64::MAX)).collect();
        let bytes = serde_json::to_vec(&LeaseFile { vms, ..lease() }).expect("json");
        assert!(bytes.len() <= LEASE_LEN_MAX, "{}", bytes.len());
    }

    #[test]
    fn a_file_allows_what_it_says_to_the_vm_cluster_generation_and_boot_that_it_names() {
        let allows = |file: LeaseFile| need().permission(Ok(Some(file)));
        assert_eq!(allows(lease()), LeasePermission::Until(5_000));
        assert_eq!(allows(LeaseFile { until_ms: None, ..lease() }), LeasePermission::Endless);
        let other = BootId::from_bytes([8; 16]);
        let listed = |generation| [("web".parse().expect("name"), generation)].into();
        for (file, why, revokes) in [
            (LeaseFile { boot_id: other, ..lease() }, NoLease::OtherBoot, false),
            (LeaseFile { cluster_id: cluster(2), ..lease() }, NoLease::OtherCluster, true),
            (LeaseFile { vms: [].into(), ..lease() }, NoLease::NotListed, true),
            (LeaseFile { vms: listed(6), ..lease() }, NoLease::OtherGeneration(6), true),
            (LeaseFile { vms: listed(8), until_ms: None, ..lease() }, NoLease::OtherGeneration(8), true),
            (LeaseFile { cluster_id: cluster(2), until_ms: None, ..lease() }, NoLease::OtherCluster, true),
            // Of another boot it says nothing about this VM, whatever it lists and whosever it is.
            (LeaseFile { boot_id: other, vms: [].into(), ..lease() }, NoLease::OtherBoot, false),
            (LeaseFile { boot_id: other, cluster_id: cluster(2), ..lease() }, NoLease::OtherBoot, false),
        ] {
            assert_eq!(why.revokes(), revokes, "{why}");
            assert_eq!(allows(file), LeasePermission::Denied(why));
        }
        assert_eq!(need().permission(Ok(None)), LeasePermission::Denied(NoLease::NoFile));
        assert!(!NoLease::NoFile.revokes());
    }

    #[test]
    fn fuzz_leases() {
        let parent = tempfile::tempdir().expect("tempdir");
        let dir = LeaseDir::new(parent.path());
        let valid = serde_json::to_vec(&lease()).expect("json");
        let target = blixard_hostile::Target::new("leases").len_max(4 << 10).valid(valid);
        target.words(["\"until_ms\":", "\"vms\":", "null", "-1", "1e400", "{", "}"]).run(|bytes| {
            fs::write(dir.file(), bytes).expect("write");
            // Whatever it holds: what is allowed is what this file says.
            format!("{:?}", need().permission(dir.read()))
        });
    }
}
