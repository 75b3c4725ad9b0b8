//! A VM's unit: its name, its limits, and what systemd says about it.

use std::fmt;

use blixard_launcher::supervisor::VmEnd;
use blixard_model::report::ObservedState;
use blixard_model::{EndCause, OrderId, UnitStatus, VmName, VmSpec};

/// A pattern, as systemd understands it, that matches the units of all VMs.
pub const UNIT_PATTERN: &str = "blixard-vm@*.service";

/// CPU time that the hypervisor's own threads may use beside the guest's cpus, in percent of one cpu.
pub const EMULATOR_CPU_PERCENT: u64 = 50;

/// Threads that the hypervisor may have beside one for each guest cpu. Its I/O pool has at most 64; the rest
/// is for the main loop, for the supervisor and the helper of ExecStop, and as a reserve.
pub const EMULATOR_TASKS: u64 = 128;

const PREFIX: &str = "blixard-vm@";
const FORGET_PREFIX: &str = "blixard-vm-forget@";
const SUFFIX: &str = ".service";
const MIB: u64 = 1 << 20;

/// The name of a VM's unit. The VM's name is the instance name: nothing in it needs escaping.
pub fn unit_name(name: &VmName) -> String {
    format!("{PREFIX}{name}{SUFFIX}")
}

/// The description of a unit that runs by this order. `systemctl status` shows it, and [`order_of`] reads it
/// back.
pub(crate) fn description(name: &VmName, order: OrderId) -> String {
    format!("Blixard VM {name}, {order}")
}

/// The order in a unit's description; `None` for the description of the template, which names no order.
pub(crate) fn order_of(description: &str) -> Option<OrderId> {
    let (_, numbers) = description.rsplit_once(", generation ")?;
    let (numbers, lineage) = match numbers.split_once(", lineage ") {
        Some((numbers, lineage)) => (numbers, u32::from_str_radix(lineage, 16).ok()?),
        None => (numbers, 0),
    };
    let (generation, revision) = match numbers.split_once(", revision ") {
        Some((generation, revision)) => (generation, revision.parse().ok()?),
        None => (numbers, 0),
    };
    Some(OrderId { generation: generation.parse().ok()?, revision, lineage })
}

/// The name of the helper unit that removes the limits of a deleted VM.
pub(crate) fn forget_unit_name(name: &VmName) -> String {
    format!("{FORGET_PREFIX}{name}{SUFFIX}")
}

/// Whether somebody may wait for a job of this unit: it is a VM's unit, or a helper unit.
pub(crate) fn is_awaited(unit: &str) -> bool {
    vm_name(unit).is_some() || unit.starts_with(FORGET_PREFIX)
}

/// The VM of a unit; `None` for any other unit, and for an instance that is not a VM name.
pub fn vm_name(unit: &str) -> Option<VmName> {
    unit.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// What one VM may use. The limits are set over D-Bus before every start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitLimits {
    /// `MemoryMax`, in bytes: guest memory plus the stated overhead, the same sum that a placement reserves.
    pub memory_max_bytes: u64,
    /// `CPUQuotaPerSecUSec`, in microseconds of cpu time per second: the guest's cpus plus
    /// [`EMULATOR_CPU_PERCENT`].
    pub cpu_usec_per_sec: u64,
    /// `TasksMax`: one thread per guest cpu plus [`EMULATOR_TASKS`].
    pub tasks_max: u64,
}

impl UnitLimits {
    /// The limits of a VM. The arithmetic saturates, but a valid spec never comes near that.
    pub fn of(vm: &VmSpec) -> Self {
        let cpu_percent = u64::from(vm.cpus) * 100 + EMULATOR_CPU_PERCENT;
        Self {
            memory_max_bytes: vm.reserved_memory_mib().saturating_mul(MIB),
            cpu_usec_per_sec: cpu_percent * 10_000,
            tasks_max: u64::from(vm.cpus) + EMULATOR_TASKS,
        }
    }
}

/// systemd's `ActiveState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActiveState {
    /// The unit was started: its hypervisor reported that the VM runs.
    Active,
    /// The unit is being started.
    Activating,
    /// The unit is being stopped.
    Deactivating,
    /// The unit ended, or was never started.
    Inactive,
    /// The unit failed. It stays listed until the next start or reset.
    Failed,
    /// Any other state (`reloading`, `maintenance`, `refreshing`), which does not happen to a VM's unit.
    Other,
}

impl ActiveState {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "active" => Self::Active,
            "activating" => Self::Activating,
            "deactivating" => Self::Deactivating,
            "inactive" => Self::Inactive,
            "failed" => Self::Failed,
            _ => Self::Other,
        }
    }
}

/// How a unit's last run ended. Displayed as a reason, for example `exited 1` or `killed by signal 9
/// (SIGKILL)`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitExit {
    /// systemd's `Result`: `success`, `exit-code`, `signal`, `timeout`, `watchdog`, `oom-kill`,
    /// `start-limit-hit`, ...
    pub result: String,
    /// `ExecMainCode`: 0 means that the process has not ended, 1 exited, 2 was killed, 3 was killed with a
    /// core dump.
    pub main_code: i32,
    /// `ExecMainStatus`: the exit status, or the number of the signal.
    pub main_status: i32,
    /// What the VM's supervisor said last. It tells more of the end than systemd knows, unless the supervisor
    /// was ended itself.
    pub status: Option<UnitStatus>,
}

impl UnitExit {
    /// Whether systemd's result is `success`, which it also is while the unit runs.
    pub fn is_success(&self) -> bool {
        self.result == "success"
    }

    /// How the run of the guest ended, in words for a decision; none where the guest never ran, and where the
    /// cluster itself ended it: at the end of its lease, by its supervisor or by systemd's watchdog.
    pub fn cause(&self) -> Option<EndCause> {
        match (self.result.as_str(), self.main_code) {
            ("oom-kill", _) => Some(EndCause::OutOfMemory),
            ("success" | "timeout" | "watchdog", _) => None,
            (_, CODE_EXITED) => VmEnd::cause_of(self.main_status),
            // Whatever ends the supervisor ends the hypervisor. It says last how far it was.
            (_, CODE_KILLED | CODE_DUMPED) => match &self.status {
                None | Some(UnitStatus::Running | UnitStatus::Paused(_) | UnitStatus::NotAnswering(_)) => {
                    Some(EndCause::HypervisorEnded)
                }
                Some(
                    UnitStatus::Starting
                    | UnitStatus::Waiting(_)
                    | UnitStatus::Stopping(_)
                    | UnitStatus::Ended(_),
                ) => None,
            },
            _ => None,
        }
    }
}

const CODE_EXITED: i32 = 1;
const CODE_KILLED: i32 = 2;
const CODE_DUMPED: i32 = 3;

impl fmt::Display for UnitExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (CODE_EXITED, Some(UnitStatus::Ended(why))) = (self.main_code, &self.status) {
            return f.write_str(why);
        }
        match self.result.as_str() {
            "timeout" => return f.write_str("timed out"),
            // The signal alone would look like an operator's.
            "watchdog" => return f.write_str("its supervisor stood still: systemd's watchdog ended it"),
            "oom-kill" => return f.write_str("ran out of memory (oom-kill)"),
            _ => {}
        }
        match (self.main_code, self.main_status) {
            // The end itself was not a failure, but it came before the VM was seen to run.
            (CODE_EXITED, 0) if !self.is_success() => f.write_str("exited 0 before it was seen running"),
            (CODE_EXITED, status) => match (VmEnd::words_of(status), exec_step(status)) {
                (Some(why), _) => write!(f, "exited {status}: {why}"),
                (None, Some(step)) => write!(f, "exited {status}: systemd could not {step}"),
                (None, None) => write!(f, "exited {status}"),
            },
            (CODE_KILLED | CODE_DUMPED, signal) => match nix::sys::signal::Signal::try_from(signal) {
                Ok(known) => write!(f, "killed by signal {signal} ({known})"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
            _ if self.is_success() => f.write_str("has not ended"),
            _ => write!(f, "did not run ({})", self.result),
        }
    }
}

/// What systemd was doing when it gave up before the program ran: the exit statuses from 200 on, of
/// systemd.exec(5), that can happen to a VM's unit.
fn exec_step(status: i32) -> Option<&'static str> {
    Some(match status {
        203 => "run /usr/bin/blixard (EXEC)",
        216 => "take on the unit's groups (GROUP): do blixard-disk and kvm exist?",
        217 => "make the dynamic user (USER)",
        218 => "drop capabilities (CAPABILITIES)",
        226 => "set up the mount namespace (NAMESPACE)",
        228 => "apply the system call filter (SECCOMP)",
        233 => "make the runtime directory (RUNTIME_DIRECTORY)",
        243 => "hand over the order (CREDENTIALS): does /run/blixard/vms/NAME.json exist?",
        _ => return None,
    })
}

/// A VM's unit, as systemd lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmUnit {
    /// The VM.
    pub name: VmName,
    /// The unit's `ActiveState`.
    pub active: ActiveState,
    /// systemd's `SubState`, for people: `running`, `start-post`, `stop`, ...
    pub sub: String,
    /// The order that the unit was last started with, if its description shows one.
    pub order: Option<OrderId>,
    /// The process id of the supervisor, while it runs; of the hypervisor where there is no supervisor.
    pub main_pid: Option<u32>,
    /// How the last run ended. Its result is `success` while the unit runs.
    pub exit: UnitExit,
    /// `InvocationID`, in hexadecimal: identifies this run in the journal.
    pub invocation: Option<String>,
    /// When the unit last changed its state, in microseconds since the epoch, by the machine's clock.
    pub changed_unix_us: Option<u64>,
    /// The type of the job that is queued or under way for the unit (`start`, `stop`, ...), if there is one.
    pub job: Option<String>,
    /// `systemctl freeze` holds every process of the unit, or is about to.
    pub is_frozen: bool,
}

/// Whether a unit stands still in this `FreezerState`: by itself, or because its slice does.
pub(crate) fn is_frozen(freezer_state: &str) -> bool {
    freezer_state.starts_with("frozen") || freezer_state.starts_with("freezing")
}

impl VmUnit {
    /// The unit's state as the product names it. A unit whose start is queued runs sooner or later by the
    /// order that it was given, so it counts as one that starts.
    pub fn observed(&self) -> ObservedState {
        match self.active {
            ActiveState::Inactive | ActiveState::Failed if self.is_to_start() => ObservedState::Starting,
            ActiveState::Active => ObservedState::Running,
            ActiveState::Activating => ObservedState::Starting,
            ActiveState::Deactivating => ObservedState::Stopping,
            ActiveState::Inactive => ObservedState::Stopped,
            ActiveState::Failed => ObservedState::Failed,
            ActiveState::Other => ObservedState::Unknown,
        }
    }

    /// What the supervisor says of its VM. One that is frozen together with it says nothing any more.
    pub fn status(&self) -> Option<UnitStatus> {
        if self.is_frozen && self.active == ActiveState::Active {
            let why = format!("frozen by `systemctl freeze`: `systemctl thaw {}`", unit_name(&self.name));
            return Some(UnitStatus::Paused(why));
        }
        self.exit.status.clone()
    }

    fn is_to_start(&self) -> bool {
        self.job.as_deref().is_some_and(|job| job != "stop")
    }
}

#[cfg(test)]
mod tests {
    use blixard_model::vm::OVERHEAD_MIB;

    use super::*;

    #[test]
    fn a_unit_whose_start_is_queued_counts_as_one_that_starts() {
        let observed = |active, job: Option<&str>| {
            let unit = VmUnit {
                name: "web".parse().expect("a name"),
                active,
                sub: String::new(),
                order: None,
                main_pid: None,
                exit: UnitExit::default(),
                invocation: None,
                changed_unix_us: None,
                job: job.map(str::to_owned),
                is_frozen: false,
            };
            unit.observed()
        };
        for active in [ActiveState::Inactive, ActiveState::Failed] {
            assert_eq!(observed(active, Some("start")), ObservedState::Starting);
            assert_eq!(observed(active, Some("restart")), ObservedState::Starting);
        }
        assert_eq!(observed(ActiveState::Inactive, Some("stop")), ObservedState::Stopped);
        assert_eq!(observed(ActiveState::Failed, None), ObservedState::Failed);
        assert_eq!(observed(ActiveState::Deactivating, Some("start")), ObservedState::Stopping);
    }

    #[test]
    fn a_unit_stands_still_until_it_is_thawed() {
        let states = ["freezing", "frozen", "freezing-by-parent", "frozen-by-parent"];
        assert!(states.into_iter().all(is_frozen));
        assert!(!is_frozen("running") && !is_frozen("thawing") && !is_frozen(""));
    }

    #[test]
    fn the_name_of_a_unit_gives_its_vm_and_the_reverse() {
        let name: VmName = "web-1".parse().expect("name");
        assert_eq!(unit_name(&name), "blixard-vm@web-1.service");
        assert_eq!(vm_name("blixard-vm@web-1.service"), Some(name));
        let others = ["dbus.service", "blixard-vm@.service", "blixard-vm@Web.service", "blixard-vm@a.mount"];
        assert_eq!(vm_name(&forget_unit_name(&"web-1".parse().expect("name"))), None);
        for other in
            others.iter().chain(&["blixard-vm@..service", "xblixard-vm@a.service", "blixard-vm@a\n.service"])
        {
            assert_eq!(vm_name(other), None, "{other:?}");
        }
    }

    #[test]
    fn an_order_is_described_and_read_back() {
        let name: VmName = "generation-7".parse().expect("name");
        for (generation, revision, lineage) in
            [(0, 0, 0), (7, 0, 0), (7, 12, 0), (7, 0, 9), (u64::MAX, u64::MAX, u32::MAX)]
        {
            let order = OrderId { generation, revision, lineage };
            assert_eq!(order_of(&description(&name, order)), Some(order));
        }
        // The description as a release without revisions wrote it.
        let order = OrderId::new(7, 0);
        assert_eq!(order_of("Blixard VM web, generation 7"), Some(order));
        let template = include_str!("../../dist/systemd/blixard-vm@.service");
        let own = template.lines().find_map(|line| line.strip_prefix("Description=")).expect("a description");
        for text in [
            own,
            "Blixard VM generation-7",
            ", generation ",
            ", generation -1",
            ", generation 7, revision x",
            ", generation 7, lineage xyz",
            "",
        ] {
            assert_eq!(order_of(text), None, "{text:?}");
        }
    }

    #[test]
    fn fuzz_unit_names() {
        let target =
            blixard_hostile::Target::new("unit-names").valid("blixard-vm@web-1.service").len_max(4096);
        let target = blixard_hostile::strings::names()
            .into_iter()
            .filter(|name| name.len() < 200)
            .fold(target, |target, name| target.valid(format!("blixard-vm@{name}.service")));
        target.words([PREFIX, SUFFIX, "@", "%i", "\\x2d", "/", "web"]).heap_max(64 << 10).run(|bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return "no text".to_owned() };
            match vm_name(text) {
                // A unit belongs to one VM and a VM to one unit: no other name leads to it.
                Some(name) => {
                    assert_eq!(unit_name(&name), text);
                    format!("a VM of {} letters", "x".repeat(name.as_str().len()))
                }
                None => "no VM".to_owned(),
            }
        });
    }

    #[test]
    fn limits_are_the_reservation_and_room_for_the_emulator() {
        let text = r#"{"name":"a","cpus":2,"memory_mib":256,"kernel":"/k"}"#;
        let vm: VmSpec = serde_json::from_str(text).expect("spec");
        let limits = UnitLimits::of(&vm);
        assert_eq!(limits.memory_max_bytes, (256 + OVERHEAD_MIB) * 1024 * 1024);
        assert_eq!(limits.cpu_usec_per_sec, 2_500_000);
        assert_eq!(limits.tasks_max, 130);
    }

    #[test]
    fn an_exit_is_displayed_as_a_reason() {
        let cases = [
            ("exit-code", 1, 1, "exited 1"),
            ("exit-code", 1, 243, "exited 243: systemd could not hand over the order (CREDENTIALS)"),
            ("signal", 2, 9, "killed by signal 9 (SIGKILL)"),
            ("core-dump", 3, 6, "killed by signal 6 (SIGABRT)"),
            ("timeout", 1, 0, "timed out"),
            ("watchdog", 2, 9, "its supervisor stood still: systemd's watchdog ended it"),
            ("oom-kill", 2, 9, "ran out of memory (oom-kill)"),
            ("exit-code", 1, 0, "exited 0 before it was seen running"),
            ("resources", 0, 0, "did not run (resources)"),
        ];
        for (result, main_code, main_status, text) in cases {
            let exit = UnitExit { result: result.into(), main_code, main_status, status: None };
            assert!(exit.to_string().starts_with(text), "{exit}");
            assert!(!exit.is_success());
        }
    }

    #[test]
    fn the_end_of_a_guest_that_ran_has_its_cause_and_no_other_end_has_one() {
        use EndCause::{GuestShutDown, HypervisorEnded, OutOfMemory};
        let exit = |result: &str, main_code, main_status, status: Option<UnitStatus>| UnitExit {
            result: result.to_owned(),
            main_code,
            main_status,
            status,
        };
        let running = || Some(UnitStatus::Running);
        let cases = [
            (exit("exit-code", 1, 10, Some(UnitStatus::Ended("so".into()))), Some(GuestShutDown)),
            (exit("exit-code", 1, 15, running()), None),
            (exit("exit-code", 1, 17, running()), None),
            (exit("exit-code", 1, 243, None), None),
            (exit("oom-kill", 2, 9, running()), Some(OutOfMemory)),
            (exit("signal", 2, 9, running()), Some(HypervisorEnded)),
            (exit("signal", 2, 9, Some(UnitStatus::Starting)), None),
            (exit("core-dump", 3, 6, None), Some(HypervisorEnded)),
            (exit("watchdog", 2, 9, running()), None),
            (exit("timeout", 2, 9, running()), None),
            (exit("success", 1, 0, None), None),
        ];
        for (exit, cause) in cases {
            assert_eq!(exit.cause(), cause, "{exit:?}");
        }
    }

    #[test]
    fn the_supervisor_tells_the_reason_of_an_end_that_it_saw() {
        let ended = UnitStatus::Ended("the guest shut itself down".into());
        let exit = |main_code, status: &UnitStatus| UnitExit {
            result: "exit-code".into(),
            main_code,
            main_status: 10,
            status: Some(status.clone()),
        };
        assert_eq!(exit(1, &ended).to_string(), "the guest shut itself down");
        let lost = exit(1, &UnitStatus::Running);
        assert_eq!(lost.to_string(), "exited 10: the guest shut itself down");
        assert_eq!(exit(2, &ended).to_string(), "killed by signal 10 (SIGUSR1)");
    }
}
