//! What a supervisor leaves in its runtime directory for the programs of `ExecStop=`: what its VM needs a
//! lease for, and where the file of the lease is. systemd gives those programs no credentials, so they cannot
//! read the order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use blixard_model::{BootId, ClusterId, VmName};

use crate::files::{read_at_most, write_new};
use crate::lease::{LeaseDir, LeaseNeed};

/// The note's name in the directory, which goes with the unit's run.
const NOTE: &str = "lease-need.json";
/// What is written before it gets its name.
const PARTIAL: &str = ".lease-need.json";
/// Largest note, in bytes: a path and a few numbers.
const NOTE_LEN_MAX: usize = 8 * 1024;

/// The note as JSON: the directory of the lease, then the fields of [`LeaseNeed`].
type LeaseNote = (PathBuf, BootId, ClusterId, VmName, u64);

/// Leaves the note, in place of one that is there.
pub(crate) fn leave(runtime_dir: &Path, need: &LeaseNeed, dir: &LeaseDir) -> io::Result<()> {
    let LeaseNeed { boot_id, cluster_id, name, generation } = need;
    let bytes = serde_json::to_vec(&(dir.path(), boot_id, cluster_id, name, generation))?;
    let partial = runtime_dir.join(PARTIAL);
    write_new(&partial, &bytes, 0o600)?;
    fs::rename(&partial, runtime_dir.join(NOTE))
}

/// Finds the note. `None`: the VM needs no lease, or has no supervisor that leaves notes.
pub(crate) fn find(runtime_dir: &Path) -> Option<(LeaseNeed, LeaseDir)> {
    let bytes = read_at_most(&runtime_dir.join(NOTE), NOTE_LEN_MAX).ok()??;
    let (dir, boot_id, cluster_id, name, generation): LeaseNote = serde_json::from_slice(&bytes).ok()?;
    Some((LeaseNeed { boot_id, cluster_id, name, generation }, LeaseDir::new(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(generation: u64) -> LeaseNeed {
        let cluster_id = "01".repeat(16).parse().expect("a cluster id");
        let name = "web".parse().expect("a name");
        LeaseNeed { boot_id: BootId::from_bytes([7; 16]), cluster_id, name, generation }
    }

    #[test]
    fn the_last_note_that_was_left_is_found() {
        let home = tempfile::tempdir().expect("tempdir");
        let dir = LeaseDir::new("/run/elsewhere");
        assert_eq!(find(home.path()), None);
        for generation in [7, u64::MAX] {
            leave(home.path(), &need(generation), &dir).expect("left");
            assert_eq!(find(home.path()), Some((need(generation), dir.clone())));
        }
    }

    #[test]
    fn a_note_that_cannot_be_one_is_none() {
        let home = tempfile::tempdir().expect("tempdir");
        for bytes in [&b"[]"[..], b"[\"/run\"]", b"{}", b"", &vec![b' '; NOTE_LEN_MAX + 1]] {
            fs::write(home.path().join(NOTE), bytes).expect("written");
            assert_eq!(find(home.path()), None);
        }
    }
}
