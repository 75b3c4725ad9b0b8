//! Launch orders: one file per VM, which the agent writes and systemd hands to the VM's unit as a credential.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use blixard_model::VmName;
use blixard_model::order::LaunchOrder;

use crate::files::{ensure_dir, read_at_most, write_new};

/// Largest order, in bytes. A spec that reaches all its limits is still smaller.
pub const ORDER_LEN_MAX: usize = 64 * 1024;

/// The directory that the VM's unit reads orders from.
pub const ORDER_DIR: &str = "/run/blixard/vms";

/// Why an order could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The file system refused.
    #[error("{path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The order is larger than [`ORDER_LEN_MAX`].
    #[error("{path}: the order is larger than {ORDER_LEN_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not an order. The text says where it stops being one, but not what the file holds: systemd
    /// reads the file as root, so it may be a link to a file that the reader of this text must not see.
    #[error("{path}: not a launch order (line {line}, column {column})")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1; 0 stands for the position before the first byte of a line.
        column: usize,
    },
    /// The order could not be encoded.
    #[error("the launch order of VM {name} is not JSON")]
    Encode {
        /// The VM.
        name: VmName,
        /// The error of the JSON encoder.
        source: serde_json::Error,
    },
}

/// A directory of orders, with mode 0700. It lies on a tmpfs, so its blocking calls take microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderDir(PathBuf);

impl Default for OrderDir {
    fn default() -> Self {
        Self::new(ORDER_DIR)
    }
}

impl OrderDir {
    /// Uses this directory. It is created when the first order is written; its parent must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Writes the order of a VM (mode 0600), replacing an earlier one: whole or not at all.
    ///
    /// # Errors
    /// The order is too large, or the file system refused.
    pub fn write(&self, order: &LaunchOrder) -> Result<(), OrderError> {
        let path = self.path(&order.vm.name);
        let bytes = serde_json::to_vec(order)
            .map_err(|source| OrderError::Encode { name: order.vm.name.clone(), source })?;
        if bytes.len() > ORDER_LEN_MAX {
            return Err(OrderError::TooLarge { path });
        }
        ensure_dir(&self.0, 0o700).map_err(at(&self.0))?;
        // This is never the file of another VM, because a VM's name holds no dot.
        let partial = self.0.join(format!(".{}.json", order.vm.name));
        write_new(&partial, &bytes, 0o600).map_err(at(&partial))?;
        fs::rename(&partial, &path).map_err(at(&path))
    }

    /// Reads the order of a VM; `None` if there is none.
    ///
    /// # Errors
    /// The file is not an order, or the file system refused.
    pub fn read(&self, name: &VmName) -> Result<Option<LaunchOrder>, OrderError> {
        match read_order(&self.path(name)) {
            Ok(order) => Ok(Some(order)),
            Err(OrderError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the order of a VM. It is a success if there is none.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove(&self, name: &VmName) -> Result<(), OrderError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(()),
        }
    }

    fn path(&self, name: &VmName) -> PathBuf {
        self.0.join(format!("{name}.json"))
    }
}

/// Reads one order file, and never more than one byte over [`ORDER_LEN_MAX`].
///
/// # Errors
/// The file is missing, too large, or not an order.
pub(crate) fn read_order(path: &Path) -> Result<LaunchOrder, OrderError> {
    let bytes = read_at_most(path, ORDER_LEN_MAX).map_err(at(path))?;
    let bytes = bytes.ok_or_else(|| OrderError::TooLarge { path: path.to_owned() })?;
    serde_json::from_slice(&bytes).map_err(|error| OrderError::Malformed {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
    })
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> OrderError + use<> {
    let path = path.to_owned();
    move |source| OrderError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use blixard_model::Accel;

    use super::*;

    fn order(generation: u64) -> LaunchOrder {
        let text = r#"{"name":"web","cpus":1,"memory_mib":256,"kernel":"/boot/vmlinuz"}"#;
        LaunchOrder {
            vm: serde_json::from_str(text).expect("spec"),
            accel: Accel::Tcg,
            qemu: "qemu-system-x86_64".into(),
            disk_dirs: vec!["/var/lib/blixard-disks".into()],
            shared_dirs: Vec::new(),
            generation,
            revision: 0,
            lineage: 0,
            lease: None,
        }
    }

    #[test]
    fn an_order_is_replaced_whole_and_readable_by_its_owner_only() {
        let parent = tempfile::tempdir().expect("tempdir");
        let dir = OrderDir::new(parent.path().join("vms"));
        let name: VmName = "web".parse().expect("name");
        assert_eq!(dir.read(&name).expect("read"), None);
        fs::create_dir(parent.path().join("vms")).expect("mkdir");
        fs::write(parent.path().join("vms/.web.json"), b"left by a crash").expect("write");
        for generation in [1, 2] {
            dir.write(&order(generation)).expect("write");
            assert_eq!(dir.read(&name).expect("read"), Some(order(generation)));
        }
        let mode = fs::metadata(parent.path().join("vms/web.json")).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        dir.remove(&name).expect("remove");
        dir.remove(&name).expect("a second time");
        assert_eq!(dir.read(&name).expect("read"), None);
    }

    #[test]
    fn an_order_that_is_too_large_or_incomplete_is_refused() {
        let parent = tempfile::tempdir().expect("tempdir");
        let path = parent.path().join("web.json");
        fs::write(&path, vec![b' '; ORDER_LEN_MAX + 1]).expect("write");
        assert!(matches!(read_order(&path), Err(OrderError::TooLarge { .. })));
        let whole = serde_json::to_vec(&order(1)).expect("json");
        fs::write(&path, &whole[..whole.len() / 2]).expect("write");
        assert!(matches!(read_order(&path), Err(OrderError::Malformed { .. })));
    }

    #[test]
    fn the_error_about_a_file_that_is_no_order_shows_nothing_of_the_file() {
        let parent = tempfile::tempdir().expect("tempdir");
        let path = parent.path().join("web.json");
        for text in ["\"hunter2\"", "hunter2:x:0:0", "{\"hunter2\":1}", "{\"vm\":{\"name\":\"HUNTER2\"}}"] {
            fs::write(&path, text).expect("write");
            let error = read_order(&path).expect_err("not an order");
            let words = blixard_model::words::with_causes(&error);
            assert!(words.contains("not a launch order (line 1, column "), "{words}");
            assert!(!words.to_lowercase().contains("hunter2"), "{words}");
        }
    }

    #[test]
    fn the_largest_valid_spec_fits() {
        use blixard_model::vm::{CMDLINE_LEN_MAX, DISKS_MAX, Disk, PATH_LEN_MAX};
        let mut order = order(u64::MAX);
        // Quotes and backslashes take two bytes in JSON: this is the worst that a valid path or command line
        // can hold.
        let path = |i: usize| format!("/{}{i:02}", "\"".repeat(PATH_LEN_MAX - 3));
        order.vm.kernel = path(0);
        order.vm.initrd = Some(path(1));
        order.vm.cmdline = "\\".repeat(CMDLINE_LEN_MAX);
        order.vm.disks = (0..DISKS_MAX).map(|i| Disk { path: path(i), read_only: true }).collect();
        order.vm.validate().expect("valid");
        assert!(serde_json::to_vec(&order).expect("json").len() <= ORDER_LEN_MAX);
    }
}
