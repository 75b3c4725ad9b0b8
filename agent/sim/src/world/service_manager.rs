//! The service manager of a machine, as far as units with a supervisor go: their jobs, their watchdog and
//! their ends. It does what was seen of systemd 257: a stop takes the watchdog away until it is armed anew,
//! and so does the SIGTERM of that stop; the watchdog is late by up to 250 ms and does not count suspend.

use blixard_core::reconciler::Action;
use blixard_launcher::supervisor::{ProcessEnd, Supervisor, SupervisorInput};
use blixard_launcher::{LeaseNeed, StopStep};
use blixard_model::VmName;
use blixard_model::report::ObservedState;
use blixard_node::host::Input;

use super::World;
use super::parts::event::MachineId;
use super::parts::hypervisor::Unit;
use super::parts::supervised::{Freeze, SimGuest, Temper, UnitEvent, UnitNotice, UnitProcess};

/// `TimeoutStartSec=`, in µs.
const START_TIMEOUT_US: u64 = 60_000_000;
/// The watchdog is late by this much at most, in µs.
const WATCHDOG_LATE_US: u64 = 250_000;
/// How long the program of `ExecStop=` waits before it looks at the lease again, in µs.
const STOP_PAUSE_US: u64 = 1_000_000;

/// What of a unit is settled when it is started.
#[derive(Debug)]
pub(crate) struct UnitLaunch {
    pub(crate) need: Option<LeaseNeed>,
    pub(crate) fails: bool,
    /// The agent's run, which waits for the job.
    pub(crate) run: u64,
    pub(crate) wait_us: u64,
}

impl World {
    /// How long a supervisor goes on at most after a look at the file, in ms. All of that is shorter
    /// than it really is, as the time is after which nodes count on the end.
    pub(crate) fn endless_ms(&self) -> u64 {
        self.options.lease_terms.settle_ms - 2_000
    }

    /// `TimeoutStopSec=`: less than that, as it really is.
    fn stop_timeout_us(&self) -> u64 {
        self.endless_ms() * 600
    }

    /// A start job begins: the unit is new.
    pub(crate) fn launch(&mut self, id: MachineId, vm: &VmName, launch: UnitLaunch) {
        let number = self.new_id();
        let temper = Temper {
            fails: launch.fails,
            hears_no_keys: self.supervisors.chance(1, 12),
            hears_no_quit: self.supervisors.chance(1, 12),
        };
        let mut process = UnitProcess::new(number, launch.need, temper);
        process.jobs.push((launch.run, Action::Start(vm.clone())));
        process.timeout_us = Some(self.queue.now_us() + START_TIMEOUT_US);
        if let Some(unit) = self.machines[id].hypervisor.get_mut(vm) {
            unit.process = Some(Box::new(process));
        }
        self.freeze_soon(id, vm, 12);
        self.unit_after(id, vm, launch.wait_us, UnitEvent::Launched);
        self.unit_after(id, vm, START_TIMEOUT_US, UnitEvent::Timeout);
    }

    pub(crate) fn handle_unit(&mut self, id: MachineId, vm: &VmName, what: UnitEvent) {
        let now_us = self.queue.now_us();
        match what {
            UnitEvent::Launched => {
                let (endless_ms, now_ms) = (self.endless_ms(), self.machines[id].boot_ms(now_us));
                let Some(process) = self.process_of(id, vm).filter(|it| !it.terminated && !it.has_exited)
                else {
                    return self.unit_over(id, vm, None);
                };
                let endless_ms = process.need.is_some().then_some(endless_ms);
                process.supervisor = Some(Supervisor::new(Vec::new(), endless_ms, now_ms));
                self.supervisor_wakes(id, vm);
            }
            UnitEvent::Wake => {
                let Some(process) = self.process_of(id, vm) else { return };
                if process.planned_us.is_none_or(|planned| planned <= now_us) {
                    process.planned_us = None;
                    self.supervisor_wakes(id, vm);
                }
            }
            UnitEvent::Reaches(input) => self.reaches_supervisor(id, vm, input),
            UnitEvent::Thaw => self.thaw(id, vm, false),
            UnitEvent::Told(notice) => self.told(id, vm, notice),
            UnitEvent::Watchdog => self.watchdog_due(id, vm),
            UnitEvent::Timeout => self.timeout_due(id, vm),
            UnitEvent::StopProgram => self.run_stop_program(id, vm),
            UnitEvent::StopProgramEnds => self.terminate(id, vm),
            UnitEvent::HypervisorEnds(end) => self.hypervisor_gone(id, vm, end),
            UnitEvent::Gone(end) => self.hypervisor_gone(id, vm, end),
            UnitEvent::Exited(status, words) => self.unit_over(id, vm, Some(words).filter(|_| status != 0)),
        }
    }

    /// Something reaches the supervisor's process, or is noticed by the service manager if that is gone.
    pub(crate) fn reaches_supervisor(&mut self, id: MachineId, vm: &VmName, input: SupervisorInput) {
        let Some(process) = self.process_of(id, vm) else { return };
        if process.has_exited {
            if let (SupervisorInput::Ended(_), Some(why)) = (&input, process.killed_for) {
                self.unit_over(id, vm, Some(why.to_owned()));
            }
            return;
        }
        process.inbox.push(input);
        self.supervisor_wakes(id, vm);
    }

    /// The supervisor's process stands still from now on.
    pub(crate) fn freeze(&mut self, id: MachineId, vm: &VmName, freeze: Freeze) {
        let now_us = self.queue.now_us();
        let Some(unit) = self.machines[id].hypervisor.get_mut(vm) else { return };
        let state = unit.state;
        let Some(process) = unit.process.as_deref_mut().filter(|process| process.is_awake()) else { return };
        process.frozen = Some((now_us + freeze.lasts_us, freeze));
        match state {
            ObservedState::Starting => self.counts.frozen_starting += 1,
            ObservedState::Stopping => self.counts.frozen_stopping += 1,
            _ => self.counts.frozen_running += 1,
        }
        self.trace.line(now_us, || format!("n{} {vm}: the supervisor stands still: {freeze:?}", id + 1));
        self.unit_after(id, vm, freeze.lasts_us, UnitEvent::Thaw);
    }

    /// It goes on, at the end of its time or `now`.
    pub(crate) fn thaw(&mut self, id: MachineId, vm: &VmName, now: bool) {
        let now_us = self.queue.now_us();
        let Some(process) = self.process_of(id, vm) else { return };
        if process.frozen.is_none_or(|(until_us, _)| until_us > now_us && !now) {
            return;
        }
        process.frozen = None;
        self.supervisor_wakes(id, vm);
        self.answer_stop_program(id, vm);
    }

    fn told(&mut self, id: MachineId, vm: &VmName, notice: UnitNotice) {
        let now_us = self.queue.now_us();
        match notice {
            UnitNotice::Ready => self.unit_ready(id, vm),
            UnitNotice::Arm { us } => {
                self.set_watchdog(id, vm, us);
                self.unit_ready(id, vm);
                // A busy one confirms late, and sometimes too late.
                let wait = match self.supervisors.chance(1, 50) {
                    true => self.supervisors.below(7_000_000),
                    false => 400 + self.supervisors.below(43_000),
                };
                self.unit_after(id, vm, wait, UnitEvent::Reaches(SupervisorInput::Armed));
            }
            UnitNotice::Feed { us, stop_us } => {
                self.set_watchdog(id, vm, us);
                let (Some(stop_us), Some(process)) = (stop_us, self.process_of(id, vm)) else { return };
                process.timeout_us = process.timeout_us.map(|at_us| at_us.max(now_us + stop_us));
            }
        }
    }

    fn set_watchdog(&mut self, id: MachineId, vm: &VmName, us: u64) {
        let late = self.supervisors.below(WATCHDOG_LATE_US);
        let at_us = self.queue.now_us() + self.machines[id].true_us(us) + late;
        let Some(process) = self.process_of(id, vm).filter(|process| !process.has_exited) else { return };
        (process.watchdog_us, process.is_late) = (Some(at_us), false);
        let now_us = self.queue.now_us();
        self.trace.line(now_us, || format!("n{} {vm}: the watchdog goes off at {at_us} µs", id + 1));
        self.unit_at(id, vm, at_us, UnitEvent::Watchdog);
    }

    fn unit_ready(&mut self, id: MachineId, vm: &VmName) {
        let Some(unit) = self.machines[id].hypervisor.get_mut(vm).filter(|unit| unit.is_starting()) else {
            return;
        };
        unit.state = ObservedState::Running;
        if let Some(process) = &mut unit.process {
            process.timeout_us = None;
        }
        self.end_jobs(id, vm, |action| matches!(action, Action::Start(_)), None);
    }

    fn watchdog_due(&mut self, id: MachineId, vm: &VmName) {
        let now_us = self.queue.now_us();
        let Some(process) = self.process_of(id, vm) else { return };
        match process.watchdog_us {
            Some(at_us) if at_us <= now_us => {}
            Some(at_us) => return self.unit_at(id, vm, at_us, UnitEvent::Watchdog),
            None => return,
        }
        self.counts.watchdog_kills += 1;
        self.kill_unit(id, vm, "the watchdog went off");
    }

    fn timeout_due(&mut self, id: MachineId, vm: &VmName) {
        let now_us = self.queue.now_us();
        let Some(unit) = self.machines[id].hypervisor.get_mut(vm) else { return };
        let is_starting = unit.is_starting();
        let Some(process) = &mut unit.process else { return };
        match process.timeout_us {
            Some(at_us) if at_us <= now_us => {}
            Some(at_us) => return self.unit_at(id, vm, at_us, UnitEvent::Timeout),
            None => return,
        }
        if is_starting {
            self.begin_stop(id, vm);
        } else if process.terminated {
            self.counts.stop_timeouts += 1;
            self.kill_unit(id, vm, "the time to stop was over");
        } else {
            self.terminate(id, vm);
        }
    }

    /// SIGKILL to all of it.
    fn kill_unit(&mut self, id: MachineId, vm: &VmName, why: &'static str) {
        self.trace.line(self.queue.now_us(), || format!("n{} {vm}: killed: {why}", id + 1));
        let Some(process) = self.process_of(id, vm).filter(|process| !process.has_exited) else { return };
        (process.has_exited, process.killed_for) = (true, Some(why));
        (process.watchdog_us, process.timeout_us) = (None, None);
        if process.guest == SimGuest::None {
            self.unit_over(id, vm, Some(why.to_owned()));
        } else {
            self.kill_hypervisor(id, vm);
        }
    }

    /// A stop job for a unit with a supervisor. False: it has none, or is not there.
    pub(crate) fn stop_supervised(&mut self, id: MachineId, vm: &VmName, run: u64) -> bool {
        let Some(unit) = self.machines[id].hypervisor.get_mut(vm).filter(|unit| unit.lives()) else {
            return false;
        };
        let is_stopping = unit.state == ObservedState::Stopping;
        let Some(process) = &mut unit.process else { return false };
        process.jobs.push((run, Action::Stop(vm.clone())));
        if !is_stopping {
            self.begin_stop(id, vm);
        }
        true
    }

    fn begin_stop(&mut self, id: MachineId, vm: &VmName) {
        let timeout_us = self.queue.now_us() + self.stop_timeout_us();
        let Some(unit) = self.machines[id].hypervisor.get_mut(vm) else { return };
        let was_starting = unit.is_starting();
        unit.state = ObservedState::Stopping;
        let Some(process) = &mut unit.process else { return };
        (process.watchdog_us, process.timeout_us) = (None, Some(timeout_us));
        self.freeze_soon(id, vm, 6);
        self.end_jobs(id, vm, |action| matches!(action, Action::Start(_)), Some("canceled".to_owned()));
        if was_starting {
            return self.terminate(id, vm);
        }
        let wait = 1_000 + self.supervisors.below(20_000);
        self.unit_after(id, vm, wait, UnitEvent::StopProgram);
        self.unit_at(id, vm, timeout_us, UnitEvent::Timeout);
    }

    /// `vm-stop`: arms the watchdog anew, again and again until the unit is over, and asks the supervisor to
    /// stop once that answers.
    fn run_stop_program(&mut self, id: MachineId, vm: &VmName) {
        let (endless_ms, machine) = (self.endless_ms(), &mut self.machines[id]);
        let now_ms = machine.boot_ms(self.queue.now_us());
        let file = machine.lease.file.as_ref();
        let process = machine.hypervisor.get_mut(vm).and_then(|unit| unit.process.as_deref_mut());
        let Some(process) = process.filter(|it| !it.has_exited && !it.terminated) else { return };
        let step = process.need.as_ref().map(|need| {
            let permission = match file {
                Some(file) => need.allowed_by(file),
                None => need.permission(Ok(None)),
            };
            process.stop_watch.step(permission, now_ms, endless_ms)
        });
        let Some(StopStep::Tell { watchdog_us, stop_us }) = step else {
            return self.unit_after(id, vm, 1_000, UnitEvent::StopProgramEnds);
        };
        process.stop_watch.note_answer(false);
        process.stop_waits = true;
        self.told(id, vm, UnitNotice::Feed { us: watchdog_us, stop_us: Some(stop_us) });
        self.answer_stop_program(id, vm);
        self.unit_after(id, vm, STOP_PAUSE_US, UnitEvent::StopProgram);
    }

    /// The supervisor answers `vm-stop`, if that waits for it and it does not stand still.
    fn answer_stop_program(&mut self, id: MachineId, vm: &VmName) {
        let Some(process) = self.process_of(id, vm).filter(|it| it.stop_waits && it.is_awake()) else {
            return;
        };
        process.stop_waits = false;
        if process.stop_watch.note_answer(true) {
            self.unit_after(id, vm, 2_000, UnitEvent::Reaches(SupervisorInput::Stop));
        }
    }

    /// SIGTERM, and SIGCONT behind it.
    fn terminate(&mut self, id: MachineId, vm: &VmName) {
        let timeout_us = self.queue.now_us() + self.stop_timeout_us();
        let Some(process) = self.process_of(id, vm).filter(|it| !it.terminated && !it.has_exited) else {
            return;
        };
        (process.terminated, process.stop_waits) = (true, false);
        (process.watchdog_us, process.timeout_us) = (None, Some(timeout_us));
        let wakes = process.frozen.is_some_and(|(_, freeze)| !freeze.is_deep);
        let is_launched = process.supervisor.is_some();
        self.unit_at(id, vm, timeout_us, UnitEvent::Timeout);
        if wakes {
            self.thaw(id, vm, true);
        }
        if is_launched {
            self.reaches_supervisor(id, vm, SupervisorInput::Stop);
        }
    }

    /// Nothing is left of a unit.
    fn unit_over(&mut self, id: MachineId, vm: &VmName, failure: Option<String>) {
        let Some(unit) = self.machines[id].hypervisor.get_mut(vm).filter(|unit| unit.lives()) else { return };
        // Whatever ends the supervisor ends the hypervisor.
        if let Some(process) = &mut unit.process
            && process.guest != SimGuest::None
        {
            process.has_exited = true;
            process.killed_for.get_or_insert("the supervisor ended");
            return self.kill_hypervisor(id, vm);
        }
        let is_start = |action: &Action| matches!(action, Action::Start(_));
        let why = failure.clone().unwrap_or_else(|| "it ended".to_owned());
        self.end_jobs(id, vm, is_start, Some(why));
        self.end_jobs(id, vm, |_| true, None);
        self.machines[id].hypervisor.end(vm, failure);
        self.input(id, Input::UnitsChanged);
    }

    fn end_jobs(&mut self, id: MachineId, vm: &VmName, is: fn(&Action) -> bool, failure: Option<String>) {
        let Some(process) = self.process_of(id, vm) else { return };
        let (ended, left) = std::mem::take(&mut process.jobs).into_iter().partition(|(_, job)| is(job));
        process.jobs = left;
        let ended: Vec<(u64, Action)> = ended;
        for (run, action) in ended {
            if self.run_of(id) == Some(run) {
                self.input(id, Input::ActionDone { action, failure: failure.clone() });
            }
        }
    }

    /// A guest powers off by itself, or its hypervisor crashes.
    pub(crate) fn guest_ends(&mut self, id: MachineId, choose: usize, well: bool) -> bool {
        let mut names = self.machines[id].hypervisor.running();
        let machine = &self.machines[id];
        names.retain(|name| machine.hypervisor.units().get(name).is_some_and(Unit::guest_runs));
        let Some(name) = choose.checked_rem(names.len()).and_then(|at| names.get(at)).cloned() else {
            return false;
        };
        let end = match well {
            true => ProcessEnd { status: Some(0), signal: None, out_of_memory: None },
            false => ProcessEnd { status: None, signal: Some(11), out_of_memory: None },
        };
        self.hypervisor_gone(id, &name, end);
        true
    }
}
