//! A unit as its processes are: the supervisor, which is the production one, the hypervisor that it started,
//! and what the service manager knows of both.

use std::collections::VecDeque;

use blixard_core::reconciler::Action;
use blixard_launcher::supervisor::{ProcessEnd, Supervisor, SupervisorEffect, SupervisorInput};
use blixard_launcher::{LeaseNeed, StopWatch};

/// What happens to a unit's processes.
#[derive(Debug, Clone)]
pub(crate) enum UnitEvent {
    /// The supervisor's process begins.
    Launched,
    /// The time that it waits for has come.
    Wake,
    /// This reaches its sockets and signals.
    Reaches(SupervisorInput),
    /// It goes on after it stood still.
    Thaw,
    /// The service manager reads what it was told.
    Told(UnitNotice),
    /// The time of the watchdog may be over.
    Watchdog,
    /// The time of the job may be over.
    Timeout,
    /// The program of `ExecStop=` looks at the lease.
    StopProgram,
    /// That program ends, and SIGTERM follows.
    StopProgramEnds,
    /// The guest has shut down, or the hypervisor ends for another reason.
    HypervisorEnds(ProcessEnd),
    /// The hypervisor's process is gone.
    Gone(ProcessEnd),
    /// The supervisor's process has exited with this status and these last words.
    Exited(u8, String),
}

/// What a unit tells the service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnitNotice {
    /// The unit has started.
    Ready,
    /// READY=1 and WATCHDOG_USEC=, and a barrier.
    Arm { us: u64 },
    /// WATCHDOG_USEC=, while it is being stopped with EXTEND_TIMEOUT_USEC=.
    Feed { us: u64, stop_us: Option<u64> },
}

/// What the supervisor's process still has to do.
#[derive(Debug, Clone)]
pub(crate) enum ShellStep {
    /// What was decided.
    Effect(SupervisorEffect),
    /// What is to be told by a time that was looked at before.
    Tell(UnitNotice),
}

/// A supervisor that stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freeze {
    pub(crate) lasts_us: u64,
    /// Not even SIGCONT, which follows a SIGTERM, wakes it.
    pub(crate) is_deep: bool,
}

/// How far the hypervisor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SimGuest {
    /// There is no process.
    None,
    /// Its guest waits for `cont`.
    Prelaunch,
    /// Its guest runs.
    Runs,
}

/// What a hypervisor and its guest are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Temper {
    /// It ends before its guest runs.
    pub(crate) fails: bool,
    /// The guest does not shut down when it is asked to.
    pub(crate) hears_no_keys: bool,
    /// The hypervisor does not end when it is asked to.
    pub(crate) hears_no_quit: bool,
}

/// The processes of a unit. What happens to one of another number is void.
#[derive(Debug)]
pub(crate) struct UnitProcess {
    pub(crate) number: u64,
    /// None until its process begins.
    pub(crate) supervisor: Option<Supervisor>,
    /// What it needs a lease for, if it does.
    pub(crate) need: Option<LeaseNeed>,
    /// What was decided and is not done yet.
    pub(crate) todo: VecDeque<ShellStep>,
    /// What it was not handed yet.
    pub(crate) inbox: Vec<SupervisorInput>,
    /// When the file is looked at next, by its own clock.
    pub(crate) look_at_ms: u64,
    /// The directory in which changes are noticed.
    pub(crate) watches: Option<u64>,
    pub(crate) has_changed: bool,
    /// When it is woken next.
    pub(crate) planned_us: Option<u64>,
    /// Until when it stands still, and how.
    pub(crate) frozen: Option<(u64, Freeze)>,
    /// After so many more steps it is to stand still.
    pub(crate) freeze_in: Option<(u64, Freeze)>,
    /// It is gone.
    pub(crate) has_exited: bool,
    pub(crate) guest: SimGuest,
    pub(crate) temper: Temper,
    /// When the watchdog goes off; it is late by what the machine slept.
    pub(crate) watchdog_us: Option<u64>,
    /// The machine slept since the watchdog was told.
    pub(crate) is_late: bool,
    /// When the last word to the service manager arrives: they arrive in their order.
    pub(crate) told_us: u64,
    /// It stood still with a word on its lips that was true before: so many words until one is true again.
    pub(crate) stale_words: u8,
    /// When the time of the job is over.
    pub(crate) timeout_us: Option<u64>,
    /// What the program of `ExecStop=` goes by.
    pub(crate) stop_watch: StopWatch,
    /// That program waits for the supervisor's answer.
    pub(crate) stop_waits: bool,
    /// SIGTERM was sent.
    pub(crate) terminated: bool,
    /// Jobs that wait for it, each with the agent's run.
    pub(crate) jobs: Vec<(u64, Action)>,
    /// Why the service manager killed it.
    pub(crate) killed_for: Option<&'static str>,
}

impl UnitProcess {
    pub(crate) fn new(number: u64, need: Option<LeaseNeed>, temper: Temper) -> Self {
        Self {
            number,
            supervisor: None,
            need,
            todo: VecDeque::new(),
            inbox: Vec::new(),
            look_at_ms: 0,
            watches: None,
            has_changed: false,
            planned_us: None,
            frozen: None,
            freeze_in: None,
            has_exited: false,
            guest: SimGuest::None,
            temper,
            watchdog_us: None,
            is_late: false,
            told_us: 0,
            stale_words: 0,
            timeout_us: None,
            stop_watch: StopWatch::default(),
            stop_waits: false,
            terminated: false,
            jobs: Vec::new(),
            killed_for: None,
        }
    }

    /// Whether it can do anything.
    pub(crate) fn is_awake(&self) -> bool {
        self.supervisor.is_some() && self.frozen.is_none() && !self.has_exited
    }

    /// Comes to one of the points at which a process may stand still. Returns for how long it does.
    pub(crate) fn step(&mut self) -> Option<Freeze> {
        let (steps, freeze) = self.freeze_in.take()?;
        if steps > 0 {
            self.freeze_in = Some((steps - 1, freeze));
            return None;
        }
        Some(freeze).filter(|_| self.is_covered())
    }

    /// Whether the watchdog ends it in time if it stands still. One that is late by what the machine slept
    /// does not, nor one that was told for how long a moment after that was true.
    pub(crate) fn is_covered(&self) -> bool {
        !self.is_late && self.stale_words == 0
    }

    /// The machine slept for so many µs, which the service manager does not count.
    pub(crate) fn note_slept(&mut self, us: u64) {
        self.is_late |= self.watchdog_us.is_some();
        for at_us in [&mut self.watchdog_us, &mut self.timeout_us].into_iter().flatten() {
            *at_us += us;
        }
    }
}
