//! The VMs that have a unit on this machine, without asking systemd: a unit's runtime directory is there for
//! as long as the unit is.

use std::fs;
use std::io;
use std::path::Path;

const UNITS_DIR: &str = "/run/blixard-vm";

/// Their names. There are none as far as the directory cannot be read.
pub(crate) fn names() -> Vec<String> {
    names_in(Path::new(UNITS_DIR)).unwrap_or_default()
}

fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = entries.collect::<io::Result<Vec<String>>>()?;
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vms_are_there_for_as_long_as_their_runtime_directories() {
        let dir = tempfile::tempdir().expect("a directory");
        let units = dir.path().join("blixard-vm");
        assert_eq!(names_in(&units).ok(), None, "no VM has run since the machine booted");
        for name in ["web", "db"] {
            fs::create_dir_all(units.join(name)).expect("made");
        }
        assert_eq!(names_in(&units).expect("read"), ["db", "web"]);
        fs::remove_dir(units.join("web")).expect("removed");
        assert_eq!(names_in(&units).expect("read"), ["db"]);
    }
}
