//! Every way through the drawing, and what a hypervisor may say that it should not.

mod lease;

use super::*;
use crate::qemu::message::GuestDiskError;

/// A supervisor, and a hypervisor that does what a test says.
struct Bench {
    supervisor: Supervisor,
    now_ms: u64,
    /// What was done that no test has looked at yet.
    done: Vec<SupervisorEffect>,
    /// The commands that are not answered, in their order.
    asked: Vec<(QmpCommand, u64)>,
}

impl Bench {
    fn new() -> Self {
        let disks = vec!["/srv/a.raw".to_owned(), "/srv/b.raw".to_owned()];
        let mut bench = Self {
            supervisor: Supervisor::new(disks, None, 1_000),
            now_ms: 1_000,
            done: Vec::new(),
            asked: Vec::new(),
        };
        bench.turn();
        bench
    }

    /// One whose guest runs, with nothing unanswered.
    fn running() -> Self {
        let mut bench = Self::new();
        bench.happens(SupervisorInput::Connected);
        bench.says(QmpMessage::Greeting);
        bench.answers(None);
        bench.answers(Some("prelaunch"));
        bench.event(GuestEvent::Resume);
        bench.answers(None);
        assert_eq!(bench.asked, []);
        assert_eq!(bench.told().last(), Some(&(true, UnitStatus::Running)));
        bench.done.clear();
        bench
    }

    fn turn(&mut self) {
        for effect in self.supervisor.turn() {
            if let SupervisorEffect::Send { command, id } = &effect {
                self.asked.push((*command, *id));
            }
            self.done.push(effect);
        }
    }

    fn happens(&mut self, input: SupervisorInput) {
        self.supervisor.handle(self.now_ms, input);
        self.turn();
    }

    fn says(&mut self, message: QmpMessage) {
        self.happens(SupervisorInput::Said(message));
    }

    fn event(&mut self, event: GuestEvent) {
        self.says(QmpMessage::Event(event));
    }

    /// Answers the oldest command.
    fn answers(&mut self, status: Option<&str>) {
        let (_, id) = self.asked.remove(0);
        self.says(QmpMessage::Done { id: Some(id), status: status.map(str::to_owned) });
    }

    fn refuses(&mut self) {
        let (_, id) = self.asked.remove(0);
        self.says(QmpMessage::Refused { id: Some(id), why: "not now".to_owned() });
    }

    /// Lets time pass, and wakes the supervisor whenever it wants to be. `status` answers each query, if it
    /// is to be answered.
    fn passes(&mut self, ms: u64, status: Option<&str>) {
        let end_ms = self.now_ms + ms;
        loop {
            let at_ms = self.supervisor.wake_at_ms();
            if at_ms > end_ms {
                break;
            }
            self.now_ms = self.now_ms.max(at_ms);
            self.happens(SupervisorInput::Wake);
            while let (Some(status), Some((QmpCommand::QueryStatus, _))) = (status, self.asked.first()) {
                self.answers(Some(status));
            }
        }
        self.now_ms = end_ms;
        self.happens(SupervisorInput::Wake);
    }

    /// Lets time pass until the guest is let go on.
    fn until_let_go_on(&mut self) {
        let before = self.sent(QmpCommand::Cont);
        while self.sent(QmpCommand::Cont) == before {
            self.passes(100, Some("io-error"));
        }
    }

    fn told(&self) -> Vec<(bool, UnitStatus)> {
        let told = self.done.iter().filter_map(|effect| match effect {
            SupervisorEffect::Notify { ready, status } => Some((*ready, status.clone())),
            _ => None,
        });
        told.collect()
    }

    fn last_told(&self) -> String {
        self.told().last().map(|(_, status)| status.to_string()).unwrap_or_default()
    }

    fn sent(&self, command: QmpCommand) -> usize {
        let sent = |effect: &&SupervisorEffect| match effect {
            SupervisorEffect::Send { command: sent, .. } => *sent == command,
            _ => false,
        };
        self.done.iter().filter(sent).count()
    }

    fn has_done(&self, effect: &SupervisorEffect) -> bool {
        self.done.contains(effect)
    }

    /// The hypervisor's process ends; how the VM ended.
    fn ends(&mut self, status: i32) -> VmEnd {
        self.ends_by(ProcessEnd { status: Some(status), signal: None, out_of_memory: None })
    }

    fn ends_by(&mut self, how: ProcessEnd) -> VmEnd {
        self.happens(SupervisorInput::Ended(how));
        match self.done.last() {
            Some(SupervisorEffect::End(end)) => {
                assert_eq!(self.last_told(), format!("ended: {end}"));
                end.clone()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn no_space(node: &str) -> GuestEvent {
    let why = "No space left on device".to_owned();
    GuestEvent::DiskError(GuestDiskError { node: node.to_owned(), why, stops: true })
}

fn killed() -> ProcessEnd {
    ProcessEnd { status: None, signal: Some(9), out_of_memory: None }
}

#[test]
fn the_guest_runs_only_when_it_is_let_and_systemd_hears_of_it_then() {
    let mut bench = Bench::new();
    assert_eq!(bench.done.remove(0), SupervisorEffect::Spawn);
    assert_eq!(bench.told(), [(false, UnitStatus::Starting)]);
    bench.happens(SupervisorInput::Connected);
    assert_eq!(bench.asked, [], "the greeting comes first");
    bench.says(QmpMessage::Greeting);
    assert_eq!(bench.sent(QmpCommand::Capabilities), 1);
    bench.answers(None);
    assert_eq!((bench.sent(QmpCommand::QueryStatus), bench.sent(QmpCommand::Cont)), (1, 0));
    bench.answers(Some("prelaunch"));
    assert_eq!(bench.sent(QmpCommand::Cont), 1);
    assert!(bench.told().iter().all(|(ready, _)| !ready), "{:?}", bench.told());
    bench.event(GuestEvent::Resume);
    assert_eq!(bench.told().last(), Some(&(true, UnitStatus::Running)));
    bench.answers(None);
    bench.passes(60_000, Some("running"));
    assert_eq!(bench.told().len(), 2, "nothing has changed");
    assert!(bench.sent(QmpCommand::QueryStatus) > 20);
}

#[test]
fn a_guest_that_never_runs_is_ended_with_the_reason() {
    // Each step of the start may be the one that never comes.
    for steps in 0..4 {
        let mut bench = Bench::new();
        if steps > 0 {
            bench.happens(SupervisorInput::Connected);
        }
        if steps > 1 {
            bench.says(QmpMessage::Greeting);
        }
        if steps > 2 {
            bench.answers(None);
            bench.answers(Some("prelaunch"));
        }
        bench.passes(START_MS - 1, None);
        assert!(!bench.has_done(&SupervisorEffect::Kill), "after {steps} steps");
        bench.passes(1, None);
        assert!(bench.has_done(&SupervisorEffect::Kill), "after {steps} steps");
        let end = bench.ends_by(killed());
        assert_eq!(end, VmEnd::NotStarted("the guest does not run after 45 s".to_owned()));
    }
}

#[test]
fn a_hypervisor_that_ends_before_the_guest_runs_says_how() {
    let mut bench = Bench::new();
    let end = bench.ends(1);
    assert_eq!(end.to_string(), "the hypervisor exited 1 before the guest ran");
    assert_eq!(end.exit_status(), 15);
    let mut bench = Bench::new();
    bench.happens(SupervisorInput::NotSpawned("no memory".to_owned()));
    assert_eq!(bench.done.last(), Some(&SupervisorEffect::End(VmEnd::NotStarted("no memory".to_owned()))));
}

#[test]
fn a_hypervisor_that_lets_no_guest_run_is_killed() {
    for status in ["internal-error", "shutdown", "x"] {
        let mut bench = Bench::new();
        bench.happens(SupervisorInput::Connected);
        bench.says(QmpMessage::Greeting);
        bench.answers(None);
        bench.answers(Some(status));
        assert!(bench.has_done(&SupervisorEffect::Kill));
        assert!(bench.ends_by(killed()).to_string().contains(status));
    }
    let mut bench = Bench::new();
    bench.happens(SupervisorInput::Connected);
    bench.says(QmpMessage::Greeting);
    bench.answers(None);
    bench.answers(Some("prelaunch"));
    bench.refuses();
    assert!(bench.has_done(&SupervisorEffect::Kill));
    assert_eq!(bench.ends_by(killed()).to_string(), "the hypervisor refused cont: not now");
}

#[test]
fn a_full_disk_is_named_and_the_guest_goes_on_once_there_is_space() {
    let mut bench = Bench::running();
    bench.now_ms += 60_000;
    bench.happens(SupervisorInput::Wake);
    bench.answers(Some("running"));
    bench.event(no_space("disk1"));
    bench.event(GuestEvent::Stop);
    bench.answers(Some("io-error"));
    assert_eq!(bench.last_told(), "paused: disk1 /srv/b.raw: No space left on device");
    // There is no space yet: it stands still again at the next write, and that is not told anew.
    let told = bench.told().len();
    for _ in 0..5 {
        bench.until_let_go_on();
        bench.event(GuestEvent::Resume);
        bench.answers(None);
        bench.now_ms += 20;
        bench.event(no_space("disk1"));
        bench.event(GuestEvent::Stop);
        bench.answers(Some("io-error"));
    }
    assert_eq!(bench.told().len(), told);
    // Now there is.
    bench.until_let_go_on();
    bench.event(GuestEvent::Resume);
    bench.answers(None);
    bench.passes(500, Some("running"));
    assert_eq!(bench.told().len(), told, "it has to run for a moment first");
    bench.passes(1_000, Some("running"));
    assert_eq!(bench.last_told(), "running");
}

#[test]
fn the_pauses_before_a_guest_is_let_go_on_grow_up_to_ten_seconds() {
    let mut bench = Bench::running();
    let mut pauses = Vec::new();
    for _ in 0..6 {
        bench.event(no_space("disk0"));
        let begun = bench.now_ms;
        bench.until_let_go_on();
        pauses.push((bench.now_ms - begun).div_ceil(1_000));
        bench.event(GuestEvent::Resume);
        bench.answers(None);
        bench.done.clear();
    }
    assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
}

#[test]
fn an_error_that_the_guest_is_told_of_does_not_stop_it() {
    let mut bench = Bench::running();
    let error = GuestDiskError { node: "disk0".to_owned(), why: "I/O error".to_owned(), stops: false };
    bench.event(GuestEvent::DiskError(error));
    bench.passes(5_000, Some("running"));
    assert_eq!(bench.told(), []);
}

#[test]
fn what_stands_still_for_another_reason_is_told_and_not_let_go_on() {
    for (status, words) in [
        ("paused", "paused: somebody paused it through its control socket"),
        ("internal-error", "paused: internal error of the hypervisor"),
        ("guest-panicked", "paused: the guest panicked"),
        ("suspended", "paused: the hypervisor says \"suspended\""),
    ] {
        let mut bench = Bench::running();
        bench.event(GuestEvent::Stop);
        bench.answers(Some(status));
        bench.passes(30_000, Some(status));
        assert_eq!(bench.last_told(), words);
        assert_eq!(bench.sent(QmpCommand::Cont), 0);
        bench.event(GuestEvent::Resume);
        bench.passes(200, Some("running"));
        assert_eq!(bench.last_told(), "running");
    }
}

#[test]
fn a_hypervisor_that_says_nothing_is_noticed_within_ten_seconds_and_so_is_its_return() {
    let mut bench = Bench::running();
    bench.passes(9_900, None);
    assert_eq!(bench.told(), []);
    bench.passes(100, None);
    assert_eq!(bench.last_told(), "not answering: the hypervisor has said nothing for more than 8 s");
    bench.passes(3_600_000, None);
    assert_eq!((bench.told().len(), bench.asked.len()), (1, 1), "nothing piles up");
    bench.answers(Some("running"));
    bench.passes(200, Some("running"));
    assert_eq!(bench.last_told(), "running");
}

#[test]
fn a_guest_that_shuts_down_when_asked_ends_well() {
    let mut bench = Bench::running();
    bench.happens(SupervisorInput::Stop);
    assert_eq!(bench.sent(QmpCommand::CtrlAltDelete), 1);
    bench.answers(None);
    // It was still booting, and hears only the third time.
    bench.passes(7_000, Some("running"));
    assert_eq!(bench.sent(QmpCommand::CtrlAltDelete), 2, "one is not answered");
    bench.answers(None);
    bench.passes(3_000, Some("running"));
    assert_eq!(bench.sent(QmpCommand::CtrlAltDelete), 3);
    assert!(bench.last_told().starts_with("stopping: "));
    bench.event(GuestEvent::Shutdown("guest-reset".to_owned()));
    bench.happens(SupervisorInput::ConnectionLost("the hypervisor closed it".to_owned()));
    bench.now_ms += 100;
    assert_eq!(bench.ends(0), VmEnd::Stopped);
    assert_eq!(VmEnd::Stopped.exit_status(), 0);
    assert!(!bench.done.iter().any(|effect| matches!(effect, SupervisorEffect::Say(_))), "{:?}", bench.done);
}

#[test]
fn a_guest_that_does_not_hear_is_ended_and_a_hypervisor_that_does_not_is_killed() {
    let mut bench = Bench::running();
    bench.happens(SupervisorInput::Stop);
    bench.happens(SupervisorInput::Stop);
    bench.passes(GRACE_MS - 1, Some("running"));
    assert!(!bench.has_done(&SupervisorEffect::Terminate));
    bench.passes(1, None);
    assert!(bench.sent(QmpCommand::Quit) == 1 && bench.has_done(&SupervisorEffect::Terminate));
    bench.passes(QUIT_MS - 1, None);
    assert!(!bench.has_done(&SupervisorEffect::Kill));
    bench.passes(1, None);
    assert!(bench.has_done(&SupervisorEffect::Kill));
    let said = bench.done.iter().filter(|effect| matches!(effect, SupervisorEffect::Say(_))).count();
    assert_eq!(said, 2, "{:?}", bench.done);
    assert_eq!(bench.supervisor.wake_at_ms(), u64::MAX, "what is left is the kernel's");
    assert_eq!(bench.ends_by(killed()), VmEnd::Stopped);
}

#[test]
fn a_stop_before_the_guest_runs_ends_it_at_once() {
    let mut bench = Bench::new();
    bench.happens(SupervisorInput::Connected);
    bench.happens(SupervisorInput::Stop);
    assert!(bench.has_done(&SupervisorEffect::Kill));
    assert_eq!(bench.ends_by(killed()), VmEnd::Stopped);
}

#[test]
fn a_guest_that_cannot_be_asked_is_ended() {
    // The hypervisor has no keyboard.
    let mut bench = Bench::running();
    bench.happens(SupervisorInput::Stop);
    bench.refuses();
    assert_eq!(bench.sent(QmpCommand::Quit), 1);
    // It stands still for good.
    let mut bench = Bench::running();
    bench.event(GuestEvent::Stop);
    bench.answers(Some("internal-error"));
    bench.happens(SupervisorInput::Stop);
    assert_eq!((bench.sent(QmpCommand::CtrlAltDelete), bench.sent(QmpCommand::Quit)), (0, 1));
    // The control connection was lost, long ago or just now.
    for lost_before_ms in [60_000, 0] {
        let mut bench = Bench::running();
        bench.happens(SupervisorInput::ConnectionLost("not JSON".to_owned()));
        bench.passes(lost_before_ms, None);
        bench.happens(SupervisorInput::Stop);
        bench.passes(LAST_MOMENT_MS, None);
        assert!(bench.has_done(&SupervisorEffect::Terminate), "lost {lost_before_ms} ms before");
        assert_eq!(bench.sent(QmpCommand::Quit), 0);
        bench.passes(QUIT_MS, None);
        assert!(bench.has_done(&SupervisorEffect::Kill));
    }
}

#[test]
fn a_guest_that_somebody_paused_goes_on_to_hear_that_it_is_to_stop() {
    let mut bench = Bench::running();
    bench.event(GuestEvent::Stop);
    bench.answers(Some("paused"));
    bench.happens(SupervisorInput::Stop);
    let sent: Vec<QmpCommand> = bench.asked.iter().map(|(command, _)| *command).collect();
    assert_eq!(sent, [QmpCommand::Cont, QmpCommand::CtrlAltDelete]);
}

#[test]
fn each_end_that_nobody_asked_for_has_its_reason_and_its_status() {
    let shut_down = |reason: &str| {
        let mut bench = Bench::running();
        bench.event(GuestEvent::Shutdown(reason.to_owned()));
        bench.ends(0)
    };
    assert_eq!(shut_down("guest-shutdown"), VmEnd::GuestShutDown);
    assert_eq!(shut_down("guest-reset"), VmEnd::GuestRestarted);
    assert_eq!(shut_down("guest-panic"), VmEnd::GuestPanicked);
    assert_eq!(shut_down("host-qmp-quit").to_string(), "the hypervisor exited 0 (host-qmp-quit)");
    let mut bench = Bench::running();
    bench.event(GuestEvent::Panicked);
    assert_eq!(bench.ends(0), VmEnd::GuestPanicked);
    let mut bench = Bench::running();
    assert_eq!(bench.ends_by(killed()).to_string(), "the hypervisor was killed by signal 9 (SIGKILL)");
    let mut bench = Bench::running();
    let short = |shortage| ProcessEnd { out_of_memory: Some(shortage), ..killed() };
    assert_eq!(bench.ends_by(short(MemoryShortage::Limit)).to_string(), "it reached its memory limit");
    let mut bench = Bench::running();
    let words = "the kernel ended it because the machine had no more memory";
    assert_eq!(bench.ends_by(short(MemoryShortage::Machine)).to_string(), words);
    let mut bench = Bench::running();
    bench.happens(SupervisorInput::Stop);
    assert_eq!(bench.ends_by(short(MemoryShortage::Machine)), VmEnd::Stopped);
    let ends = [
        VmEnd::Stopped,
        VmEnd::GuestShutDown,
        VmEnd::GuestRestarted,
        VmEnd::GuestPanicked,
        VmEnd::OutOfMemory(MemoryShortage::Limit),
        VmEnd::Hypervisor(String::new()),
        VmEnd::NotStarted(String::new()),
        VmEnd::NoLease(String::new()),
        VmEnd::LeaseEnded(String::new()),
    ];
    let statuses: std::collections::BTreeSet<u8> = ends.iter().map(VmEnd::exit_status).collect();
    assert_eq!(statuses.len(), ends.len());
    for end in &ends {
        let has_words = VmEnd::words_of(end.exit_status().into()).is_some();
        assert_eq!(has_words, *end != VmEnd::Stopped, "{end:?}");
    }
}

#[test]
fn a_connection_that_is_lost_is_told_unless_the_process_ends_as_well() {
    let mut bench = Bench::running();
    bench.happens(SupervisorInput::ConnectionLost("a line longer than 65536 bytes".to_owned()));
    bench.passes(LAST_MOMENT_MS - 1, None);
    assert_eq!(bench.told(), []);
    bench.passes(1, None);
    let words = "not answering: its control connection was lost: a line longer than 65536 bytes";
    assert_eq!(bench.last_told(), words);
    bench.passes(3_600_000, None);
    assert_eq!((bench.told().len(), bench.asked.len()), (1, 0), "the guest goes on");
}

#[test]
fn a_flood_of_changes_is_told_five_times_a_second_at_most() {
    let mut bench = Bench::running();
    for _ in 0..1_000 {
        bench.now_ms += 1;
        bench.event(no_space("disk0"));
        bench.event(GuestEvent::Stop);
        bench.event(GuestEvent::Resume);
    }
    assert!(bench.told().len() <= 5, "{:?}", bench.told());
    assert!(bench.asked.len() <= 4, "{:?}", bench.asked);
}

#[test]
fn a_hypervisor_that_lies_changes_nothing_that_matters() {
    let mut bench = Bench::running();
    for id in [None, Some(0), Some(1), Some(u64::MAX)] {
        bench.says(QmpMessage::Done { id, status: Some("internal-error".to_owned()) });
        bench.says(QmpMessage::Refused { id, why: "no".to_owned() });
    }
    bench.event(GuestEvent::Other);
    bench.passes(1_000, Some("running"));
    assert_eq!(bench.told(), []);
    bench.says(QmpMessage::Greeting);
    bench.passes(LAST_MOMENT_MS, None);
    assert_eq!(bench.last_told(), "not answering: its control connection was lost: it greeted twice");
    // An event before its greeting is not one of QMP.
    let mut early = Bench::new();
    early.happens(SupervisorInput::Connected);
    early.event(GuestEvent::Resume);
    early.passes(LAST_MOMENT_MS, None);
    assert!(early.has_done(&SupervisorEffect::Kill));
    // What comes after the end is nobody's.
    bench.ends(0);
    let done = bench.done.len();
    bench.happens(SupervisorInput::Stop);
    bench.event(GuestEvent::Resume);
    bench.happens(SupervisorInput::Ended(killed()));
    assert_eq!(bench.done.len(), done);
}

#[test]
fn fuzz_supervised_hypervisors() {
    use crate::qemu::message::{QmpLines, parse};
    let target = blixard_hostile::Target::new("supervised-hypervisors").len_max(96 << 10);
    let target = [
        "{\"QMP\": {}}\n{\"return\": {}, \"id\": 1}\n{\"return\": {\"status\": \"prelaunch\"}, \"id\": 2}\n",
        "{\"event\": \"RESUME\"}\n{\"return\": {\"status\": \"io-error\"}, \"id\": 3}\n",
        "{\"event\": \"BLOCK_IO_ERROR\", \"data\": {\"node-name\": \"disk0\", \"action\": \"stop\"}}\n",
        "{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-reset\"}}\n",
    ]
    .into_iter()
    .fold(target, blixard_hostile::Target::valid);
    let words = [
        "\"return\"",
        "\"error\":",
        "\"event\":",
        "\"STOP\"",
        "{",
        "}",
        "\n",
        "\"id\": 1",
        "\"GUEST_PANICKED\"",
    ];
    target.words(words).run(|bytes| {
        let mut bench = Bench::new();
        bench.happens(SupervisorInput::Connected);
        let mut lines = QmpLines::default();
        for chunk in bytes.chunks(1_000) {
            bench.now_ms += 10;
            let said = lines.push(chunk).map_err(|error| error.to_string()).and_then(|lines| {
                let said = lines.iter().map(|line| parse(line).map_err(|error| error.to_string()));
                said.collect::<Result<Vec<_>, _>>()
            });
            match said {
                Ok(said) => said.into_iter().for_each(|said| bench.says(said)),
                Err(why) => bench.happens(SupervisorInput::ConnectionLost(why)),
            }
        }
        // Whatever it said: systemd was not flooded, and a stop ends it.
        assert!(bench.told().len() <= 3 + bytes.len() / 1_000, "{:?}", bench.told());
        bench.happens(SupervisorInput::Stop);
        bench.passes(GRACE_MS + QUIT_MS + LAST_MOMENT_MS, None);
        assert!(bench.has_done(&SupervisorEffect::Kill));
        bench.ends_by(killed()).to_string()
    });
}

#[test]
fn an_answer_that_never_comes_is_made_up_for_by_a_later_one() {
    let mut bench = Bench::running();
    bench.event(no_space("disk0"));
    bench.until_let_go_on();
    let (command, _) = bench.asked.remove(0);
    assert_eq!(command, QmpCommand::Cont, "it is never answered");
    bench.event(GuestEvent::Resume);
    bench.passes(60_000, Some("running"));
    assert_eq!(bench.last_told(), "running");
    bench.event(no_space("disk0"));
    bench.until_let_go_on();
}
