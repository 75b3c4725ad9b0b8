//! `vm-forget`: removes what systemd keeps of a deleted VM's limits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use blixard_model::{InvalidId, VmName};

/// Where systemd writes the properties that are set over D-Bus for the time until the next boot.
const CONTROL_DIR: &str = "/run/systemd/system.control";

/// The limits could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum VmForgetError {
    /// The unit's instance is no VM name.
    #[error(transparent)]
    Name(#[from] InvalidId),
    /// The file system refused.
    #[error("{} cannot be removed", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Removes the drop-ins that setting a VM's limits has left. systemd keeps them for every name until the next
/// boot otherwise, and only root may remove them. Without any there is nothing to do.
///
/// # Errors
/// They are still there, and why.
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
