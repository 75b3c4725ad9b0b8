//! A full or failed disk, and a store that counts as lost, end the agent with an exit code of their own and a
//! line that says what to do.

use std::path::Path;

use blixard_node::NodeError;
use blixard_node::host::HostEnd;
use blixard_node::host::disk::DiskError;
use blixard_store::{DiskFault, OpenError, WriteError};

use crate::keygen::KeyNotKept;
use crate::shell::ShellError;

/// The store counts as lost and a restart cannot help (EX_DATAERR of sysexits.h).
pub const EXIT_STORE_LOST: u8 = 65;
/// The disk failed (EX_IOERR).
pub const EXIT_DISK_FAILED: u8 = 74;
/// The disk is full (EX_TEMPFAIL).
pub const EXIT_DISK_FULL: u8 = 75;
/// Any other error.
const EXIT_FAILURE: u8 = 1;

/// The exit code of a process that ends with `error`.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if is_lost(error) {
        return EXIT_STORE_LOST;
    }
    match find(error) {
        Some(DiskFault::Full) => EXIT_DISK_FULL,
        Some(DiskFault::Failed) => EXIT_DISK_FAILED,
        None => EXIT_FAILURE,
    }
}

/// Puts what to do before the causes, if the disk of the store or of the node's key is to blame.
pub(crate) fn explain(error: anyhow::Error, data_dir: &Path) -> anyhow::Error {
    let key = error.chain().find_map(|cause| cause.downcast_ref::<KeyNotKept>());
    let is_key = key.is_some();
    let directory = key.map_or(data_dir, KeyNotKept::directory).display().to_string();
    match find(&error) {
        Some(DiskFault::Full) => error.context(format!(
            "the file system of {directory} is full: free space on it and start blixard.service again \
             (systemd does so by itself); nothing acknowledged is lost"
        )),
        Some(DiskFault::Failed) if is_key => error.context(format!(
            "the disk of {directory} failed: see the kernel's log. If it does not recover, replace it"
        )),
        Some(DiskFault::Failed) => error.context(format!(
            "the disk of {directory} failed: see the kernel's log. If it does not recover, replace it, put \
             the node's key back and start with an otherwise empty data directory: the cluster admits the \
             node anew"
        )),
        None => error,
    }
}

fn find(error: &anyhow::Error) -> Option<DiskFault> {
    error.chain().find_map(|cause| {
        let opening = cause.downcast_ref::<OpenError>().and_then(OpenError::disk_fault);
        let key = || cause.downcast_ref::<KeyNotKept>().map(|error| error.fault);
        let writing = || cause.downcast_ref::<WriteError>().and_then(WriteError::disk_fault);
        let host = || match cause.downcast_ref::<ShellError>() {
            Some(ShellError::Disk(error)) => error.disk_fault(),
            Some(ShellError::Host(_)) | None => cause.downcast_ref::<DiskError>()?.disk_fault(),
        };
        opening.or_else(writing).or_else(key).or_else(host)
    })
}

/// The store went back in time, or takes part under a raft id that has left: its own words say what to do.
fn is_lost(error: &anyhow::Error) -> bool {
    let lost = |error: &HostEnd| {
        matches!(error, HostEnd::Node(NodeError::RolledBack { .. } | NodeError::Left { .. }))
    };
    let host = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<ShellError>() {
        Some(ShellError::Host(end)) => lost(end),
        Some(ShellError::Disk(_)) => false,
        None => cause.downcast_ref::<HostEnd>().is_some_and(lost),
    };
    error.chain().any(host)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    const ENOSPC: i32 = 28;
    const EIO: i32 = 5;

    fn written(errno: i32) -> anyhow::Error {
        let error = std::io::Error::from_raw_os_error(errno);
        let error = DiskError::from(WriteError::Redb(redb::Error::Io(error)));
        let failed: Result<(), _> = Err(ShellError::from(error));
        failed.context("the host task failed").expect_err("an error")
    }

    fn opened(errno: i32) -> anyhow::Error {
        OpenError::Io { path: "/d/store.redb".into(), source: std::io::Error::from_raw_os_error(errno) }
            .into()
    }

    #[test]
    fn a_full_and_a_failed_disk_have_codes_of_their_own() {
        const EACCES: i32 = 13;
        const EROFS: i32 = 30;
        let codes =
            [written(ENOSPC), opened(ENOSPC), written(EIO), opened(EIO), opened(EROFS), opened(EACCES)];
        assert_eq!(codes.map(|error| exit_code(&error)), [75, 75, 74, 74, 74, 1]);
        assert_eq!(exit_code(&anyhow::anyhow!("no store in it")), 1);
    }

    #[test]
    fn a_birth_and_a_resume_on_a_bad_disk_have_them_too() {
        let write = WriteError::Redb(redb::Error::Io(std::io::Error::from_raw_os_error(EIO)));
        let source = std::io::Error::from_raw_os_error(ENOSPC);
        let open = OpenError::Io { path: "/d/store.redb".into(), source };
        let bound = DiskError::from(blixard_node::host::disk::BindError::from(write));
        let bound = anyhow::Error::new(ShellError::from(bound));
        let resumed = anyhow::Error::new(open).context("the store cannot be resumed from");
        assert_eq!([exit_code(&bound), exit_code(&resumed)], [EXIT_DISK_FAILED, EXIT_DISK_FULL]);
    }

    #[test]
    fn a_store_that_counts_as_lost_has_a_code_of_its_own_and_says_what_to_do() {
        let left = NodeError::Left { raft_id: blixard_model::RaftId(3) };
        for error in [NodeError::RolledBack { stored: 9, holds: 4 }, left] {
            let error = ShellError::from(HostEnd::from(error));
            let ended = explain(anyhow::Error::new(error).context("the host task failed"), Path::new("/d"));
            assert_eq!(exit_code(&ended), EXIT_STORE_LOST);
            assert!(format!("{ended:#}").contains("move store.redb out of the data directory"), "{ended:#}");
        }
    }

    #[test]
    fn the_line_says_what_to_do_and_keeps_the_causes_and_the_code() {
        let full = explain(written(ENOSPC), Path::new("/d"));
        assert_eq!(exit_code(&full), EXIT_DISK_FULL);
        let line = format!("{full:#}");
        assert!(line.starts_with("the file system of /d is full: free space on it"), "{line}");
        assert!(line.contains("the store failed") && line.contains("No space left"), "{line}");
        let failed = format!("{:#}", explain(opened(EIO), Path::new("/d")));
        assert!(failed.starts_with("the disk of /d failed") && failed.contains("store.redb"), "{failed}");
        let other = anyhow::anyhow!("something else");
        assert_eq!(explain(other, Path::new("/d")).to_string(), "something else");
    }
}
