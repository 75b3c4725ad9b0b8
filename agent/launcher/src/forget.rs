//! `vm-forget`: removes the limits that systemd keeps for a deleted VM.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use blixard_model::{InvalidId, VmName};

/// Where systemd writes the properties that are set over D-Bus and that last until the next boot.
const CONTROL_DIR: &str = "/run/systemd/system.control";

/// Why the limits could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum VmForgetError {
    /// The unit's instance name is not a VM name.
    #[error(transparent)]
    Name(#[from] InvalidId),
    /// The file system refused.
    #[error("{} cannot be removed", path.display())]
    Io {
        /// The directory of the drop-ins.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Removes the drop-ins that were made when a VM's limits were set. Otherwise systemd keeps them until the
/// next boot, and only root may remove them. It is a success if there are none.
///
/// # Errors
/// [`VmForgetError`]: the drop-ins are still there.
pub fn vm_forget(name: &str) -> Result<(), VmForgetError> {
    forget_in(Path::new(CONTROL_DIR), &name.parse()?)
}

fn forget_in(control: &Path, name: &VmName) -> Result<(), VmForgetError> {
    let path = control.join(format!("blixard-vm@{name}.service.d"));
    match fs::remove_dir_all(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(VmForgetError::Io { path, source }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_ins_of_one_name_are_removed_and_no_others() {
        let control = tempfile::tempdir().expect("tempdir");
        let dropins = |name: &str| control.path().join(format!("blixard-vm@{name}.service.d"));
        for name in ["web", "web-2"] {
            fs::create_dir(dropins(name)).expect("mkdir");
            fs::write(dropins(name).join("50-MemoryMax.conf"), "[Service]\n").expect("write");
        }
        let web: VmName = "web".parse().expect("name");
        forget_in(control.path(), &web).expect("removed");
        forget_in(control.path(), &web).expect("a second time");
        assert!(!dropins("web").exists() && dropins("web-2").exists());
        assert!(matches!(vm_forget("../web"), Err(VmForgetError::Name(_))));
    }
}
