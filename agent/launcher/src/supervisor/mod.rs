//! The supervisor of one VM, the main process of its unit: it starts the hypervisor, hears what it says as
//! long as it runs, tells systemd, stops it gracefully and says how it ended. The decisions are here, without
//! a clock, a process or a socket; [`vm_run`](crate::vm_run) carries them out.
//!
//! ```text
//!            control connection, greeting,          the guest runs: READY=1
//!            negotiated, then let run
//!   Starting ────────────────────────────▶ Starting ──────────────────────▶ Running
//!      │ never ran in time, or a stop                                          │ stop
//!      ▼                                                                       ▼
//!   Killing ◀──────── not over in time ──── Quitting ◀── grace is over ──── Asking
//!      │                                       │                               │
//!      └───────────────────────────────────────┴── the process ended, anywhere ┴──▶ End
//! ```
//!
//! While the guest runs, the hypervisor is asked for its state every few seconds, so that one that hangs is
//! noticed. A guest that stands still because its disk is full is let go on again and again.
//!
//! A VM that may be failed over needs a lease besides ([`crate::lease`]). Its guest is let run only while the
//! lease allows it and after systemd has confirmed that it watches; at the end of the lease the hypervisor is
//! killed, in whatever state it is, also while it is being stopped. Such a unit has started (READY=1) when
//! systemd is armed, a moment before its guest runs.

mod awaited;
mod end;
mod guest;
mod input;
mod lease;

use blixard_model::UnitStatus;

use crate::qemu::message::{GuestEvent, QmpCommand, QmpMessage};
use awaited::AwaitedAnswers;
use guest::GuestWatch;
use lease::{ARM_MS, LeaseAnswer, LeaseWatch};

pub use end::{MemoryShortage, ProcessEnd, VmEnd};
pub use input::{SupervisorEffect, SupervisorInput};
pub use lease::watchdog_us;

/// The guest has to run this long after the start, in milliseconds: less than the unit's `TimeoutStartSec=`,
/// so that the supervisor can tell the reason.
pub const START_MS: u64 = 45_000;
/// The hypervisor is asked for its state this often, in milliseconds ...
const QUERY_MS: u64 = 2_000;
/// ... and has this long for its answer. Together they are the time in which a hypervisor that hangs is
/// noticed.
const ANSWER_MS: u64 = 8_000;
/// The guest has this long for its shutdown, in milliseconds.
pub const GRACE_MS: u64 = 30_000;
/// The keys are pressed this often, in milliseconds: a guest that is still booting does not notice the first.
const KEYS_MS: u64 = 3_000;
/// The hypervisor has this long to end when it is told to, in milliseconds.
const QUIT_MS: u64 = 5_000;
/// The hypervisor closes its control connection a moment before its process ends, in milliseconds at most.
const LAST_MOMENT_MS: u64 = 2_000;
/// systemd is told of a change at most this often, in milliseconds.
const NOTIFY_MS: u64 = 200;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VmPhase {
    /// The guest has not run yet.
    Starting { until_ms: u64 },
    /// The guest has run.
    Running,
    /// The guest is asked to shut down, the next time at `again_ms`.
    Asking { again_ms: u64, until_ms: u64 },
    /// The hypervisor was told to end.
    Quitting { until_ms: u64 },
    /// Its process was killed.
    Killing,
    /// Its process has ended.
    Over,
}

/// The control connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Talk {
    /// There is none yet.
    None,
    /// The greeting is awaited, or the answer to the negotiation.
    Negotiating,
    /// Commands are understood.
    Open,
    /// It is of no use any more, since then.
    Lost { why: String, at_ms: u64 },
}

/// The supervisor of one VM.
#[derive(Debug)]
pub struct Supervisor {
    phase: VmPhase,
    talk: Talk,
    guest: GuestWatch,
    /// The lease, of a VM that needs one.
    lease: Option<LeaseWatch>,
    /// The hypervisor waits for `cont`.
    is_prelaunch: bool,
    /// It was told `cont`.
    is_let_run: bool,
    awaited: AwaitedAnswers,
    query_at_ms: u64,
    /// Why QEMU said that it shuts down.
    shutdown: Option<String>,
    /// The guest panicked.
    panicked: bool,
    /// Why it was killed.
    failed: Option<VmEnd>,
    /// systemd asked for the end.
    stop: bool,
    /// systemd was told that the unit has started.
    is_ready: bool,
    /// systemd was told that the guest runs.
    has_run: bool,
    /// What systemd was told last, and when.
    told: Option<(UnitStatus, u64)>,
    effects: Vec<SupervisorEffect>,
    now_ms: u64,
}

impl Supervisor {
    /// Begins to start a VM with these disks, by their paths. One that needs a lease runs on so long after a
    /// look at a file without an end. Times are milliseconds of CLOCK_BOOTTIME.
    pub fn new(disks: Vec<String>, endless_watchdog_ms: Option<u64>, now_ms: u64) -> Self {
        Self {
            phase: VmPhase::Starting { until_ms: now_ms.saturating_add(START_MS) },
            talk: Talk::None,
            guest: GuestWatch::new(disks),
            lease: endless_watchdog_ms.map(LeaseWatch::new),
            is_prelaunch: false,
            is_let_run: false,
            awaited: AwaitedAnswers::default(),
            query_at_ms: 0,
            shutdown: None,
            panicked: false,
            failed: None,
            stop: false,
            is_ready: false,
            has_run: false,
            told: None,
            effects: vec![SupervisorEffect::Spawn],
            now_ms,
        }
    }

    /// Something happened.
    pub fn handle(&mut self, now_ms: u64, input: SupervisorInput) {
        self.now_ms = self.now_ms.max(now_ms);
        if self.phase == VmPhase::Over {
            return;
        }
        match input {
            SupervisorInput::NotSpawned(why) => self.end(VmEnd::NotStarted(why)),
            SupervisorInput::Connected => self.talk = Talk::Negotiating,
            SupervisorInput::Said(message) => self.hear(message),
            SupervisorInput::ConnectionLost(why) => self.lose_connection(why),
            SupervisorInput::Ended(how) => self.process_ended(how),
            SupervisorInput::Stop => self.begin_stop(),
            SupervisorInput::Lease(new) => self.note_lease(|lease, now_ms| lease.note(now_ms, new)),
            SupervisorInput::Armed => self.note_lease(|lease, _| lease.note_armed()),
            SupervisorInput::NotArmed(why) => self.not_armed(&why),
            SupervisorInput::Wake => self.look_at_lease(),
        }
    }

    /// The end of the lease while the guest runs or may do so, in milliseconds of CLOCK_BOOTTIME: at each
    /// [`SupervisorInput::Wake`] from then on the newest permission must have been handed over before, and if
    /// that does not allow the guest to go on it is killed.
    pub fn lease_deadline_ms(&self) -> Option<u64> {
        let ends = matches!(self.phase, VmPhase::Killing | VmPhase::Over);
        self.lease.as_ref().and_then(LeaseWatch::deadline_ms).filter(|_| !ends)
    }

    /// What is to be done now, in this order.
    pub fn turn(&mut self) -> Vec<SupervisorEffect> {
        self.look_at_time();
        self.feed();
        self.tell();
        std::mem::take(&mut self.effects)
    }

    /// When it wants a [`SupervisorInput::Wake`], if nothing else happens.
    pub fn wake_at_ms(&self) -> u64 {
        let phase = match self.phase {
            VmPhase::Starting { until_ms } | VmPhase::Quitting { until_ms } => until_ms,
            VmPhase::Asking { again_ms, until_ms } => again_ms.min(until_ms),
            VmPhase::Running | VmPhase::Killing | VmPhase::Over => u64::MAX,
        };
        let asks = self.may_ask() && !self.awaited.awaits(QmpCommand::QueryStatus);
        let query = if asks { self.query_at_ms } else { u64::MAX };
        let answer = self.awaited.oldest_ms().map_or(u64::MAX, |since| since.saturating_add(ANSWER_MS));
        let answer = if answer > self.now_ms { answer } else { u64::MAX };
        let retry = self.retry_at_ms().unwrap_or(u64::MAX);
        let lost = match self.talk {
            Talk::Lost { at_ms, .. } if self.lost().is_none() => at_ms.saturating_add(LAST_MOMENT_MS),
            _ => u64::MAX,
        };
        let (status, settles) = self.status();
        let told = match &self.told {
            Some((told, at_ms)) if *told != status => at_ms.saturating_add(NOTIFY_MS),
            _ => u64::MAX,
        };
        let settles = settles.unwrap_or(u64::MAX);
        let lease = self.lease_wake_at_ms();
        [phase, query, answer, retry, lost, settles, told, lease].into_iter().min().unwrap_or(u64::MAX)
    }

    fn hear(&mut self, message: QmpMessage) {
        match message {
            QmpMessage::Greeting if self.talk == Talk::Negotiating && self.awaited.is_empty() => {
                self.send(QmpCommand::Capabilities);
            }
            QmpMessage::Greeting => self.lose_connection("it greeted twice".to_owned()),
            QmpMessage::Done { id, status } => match self.awaited.answered(id) {
                Some(QmpCommand::Capabilities) => {
                    self.talk = Talk::Open;
                    self.query();
                }
                Some(QmpCommand::QueryStatus) => self.note_status(status.as_deref()),
                Some(QmpCommand::Cont | QmpCommand::CtrlAltDelete | QmpCommand::Quit) | None => {}
            },
            QmpMessage::Refused { id, why } => {
                if let Some(command) = self.awaited.answered(id) {
                    self.refused(command, &why);
                }
            }
            QmpMessage::Event(event) if self.talk == Talk::Open => self.note_event(event),
            QmpMessage::Event(_) => self.lose_connection("it did not begin with its greeting".to_owned()),
        }
    }

    fn refused(&mut self, command: QmpCommand, why: &str) {
        let said = || format!("the hypervisor refused {}: {why}", command.name());
        match (command, self.phase) {
            (QmpCommand::Capabilities, _) => self.lose_connection(said()),
            (QmpCommand::Cont, VmPhase::Starting { .. }) => self.fail(VmEnd::NotStarted(said())),
            // It has no keyboard.
            (QmpCommand::CtrlAltDelete, VmPhase::Asking { .. }) => {
                self.say(format!("the guest could not be asked to shut down: {}", said()));
                self.quit();
            }
            _ => {}
        }
    }

    fn note_status(&mut self, status: Option<&str>) {
        let status = status.unwrap_or("nothing");
        if !matches!(self.phase, VmPhase::Starting { .. }) {
            return self.guest.note_status(self.now_ms, status);
        }
        match status {
            "running" => self.runs(),
            "prelaunch" => {
                self.is_prelaunch = true;
                self.let_run();
            }
            // QEMU is still setting up.
            "inmigrate" => {}
            other => {
                let why = format!("the hypervisor says {other:?} instead of running");
                self.fail(VmEnd::NotStarted(why));
            }
        }
    }

    fn note_event(&mut self, event: GuestEvent) {
        let starting = matches!(self.phase, VmPhase::Starting { .. });
        match event {
            GuestEvent::Resume if starting => self.runs(),
            GuestEvent::Resume => self.guest.note_runs(self.now_ms),
            GuestEvent::DiskError(error) if error.stops => {
                self.guest.note_disk_error(self.now_ms, Some(error));
            }
            // Why it stands still is asked for.
            GuestEvent::Stop => self.query(),
            GuestEvent::Panicked => self.panicked = true,
            GuestEvent::Shutdown(reason) => self.shutdown = Some(reason),
            GuestEvent::DiskError(_) | GuestEvent::Other => {}
        }
    }

    fn note_lease(&mut self, note: impl FnOnce(&mut LeaseWatch, u64)) {
        let Some(lease) = &mut self.lease else { return };
        note(lease, self.now_ms);
        if !self.is_let_run {
            self.let_run();
        }
    }

    /// Lets the guest run for the first time, once that is allowed.
    fn let_run(&mut self) {
        let starting = matches!(self.phase, VmPhase::Starting { .. });
        if !starting || !self.is_prelaunch || self.awaited.awaits(QmpCommand::Cont) {
            return;
        }
        match self.lease.as_mut().map_or(LeaseAnswer::Run, |lease| lease.ask_to_run(self.now_ms)) {
            LeaseAnswer::Wait => {}
            LeaseAnswer::Arm { until_ms } => {
                self.is_ready = true;
                self.effects.push(SupervisorEffect::Arm { until_ms });
            }
            LeaseAnswer::Run => {
                self.is_let_run = true;
                self.send(QmpCommand::Cont);
            }
        }
    }

    /// Lets a guest that stands still go on, unless its lease is over.
    fn let_go_on(&mut self) {
        if self.lease.as_ref().is_none_or(|lease| lease.allows(self.now_ms)) {
            self.send(QmpCommand::Cont);
        }
    }

    /// Ends the guest if its lease allows it no more.
    fn look_at_lease(&mut self) {
        if self.lease_deadline_ms().is_none_or(|until_ms| self.now_ms < until_ms) {
            return;
        }
        let why = self.lease.as_ref().map(LeaseWatch::why_not).unwrap_or_default();
        if self.stop {
            self.kill();
            self.say(format!("the VM's lease ended before it had stopped: {why}: killed it"));
        } else {
            self.fail(VmEnd::LeaseEnded(why));
        }
    }

    /// Until when systemd has to confirm that it watches, if the guest is to run then.
    fn armed_by_ms(&self) -> Option<u64> {
        let starting = matches!(self.phase, VmPhase::Starting { .. });
        self.lease.as_ref().and_then(LeaseWatch::armed_by_ms).filter(|_| starting && !self.is_let_run)
    }

    fn not_armed(&mut self, why: &str) {
        if self.armed_by_ms().is_some() {
            self.fail(VmEnd::NotStarted(format!("systemd's watchdog could not be armed: {why}")));
        }
    }

    /// When it wants to be woken for its lease.
    fn lease_wake_at_ms(&self) -> u64 {
        let feed = self.lease.as_ref().and_then(|lease| lease.feed_at_ms(self.stop));
        let wakes = [self.lease_deadline_ms(), self.armed_by_ms(), feed.filter(|_| self.may_feed())];
        wakes.into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// Whether systemd is still told of the lease: not once the hypervisor was killed, so that the unit ends
    /// in time whatever becomes of the process. A stop is to have its time all the same.
    fn may_feed(&self) -> bool {
        self.phase != VmPhase::Over && (self.stop || self.phase != VmPhase::Killing)
    }

    fn feed(&mut self) {
        let (now_ms, stopping, may) = (self.now_ms, self.stop, self.may_feed());
        let lease = self.lease.as_mut().filter(|_| may);
        if let Some(until_ms) = lease.and_then(|lease| lease.feed(now_ms, stopping)) {
            self.effects.push(SupervisorEffect::Feed { until_ms, stopping });
        }
    }

    fn runs(&mut self) {
        if self.lease.is_some() && !self.is_let_run {
            let why = "somebody let the guest run through its control socket before its lease allowed it";
            return self.fail(VmEnd::NotStarted(why.to_owned()));
        }
        self.phase = VmPhase::Running;
        self.guest.note_runs(self.now_ms);
        self.query_at_ms = self.now_ms.saturating_add(QUERY_MS);
    }

    /// The VM cannot come to run, or go on.
    fn fail(&mut self, end: VmEnd) {
        self.failed.get_or_insert(end);
        self.kill();
    }

    fn lose_connection(&mut self, why: String) {
        if !matches!(self.talk, Talk::Lost { .. }) {
            self.awaited.clear();
            self.talk = Talk::Lost { why, at_ms: self.now_ms };
        }
    }

    /// Why there is no control connection any more, once that is not merely the last moment of the process.
    fn lost(&self) -> Option<&str> {
        match &self.talk {
            Talk::Lost { why, at_ms } if self.now_ms.saturating_sub(*at_ms) >= LAST_MOMENT_MS => Some(why),
            _ => None,
        }
    }

    fn begin_stop(&mut self) {
        if std::mem::replace(&mut self.stop, true) {
            return;
        }
        match self.phase {
            // No guest has run: nothing is lost.
            VmPhase::Starting { .. } => self.kill(),
            VmPhase::Running => {
                let until_ms = self.now_ms.saturating_add(GRACE_MS);
                self.phase = VmPhase::Asking { again_ms: self.now_ms, until_ms };
                if !self.guest.may_listen() {
                    self.quit();
                } else if self.guest.is_paused() {
                    // It would not hear the keys (`findings/qemu-keys-while-stopped.sh`).
                    self.let_go_on();
                }
            }
            VmPhase::Asking { .. } | VmPhase::Quitting { .. } | VmPhase::Killing | VmPhase::Over => {}
        }
    }

    /// The hypervisor is to end, whatever the guest does.
    fn quit(&mut self) {
        self.phase = VmPhase::Quitting { until_ms: self.now_ms.saturating_add(QUIT_MS) };
        self.send(QmpCommand::Quit);
        self.effects.push(SupervisorEffect::Terminate);
    }

    fn kill(&mut self) {
        self.phase = VmPhase::Killing;
        self.effects.push(SupervisorEffect::Kill);
    }

    fn process_ended(&mut self, how: ProcessEnd) {
        if let Some(shortage) = how.out_of_memory.filter(|_| !self.stop && self.failed.is_none()) {
            return self.end(VmEnd::OutOfMemory(shortage));
        }
        let never_ran = matches!(self.phase, VmPhase::Starting { .. });
        let end = match self.failed.take() {
            _ if self.stop => VmEnd::Stopped,
            Some(end) => end,
            None if never_ran => VmEnd::NotStarted(format!("the hypervisor {how} before the guest ran")),
            None => VmEnd::by_itself(how, self.shutdown.as_deref(), self.panicked),
        };
        self.end(end);
    }

    fn end(&mut self, end: VmEnd) {
        self.phase = VmPhase::Over;
        self.awaited.clear();
        let status = UnitStatus::Ended(end.to_string());
        self.told = Some((status.clone(), self.now_ms));
        self.effects.push(SupervisorEffect::Notify { ready: false, status });
        self.effects.push(SupervisorEffect::End(end));
    }

    /// Does what is due by now.
    fn look_at_time(&mut self) {
        let now_ms = self.now_ms;
        match self.phase {
            VmPhase::Starting { until_ms } if now_ms >= until_ms => self.never_ran(),
            VmPhase::Starting { .. } if self.armed_by_ms().is_some_and(|until_ms| now_ms >= until_ms) => {
                self.not_armed(&format!("it has not confirmed within {} s", ARM_MS / 1_000));
            }
            VmPhase::Asking { until_ms, .. } if now_ms >= until_ms => {
                let grace = GRACE_MS / 1_000;
                self.say(format!(
                    "the guest did not shut down within {grace} s of ctrl-alt-delete: ended it"
                ));
                self.quit();
            }
            VmPhase::Starting { .. } | VmPhase::Asking { .. } if self.lost().is_some() => self.go_on_alone(),
            VmPhase::Asking { again_ms, until_ms } if now_ms >= again_ms => {
                self.phase = VmPhase::Asking { again_ms: now_ms.saturating_add(KEYS_MS), until_ms };
                if !self.awaited.awaits(QmpCommand::CtrlAltDelete) {
                    self.send(QmpCommand::CtrlAltDelete);
                }
            }
            VmPhase::Quitting { until_ms } if now_ms >= until_ms => {
                let limit = QUIT_MS / 1_000;
                self.say(format!("the hypervisor did not end within {limit} s of being told to: killed it"));
                self.kill();
            }
            _ => {}
        }
        if self.retry_at_ms().is_some_and(|at_ms| now_ms >= at_ms) {
            self.guest.note_retried(now_ms);
            self.let_go_on();
        }
        if self.may_ask() && now_ms >= self.query_at_ms {
            self.query();
        }
    }

    /// The time in which the guest has to run is over.
    fn never_ran(&mut self) {
        let limit = START_MS / 1_000;
        self.fail(match self.waits_for() {
            Some(why) => VmEnd::NoLease(format!("after {limit} s, {why}")),
            None => VmEnd::NotStarted(format!("the guest does not run after {limit} s")),
        });
    }

    /// Why the guest may not run, if only a lease is wanting.
    fn waits_for(&self) -> Option<String> {
        let lease = self.lease.as_ref().filter(|_| self.is_prelaunch && !self.is_let_run)?;
        (!lease.allows(self.now_ms)).then(|| lease.why_not())
    }

    /// The hypervisor cannot be told anything any more.
    fn go_on_alone(&mut self) {
        let why = self.lost().unwrap_or_default().to_owned();
        if let VmPhase::Starting { .. } = self.phase {
            let why = format!("the hypervisor's control connection was lost: {why}");
            self.fail(VmEnd::NotStarted(why));
        } else {
            self.say(format!("the guest could not be asked to shut down: {why}"));
            self.quit();
        }
    }

    /// When the guest is to be let go on.
    fn retry_at_ms(&self) -> Option<u64> {
        let alive = matches!(self.phase, VmPhase::Running | VmPhase::Asking { .. });
        let may = alive && self.talk == Talk::Open && !self.awaited.awaits(QmpCommand::Cont);
        self.guest.retry_at_ms().filter(|_| may)
    }

    /// Whether the hypervisor is asked for its state from time to time.
    fn may_ask(&self) -> bool {
        let alive =
            matches!(self.phase, VmPhase::Starting { .. } | VmPhase::Running | VmPhase::Asking { .. });
        alive && self.talk == Talk::Open
    }

    /// Asks the hypervisor for its state, unless it has been asked.
    fn query(&mut self) {
        if self.may_ask() && !self.awaited.awaits(QmpCommand::QueryStatus) {
            self.query_at_ms = self.now_ms.saturating_add(QUERY_MS);
            self.send(QmpCommand::QueryStatus);
        }
    }

    fn send(&mut self, command: QmpCommand) {
        if !matches!(self.talk, Talk::Negotiating | Talk::Open) {
            return;
        }
        let id = self.awaited.begin(command, self.now_ms);
        self.effects.push(SupervisorEffect::Send { command, id });
    }

    fn say(&mut self, text: String) {
        self.effects.push(SupervisorEffect::Say(text));
    }

    /// How the VM is, and until when that stays so by itself.
    fn status(&self) -> (UnitStatus, Option<u64>) {
        let silent =
            self.awaited.oldest_ms().is_some_and(|since| self.now_ms.saturating_sub(since) >= ANSWER_MS);
        match (self.phase, self.lost()) {
            (VmPhase::Starting { .. }, _) => match self.waits_for() {
                Some(why) => (UnitStatus::Waiting(format!("for a lease: {why}")), None),
                None => (UnitStatus::Starting, None),
            },
            (VmPhase::Running, Some(why)) => {
                (UnitStatus::NotAnswering(format!("its control connection was lost: {why}")), None)
            }
            (VmPhase::Running, None) if silent => {
                let seconds = ANSWER_MS / 1_000;
                let why = format!("the hypervisor has said nothing for more than {seconds} s");
                (UnitStatus::NotAnswering(why), None)
            }
            (VmPhase::Running, None) => self.guest.status(self.now_ms),
            (VmPhase::Asking { .. }, _) => {
                (UnitStatus::Stopping("the guest is asked to shut down".to_owned()), None)
            }
            (VmPhase::Quitting { .. } | VmPhase::Killing, _) => {
                (UnitStatus::Stopping("the hypervisor is told to end".to_owned()), None)
            }
            (VmPhase::Over, _) => match &self.told {
                Some((told, _)) => (told.clone(), None),
                None => (UnitStatus::Ended(String::new()), None),
            },
        }
    }

    /// Tells systemd what has changed, but not too often.
    fn tell(&mut self) {
        let (status, _) = self.status();
        let runs_first = !self.has_run && self.phase == VmPhase::Running;
        let due = match &self.told {
            None => true,
            Some((told, at_ms)) => *told != status && self.now_ms >= at_ms.saturating_add(NOTIFY_MS),
        };
        if runs_first || due {
            let ready = runs_first && !self.is_ready;
            self.has_run |= runs_first;
            self.is_ready |= ready;
            self.told = Some((status.clone(), self.now_ms));
            self.effects.push(SupervisorEffect::Notify { ready, status });
        }
    }
}

#[cfg(test)]
mod tests;
