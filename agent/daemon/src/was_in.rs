//! Which cluster this node was in: kept beside the store, for when that is lost.
//!
//! A node without a list of members begins a cluster of its own when its store is empty. One whose store was
//! lost while others have joined must not: it would take itself for the whole cluster, under the same key.

use std::io;
use std::path::{Path, PathBuf};

use blixard_model::ClusterId;

/// The file in the data directory: the cluster's id.
const FILE_NAME: &str = "cluster";

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE_NAME)
}

/// Writes down that this node is in the cluster. Not being able to is no reason to end.
pub(crate) fn keep(data_dir: &Path, cluster_id: ClusterId) {
    let path = path(data_dir);
    let text = format!("{cluster_id}\n");
    if std::fs::read_to_string(&path).is_ok_and(|kept| kept == text) {
        return;
    }
    let fresh = path.with_extension("new");
    let written = std::fs::write(&fresh, text)
        .and_then(|()| std::fs::File::open(&fresh)?.sync_all())
        .and_then(|()| std::fs::rename(&fresh, &path))
        .and_then(|()| std::fs::File::open(data_dir)?.sync_all());
    if let Err(error) = written {
        tracing::warn!("{} can not be written: {error}", path.display());
    }
}

/// Why a node with an empty store and no list begins no cluster of its own, if it was in one.
///
/// # Errors
/// The file can not be read: nobody knows.
pub(crate) fn words(data_dir: &Path) -> io::Result<Option<String>> {
    let path = path(data_dir);
    match std::fs::read_to_string(&path) {
        Ok(id) => Ok(Some(format!(
            "a ticket: this node was in cluster {} and its store is gone. `blixard cluster join` takes a \
             ticket of that cluster; to begin a new one instead, remove {} and start the agent again",
            id.trim().chars().take(10).collect::<String>(),
            path.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
