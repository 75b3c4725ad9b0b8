//! The process of `blixard-last-resort.service`: looks at the machine for [`LastResort`] and does what that
//! says.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use blixard_model::VmName;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::clock;
use crate::exec::lease_need_in;
use crate::last_resort::{LastResort, LastResortEffect, LastResortLook, ProcessKey};
use crate::lease::LeaseDir;
use crate::say::say;

/// Pause between two looks while there is something to watch, in milliseconds.
const LOOK_MS: u64 = 250;
/// The same while there is not.
const IDLE_MS: u64 = 1_000;
/// Where the units of VMs have their control groups: with the unified hierarchy, and with the older ones.
const SLICES: [&str; 3] = [
    "/sys/fs/cgroup/system.slice/system-blixard\\x2dvm.slice",
    "/sys/fs/cgroup/unified/system.slice/system-blixard\\x2dvm.slice",
    "/sys/fs/cgroup/systemd/system.slice/system-blixard\\x2dvm.slice",
];
/// Where systemd keeps the orders of running units.
const CREDENTIALS: &str = "/run/credentials";
const PROC: &str = "/proc";

/// Why the machine could not be restarted.
#[derive(Debug, thiserror::Error)]
#[error("the machine could not be restarted")]
pub struct LastResortError(#[source] io::Error);

/// Watches until the machine has to be restarted, and restarts it.
///
/// # Errors
/// The kernel refused it.
pub fn last_resort(lease_dir: &LeaseDir) -> Result<(), LastResortError> {
    // What it needs must not have to be read from the disk that hangs.
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        say(&format!("its memory is not locked, so that a disk that hangs may stop it too: {error}"));
    }
    let places = VmUnitPlaces {
        slices: SLICES.map(PathBuf::from).into(),
        credentials: CREDENTIALS.into(),
        proc: PROC.into(),
    };
    let mut state = LastResort::default();
    loop {
        for effect in state.look(&places.look(lease_dir)) {
            match effect {
                LastResortEffect::Say(words) => say(&words),
                LastResortEffect::Kill(processes) => places.kill(&processes),
                LastResortEffect::Restart => {
                    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
                    return Err(LastResortError(error.into()));
                }
            }
        }
        thread::sleep(Duration::from_millis(if state.watches() { LOOK_MS } else { IDLE_MS }));
    }
}

/// Where the machine is looked at.
#[derive(Debug)]
struct VmUnitPlaces {
    slices: Vec<PathBuf>,
    credentials: PathBuf,
    proc: PathBuf,
}

impl VmUnitPlaces {
    fn look(&self, lease_dir: &LeaseDir) -> LastResortLook {
        let units: BTreeMap<VmName, PathBuf> = self.slices.iter().flat_map(|slice| units_in(slice)).collect();
        let mut processes = BTreeMap::new();
        for (vm, group) in &units {
            processes.extend(self.processes_of(group).into_iter().map(|key| (key, vm.clone())));
        }
        // After the processes: the order of a unit is there before its first process is.
        let need = |vm: &VmName| {
            lease_need_in(&self.credentials.join(format!("blixard-vm@{vm}.service")))
                .map(|need| (vm.clone(), need))
        };
        let needs = units.keys().filter_map(need).collect();
        let lease = lease_dir.read().ok().flatten();
        LastResortLook { now_ms: clock::now_ms(), awake_ms: awake_ms(), lease, processes, needs }
    }

    fn processes_of(&self, group: &Path) -> Vec<ProcessKey> {
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        let pids = text.lines().filter_map(|line| line.parse().ok());
        pids.filter_map(|pid| Some(ProcessKey { pid, started: self.started(pid)? })).collect()
    }

    /// When the process with this number was started.
    fn started(&self, pid: i32) -> Option<u64> {
        // The name before may hold blanks and parentheses.
        let stat = fs::read_to_string(self.proc.join(pid.to_string()).join("stat")).ok()?;
        stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
    }

    fn kill(&self, processes: &[ProcessKey]) {
        for key in processes.iter().filter(|key| key.pid > 1 && self.started(key.pid) == Some(key.started)) {
            // One that is gone meanwhile is what is wanted.
            let _ = kill(Pid::from_raw(key.pid), Signal::SIGKILL);
        }
    }
}

/// The units of VMs in this slice, with their control groups.
fn units_in(slice: &Path) -> BTreeMap<VmName, PathBuf> {
    let Ok(entries) = fs::read_dir(slice) else { return BTreeMap::new() };
    let unit = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let vm = name.to_str()?.strip_prefix("blixard-vm@")?.strip_suffix(".service")?.parse().ok()?;
        Some((vm, entry.path()))
    };
    entries.filter_map(Result::ok).filter_map(unit).collect()
}

/// Milliseconds of CLOCK_MONOTONIC.
fn awake_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        let part = |number: i64| u64::try_from(number).unwrap_or(0);
        part(now.tv_sec()).saturating_mul(1_000).saturating_add(part(now.tv_nsec()) / 1_000_000)
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_processes_of_units_are_found_with_what_their_orders_say() {
        let dir = tempfile::tempdir().expect("tempdir");
        let slice = dir.path().join("slice");
        let mut child = Command::new("sleep").arg("600").spawn().expect("sleep");
        for (unit, pids) in [
            ("blixard-vm@web.service", child.id().to_string()),
            ("blixard-vm@Not a name.service", "1".to_owned()),
            ("blixard.service", "1".to_owned()),
        ] {
            fs::create_dir_all(slice.join(unit)).expect("mkdir");
            fs::write(slice.join(unit).join("cgroup.procs"), format!("{pids}\n")).expect("write");
        }
        let credentials = dir.path().join("credentials");
        let own = credentials.join("blixard-vm@web.service");
        fs::create_dir_all(&own).expect("mkdir");
        let places =
            VmUnitPlaces { slices: vec![slice, dir.path().join("none")], credentials, proc: PROC.into() };
        let lease_dir = LeaseDir::new(dir.path().join("lease"));
        let look = places.look(&lease_dir);
        let vms: Vec<String> = look.processes.values().map(ToString::to_string).collect();
        assert_eq!(vms, ["web"]);
        assert!(look.needs.is_empty() && look.lease.is_none());
        let order = include_str!("../tests/fixtures/0.1.0/order.json");
        let leased = order.replacen('{', &format!("{{\"lease\":\"{}\",", "ab".repeat(16)), 1);
        fs::write(own.join("order"), leased).expect("write");
        let needs = places.look(&lease_dir).needs;
        assert_eq!(needs.values().map(|need| need.generation).collect::<Vec<_>>(), [7]);
        let key = *look.processes.keys().next().expect("one");
        // Not the process that was meant.
        places.kill(&[ProcessKey { started: key.started + 1, ..key }]);
        assert_eq!(child.try_wait().expect("asked"), None);
        places.kill(&[key]);
        assert!(!child.wait().expect("ended").success());
    }
}
