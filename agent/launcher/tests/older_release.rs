//! This release must be able to stop and adopt what an older release started. A `daemon-reload` gives a
//! running unit the new template's ExecStop=, while its QEMU keeps the arguments, and its unit the runtime
//! directory, that the older release gave it. `fixtures/VERSION` holds what that release wrote.

use std::fs;
use std::path::{Path, PathBuf};

use blixard_launcher::{CheckedDisk, DiskKind, MachineFacts, OrderDir, argv, qmp_socket};
use blixard_model::{Accel, VmName};

const TEMPLATE: &str = include_str!("../../dist/systemd/blixard-vm@.service");

fn fixtures() -> impl Iterator<Item = PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fs::read_dir(dir).expect("fixtures").map(|entry| entry.expect("an entry").path())
}

fn text(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).expect("a fixture")
}

/// The values of a setting in a unit file. A leading `-`, which only allows a failure, is left out.
fn values<'a>(unit: &'a str, setting: &str) -> Vec<&'a str> {
    let assigned = unit.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
    assigned.map(|value| value.trim_start_matches('-')).collect()
}

fn web() -> VmName {
    "web".parse().expect("name")
}

#[test]
fn an_older_order_is_read_with_its_meaning() {
    for fixture in fixtures() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::write(dir.path().join("web.json"), text(&fixture, "order.json")).expect("write");
        let order = OrderDir::new(dir.path()).read(&web()).expect("an order").expect("there");
        assert_eq!((order.vm.name.as_str(), order.vm.cpus, order.vm.memory_mib), ("web", 2, 256));
        assert_eq!(
            (order.vm.kernel.as_str(), order.vm.cmdline.as_str()),
            ("/boot/vmlinuz", "quiet blixard.test=1")
        );
        let disks: Vec<_> = order.vm.disks.iter().map(|disk| (disk.path.as_str(), disk.read_only)).collect();
        assert_eq!(
            disks,
            [("/var/lib/blixard-disks/web.raw", false), ("/var/lib/blixard-disks/data.raw", true)]
        );
        assert_eq!((order.accel, order.generation), (Accel::Tcg, 7));
        assert_eq!(order.disk_dirs, ["/var/lib/blixard-disks"]);
    }
}

#[test]
fn the_control_socket_of_an_older_hypervisor_is_where_vm_stop_looks() {
    let place = qmp_socket(&web());
    for fixture in fixtures() {
        let argv = text(&fixture, "argv.txt");
        let given = format!("unix:{},server=on,wait=off", place.display());
        assert!(argv.lines().any(|word| word == given), "{given}");
    }
}

#[test]
fn an_older_template_has_the_settings_that_a_running_unit_relies_on() {
    for fixture in fixtures() {
        let older = text(&fixture, "blixard-vm@.service");
        for setting in ["RuntimeDirectory", "SyslogIdentifier", "DynamicUser"] {
            assert_eq!(values(TEMPLATE, setting), values(&older, setting), "{setting}");
        }
        assert_eq!(values(&older, "RuntimeDirectory"), ["blixard-vm/%i"]);
        // Both templates make a credential of the same file, whatever the credential's name, because the
        // agent writes the order in one place only.
        let file = |unit: &str| {
            let credential = values(unit, "LoadCredential")[0];
            credential.split_once(':').expect("name and path").1.to_owned()
        };
        assert_eq!(file(TEMPLATE), file(&older));
        // A template that an older release installed and systemd still has loaded runs the new binary if that
        // replaced the old one in place.
        for (setting, command) in
            [("ExecStart", "vm-exec"), ("ExecStartPost", "vm-wait"), ("ExecStop", "vm-stop")]
        {
            assert_eq!(values(&older, setting), [format!("/usr/bin/blixard {command} %i")]);
        }
        // A running unit of that release is stopped as the new template says, and has no supervisor.
        assert_eq!(values(TEMPLATE, "ExecStop"), ["/usr/bin/blixard vm-stop %i"]);
    }
}

#[test]
fn an_older_order_still_gives_the_same_hypervisor() {
    for fixture in fixtures() {
        let order = serde_json::from_str::<blixard_model::order::LaunchOrder>(&text(&fixture, "order.json"));
        let order = order.expect("an order");
        let disks: Vec<CheckedDisk> = order
            .vm
            .disks
            .iter()
            .map(|disk| CheckedDisk {
                path: disk.path.clone(),
                read_only: disk.read_only,
                kind: DiskKind::File,
            })
            .collect();
        let machine = MachineFacts {
            qmp_socket: qmp_socket(&web()).display().to_string(),
            monitor: None,
            tsc_khz: Some(2_596_135),
        };
        let made = argv(&order, &disks, &machine).join("\n") + "\n";
        assert_eq!(made, text(&fixture, "argv.txt"));
    }
}
