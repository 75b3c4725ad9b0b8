//! When the machine is restarted, and above all when it is not.

use blixard_model::{BootId, ClusterId, GrantId};

use super::*;

const BOOT: BootId = BootId::from_bytes([7; 16]);
const STEP_MS: u64 = 250;

fn cluster(number: u8) -> ClusterId {
    ClusterId::from_bytes([number; 16])
}

fn web() -> VmName {
    "web".parse().expect("a name")
}

fn process(pid: i32) -> ProcessKey {
    ProcessKey { pid, started: 70 }
}

fn need(generation: u64) -> LeaseNeed {
    LeaseNeed { boot_id: BOOT, cluster_id: cluster(1), name: web(), generation }
}

fn lease(until_ms: Option<u64>) -> LeaseFile {
    LeaseFile {
        boot_id: BOOT,
        cluster_id: cluster(1),
        until_ms,
        grant: Some(GrantId { term: 1, number: 1, index: 1 }),
        enforces: None,
        vms: [(web(), 7)].into(),
    }
}

/// A machine whose clocks a test moves, with one process of one VM.
struct LastResortBench {
    last_resort: LastResort,
    look: LastResortLook,
}

impl LastResortBench {
    /// Its lease ends at 10 s.
    fn new() -> Self {
        let look = LastResortLook {
            now_ms: 1_000,
            awake_ms: 1_000,
            lease: Some(lease(Some(10_000))),
            processes: [(process(5), web())].into(),
            needs: [(web(), need(7))].into(),
        };
        let mut bench = Self { last_resort: LastResort::default(), look };
        assert_eq!(bench.pass(0), []);
        bench
    }

    /// Looks until so much time has passed, and returns what came of it with the time.
    fn pass(&mut self, ms: u64) -> Vec<(u64, LastResortEffect)> {
        let mut seen = Vec::new();
        for step in 0..=ms / STEP_MS {
            let ms = if step == 0 { 0 } else { STEP_MS };
            self.look.now_ms += ms;
            self.look.awake_ms += ms;
            let now_ms = self.look.now_ms;
            seen.extend(self.last_resort.look(&self.look).into_iter().map(|effect| (now_ms, effect)));
        }
        seen
    }

    fn first(&mut self, ms: u64, wanted: impl Fn(&LastResortEffect) -> bool) -> Option<u64> {
        self.pass(ms).into_iter().find(|(_, effect)| wanted(effect)).map(|(at_ms, _)| at_ms)
    }
}

fn restarts(effect: &LastResortEffect) -> bool {
    *effect == LastResortEffect::Restart
}

#[test]
fn a_process_that_kill_does_not_end_restarts_the_machine_before_the_vm_runs_elsewhere() {
    let mut bench = LastResortBench::new();
    let all = bench.pass(20_000);
    let at = |wanted: &dyn Fn(&LastResortEffect) -> bool| {
        all.iter().find(|(_, effect)| wanted(effect)).map(|(at_ms, _)| *at_ms)
    };
    let killed = at(&|effect| *effect == LastResortEffect::Kill(vec![process(5)])).expect("killed");
    let restarted = at(&restarts).expect("restarted");
    assert_eq!((killed, restarted), (15_000, 16_000));
    // The grant was given at 0 at the latest.
    assert!(restarted < LeaseTerms::DEFAULT.wait_ms());
    let said: Vec<&String> = all
        .iter()
        .take_while(|(at_ms, _)| *at_ms <= restarted)
        .filter_map(|(_, effect)| match effect {
            LastResortEffect::Say(words) => Some(words),
            LastResortEffect::Kill(_) | LastResortEffect::Restart => None,
        })
        .collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("process 5 of VM web: still there 5000 ms") && said[1].ends_with("NOW"));
}

#[test]
fn whatever_ends_or_is_allowed_again_in_time_restarts_nothing() {
    // Gone at the last moment.
    let mut bench = LastResortBench::new();
    assert_eq!(bench.first(14_500, restarts), None);
    bench.look.processes.clear();
    assert_eq!(bench.pass(60_000), []);
    assert!(!bench.last_resort.watches());
    // Another process has its number.
    let mut bench = LastResortBench::new();
    bench.pass(14_500);
    bench.look.processes = [(ProcessKey { pid: 5, started: 99 }, web())].into();
    assert_eq!(bench.pass(60_000), [], "it was never allowed to run");
    // The lease is renewed late.
    let mut bench = LastResortBench::new();
    bench.pass(14_500);
    bench.look.lease = Some(lease(Some(100_000)));
    assert_eq!(bench.pass(80_000), []);
}

#[test]
fn a_file_that_is_missing_broken_or_of_another_boot_says_nothing_new() {
    let other_boot = LeaseFile { boot_id: BootId::from_bytes([8; 16]), ..lease(Some(1)) };
    for found in [None, Some(other_boot)] {
        // Without a lease that was seen nothing is known of a deadline.
        let mut bench = LastResortBench::new();
        bench.last_resort = LastResort::default();
        bench.look.lease = found.clone();
        assert_eq!(bench.pass(600_000), []);
        // One without an end has none.
        let mut bench = LastResortBench::new();
        bench.look.lease = Some(lease(None));
        bench.pass(1_000);
        bench.look.lease = found.clone();
        assert_eq!(bench.pass(600_000), []);
        // One that was seen holds as long as it said, and no longer.
        let mut bench = LastResortBench::new();
        bench.look.lease = found;
        assert_eq!(bench.first(20_000, restarts), Some(16_000));
    }
}

#[test]
fn a_vm_that_waits_for_its_lease_or_needs_none_is_left_alone() {
    let mut bench = LastResortBench::new();
    bench.last_resort = LastResort::default();
    bench.look.lease = Some(LeaseFile { vms: BTreeMap::new(), ..lease(Some(1)) });
    assert_eq!(bench.pass(600_000), [], "its guest does not run");
    let mut bench = LastResortBench::new();
    bench.last_resort = LastResort::default();
    bench.look.needs.clear();
    assert_eq!(bench.pass(600_000), []);
    assert!(!bench.last_resort.watches());
}

#[test]
fn a_right_that_is_taken_away_counts_from_then_on() {
    for taken in [
        LeaseFile { vms: BTreeMap::new(), ..lease(Some(900_000)) },
        LeaseFile { vms: [(web(), 8)].into(), ..lease(None) },
        LeaseFile { cluster_id: cluster(2), ..lease(None) },
    ] {
        let mut bench = LastResortBench::new();
        bench.pass(1_000);
        bench.look.lease = Some(taken);
        let at_ms = bench.first(20_000, restarts).expect("restarted");
        assert!((8_000..=8_500).contains(&at_ms), "{at_ms}");
    }
}

#[test]
fn a_process_that_was_left_over_is_judged_by_its_own_order() {
    let mut bench = LastResortBench::new();
    bench.pass(1_000);
    // The unit was started anew, by another order, beside it.
    bench.look.needs = [(web(), need(9))].into();
    bench.look.processes.insert(process(6), web());
    bench.look.lease = Some(LeaseFile { vms: [(web(), 9)].into(), ..lease(Some(900_000)) });
    let all = bench.pass(20_000);
    let kills: Vec<_> =
        all.iter().filter(|(_, effect)| matches!(effect, LastResortEffect::Kill(_))).collect();
    assert!(kills.iter().all(|(_, effect)| *effect == LastResortEffect::Kill(vec![process(5)])), "{kills:?}");
    assert!(all.iter().any(|(_, effect)| restarts(effect)));
}

#[test]
fn time_in_which_nobody_ran_does_not_count() {
    // The machine was suspended for an hour: CLOCK_MONOTONIC stood still.
    let mut bench = LastResortBench::new();
    bench.look.now_ms += 3_600_000;
    let woke_ms = bench.look.now_ms;
    let at_ms = bench.first(20_000, restarts).expect("restarted");
    assert!(at_ms >= woke_ms + 6_000, "{at_ms}");
    // It was paused from outside, or this program was: both clocks went on.
    let mut bench = LastResortBench::new();
    (bench.look.now_ms, bench.look.awake_ms) = (3_600_000, 3_600_000);
    let at_ms = bench.first(20_000, restarts).expect("restarted");
    assert!(at_ms >= 3_605_500, "{at_ms}");
}
