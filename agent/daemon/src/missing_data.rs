//! Which cluster this node was in: kept beside the store for when that is lost, and outside the data
//! directory for when all of it is.
//!
//! A node without a list of members begins a cluster of its own when its store is empty. One whose store was
//! lost while others have joined must not: it would take itself for the whole cluster, under the same key.
//!
//! And a data directory that is empty where there was one is most likely a file system that is not mounted.
//! A store that began there would be a second life of the same node, and the first one is refused when its
//! disk comes back. So the agent does not start until one of the two is settled.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use blixard_model::ClusterId;

/// The file in the data directory, and the one in the record's: the cluster's id.
const FILE_NAME: &str = "cluster";

/// The unit's state directory for the record. Never the data directory, which may be on a disk of its own.
const RECORD_DIR: &str = "blixard-record";

/// What a data directory has that was this node's before.
const REMAINS: [&str; 3] = [blixard_store::FILE_NAME, FILE_NAME, "node.key"];

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE_NAME)
}

/// Where the record of this process is, if it has one.
pub(crate) fn record() -> Option<PathBuf> {
    record_path(std::env::var_os("STATE_DIRECTORY").as_deref())
}

/// Where the record is, given systemd's `$STATE_DIRECTORY`; none without the unit that has one.
fn record_path(state_directories: Option<&OsStr>) -> Option<PathBuf> {
    let dirs = std::env::split_paths(state_directories?);
    dirs.into_iter().find(|dir| dir.ends_with(RECORD_DIR)).map(|dir| dir.join(FILE_NAME))
}

/// Writes down that this node is in the cluster. Not being able to is no reason to end.
pub(crate) fn keep(data_dir: &Path, record: Option<&Path>, cluster_id: ClusterId) {
    write(&path(data_dir), &format!("{cluster_id}\n"));
    if let Some(record) = record {
        write(record, &format!("{cluster_id} {}\n", data_dir.display()));
    }
}

fn write(path: &Path, text: &str) {
    if std::fs::read_to_string(path).is_ok_and(|kept| kept == text) {
        return;
    }
    let fresh = path.with_extension("new");
    let directory = path.parent().unwrap_or(Path::new("."));
    let written = std::fs::write(&fresh, text)
        .and_then(|()| std::fs::File::open(&fresh)?.sync_all())
        .and_then(|()| std::fs::rename(&fresh, path))
        .and_then(|()| std::fs::File::open(directory)?.sync_all());
    if let Err(error) = written {
        tracing::warn!("{} cannot be written: {error}", path.display());
    }
}

/// The data directory is not the one that this node had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotThere {
    /// Nothing of this node is in it.
    #[error(
        "{} has nothing of this node, which was in cluster {cluster} with its data in {kept_in}: is that \
         file system mounted? The agent goes on by itself when the data is there. If it is lost for good, \
         remove {} and the node begins anew", .data_dir.display(), .record.display()
    )]
    Empty {
        /// As configured.
        data_dir: PathBuf,
        /// The first digits of the cluster's id.
        cluster: String,
        /// The data directory at that time.
        kept_in: String,
        /// The file that tells so.
        record: PathBuf,
    },
    /// It cannot be found out.
    #[error("{} cannot be read", .path.display())]
    Unknown {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Refuses to begin in a data directory without anything of this node, if the record tells of one.
///
/// # Errors
/// [`NotThere`].
pub(crate) fn check(data_dir: &Path, record: Option<&Path>) -> Result<(), NotThere> {
    let Some(record) = record else { return Ok(()) };
    let text = match std::fs::read_to_string(record) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(NotThere::Unknown { path: record.to_owned(), source }),
    };
    for name in REMAINS {
        let path = data_dir.join(name);
        match path.try_exists() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(source) => return Err(NotThere::Unknown { path, source }),
        }
    }
    let (cluster, kept_in) = text.trim_end().split_once(' ').unwrap_or((text.trim_end(), "?"));
    Err(NotThere::Empty {
        data_dir: data_dir.to_owned(),
        cluster: short(cluster),
        kept_in: kept_in.to_owned(),
        record: record.to_owned(),
    })
}

/// As ids are shown.
fn short(id: &str) -> String {
    id.chars().take(10).collect()
}

/// Why a node with an empty store and no list begins no cluster of its own, if it was in one.
///
/// # Errors
/// The file cannot be read: nobody knows.
pub(crate) fn words(data_dir: &Path) -> io::Result<Option<String>> {
    let path = path(data_dir);
    match std::fs::read_to_string(&path) {
        Ok(id) => Ok(Some(format!(
            "a ticket: this node was in cluster {} and its store is gone. `blixard cluster join` takes a \
             ticket of that cluster; to begin a new one instead, remove {} and start the agent again",
            short(id.trim()),
            path.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "fc04d6e83a16820bdbb9f600c7c24f02";

    fn cluster_id() -> ClusterId {
        ID.parse().expect("an id")
    }

    #[test]
    fn the_record_is_in_the_state_directory_of_its_name() {
        let found = |text: &str| record_path(Some(OsStr::new(text)));
        let both = "/var/lib/blixard:/var/lib/blixard-record";
        assert_eq!(found(both), Some("/var/lib/blixard-record/cluster".into()));
        assert_eq!(found("/var/lib/blixard"), None);
        assert_eq!(record_path(None), None);
    }

    #[test]
    fn a_data_directory_that_is_not_mounted_is_no_place_to_begin() {
        let (disk, elsewhere) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        let record = elsewhere.path().join("cluster");
        assert!(check(disk.path(), Some(&record)).is_ok(), "a node that was in no cluster begins");
        keep(disk.path(), Some(&record), cluster_id());
        assert!(check(disk.path(), Some(&record)).is_ok(), "its own directory");

        let unmounted = tempfile::tempdir().expect("dir");
        for place in [unmounted.path(), &unmounted.path().join("data")] {
            let line = check(place, Some(&record)).expect_err("nothing is there").to_string();
            for part in [place, disk.path(), &record] {
                assert!(line.contains(&part.display().to_string()), "{line}");
            }
            assert!(line.contains("in cluster fc04d6e83a with"), "{line}");
        }
        std::fs::remove_file(&record).expect("told to");
        assert!(check(unmounted.path(), Some(&record)).is_ok(), "begun anew by hand");
    }

    #[test]
    fn a_lost_store_or_a_key_put_back_is_not_a_missing_disk() {
        for name in REMAINS {
            let (disk, elsewhere) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
            let record = elsewhere.path().join("cluster");
            write(&record, &format!("{ID} /srv/blixard\n"));
            std::fs::write(disk.path().join(name), "").expect("written");
            assert!(check(disk.path(), Some(&record)).is_ok(), "{name}");
        }
    }

    #[test]
    fn without_the_unit_there_is_no_record_and_nothing_is_refused() {
        let disk = tempfile::tempdir().expect("dir");
        keep(disk.path(), None, cluster_id());
        assert!(check(&disk.path().join("other"), None).is_ok());
    }

    #[test]
    fn what_can_not_be_read_is_not_taken_for_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        let error = check(dir.path(), Some(dir.path())).expect_err("a directory is no record");
        assert!(matches!(error, NotThere::Unknown { .. }), "{error}");
    }
}
