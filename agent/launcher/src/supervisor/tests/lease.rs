//! A VM that needs a lease: when its guest is let run, when it is ended, and what systemd is told.

use super::*;
use crate::lease::{LeasePermission, NoLease};
use LeasePermission::{Denied, Endless, Until};
use blixard_model::lease::ENDLESS_WATCHDOG_MS;

/// So long a look at a file without an end lets the guest run; systemd adds a second.
const LOOKED_MS: u64 = ENDLESS_WATCHDOG_MS - 1_000;

impl Bench {
    /// One that needs a lease, and of whose file nothing is known.
    fn leased() -> Self {
        let mut bench = Self::new();
        let disks = vec!["/srv/a.raw".to_owned()];
        bench.supervisor = Supervisor::new(disks, Some(ENDLESS_WATCHDOG_MS), bench.now_ms);
        bench.done.clear();
        bench.turn();
        bench
    }

    /// One whose hypervisor waits for `cont`.
    fn prelaunch() -> Self {
        let mut bench = Self::leased();
        bench.happens(SupervisorInput::Connected);
        bench.says(QmpMessage::Greeting);
        bench.answers(None);
        bench.answers(Some("prelaunch"));
        bench
    }

    /// One whose guest runs with a lease until then, in milliseconds from now.
    fn runs_for(ms: u64) -> Self {
        let bench = Self::prelaunch();
        let until_ms = bench.now_ms + ms;
        bench.lets_run(Until(until_ms))
    }

    /// The same once its guest runs with this permission.
    fn lets_run(self, permission: LeasePermission) -> Self {
        let mut bench = self;
        bench.reads(permission);
        bench.happens(SupervisorInput::Armed);
        bench.event(GuestEvent::Resume);
        bench.answers(None);
        assert_eq!(bench.last_told(), "running");
        bench.done.clear();
        bench
    }

    fn reads(&mut self, permission: LeasePermission) {
        self.happens(SupervisorInput::Lease(permission));
    }

    fn is_killed(&self) -> bool {
        self.has_done(&SupervisorEffect::Kill)
    }

    /// One whose guest runs with a lease without an end that was looked at just now.
    fn runs_endlessly() -> Self {
        Self::prelaunch().lets_run(Endless)
    }

    /// Until when the guest may run, as systemd is told, where a file without an end was looked at just now.
    fn endless_ms(&self) -> u64 {
        self.now_ms + LOOKED_MS
    }

    /// Until when the guest may run, as systemd was told, and whether that was in a stop.
    fn fed(&self) -> Vec<(u64, bool)> {
        let fed = self.done.iter().filter_map(|effect| match effect {
            SupervisorEffect::Feed { until_ms, stopping } => Some((*until_ms, *stopping)),
            _ => None,
        });
        fed.collect()
    }
}

fn said(effect: &SupervisorEffect) -> Option<&String> {
    if let SupervisorEffect::Say(text) = effect { Some(text) } else { None }
}

fn unreadable() -> NoLease {
    NoLease::Unreadable("no".to_owned())
}

#[test]
fn the_guest_runs_once_the_lease_allows_it_and_systemd_watches() {
    let mut bench = Bench::prelaunch();
    for (permission, why) in [
        (Denied(NoLease::NoFile), "the agent has written no lease (does blixard.service run?)"),
        (Denied(NoLease::OtherBoot), "the agent's lease is of an earlier boot of this machine"),
        (Denied(NoLease::NotListed), "the VM is not one of those that may run on this node"),
        (Until(bench.now_ms), "the agent did not renew it in time"),
        (Denied(unreadable()), "the agent's lease cannot be read: no"),
    ] {
        bench.reads(permission);
        bench.passes(2_000, Some("prelaunch"));
        assert_eq!(bench.last_told(), format!("waiting: for a lease: {why}"));
    }
    let until_ms = bench.now_ms + 5_000;
    bench.reads(Until(until_ms));
    assert!(bench.has_done(&SupervisorEffect::Arm { until_ms }));
    bench.passes(2_000, Some("prelaunch"));
    assert_eq!(bench.sent(QmpCommand::Cont), 0, "systemd has not confirmed");
    bench.happens(SupervisorInput::Armed);
    assert_eq!(bench.sent(QmpCommand::Cont), 1);
    bench.event(GuestEvent::Resume);
    assert_eq!(bench.last_told(), "running");
    assert!(bench.told().iter().all(|(ready, _)| !ready), "systemd was told when it was armed");
    let armed = |effect: &&SupervisorEffect| matches!(effect, SupervisorEffect::Arm { .. });
    assert_eq!(bench.done.iter().filter(armed).count(), 1);
    assert_eq!(bench.fed(), []);
}

#[test]
fn a_permission_that_is_gone_again_before_the_guest_runs_lets_no_guest_run() {
    let mut bench = Bench::leased();
    bench.reads(Until(bench.now_ms + 5_000));
    bench.reads(Denied(NoLease::NoFile));
    bench.happens(SupervisorInput::Connected);
    bench.says(QmpMessage::Greeting);
    bench.answers(None);
    bench.answers(Some("prelaunch"));
    bench.happens(SupervisorInput::Armed);
    assert_eq!(bench.sent(QmpCommand::Cont), 0);
    bench.passes(START_MS, Some("prelaunch"));
    assert!(bench.is_killed());
    let end = bench.ends_by(killed());
    let why = "after 45 s, the agent has written no lease (does blixard.service run?)";
    assert_eq!(end, VmEnd::NoLease(why.to_owned()));
    assert_eq!(
        (end.exit_status(), end.to_string().starts_with("no lease allowed the guest to run: ")),
        (16, true)
    );
}

#[test]
fn a_hypervisor_that_is_not_ready_is_not_blamed_on_the_lease() {
    let mut bench = Bench::leased();
    bench.passes(START_MS, None);
    assert_eq!(bench.ends_by(killed()).exit_status(), 15);
}

#[test]
fn a_lease_that_ends_while_systemd_is_armed_lets_no_guest_run() {
    let mut bench = Bench::prelaunch();
    bench.reads(Until(bench.now_ms + 1_000));
    bench.now_ms += 1_000;
    bench.happens(SupervisorInput::Armed);
    assert_eq!(bench.sent(QmpCommand::Cont), 0);
    bench.happens(SupervisorInput::Wake);
    assert!(bench.is_killed());
    assert_eq!(bench.ends_by(killed()).exit_status(), 17);
}

#[test]
fn a_systemd_that_does_not_confirm_lets_no_guest_run() {
    let mut bench = Bench::prelaunch();
    bench.reads(Until(bench.now_ms + 60_000));
    bench.passes(ARM_MS - 1, Some("prelaunch"));
    assert!(!bench.is_killed());
    bench.passes(1, None);
    assert!(bench.is_killed());
    let why = "systemd's watchdog could not be armed: it has not confirmed within 5 s";
    assert_eq!(bench.ends_by(killed()), VmEnd::NotStarted(why.to_owned()));
    let mut bench = Bench::prelaunch();
    bench.reads(Until(bench.now_ms + 60_000));
    bench.happens(SupervisorInput::NotArmed("it is gone".to_owned()));
    assert!(bench.is_killed());
    let why = "systemd's watchdog could not be armed: it is gone";
    assert_eq!(bench.ends_by(killed()), VmEnd::NotStarted(why.to_owned()));
}

#[test]
fn the_guest_is_killed_at_the_end_of_the_lease_and_not_before() {
    let mut bench = Bench::runs_for(10_000);
    assert_eq!(bench.supervisor.lease_deadline_ms(), Some(bench.now_ms + 10_000));
    bench.passes(9_999, Some("running"));
    assert!(!bench.is_killed());
    // What it is asked and told meanwhile does not count: only what was read of the lease at that moment.
    bench.now_ms += 1;
    bench.event(GuestEvent::Other);
    assert!(!bench.is_killed(), "the lease was not looked at");
    bench.happens(SupervisorInput::Wake);
    assert_eq!(bench.done.iter().filter(|effect| **effect == SupervisorEffect::Kill).count(), 1);
    assert_eq!((bench.sent(QmpCommand::Quit), bench.sent(QmpCommand::CtrlAltDelete)), (0, 0));
    bench.passes(60_000, None);
    assert_eq!(bench.supervisor.wake_at_ms(), u64::MAX, "what is left is the kernel's and systemd's");
    assert_eq!(bench.fed(), [], "so that the watchdog ends what is left");
    let end = bench.ends_by(killed());
    assert_eq!(end.to_string(), "its lease ended: the agent did not renew it in time");
    assert_eq!(end.exit_status(), 17);
}

#[test]
fn a_lease_that_was_renewed_at_the_last_moment_goes_on() {
    let mut bench = Bench::runs_for(10_000);
    let later_ms = bench.now_ms + 20_000;
    bench.now_ms += 10_500;
    bench.reads(Until(later_ms));
    bench.happens(SupervisorInput::Wake);
    assert!(!bench.is_killed());
    assert_eq!(bench.fed(), [(later_ms, false)]);
    bench.reads(Until(later_ms));
    assert_eq!(bench.fed().len(), 1, "nothing has changed");
    bench.passes(9_499, Some("running"));
    assert!(!bench.is_killed());
    bench.passes(1, None);
    assert!(bench.is_killed());
}

#[test]
fn a_file_that_says_nothing_renews_nothing_and_takes_nothing_away() {
    for why in [NoLease::NoFile, unreadable(), NoLease::OtherBoot] {
        let mut bench = Bench::runs_for(10_000);
        bench.reads(Denied(why.clone()));
        bench.passes(9_999, Some("running"));
        assert!(!bench.is_killed(), "{why}");
        bench.passes(1, None);
        assert!(bench.is_killed(), "{why}");
        let end = bench.ends_by(killed()).to_string();
        assert_eq!(end, format!("its lease ended: it was not renewed: {why}"));
    }
}

#[test]
fn a_guest_that_may_not_run_here_any_more_is_killed_at_once() {
    for why in [NoLease::NotListed, NoLease::OtherGeneration(8), NoLease::OtherCluster] {
        for endless in [false, true] {
            let mut bench = Bench::runs_for(10_000);
            if endless {
                bench.reads(Endless);
            }
            bench.reads(Denied(why.clone()));
            bench.happens(SupervisorInput::Wake);
            assert!(bench.is_killed());
            assert_eq!(bench.ends_by(killed()), VmEnd::LeaseEnded(why.to_string()));
        }
    }
}

#[test]
fn a_lease_without_an_end_is_watched_from_before_the_guest_runs() {
    let mut bench = Bench::prelaunch();
    bench.reads(Endless);
    assert!(bench.has_done(&SupervisorEffect::Arm { until_ms: bench.endless_ms() }));
    bench.passes(ARM_MS - 1, Some("prelaunch"));
    assert_eq!(bench.sent(QmpCommand::Cont), 0, "systemd has not confirmed");
    bench.happens(SupervisorInput::Armed);
    assert_eq!(bench.sent(QmpCommand::Cont), 1);
    bench.event(GuestEvent::Resume);
    assert_eq!(bench.told().last(), Some(&(false, UnitStatus::Running)), "it was told when it was armed");
    assert_eq!((bench.fed(), bench.supervisor.lease_deadline_ms()), (vec![], None));
    let mut bench = Bench::prelaunch();
    bench.reads(Endless);
    bench.passes(ARM_MS, None);
    let why = "systemd's watchdog could not be armed: it has not confirmed within 5 s";
    assert_eq!(bench.ends_by(killed()), VmEnd::NotStarted(why.to_owned()));
}

#[test]
fn without_an_end_each_look_at_the_file_lets_the_guest_run_for_a_minute() {
    let mut bench = Bench::runs_endlessly();
    let mut told = Vec::new();
    for second in 1..=35 {
        bench.passes(1_000, Some("running"));
        // What says nothing new was looked at all the same.
        bench.reads(if second % 3 == 0 { Denied(NoLease::NoFile) } else { Endless });
        if second % 10 == 0 {
            told.push((bench.endless_ms(), false));
        }
        assert_eq!(bench.fed(), told, "after {second} s");
    }
    // Time alone feeds nothing: only a look can have found an end.
    bench.passes(3_600_000, Some("running"));
    assert_eq!((bench.fed(), bench.is_killed()), (told.clone(), false));
    bench.reads(Endless);
    told.push((bench.endless_ms(), false));
    assert_eq!(bench.fed(), told);
    // It stood still after the look: the time counts from there.
    bench.now_ms += 10_000;
    let looked_ms = bench.endless_ms();
    bench.supervisor.handle(bench.now_ms, SupervisorInput::Lease(Endless));
    bench.now_ms += 7_000;
    bench.happens(SupervisorInput::Wake);
    assert_eq!(bench.fed().last(), Some(&(looked_ms, false)));
}

#[test]
fn a_lease_gets_an_end_and_loses_it_again_and_systemd_hears_of_it_at_once() {
    let mut bench = Bench::runs_endlessly();
    let until_ms = bench.now_ms + 5_000;
    bench.reads(Until(until_ms));
    bench.reads(Endless);
    let mut told = vec![(until_ms, false), (bench.endless_ms(), false)];
    assert_eq!(bench.fed(), told);
    bench.passes(10_000, Some("running"));
    assert!(!bench.is_killed());
    let until_ms = bench.now_ms + 5_000;
    bench.reads(Until(until_ms));
    told.push((until_ms, false));
    assert_eq!(bench.fed(), told);
    bench.passes(5_000, Some("running"));
    assert!(bench.is_killed());
    bench.passes(60_000, None);
    bench.reads(Endless);
    assert_eq!(bench.fed(), told, "once it is killed nobody holds the watchdog up");
}

#[test]
fn a_stop_is_cut_by_the_end_of_the_lease_and_keeps_systemds_watchdog() {
    // In each phase of a stop: the grace of 30 s, and the 5 s for the hypervisor's own end.
    for left_ms in [4_000, 32_000] {
        let mut bench = Bench::runs_for(left_ms);
        let until_ms = bench.now_ms + left_ms;
        bench.happens(SupervisorInput::Stop);
        assert_eq!(bench.fed(), [(until_ms, true)], "at once");
        bench.passes(left_ms - 1, Some("running"));
        let each_second = usize::try_from(left_ms / 1_000).expect("a number");
        assert_eq!(bench.fed(), vec![(until_ms, true); each_second]);
        assert!(!bench.is_killed());
        bench.passes(1, None);
        assert!(bench.is_killed());
        let said: Vec<&String> = bench.done.iter().filter_map(said).collect();
        let words =
            "the VM's lease ended before it had stopped: the agent did not renew it in time: killed it";
        assert_eq!(said.last().map(|said| said.as_str()), Some(words));
        // A process that does not die is systemd's.
        bench.passes(2_000, None);
        assert!(bench.fed().len() > each_second);
        assert_eq!(bench.ends_by(killed()), VmEnd::Stopped);
    }
}

#[test]
fn a_stop_of_a_renewed_lease_goes_on_and_one_without_an_end_is_not_hurried() {
    let mut bench = Bench::runs_for(4_000);
    bench.happens(SupervisorInput::Stop);
    let later_ms = bench.now_ms + 50_000;
    bench.reads(Until(later_ms));
    assert_eq!(bench.fed().last(), Some(&(later_ms, true)));
    bench.passes(GRACE_MS, Some("running"));
    assert!(bench.has_done(&SupervisorEffect::Terminate) && !bench.is_killed());
    // systemd's own limit for a stop is shorter than what it would be told.
    let mut bench = Bench::runs_endlessly();
    bench.happens(SupervisorInput::Stop);
    bench.passes(GRACE_MS, Some("running"));
    bench.reads(Endless);
    assert_eq!(bench.fed(), []);
    // An end that comes meanwhile is told, and taken back when it is gone.
    let until_ms = bench.now_ms + 2_000;
    bench.reads(Until(until_ms));
    bench.reads(Endless);
    assert_eq!(bench.fed(), [(until_ms, true), (bench.endless_ms(), true)]);
    bench.passes(4_000, None);
    assert!(!bench.is_killed());
}

#[test]
fn a_guest_that_stands_still_is_not_let_go_on_after_its_lease() {
    let mut bench = Bench::runs_for(500);
    bench.event(no_space("disk0"));
    bench.now_ms += 2_000;
    bench.event(GuestEvent::Other);
    assert_eq!(bench.sent(QmpCommand::Cont), 0);
    let mut bench = Bench::runs_for(500);
    bench.event(GuestEvent::Stop);
    bench.answers(Some("paused"));
    bench.now_ms += 500;
    bench.happens(SupervisorInput::Stop);
    assert_eq!(bench.sent(QmpCommand::Cont), 0);
}

#[test]
fn a_guest_that_somebody_else_lets_run_is_killed() {
    let mut bench = Bench::prelaunch();
    bench.event(GuestEvent::Resume);
    assert!(bench.is_killed());
    let end = bench.ends_by(killed()).to_string();
    assert!(end.starts_with("somebody let the guest run through its control socket"), "{end}");
    // Also if that is only seen when it is asked.
    let mut bench = Bench::prelaunch();
    bench.reads(Until(bench.now_ms + 60_000));
    bench.passes(2_000, Some("running"));
    assert!(bench.is_killed());
}

#[test]
fn an_answer_of_before_the_guest_was_let_run_changes_nothing() {
    let mut bench = Bench::prelaunch();
    bench.passes(2_000, None);
    assert_eq!(bench.asked.len(), 1, "its state is asked for");
    bench.reads(Until(bench.now_ms + 60_000));
    bench.happens(SupervisorInput::Armed);
    assert_eq!(bench.sent(QmpCommand::Cont), 1);
    bench.answers(Some("prelaunch"));
    bench.event(GuestEvent::Resume);
    assert!(!bench.is_killed());
    assert_eq!(bench.sent(QmpCommand::Cont), 1);
}

#[test]
fn of_a_long_lease_each_look_lets_the_guest_run_for_a_minute_until_it_is_not_long_any_more() {
    let mut bench = Bench::runs_for(120_000);
    let until_ms = bench.now_ms + 120_000;
    let mut told = Vec::new();
    for second in 1..=119 {
        bench.passes(1_000, Some("running"));
        bench.reads(Until(until_ms));
        if second % 10 == 0 && second <= 70 {
            // Never later than the end, and that is told once.
            told.push((bench.endless_ms().min(until_ms), false));
        }
        assert_eq!(bench.fed(), told, "after {second} s");
    }
    assert_eq!(told.last(), Some(&(until_ms, false)));
    bench.passes(1_000, None);
    assert!(bench.is_killed());
    // Time alone feeds nothing: it may have been cut short since.
    let mut bench = Bench::runs_for(1_800_000);
    bench.passes(100_000, Some("running"));
    assert_eq!((bench.fed(), bench.is_killed()), (Vec::new(), false));
    let cut_ms = bench.now_ms + 5_000;
    bench.reads(Until(cut_ms));
    assert_eq!(bench.fed(), [(cut_ms, false)]);
    bench.passes(5_000, None);
    assert!(bench.is_killed());
}

#[test]
fn a_vm_without_a_lease_never_looks_at_one() {
    let mut bench = Bench::running();
    assert_eq!(bench.supervisor.lease_deadline_ms(), None);
    for permission in [Until(0), Denied(NoLease::NotListed), Endless, Until(u64::MAX)] {
        bench.reads(permission);
        bench.happens(SupervisorInput::Armed);
        bench.happens(SupervisorInput::NotArmed("no".to_owned()));
        bench.passes(10_000, Some("running"));
    }
    assert!(!bench.is_killed() && bench.fed().is_empty() && bench.told().is_empty());
    bench.happens(SupervisorInput::Stop);
    bench.passes(5_000, Some("running"));
    assert_eq!(bench.fed(), []);
}

#[test]
fn no_clock_and_no_time_makes_it_panic() {
    for until_ms in [0, 1, u64::MAX - 1, u64::MAX] {
        for now_ms in [0, 2_000, u64::MAX - 1, u64::MAX] {
            let mut bench = Bench::runs_for(1_000);
            bench.now_ms = now_ms;
            bench.reads(Until(until_ms));
            bench.happens(SupervisorInput::Wake);
            bench.happens(SupervisorInput::Stop);
            bench.happens(SupervisorInput::Wake);
            let over = now_ms.max(1_000) >= until_ms;
            assert_eq!(bench.is_killed(), over, "{until_ms} {now_ms}");
        }
    }
}

/// What a test knows of the lease by what it has handed over.
#[derive(Debug)]
struct LeaseOracle {
    /// The end; none where nothing is allowed.
    until_ms: Option<u64>,
    has_end: bool,
    looked_ms: u64,
    armed: bool,
    /// It may be running: systemd was asked to watch, or the guest was let run.
    used: bool,
    let_run: bool,
}

impl LeaseOracle {
    fn reads(&mut self, now_ms: u64, permission: &LeasePermission) {
        self.looked_ms = now_ms;
        match permission {
            Until(until_ms) => (self.until_ms, self.has_end) = (Some(*until_ms), true),
            Endless => (self.until_ms, self.has_end) = (Some(u64::MAX), false),
            Denied(why) if self.used && !why.revokes() => {}
            Denied(_) => self.until_ms = None,
        }
    }

    fn allows(&self, now_ms: u64) -> bool {
        self.until_ms.is_some_and(|until_ms| now_ms < until_ms)
    }

    /// What systemd may be told.
    fn watched_ms(&self) -> Option<u64> {
        let endless_ms = self.looked_ms + LOOKED_MS;
        self.until_ms.map(|until_ms| if self.has_end { until_ms } else { endless_ms })
    }

    /// Looks at what was done since the last time.
    fn judges(&mut self, bench: &mut Bench) {
        for effect in std::mem::take(&mut bench.done) {
            match effect {
                SupervisorEffect::Arm { until_ms } => {
                    assert!(self.allows(bench.now_ms) && self.watched_ms() == Some(until_ms), "{self:?}");
                    self.used = true;
                }
                SupervisorEffect::Send { command: QmpCommand::Cont, .. } => {
                    assert!(self.allows(bench.now_ms), "let run without a lease: {self:?}");
                    assert!(self.armed || self.let_run, "let run unwatched: {self:?}");
                    (self.used, self.let_run) = (true, true);
                }
                SupervisorEffect::Feed { until_ms, .. } => {
                    assert!(self.used && self.watched_ms() == Some(until_ms), "{until_ms} {self:?}");
                }
                _ => {}
            }
        }
    }
}

/// Each byte is something that happens: what, and how much of it.
fn happens_by(bench: &mut Bench, oracle: &mut LeaseOracle, byte: u8) {
    let much = u64::from(byte >> 4);
    let permission = |bench: &Bench| match byte & 15 {
        1 | 2 => Some(Until(bench.now_ms + much * 300)),
        3 if much == 0 => Some(Endless),
        3 => Some(Until(bench.now_ms.saturating_sub(much))),
        4 => Some(Denied(if much % 2 == 0 { NoLease::NoFile } else { NoLease::OtherBoot })),
        5 if much == 7 => Some(Denied(NoLease::NotListed)),
        5 if much == 8 => Some(Denied(NoLease::OtherCluster)),
        _ => None,
    };
    if let Some(permission) = permission(bench) {
        oracle.reads(bench.now_ms, &permission);
        return bench.happens(SupervisorInput::Lease(permission));
    }
    match byte & 15 {
        6 => {
            oracle.armed |= oracle.used;
            bench.happens(SupervisorInput::Armed);
        }
        7 if much == 0 => bench.happens(SupervisorInput::Connected),
        7 if much == 1 => bench.says(QmpMessage::Greeting),
        7 if much == 2 => bench.event(no_space("disk0")),
        7 if much == 3 => bench.event(GuestEvent::Stop),
        7 if much == 4 => bench.happens(SupervisorInput::Stop),
        7 if much == 5 => bench.happens(SupervisorInput::ConnectionLost("gone".to_owned())),
        8 | 9 if !bench.asked.is_empty() => {
            let states = ["prelaunch", "running", "io-error", "paused"];
            bench.answers(states.get(usize::from(byte >> 4) % 5).copied());
        }
        10 => bench.event(GuestEvent::Resume),
        _ => bench.now_ms += much * much * 10,
    }
}

#[test]
fn fuzz_sequences_of_leases() {
    let run = [0x07, 0x17, 0x48, 0x08, 0xf1, 0x06, 0x0a, 0x48];
    let later: [&[u8]; 5] = [
        &[0x2b, 0xf1, 0x27, 0x37],
        &[0x47, 0x2b, 0x2b, 0x04],
        &[0x14, 0x75, 0xfb, 0xfb],
        &[0x37, 0x38, 0xfb, 0xfb, 0xfb, 0x47],
        &[0x03, 0xfc, 0xfc, 0xfc, 0xfc, 0xfc, 0x03, 0xf1, 0x03, 0x85],
    ];
    let target = blixard_hostile::Target::new("sequences-of-leases").len_max(200).valid(run);
    let target = later.iter().fold(target, |target, later| target.valid([&run, *later].concat()));
    target.run(|bytes| {
        let mut bench = Bench::leased();
        bench.done.clear();
        let mut oracle = LeaseOracle {
            until_ms: None,
            has_end: false,
            looked_ms: 0,
            armed: false,
            used: false,
            let_run: false,
        };
        let mut killed = false;
        for byte in bytes {
            happens_by(&mut bench, &mut oracle, *byte);
            killed |= bench.is_killed();
            oracle.judges(&mut bench);
            if byte & 15 == 11 {
                // The next thing happens before the supervisor is woken.
                continue;
            }
            bench.happens(SupervisorInput::Wake);
            killed |= bench.is_killed();
            oracle.judges(&mut bench);
            assert!(killed || !oracle.used || oracle.allows(bench.now_ms), "runs on: {oracle:?}");
        }
        format!("{oracle:?} {killed} {}", bench.last_told()).replace(|c: char| c.is_ascii_digit(), "")
    });
}
