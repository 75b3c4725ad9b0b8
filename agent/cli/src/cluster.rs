//! `blixard cluster ...`: which function does which command, and backups.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blixard_model::backup::{BACKUP_LEN_MAX, BackupHeader};
use serde::Serialize;

use crate::args::{BackupArgs, ClusterCommand, RecoverArgs};
use crate::failure::Failure;
use crate::files::ClusterFiles;
use crate::session::Session;
use crate::{join, lease, node, output, ticket};

/// Patience of a backup: the state may be large.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(120);
/// A backup holds the specs of all VMs: only its owner may read it.
const FILE_MODE: u32 = 0o600;
const RECOVER_EXPLAINED: &str = "\
this begins a NEW cluster from this node's own state: it alone is in it, all other members are given up. \
What was acknowledged and had not reached this node is lost, so do it on the node whose log ends last \
(`blixard status` on each: the latest term, then the highest index). If a quorum of the others can come \
back, wait for it instead: their cluster would go on beside the new one";

/// Runs one of them.
pub(crate) async fn run(
    command: ClusterCommand,
    json: bool,
    files: &dyn ClusterFiles,
) -> Result<(), Failure> {
    match command {
        ClusterCommand::Ticket(command) => ticket::run(command, json).await,
        ClusterCommand::Join(args) => join::run(args, json).await,
        ClusterCommand::Leave(args) => node::leave(args, json).await,
        ClusterCommand::Disarm(args) => lease::disarm(args, json).await,
        ClusterCommand::Arm(args) => lease::arm(args, json).await,
        ClusterCommand::Lease(args) => lease::run(args, json).await,
        ClusterCommand::Backup(args) => backup(args, json, files).await,
        ClusterCommand::Restore(args) => output::print(&files.restore(&args)?),
        ClusterCommand::Recover(args) => recover(&args, files),
    }
}

/// A backup that was made, as `--json` prints it.
#[derive(Serialize)]
struct Made<'a> {
    file: &'a Path,
    file_len: usize,
    #[serde(flatten)]
    header: &'a BackupHeader,
    vms: usize,
}

async fn backup(args: BackupArgs, json: bool, files: &dyn ClusterFiles) -> Result<(), Failure> {
    let to_stdout = args.file.as_os_str() == "-";
    if to_stdout && json {
        let cause = "--json and the backup itself both want stdout";
        return Err(Failure::usage(cause, "name a file"));
    }
    if !to_stdout {
        check_free(&args.file, args.force)?;
    }
    let session = Session::open(&args.ask, json, BACKUP_TIMEOUT);
    let bytes = session.download("/v1/backup", args.fresh, BACKUP_LEN_MAX).await?;
    let backup = files.check_backup(&bytes).map_err(|error| {
        let cause = format!("what the agent sent cannot be restored: {error}");
        Failure::unavailable(cause, "do the agent and this command have the same version?")
    })?;
    if args.fresh.stale {
        output::note("stale: what this node knows; no quorum was asked, later writes may be missing\n");
    }
    if to_stdout {
        return output::write(&mut io::stdout().lock(), &bytes).map(|_| ());
    }
    keep(&args.file, &bytes).map_err(|error| {
        Failure::unavailable(format!("{} cannot be written: {error}", args.file.display()), "")
    })?;
    let made = Made { file: &args.file, file_len: bytes.len(), header: &backup.header, vms: backup.vms };
    session.print(&made, &text(&made))
}

fn text(made: &Made<'_>) -> String {
    let BackupHeader { cluster_name, cluster_id, index, .. } = made.header;
    format!(
        "{}: cluster {cluster_name} (id {}) at index {index}, {} VMs, {} bytes\n",
        made.file.display(),
        cluster_id.short(),
        made.vms,
        made.file_len
    )
}

fn recover(args: &RecoverArgs, files: &dyn ClusterFiles) -> Result<(), Failure> {
    if !args.i_know_the_others_are_gone {
        let way_out = "if they are gone for good, say so: --i-know-the-others-are-gone";
        return Err(Failure::refused(RECOVER_EXPLAINED, way_out));
    }
    output::print(&files.recover(&args.node)?)
}

/// Checked before the agent is asked, so that nobody waits for a backup that is not written.
fn check_free(file: &Path, force: bool) -> Result<(), Failure> {
    match fs::symlink_metadata(file) {
        Ok(found) if found.is_dir() => {
            Err(Failure::refused(format!("{} is a directory", file.display()), "name a file in it"))
        }
        Ok(_) if !force => Err(Failure::refused(format!("{} exists", file.display()), "--force replaces it")),
        _ => Ok(()),
    }
}

/// Whole or not at all, and durable: a backup that a power loss takes back is none.
fn keep(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let part = part_of(file)?;
    let written = write_part(&part, bytes).and_then(|()| fs::rename(&part, file));
    if let Err(error) = written {
        // A part that stays is of no use, and does no harm.
        let _left = fs::remove_file(&part).is_err();
        return Err(error);
    }
    File::open(dir)?.sync_all()
}

/// The name while it is written, in the same directory.
fn part_of(file: &Path) -> io::Result<PathBuf> {
    let name = file.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let mut part = name.to_owned();
    part.push(format!(".{}.part", std::process::id()));
    Ok(file.with_file_name(part))
}

fn write_part(part: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(part)?;
    out.write_all(bytes)?;
    out.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_backup_is_whole_and_its_owners_alone_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("b");
        for bytes in ["first", "second"] {
            keep(&file, bytes.as_bytes()).expect("kept");
            assert_eq!(fs::read_to_string(&file).expect("read"), bytes);
        }
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, FILE_MODE);
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1);
        assert!(keep(&dir.path().join("none/b"), b"x").is_err());
        assert!(keep(dir.path(), b"x").is_err(), "a directory");
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1);
    }

    #[test]
    fn a_file_that_is_there_is_only_replaced_when_that_is_meant() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("b");
        assert_eq!(check_free(&file, false), Ok(()));
        fs::write(&file, "x").expect("written");
        let refused = check_free(&file, false).expect_err("there");
        assert!(refused.way_out.contains("--force"), "{refused:?}");
        assert_eq!(check_free(&file, true), Ok(()));
        assert!(check_free(dir.path(), true).is_err());
    }
}
