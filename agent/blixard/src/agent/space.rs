//! Whether there is room to begin with. A full disk shows only in the first write that needs more of it, and by
//! then the node has joined the others: they would take one that starts, fails and starts again for reachable.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

/// Least space to start with, in bytes: a few hundred writes, and no full disk that a write or two would fit on.
const FREE_BYTES_MIN: u64 = 1 << 20;

/// There is no use in starting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpaceError {
    /// The disk is full, or will be in a moment.
    #[error(
        "{free_bytes} bytes are left for {path}, and the store needs {FREE_BYTES_MIN} to go on: free space on \
         the file system of {path}; blixard.service then starts by itself"
    )]
    Full {
        /// The data directory.
        path: PathBuf,
        /// What is left there for who is not root.
        free_bytes: u64,
        /// Always of the kind [`io::ErrorKind::StorageFull`], as when a write finds out.
        source: io::Error,
    },
    /// The file system does not say.
    #[error("the free space of {path} can not be read")]
    Unknown {
        /// The data directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Refuses to begin on a full disk. A data directory that is not there yet is for the store to make.
///
/// # Errors
/// See [`SpaceError`]; systemd tries again.
pub(crate) fn check(data_dir: &Path) -> Result<(), SpaceError> {
    match statvfs(data_dir) {
        Ok(found) => judge(data_dir, found.fragment_size().saturating_mul(found.blocks_available())),
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(SpaceError::Unknown { path: data_dir.to_owned(), source: errno.into() }),
    }
}

fn judge(data_dir: &Path, free_bytes: u64) -> Result<(), SpaceError> {
    if free_bytes >= FREE_BYTES_MIN {
        return Ok(());
    }
    let source = io::ErrorKind::StorageFull.into();
    Err(SpaceError::Full { path: data_dir.to_owned(), free_bytes, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_room_is_begun_on() {
        assert!(judge(Path::new("/d"), FREE_BYTES_MIN).is_ok());
        assert!(check(&std::env::temp_dir()).is_ok());
        assert!(check(Path::new("/no/such/directory")).is_ok());
    }

    #[test]
    fn a_full_one_is_refused_with_the_way_out() {
        let error = judge(Path::new("/d"), FREE_BYTES_MIN - 1).expect_err("full");
        assert!(error.to_string().contains("free space on the file system of /d"), "{error}");
        let SpaceError::Full { source, .. } = error else { panic!("not full: {error}") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn what_is_no_directory_is_said() {
        let error = check(Path::new("/proc/self/exe/x")).expect_err("not a directory");
        assert!(matches!(error, SpaceError::Unknown { .. }), "{error}");
    }
}
