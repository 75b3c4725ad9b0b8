//! Reads the order and checks everything again; and `vm-exec`, which becomes the hypervisor, for the
//! templates of releases without a supervisor.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use blixard_model::order::LaunchOrder;
use blixard_model::vm::{Disk, InvalidSpec};
use blixard_model::{Accel, BootId, InvalidId, VmName};

use crate::hypervisor::{MONITOR_SOCKET, qmp_socket};
use crate::image::format_of;
use crate::lease::LeaseNeed;
use crate::order::{OrderError, read_order};
use crate::qemu::argv::{CheckedDisk, DiskKind, KERNEL_CMDLINE_LEN_MAX, MachineFacts, argv, kernel_cmdline};

/// Name of the credential that holds the order, as in the unit's `LoadCredential=`.
const CREDENTIAL: &str = "order";

/// Name of that credential in the template of release 0.1.0, which stays loaded until systemd reads the new
/// template.
const CREDENTIAL_0_1_0: &str = "spec";

/// Where the kernel says which boot of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why the VM was not launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The unit's instance name is not a VM name.
    #[error(transparent)]
    Name(#[from] InvalidId),
    /// The program was not started by systemd with the unit's `LoadCredential=`.
    #[error("no $CREDENTIALS_DIRECTORY: this is run by the unit blixard-vm@NAME.service only")]
    NoCredentials,
    /// The order cannot be read.
    #[error("launch order")]
    Order(#[from] OrderError),
    /// The order is for another VM.
    #[error("the launch order is for VM {found}, not for this unit's")]
    OtherVm {
        /// The VM that the order is for.
        found: VmName,
    },
    /// The order describes a VM that is not valid.
    #[error("launch order")]
    Spec(#[from] InvalidSpec),
    /// A file that the VM needs is missing or cannot be used. Names the field, the path and the reason.
    #[error("{field} {path:?}: {problem}")]
    File {
        /// The field of the spec.
        field: String,
        /// The path as it was given.
        path: String,
        /// What is wrong, and what would help.
        problem: String,
    },
    /// The whole kernel command line is longer than what the kernel reads.
    #[error(
        "cmdline: with what the machine adds it has {len} bytes, the kernel reads {KERNEL_CMDLINE_LEN_MAX}"
    )]
    CmdlineTooLong {
        /// The length of the command line, in bytes.
        len: usize,
    },
    /// The order demands KVM, and this machine does not offer it.
    #[error("/dev/kvm cannot be used (vms.accel = \"tcg\" in the agent's configuration runs without it)")]
    NoKvm(#[source] io::Error),
    /// KVM runs guests of the machine's own architecture only, and guests are x86-64.
    #[error(
        "vms.accel: KVM cannot run x86-64 guests on {arch} (vms.accel = \"tcg\" in the agent's configuration \
         emulates them)"
    )]
    KvmArchitecture {
        /// The machine's architecture, as Rust names it.
        arch: &'static str,
    },
    /// The VM may be failed over, and only a supervisor stops it in time.
    #[error(
        "VM {0} needs a lease, and so a supervisor (systemd still has an older blixard-vm@.service: run \
         `systemctl daemon-reload` and start the VM again)"
    )]
    NoSupervisor(VmName),
    /// The kernel does not say which boot of the machine this is, so no lease can be believed.
    #[error("{BOOT_ID} cannot be read, and the VM needs a lease of this boot")]
    Boot(#[source] io::Error),
    /// The hypervisor could not be run.
    #[error("{program} cannot be run (vms.qemu in the agent's configuration names it)")]
    Exec {
        /// The program.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Replaces this process by the hypervisor of the unit's VM.
///
/// # Errors
/// [`LaunchError`]: why the hypervisor could not be started. The function returns only in this case.
pub fn vm_exec(name: &str) -> Result<Infallible, LaunchError> {
    let name: VmName = name.parse()?;
    let CheckedLaunch { argv, lease, .. } = launch_of(&name, None)?;
    if lease.is_some() {
        return Err(LaunchError::NoSupervisor(name));
    }
    let Some((program, arguments)) = argv.split_first() else {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(LaunchError::Exec { program: String::new(), source });
    };
    Err(become_hypervisor(program, arguments))
}

/// Replaces this process by the hypervisor. Returns only if that fails, with the reason.
pub(crate) fn become_hypervisor<W: AsRef<OsStr>>(program: &str, arguments: &[W]) -> LaunchError {
    // No shell is involved, so each word reaches the hypervisor unchanged.
    let source = Command::new(program).args(arguments).exec();
    LaunchError::Exec { program: program.to_owned(), source }
}

/// What an order comes to on this machine.
#[derive(Debug)]
pub(crate) struct CheckedLaunch {
    /// The hypervisor's argument list, with the program first.
    pub(crate) argv: Vec<String>,
    /// The paths of the VM's disks, as the order names them.
    pub(crate) disks: Vec<String>,
    /// What the VM needs a lease for, if it needs one.
    pub(crate) lease: Option<LeaseNeed>,
}

/// Reads the order of the unit's VM from the unit's credentials and checks it. With the runtime directory of
/// a supervisor, the hypervisor connects to it, and the guest does not run before the supervisor says so.
pub(crate) fn launch_of(name: &VmName, supervised: Option<&Path>) -> Result<CheckedLaunch, LaunchError> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or(LaunchError::NoCredentials)?;
    let order = read_credential(Path::new(&directory))?;
    let argv = prepare(name, &order, supervised)?;
    let lease = lease_need(&order)?;
    Ok(CheckedLaunch { argv, disks: order.vm.disks.into_iter().map(|disk| disk.path).collect(), lease })
}

/// What the VM needs a lease for whose unit has its order in this directory; none if it needs none, or if
/// the order cannot be read.
pub(crate) fn lease_need_in(directory: &Path) -> Option<LeaseNeed> {
    lease_need(&read_credential(directory).ok()?).ok()?
}

fn lease_need(order: &LaunchOrder) -> Result<Option<LeaseNeed>, LaunchError> {
    let Some(cluster_id) = order.lease else { return Ok(None) };
    let text = fs::read_to_string(BOOT_ID).map_err(LaunchError::Boot)?;
    let boot_id = BootId::try_from(text.trim().to_owned());
    let boot_id = boot_id.map_err(|error| LaunchError::Boot(io::Error::other(error)))?;
    Ok(Some(LeaseNeed { boot_id, cluster_id, name: order.vm.name.clone(), generation: order.generation }))
}

/// Reads the order from the unit's credentials, under the name that the loaded template gives it.
fn read_credential(directory: &Path) -> Result<LaunchOrder, OrderError> {
    let path = directory.join(CREDENTIAL);
    match read_order(&path) {
        Err(OrderError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let older = directory.join(CREDENTIAL_0_1_0);
            read_order(if older.exists() { &older } else { &path })
        }
        other => other,
    }
}

/// Checks an order against this machine and returns the argument list.
fn prepare(
    name: &VmName,
    order: &LaunchOrder,
    supervised: Option<&Path>,
) -> Result<Vec<String>, LaunchError> {
    if order.vm.name != *name {
        return Err(LaunchError::OtherVm { found: order.vm.name.clone() });
    }
    order.vm.validate()?;
    check_program(&order.qemu)?;
    check_readable("kernel", &order.vm.kernel)?;
    if let Some(initrd) = &order.vm.initrd {
        check_readable("initrd", initrd)?;
    }
    let disk_dirs: Vec<PathBuf> =
        order.disk_dirs.iter().filter_map(|dir| fs::canonicalize(dir).ok()).collect();
    let disks = order
        .vm
        .disks
        .iter()
        .enumerate()
        .map(|(i, disk)| check_disk(&format!("disks[{i}]"), disk, &disk_dirs, order))
        .collect::<Result<Vec<_>, _>>()?;
    if order.accel == Accel::Kvm {
        check_kvm(std::env::consts::ARCH, Path::new("/dev/kvm"))?;
    }
    let machine = MachineFacts {
        qmp_socket: qmp_socket(name).display().to_string(),
        monitor: supervised.map(|directory| directory.join(MONITOR_SOCKET).display().to_string()),
        tsc_khz: fs::read_to_string("/proc/cpuinfo").ok().as_deref().and_then(tsc_khz),
    };
    let len = kernel_cmdline(order, &machine).len();
    if len > KERNEL_CMDLINE_LEN_MAX {
        return Err(LaunchError::CmdlineTooLong { len });
    }
    Ok(argv(order, &disks, &machine))
}

/// Checks that KVM can run a guest on a machine of this architecture, through this device.
fn check_kvm(arch: &'static str, device: &Path) -> Result<(), LaunchError> {
    if !Accel::Kvm.runs_on(arch) {
        return Err(LaunchError::KvmArchitecture { arch });
    }
    OpenOptions::new().read(true).write(true).open(device).map_err(LaunchError::NoKvm)?;
    Ok(())
}

/// Accepts a name for PATH or an absolute path, and nothing that depends on the working directory of this
/// process.
fn check_program(program: &str) -> Result<(), LaunchError> {
    if program.is_empty() || (program.contains('/') && !program.starts_with('/')) {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "neither a name nor an absolute path");
        return Err(LaunchError::Exec { program: program.to_owned(), source });
    }
    Ok(())
}

fn file_error(field: &str, path: &str, problem: impl Into<String>) -> LaunchError {
    LaunchError::File { field: field.to_owned(), path: path.to_owned(), problem: problem.into() }
}

fn check_readable(field: &str, path: &str) -> Result<(), LaunchError> {
    let metadata = fs::metadata(path).map_err(|error| file_error(field, path, error.to_string()))?;
    if !metadata.is_file() {
        return Err(file_error(field, path, "is not a file"));
    }
    fs::File::open(path).map_err(|error| {
        file_error(field, path, format!("{error}: the VM's own user must be able to read it"))
    })?;
    Ok(())
}

/// Resolves a disk's path, and checks that the resolved path lies under a disk directory.
fn check_disk(
    field: &str,
    disk: &Disk,
    allowed: &[PathBuf],
    order: &LaunchOrder,
) -> Result<CheckedDisk, LaunchError> {
    let wrong = |problem: String| file_error(field, &disk.path, problem);
    let real = fs::canonicalize(&disk.path).map_err(|error| wrong(error.to_string()))?;
    // A directory is not inside itself: something has to follow the prefix.
    let inside = |dir: &PathBuf| real.strip_prefix(dir).is_ok_and(|rest| rest.components().next().is_some());
    if !allowed.iter().any(inside) {
        let place =
            if real == Path::new(&disk.path) { String::new() } else { format!(" ({})", real.display()) };
        let configured = order.disk_dirs.join(", ");
        return Err(wrong(format!("is not under a disk directory{place}: {configured}")));
    }
    if let Some(known) = other_shared_name(&disk.path, &real, &order.shared_dirs) {
        return Err(wrong(format!(
            "is the file {} of a shared directory: name it by that path, by which the cluster gives it to \
             one VM alone",
            known.display()
        )));
    }
    let file_type = fs::metadata(&real).map_err(|error| wrong(error.to_string()))?.file_type();
    let kind = if file_type.is_file() {
        DiskKind::File
    } else if file_type.is_block_device() {
        DiskKind::BlockDevice
    } else {
        return Err(wrong("is neither a file nor a block device".into()));
    };
    let mut file = OpenOptions::new().read(true).write(!disk.read_only).open(&real).map_err(|error| {
        wrong(format!(
            "{error}: group blixard-disk must be able to {}",
            if disk.read_only { "read it" } else { "write it" }
        ))
    })?;
    // The length is found by seeking, because the metadata of a block device has none.
    let format = file.seek(SeekFrom::End(0)).and_then(|len| format_of(&file, len));
    if let Some(format) = format.map_err(|error| wrong(error.to_string()))? {
        return Err(wrong(format.refusal(&disk.path)));
    }
    let path = real.into_os_string().into_string().map_err(|_| wrong("its real path is not UTF-8".into()))?;
    Ok(CheckedDisk { path, read_only: disk.read_only, kind })
}

/// The path by which the cluster knows a file that lies in a shared directory, if that is not this one: two
/// VMs that have it by different paths would both write it.
fn other_shared_name(path: &str, real: &Path, shared: &[String]) -> Option<PathBuf> {
    shared.iter().find_map(|dir| {
        let inside = real.strip_prefix(fs::canonicalize(dir).ok()?).ok()?.to_owned();
        let known = Path::new(dir).join(inside);
        (known != Path::new(path)).then_some(known)
    })
}

/// The frequency of the time stamp counter, from `/proc/cpuinfo`: x86 states it as `bogomips`, which is twice
/// the frequency in MHz.
fn tsc_khz(cpuinfo: &str) -> Option<u64> {
    let line = cpuinfo.lines().find(|line| line.starts_with("bogomips"))?;
    let (whole, hundredths) = line.split_once(':')?.1.trim().split_once('.')?;
    if hundredths.len() != 2 {
        return None;
    }
    let hundredths: u64 = format!("{whole}{hundredths}").parse().ok()?;
    let khz = hundredths.checked_mul(5)?;
    // Machines without such a counter state a tiny value.
    (khz >= 100_000).then_some(khz)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use blixard_model::words::with_causes;

    use super::*;

    struct Place {
        dir: tempfile::TempDir,
        order: LaunchOrder,
    }

    /// A kernel and a disk directory with one disk, and an order that names them.
    fn place() -> Place {
        let dir = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| dir.path().join(name).display().to_string();
        fs::create_dir(dir.path().join("disks")).expect("mkdir");
        for file in ["kernel", "initrd", "disks/web.raw", "outside.raw"] {
            fs::write(dir.path().join(file), b"x").expect("write");
        }
        let spec = serde_json::json!({
            "name": "web", "cpus": 1, "memory_mib": 256, "kernel": at("kernel"), "initrd": at("initrd"),
            "disks": [{ "path": at("disks/web.raw") }],
        });
        let order = LaunchOrder {
            vm: serde_json::from_value(spec).expect("spec"),
            accel: Accel::Tcg,
            qemu: "qemu-system-x86_64".into(),
            disk_dirs: vec!["/no/such/directory".into(), at("disks")],
            shared_dirs: Vec::new(),
            generation: 1,
            revision: 0,
            lineage: 0,
            lease: None,
        };
        Place { dir, order }
    }

    fn refusal(order: &LaunchOrder) -> String {
        with_causes(&prepare(&order.vm.name, order, None).expect_err("refused"))
    }

    #[test]
    fn a_good_order_becomes_an_argument_list() {
        let Place { dir: _dir, order } = place();
        let argv = prepare(&order.vm.name, &order, None).expect("argv");
        assert_eq!(argv[0], "qemu-system-x86_64");
        assert!(argv.iter().any(|word| word.contains("disks/web.raw")));
    }

    #[test]
    fn the_order_is_found_under_the_credential_name_of_both_templates() {
        let older = include_bytes!("../tests/fixtures/0.1.0/order.json");
        let dir = tempfile::tempdir().expect("tempdir");
        let missing = read_credential(dir.path()).expect_err("no order");
        assert!(missing.to_string().ends_with("/order"), "{missing}");
        fs::write(dir.path().join("spec"), older).expect("write");
        assert_eq!(read_credential(dir.path()).expect("older").generation, 7);
        let newer = String::from_utf8_lossy(older).replace("\"generation\":7", "\"generation\":8");
        fs::write(dir.path().join("order"), newer).expect("write");
        assert_eq!(read_credential(dir.path()).expect("newer").generation, 8);
    }

    #[test]
    fn an_order_for_another_vm_is_refused() {
        let Place { dir: _dir, order } = place();
        let other: VmName = "db".parse().expect("name");
        assert!(matches!(prepare(&other, &order, None), Err(LaunchError::OtherVm { .. })));
    }

    #[test]
    fn an_invalid_spec_is_refused_here_too() {
        let Place { dir: _dir, mut order } = place();
        order.vm.cpus = 0;
        assert!(refusal(&order).contains("cpus"));
    }

    #[test]
    fn missing_files_are_named_with_their_field() {
        let Place { dir, mut order } = place();
        order.vm.initrd = Some(dir.path().join("none").display().to_string());
        assert!(refusal(&order).starts_with("initrd "));
        order.vm.kernel = dir.path().join("disks").display().to_string();
        assert!(refusal(&order).contains("is not a file"));
    }

    #[test]
    fn a_disk_must_lie_under_a_disk_directory_after_links_are_resolved() {
        let Place { dir, mut order } = place();
        let at = |name: &str| dir.path().join(name).display().to_string();
        symlink(at("outside.raw"), at("disks/link.raw")).expect("symlink");
        symlink(at("disks/web.raw"), at("into.raw")).expect("symlink");
        let cases = [
            ("outside.raw", "is not under a disk directory"),
            ("disks/link.raw", "outside.raw)"),
            ("disks", "is not under a disk directory"),
            ("disks/none.raw", "No such file"),
        ];
        for (path, words) in cases {
            order.vm.disks[0].path = at(path);
            let refusal = refusal(&order);
            assert!(refusal.starts_with("disks[0] ") && refusal.contains(words), "{path}: {refusal}");
        }
        order.vm.disks[0].path = at("into.raw");
        assert!(
            prepare(&order.vm.name, &order, None).is_ok(),
            "a link into a disk directory resolves to inside"
        );
        fs::create_dir(at("disks/sub")).expect("mkdir");
        order.vm.disks[0].path = at("disks/sub");
        assert!(refusal(&order).contains("neither a file nor"));
    }

    #[test]
    fn a_shared_disk_has_the_name_by_which_the_cluster_knows_it() {
        let Place { dir, mut order } = place();
        let at = |name: &str| dir.path().join(name).display().to_string();
        fs::create_dir(at("disks/all")).expect("mkdir");
        fs::write(at("disks/all/web.raw"), b"x").expect("write");
        symlink(at("disks/all"), at("mount")).expect("symlink");
        for link in ["disks/own.raw", "disks/all/again.raw"] {
            symlink(at("disks/all/web.raw"), at(link)).expect("symlink");
        }
        // The directory itself may be known by a link: what counts is how the configuration names it.
        for (shared, path, known) in [
            ("disks/all", "disks/all/web.raw", None),
            ("mount", "mount/web.raw", None),
            ("disks/all", "disks/own.raw", Some("disks/all/web.raw")),
            ("disks/all", "disks/all/again.raw", Some("disks/all/web.raw")),
            ("disks/all", "mount/web.raw", Some("disks/all/web.raw")),
            ("mount", "disks/all/web.raw", Some("mount/web.raw")),
            ("disks/all", "disks/web.raw", None),
            ("none", "disks/web.raw", None),
        ] {
            order.shared_dirs = vec![at(shared)];
            order.vm.disks[0].path = at(path);
            match known {
                None => _ = prepare(&order.vm.name, &order, None).expect("its own name"),
                Some(known) => {
                    let refusal = refusal(&order);
                    let words = format!("is the file {} of a shared directory", at(known));
                    assert!(refusal.contains(&words), "{path}: {refusal}");
                }
            }
        }
    }

    #[test]
    fn a_directory_whose_name_only_has_the_same_prefix_is_outside() {
        let Place { dir, mut order } = place();
        let twin = dir.path().join("disks-of-others");
        fs::create_dir(&twin).expect("mkdir");
        fs::write(twin.join("x.raw"), b"x").expect("write");
        order.vm.disks[0].path = twin.join("x.raw").display().to_string();
        assert!(refusal(&order).contains("is not under a disk directory"));
    }

    #[test]
    fn an_image_that_is_not_raw_is_refused_and_left_as_it_is() {
        let Place { dir, order } = place();
        let path = dir.path().join("disks/web.raw");
        let image = b"QFI\xfb\0\0\0\x03 and the rest of the header";
        fs::write(&path, image).expect("write");
        let refusal = refusal(&order);
        let start = format!("disks[0] {:?}: is a qcow2 image and disks are raw", path.display().to_string());
        assert!(refusal.starts_with(&start), "{refusal}");
        assert!(refusal.contains("qemu-img convert -f qcow2 -O raw"), "{refusal}");
        assert_eq!(fs::read(&path).expect("read"), image);
    }

    #[test]
    fn kvm_is_refused_where_it_cannot_run_the_guest() {
        let device = tempfile::NamedTempFile::new().expect("file");
        assert!(check_kvm("x86_64", device.path()).is_ok());
        let foreign = check_kvm("aarch64", device.path()).expect_err("another architecture");
        assert!(foreign.to_string().contains("on aarch64 (vms.accel = \"tcg\""), "{foreign}");
        let missing = check_kvm("x86_64", Path::new("/no/such/device")).expect_err("no device");
        assert!(matches!(missing, LaunchError::NoKvm(_)));
    }

    #[test]
    fn a_relative_program_is_refused() {
        let Place { dir: _dir, mut order } = place();
        order.qemu = "bin/qemu".into();
        assert!(refusal(&order).contains("absolute path"));
    }

    #[test]
    fn the_kernel_reads_the_longest_command_line_of_a_spec() {
        let Place { dir: _dir, mut order } = place();
        order.vm.cmdline = "x".repeat(blixard_model::vm::CMDLINE_LEN_MAX);
        assert!(prepare(&order.vm.name, &order, None).is_ok());
    }

    #[test]
    fn the_counter_frequency_is_read_from_bogomips() {
        assert_eq!(tsc_khz("processor\t: 0\nbogomips\t: 5192.27\nbogomips\t: 1.00\n"), Some(2_596_135));
        for text in ["", "bogomips\t: 50.00", "bogomips\t: x.yz", "bogomips : 5192.2"] {
            assert_eq!(tsc_khz(text), None, "{text}");
        }
    }

    #[test]
    fn vm_exec_refuses_an_invalid_name() {
        assert!(matches!(vm_exec("a;b"), Err(LaunchError::Name(_))));
    }
}
