//! Whether the data directory can be begun with: it is the agent's to write to, and there is room.
//!
//! A full disk shows only in the first write that needs more of it, and by then the node has joined the
//! others: they would take one that starts, fails and starts again for reachable.

use std::io;
use std::path::Path;

use blixard_store::OpenError;
use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

/// Least space to start with, in bytes: room for a few hundred writes.
const FREE_BYTES_MIN: u64 = 1 << 20;

/// Refuses to begin on a full disk, or in a directory that is not the agent's to write to. A data directory
/// that is not there yet is for the store to make.
///
/// # Errors
/// An [`OpenError::Io`], as of a store that could not be opened for want of space; or the file system does
/// not say how much it has.
pub(crate) fn check(data_dir: &Path) -> Result<(), OpenError> {
    let judged = match statvfs(data_dir) {
        Ok(found) => judge(found.fragment_size().saturating_mul(found.blocks_available()))
            .and_then(|()| writable(data_dir)),
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    };
    judged.map_err(|source| OpenError::Io { path: data_dir.to_owned(), source })
}

/// `free_bytes` is what is left for who is not root.
fn judge(free_bytes: u64) -> io::Result<()> {
    if free_bytes >= FREE_BYTES_MIN {
        return Ok(());
    }
    let cause = format!("{free_bytes} bytes are left, and the store needs {FREE_BYTES_MIN} to go on");
    Err(io::Error::new(io::ErrorKind::StorageFull, cause))
}

fn writable(data_dir: &Path) -> io::Result<()> {
    access(data_dir, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| not_writable(errno, data_dir))
}

/// A directory that was there before the agent, and which nobody has given to it.
fn not_writable(errno: Errno, data_dir: &Path) -> io::Error {
    if errno != Errno::EACCES {
        return errno.into();
    }
    let dir = data_dir.display();
    let way_out = format!(
        "the agent may not write to it: `chown blixard:blixard {dir} && chmod 0700 {dir}` gives it to the \
         agent's user"
    );
    io::Error::new(io::ErrorKind::PermissionDenied, way_out)
}

#[cfg(test)]
mod tests {
    use blixard_store::DiskFault;

    use super::*;

    #[test]
    fn a_disk_with_room_is_begun_on() {
        assert!(judge(FREE_BYTES_MIN).is_ok());
        assert!(check(&std::env::temp_dir()).is_ok());
        assert!(check(Path::new("/no/such/directory")).is_ok());
    }

    #[test]
    fn a_full_one_ends_the_agent_as_a_write_to_it_would() {
        let source = judge(FREE_BYTES_MIN - 1).expect_err("full");
        let error = OpenError::Io { path: "/d".into(), source };
        assert_eq!(error.disk_fault(), Some(DiskFault::Full));
        let line = format!("{:#}", anyhow::Error::new(error));
        assert_eq!(line, "/d cannot be used: 1048575 bytes are left, and the store needs 1048576 to go on");
    }

    #[test]
    fn what_is_no_directory_is_said() {
        let error = check(Path::new("/proc/self/exe/x")).expect_err("not a directory");
        assert!(matches!(&error, OpenError::Io { .. }) && error.disk_fault().is_none(), "{error}");
    }

    #[test]
    fn a_directory_of_somebody_else_is_named_with_the_way_out() {
        let path = Path::new("/srv/blixard");
        let error = OpenError::Io { path: path.to_owned(), source: not_writable(Errno::EACCES, path) };
        assert!(error.disk_fault().is_none(), "a restart may help");
        let line = format!("{:#}", anyhow::Error::new(error));
        assert!(line.starts_with("/srv/blixard cannot be used: the agent may not write to it"), "{line}");
        assert!(line.contains("chown blixard:blixard /srv/blixard"), "{line}");
        let read_only = OpenError::Io { path: path.to_owned(), source: not_writable(Errno::EROFS, path) };
        assert_eq!(read_only.disk_fault(), Some(DiskFault::Failed));
    }
}
