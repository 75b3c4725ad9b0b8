//! QEMU's argument list for one VM. The functions are pure.
//!
//! The machine is `microvm` with ACPI tables. The kernels of common distributions find virtio-mmio devices in
//! these tables but not on the command line, and 24 devices fit instead of 8. The firmware is qboot, which
//! hands over a kernel without option ROMs. QEMU 7.2 to 10 accept the list.

use blixard_model::order::LaunchOrder;
use blixard_model::vm::TCG_CACHE_MIB;
use blixard_model::{Accel, Hypervisor};

/// Longest kernel command line that x86 reads, in bytes.
pub(crate) const KERNEL_CMDLINE_LEN_MAX: usize = 2047;

/// A disk whose path was resolved and lies under a disk directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedDisk {
    /// Canonical path.
    pub path: String,
    /// Whether the guest may only read it.
    pub read_only: bool,
    /// Whether the path names a file or a block device.
    pub kind: DiskKind,
}

/// What backs a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskKind {
    /// A regular file with the raw contents of the disk.
    File,
    /// A block device.
    BlockDevice,
}

/// What the machine, and not the order, determines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFacts {
    /// The path of the socket on which QEMU serves its control protocol.
    pub qmp_socket: String,
    /// The path of the socket on which a supervisor awaits a control connection of its own. Then the guest
    /// does not run before the supervisor says so.
    pub monitor: Option<String>,
    /// Frequency of the processor's time stamp counter, in kHz, if it is known. Under TCG, a guest cannot
    /// measure it reliably.
    pub tsc_khz: Option<u64>,
}

/// The kernel's command line: first what the machine needs, then the user's words, which therefore win.
pub(crate) fn kernel_cmdline(order: &LaunchOrder, machine: &MachineFacts) -> String {
    let mut words = vec!["console=ttyS0 reboot=t panic=-1 quiet".to_owned()];
    // Without this word, the kernel measures the counter against a timer that TCG emulates. That fails on a
    // busy machine, and under ACPI there is no other clock to fall back to: the boot then hangs.
    if let (Accel::Tcg, Some(khz)) = (order.accel, machine.tsc_khz) {
        words.push(format!("tsc_early_khz={khz}"));
    }
    words.push(format!("blixard.name={}", order.vm.name));
    if !order.vm.cmdline.is_empty() {
        words.push(order.vm.cmdline.clone());
    }
    words.join(" ")
}

/// The whole argument list, with the program first. `order` must be valid, and `disks` must be its disks, in
/// their order.
pub fn argv(order: &LaunchOrder, disks: &[CheckedDisk], machine: &MachineFacts) -> Vec<String> {
    let Hypervisor::Qemu = order.vm.hypervisor;
    let vm = &order.vm;
    let (accel, cpu, timers) = match order.accel {
        Accel::Kvm => ("kvm".to_owned(), "host", "pit=off,pic=off"),
        // `split-wx`, because the unit may not map memory that is writable and executable. The old timer and
        // its interrupt controller are needed only by a guest that has to measure its counter.
        Accel::Tcg => (
            format!("tcg,split-wx=on,tb-size={TCG_CACHE_MIB}"),
            "max",
            if machine.tsc_khz.is_some() { "pit=off,pic=off" } else { "pit=on,pic=on" },
        ),
    };
    let mut argv = Argv(vec![order.qemu.clone()]);
    argv.pair("-name", format!("guest={},debug-threads=on", vm.name));
    argv.flags(&["-no-user-config", "-nodefaults", "-no-reboot"]);
    argv.pair("-display", "none");
    argv.pair("-machine", format!("microvm,acpi=on,{timers},rtc=on,x-option-roms=off"));
    argv.pair("-bios", "qboot.rom");
    argv.pair("-accel", accel);
    argv.pair("-cpu", cpu);
    argv.pair("-smp", format!("cpus={}", vm.cpus));
    argv.pair("-m", format!("size={}M", vm.memory_mib));
    argv.pair("-kernel", vm.kernel.clone());
    if let Some(initrd) = &vm.initrd {
        argv.pair("-initrd", initrd.clone());
    }
    argv.pair("-append", kernel_cmdline(order, machine));
    // The console goes to the unit's stdout. Nothing is ever read from stdin.
    argv.pair("-chardev", "stdio,id=console,mux=off,signal=off");
    argv.pair("-serial", "chardev:console");
    // The keyboard is there for one key combination: ctrl-alt-delete asks the guest to shut down.
    argv.pair("-device", "i8042");
    argv.pair("-qmp", format!("unix:{},server=on,wait=off", machine.qmp_socket));
    if let Some(path) = &machine.monitor {
        argv.pair("-chardev", format!("socket,id=monitor,path={path},server=off"));
        argv.pair("-mon", "chardev=monitor,mode=control");
        argv.flags(&["-S"]);
    }
    argv.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    for (i, disk) in disks.iter().enumerate() {
        argv.pair("-blockdev", blockdev(i, disk));
        argv.pair("-device", format!("virtio-blk-device,drive=disk{i}"));
    }
    argv.0
}

/// JSON, so that no path needs escaping. The format is given, so that a guest cannot choose it by what it
/// writes. Locking is on, so that a second hypervisor on the same machine cannot open what this one writes.
fn blockdev(i: usize, disk: &CheckedDisk) -> String {
    let driver = match disk.kind {
        DiskKind::File => "file",
        DiskKind::BlockDevice => "host_device",
    };
    serde_json::json!({
        "driver": "raw",
        "node-name": format!("disk{i}"),
        "read-only": disk.read_only,
        "discard": "unmap",
        "file": {
            "driver": driver,
            "filename": disk.path,
            "locking": "on",
            "read-only": disk.read_only,
            "discard": "unmap",
        },
    })
    .to_string()
}

struct Argv(Vec<String>);

impl Argv {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(|flag| (*flag).to_owned()));
    }

    fn pair(&mut self, option: &str, value: impl Into<String>) {
        self.0.extend([option.to_owned(), value.into()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_of(accel: Accel) -> LaunchOrder {
        let text = r#"{"name":"web","cpus":2,"memory_mib":256,"kernel":"/boot/vmlinuz",
            "initrd":"/boot/initrd","cmdline":"quiet blixard.test=1"}"#;
        LaunchOrder {
            vm: serde_json::from_str(text).expect("spec"),
            accel,
            qemu: "qemu-system-x86_64".into(),
            disk_dirs: vec!["/var/lib/blixard-disks".into()],
            shared_dirs: Vec::new(),
            generation: 7,
            revision: 0,
            lineage: 0,
            lease: None,
        }
    }

    fn machine(tsc_khz: Option<u64>) -> MachineFacts {
        MachineFacts { qmp_socket: "/run/blixard-vm/web/qmp.sock".into(), monitor: None, tsc_khz }
    }

    fn disk(path: &str, read_only: bool, kind: DiskKind) -> CheckedDisk {
        CheckedDisk { path: path.into(), read_only, kind }
    }

    #[test]
    fn the_whole_list_under_tcg() {
        let disks = [
            disk("/var/lib/blixard-disks/web.raw", false, DiskKind::File),
            disk("/var/lib/blixard-disks/a, \"b\"", true, DiskKind::BlockDevice),
        ];
        let argv = argv(&order_of(Accel::Tcg), &disks, &machine(Some(2_596_135)));
        let lines = argv.join("\n");
        let expected = r#"qemu-system-x86_64
-name
guest=web,debug-threads=on
-no-user-config
-nodefaults
-no-reboot
-display
none
-machine
microvm,acpi=on,pit=off,pic=off,rtc=on,x-option-roms=off
-bios
qboot.rom
-accel
tcg,split-wx=on,tb-size=64
-cpu
max
-smp
cpus=2
-m
size=256M
-kernel
/boot/vmlinuz
-initrd
/boot/initrd
-append
console=ttyS0 reboot=t panic=-1 quiet tsc_early_khz=2596135 blixard.name=web quiet blixard.test=1
-chardev
stdio,id=console,mux=off,signal=off
-serial
chardev:console
-device
i8042
-qmp
unix:/run/blixard-vm/web/qmp.sock,server=on,wait=off
-sandbox
on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-blockdev
FIRST
-device
virtio-blk-device,drive=disk0
-blockdev
SECOND
-device
virtio-blk-device,drive=disk1"#;
        let first = concat!(
            r#"{"discard":"unmap","driver":"raw","file":{"discard":"unmap","driver":"file","#,
            r#""filename":"/var/lib/blixard-disks/web.raw","locking":"on","read-only":false},"#,
            r#""node-name":"disk0","read-only":false}"#,
        );
        let second = concat!(
            r#"{"discard":"unmap","driver":"raw","file":{"discard":"unmap","driver":"host_device","#,
            r#""filename":"/var/lib/blixard-disks/a, \"b\"","locking":"on","read-only":true},"#,
            r#""node-name":"disk1","read-only":true}"#,
        );
        assert_eq!(lines, expected.replace("FIRST", first).replace("SECOND", second));
    }

    /// The options of an argument list. Flags stand alone; every other option is followed by a value.
    fn options(argv: &[String]) -> Vec<&str> {
        let flags = ["-no-user-config", "-nodefaults", "-no-reboot"];
        let mut words = argv.iter().skip(1);
        let mut options = Vec::new();
        while let Some(option) = words.next() {
            options.push(option.as_str());
            if !flags.contains(&option.as_str()) {
                words.next().expect("a value");
            }
        }
        options
    }

    /// The order with plain values in the place of the user's: the user's values must not change which
    /// options there are.
    fn plain(order: &LaunchOrder) -> LaunchOrder {
        let mut plain = order_of(order.accel);
        plain.vm.initrd = order.vm.initrd.as_ref().map(|_| "/i".to_owned());
        plain
    }

    #[test]
    fn fuzz_vm_orders() {
        let mut full = order_of(Accel::Kvm);
        let disk = |path: &str| blixard_model::vm::Disk { path: path.into(), read_only: true };
        full.vm.disks = vec![disk("/var/lib/blixard-disks/web.raw"), disk("/a \"b\" \\ $(id) %n -x")];
        let encode = |order: &LaunchOrder| serde_json::to_vec(order).expect("json");
        let target = blixard_hostile::Target::new("vm-orders")
            .valid(encode(&full))
            .valid(encode(&order_of(Accel::Tcg)));
        let words = [
            "\"disks\":[",
            "{\"path\":\"/x\"}",
            "\"initrd\":\"/i\",",
            "-kernel",
            ",",
            "\\n",
            "\\u0000",
            "/../",
            "%n",
            "$(id)",
        ];
        target.words(words).heap_max(8 << 20).run(|bytes| {
            let order: LaunchOrder = match serde_json::from_slice(bytes) {
                Ok(order) => order,
                Err(error) => return error.to_string(),
            };
            if let Err(error) = order.vm.validate() {
                return error.to_string();
            }
            let disks: Vec<CheckedDisk> =
                order.vm.disks.iter().map(|d| self::disk(&d.path, d.read_only, DiskKind::File)).collect();
            let made = argv(&order, &disks, &machine(None));
            assert_eq!(options(&made), options(&argv(&plain(&order), &disks, &machine(None))));
            assert!(made.iter().skip(1).all(|word| !word.chars().any(char::is_control)), "{made:?}");
            for (at, disk) in made
                .iter()
                .enumerate()
                .filter(|(_, word)| *word == "-blockdev")
                .map(|(n, _)| n + 1)
                .zip(&disks)
            {
                let node: serde_json::Value = serde_json::from_str(&made[at]).expect("JSON");
                assert_eq!(node["file"]["filename"], disk.path.as_str());
            }
            format!("{} disks", "x".repeat(disks.len()))
        });
    }

    fn value_of<'a>(argv: &'a [String], option: &str) -> &'a str {
        let at = argv.iter().position(|word| word == option).expect("option");
        &argv[at + 1]
    }

    #[test]
    fn under_kvm_the_processor_is_the_hosts_and_no_counter_frequency_is_given() {
        let argv = argv(&order_of(Accel::Kvm), &[], &machine(Some(2_000_000)));
        assert_eq!((value_of(&argv, "-accel"), value_of(&argv, "-cpu")), ("kvm", "host"));
        assert!(!value_of(&argv, "-append").contains("tsc_early_khz"));
    }

    #[test]
    fn tcg_without_a_known_counter_frequency_keeps_the_timer() {
        let argv = argv(&order_of(Accel::Tcg), &[], &machine(None));
        assert!(value_of(&argv, "-machine").contains("pit=on,pic=on"));
        assert!(!value_of(&argv, "-append").contains("tsc_early_khz"));
    }

    #[test]
    fn a_vm_without_initrd_and_cmdline_names_neither() {
        let mut order = order_of(Accel::Tcg);
        order.vm.initrd = None;
        order.vm.cmdline = String::new();
        let argv = argv(&order, &[], &machine(None));
        assert!(!argv.iter().any(|word| word == "-initrd"));
        assert!(value_of(&argv, "-append").ends_with("blixard.name=web"));
    }
}
