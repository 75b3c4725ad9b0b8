//! What was stopped by hand on this node and the log does not know yet. Each is an empty file in the
//! directory `stopped` of the data directory, with the VM and the generation of its placement in its name and
//! the time in its own: it is there whole or not at all, and a command that stops a VM while no agent runs
//! leaves one as well. What else lies there is of no account.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use blixard_model::StopNote;

const DIR: &str = "stopped";

/// Most of them that are looked at: more than VMs find room on one machine.
const NOTES_MAX: usize = 4_096;

fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join(DIR)
}

fn file_name(note: &StopNote) -> String {
    format!("{}.{}", note.name, note.generation)
}

/// Makes them durable, beside what is there.
///
/// # Errors
/// The disk does not take them: some may be kept.
pub(crate) fn keep(data_dir: &Path, notes: &[StopNote]) -> io::Result<()> {
    let dir = ensure_dir(data_dir)?;
    for note in notes {
        // Never through a link, and never a file that is there.
        let mut new = OpenOptions::new();
        match new.write(true).create_new(true).mode(0o600).open(dir.join(file_name(note))) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    File::open(dir)?.sync_all()
}

/// The directory, which the agent's user owns whoever makes it.
fn ensure_dir(data_dir: &Path) -> io::Result<PathBuf> {
    let dir = dir(data_dir);
    match DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let (found, parent) = (fs::symlink_metadata(&dir)?, fs::metadata(data_dir)?);
    if !found.is_dir() {
        return Err(io::Error::other(format!("{} is no directory", dir.display())));
    }
    if found.uid() != parent.uid() {
        std::os::unix::fs::lchown(&dir, Some(parent.uid()), Some(parent.gid()))?;
    }
    File::open(data_dir)?.sync_all()?;
    Ok(dir)
}

/// Those that are kept, by their names.
///
/// # Errors
/// It cannot be found out.
pub(crate) fn found(data_dir: &Path) -> io::Result<Vec<StopNote>> {
    let entries = match fs::read_dir(dir(data_dir)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut notes = Vec::new();
    for entry in entries.take(NOTES_MAX) {
        let entry = entry?;
        let name = entry.file_name();
        let Some((name, generation)) = name.to_str().and_then(parse) else { continue };
        let at_unix_ms = match entry.metadata().and_then(|found| found.modified()) {
            Ok(at) => at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis(),
            // It was forgotten meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let at_unix_ms = u64::try_from(at_unix_ms).unwrap_or(u64::MAX);
        notes.push(StopNote { name, generation, at_unix_ms });
    }
    notes.sort();
    Ok(notes)
}

fn parse(file_name: &str) -> Option<(blixard_model::VmName, u64)> {
    let (name, generation) = file_name.rsplit_once('.')?;
    let (name, number) = (name.parse().ok()?, generation.parse::<u64>().ok()?);
    // One that is written otherwise would never be found again.
    (number.to_string() == generation).then_some((name, number))
}

/// Removes them. One that stays is found again, and is of no use then either.
pub(crate) fn forget(data_dir: &Path, notes: &[StopNote]) {
    for note in notes {
        match fs::remove_file(dir(data_dir).join(file_name(note))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(VM = %note.name, "that {} was stopped by hand stays kept: {error}", note.name);
            }
            _ => {}
        }
    }
}

/// Removes all of them: they were of VMs of another cluster.
///
/// # Errors
/// Some are still there.
pub(crate) fn forget_all(data_dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir(data_dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &str, generation: u64) -> StopNote {
        StopNote { name: name.parse().expect("a name"), generation, at_unix_ms: 0 }
    }

    fn names(data_dir: &Path) -> Vec<String> {
        found(data_dir).expect("read").iter().map(file_name).collect()
    }

    #[test]
    fn what_is_kept_is_found_until_it_is_forgotten() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(names(dir.path()), [""; 0], "there is no directory");
        keep(dir.path(), &[note("web", 7), note("web", 9)]).expect("kept");
        keep(dir.path(), &[note("web", 7), note("db-1", u64::MAX)]).expect("kept again");
        let all = ["db-1.18446744073709551615", "web.7", "web.9"];
        assert_eq!(names(dir.path()), all);
        let at_unix_ms = found(dir.path()).expect("read")[0].at_unix_ms;
        assert!(at_unix_ms > 1_700_000_000_000, "{at_unix_ms}");
        forget(dir.path(), &[note("web", 7), note("web", 8)]);
        assert_eq!(names(dir.path()), [all[0], all[2]]);
        forget_all(dir.path()).expect("removed");
        forget_all(dir.path()).expect("nothing is there");
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn what_else_lies_there_is_of_no_account() {
        let dir = tempfile::tempdir().expect("dir");
        keep(dir.path(), &[note("web", 7)]).expect("kept");
        let there = dir.path().join(DIR);
        for name in
            ["web", ".7", "web.", "web.x", "web.07", "web.-1", "web.18446744073709551616", "Web.7", "a.b.7"]
        {
            fs::write(there.join(name), "garbage").expect("written");
        }
        let strange = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff.7");
        fs::write(there.join(strange), "").expect("written");
        assert_eq!(names(dir.path()), ["web.7"]);
    }

    #[test]
    fn nothing_is_kept_through_a_link() {
        let (dir, elsewhere) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(DIR)).expect("a link");
        let error = keep(dir.path(), &[note("web", 7)]).expect_err("a link is no directory");
        assert!(error.to_string().contains("is no directory"), "{error}");
        fs::remove_file(dir.path().join(DIR)).expect("removed");
        keep(dir.path(), &[note("db", 1)]).expect("kept");
        let target = elsewhere.path().join("made");
        std::os::unix::fs::symlink(&target, dir.path().join(DIR).join("web.7")).expect("a link");
        keep(dir.path(), &[note("web", 7)]).expect("there is a name of it");
        assert!(!target.exists());
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join(DIR), "no directory").expect("written");
        assert!(found(dir.path()).is_err());
    }
}
