//! Crashes at every boundary, and again while recovering.

use blixard_model::StoreId;
use blixard_sim::SimRng;
use blixard_sim::disk::{CrashPoints, Op, SimDisk, Tear};

use super::workload::{Step, Workload, held, id, open};

/// A run of a workload on one disk, through any number of crashes.
pub(crate) struct Run<'a> {
    pub(crate) workload: &'a Workload,
    pub(crate) disk: SimDisk,
    /// The state that was acknowledged as durable last; nothing before it may come back.
    pub(crate) floor: usize,
    /// The state that was asked for last; nothing after it may be there.
    pub(crate) asked: usize,
    /// The id of the store once one was opened.
    pub(crate) store_id: Option<StoreId>,
    /// How often a state was found that was asked for and not acknowledged.
    pub(crate) kept_unacknowledged: u64,
    opened: u8,
}

/// What ended a process.
#[derive(Debug)]
pub(crate) enum End {
    Done,
    Open(blixard_store::OpenError),
    Write(blixard_store::WriteError),
}

impl<'a> Run<'a> {
    pub(crate) fn new(workload: &'a Workload, seed: u64) -> Self {
        Self {
            workload,
            disk: SimDisk::new("/sim", SimRng::new(seed)),
            floor: 0,
            asked: 0,
            store_id: None,
            kept_unacknowledged: 0,
            opened: 0,
        }
    }

    /// One process: opens the store, checks what is in it, goes on with the workload for up to `count` steps.
    pub(crate) fn process(&mut self, count: usize) -> End {
        self.opened += 1;
        let mut store = match open(&self.disk, id(self.opened)) {
            Ok(store) => store,
            Err(error) => return End::Open(error),
        };
        let found = match held(&store) {
            Ok(held) => held,
            Err(error) => return End::Open(error),
        };
        let same = *self.store_id.get_or_insert(store.store_id());
        assert_eq!(store.store_id(), same, "an opened store was replaced");
        let allowed = self.floor..=self.asked;
        let at = allowed.clone().find(|at| self.workload.states[*at] == found);
        let Some(at) = at else { panic!("none of the states {allowed:?}: {found:?}") };
        self.kept_unacknowledged += u64::from(at > self.floor);
        self.asked = at;
        let steps: Vec<&Step> = self.workload.steps[at..].iter().take(count).collect();
        for step in steps {
            self.asked += 1;
            if let Err(error) = step.write(&mut store) {
                let again = step.write(&mut store).expect_err("a failed store takes no write");
                assert!(matches!(again, blixard_store::WriteError::Closed), "{again}");
                return End::Write(error);
            }
            if step.is_synced() {
                self.floor = self.asked;
            }
        }
        End::Done
    }

    /// As [`Run::process`], then the crash that was scheduled, if it came.
    fn process_and_crash(&mut self, count: usize, tear: Option<Tear>) {
        let end = self.process(count);
        if !self.disk.is_crashed() {
            assert!(matches!(end, End::Done), "{end:?} without a crash");
        }
        match tear {
            Some(tear) => self.disk.crash_power(tear),
            None => self.disk.crash_process(),
        }
    }

    /// Goes on to the end without any fault, and once more.
    pub(crate) fn finish(&mut self) {
        self.disk.heal();
        let end = self.process(usize::MAX);
        assert!(matches!(end, End::Done), "acknowledged and lost: {end:?}");
        self.disk.crash_process();
        let end = self.process(0);
        assert!(matches!(end, End::Done), "acknowledged and lost: {end:?}");
        assert_eq!(self.asked, self.workload.steps.len());
    }
}

/// Boundaries that one process passes: opening alone, and the whole workload.
fn boundaries(workload: &Workload) -> (u64, u64) {
    let mut run = Run::new(workload, 0);
    run.process(0);
    let opening = run.disk.boundaries();
    let mut run = Run::new(workload, 0);
    run.process(usize::MAX);
    (opening, run.disk.boundaries())
}

/// None is a killed process: the page cache stays.
const ENDS: [Option<Tear>; 3] = [Some(Tear::Sectors), Some(Tear::Bytes), None];
/// How often a recovery is crashed again at most.
const RECOVERIES_MAX: u64 = 5;

fn crash_everywhere(workload: &Workload, table: &mut CrashPoints) -> u64 {
    let (_, all) = boundaries(workload);
    let mut kept = 0;
    for boundary in 0..all {
        for (n, tear) in ENDS.into_iter().enumerate() {
            let mut run = Run::new(workload, boundary * 3 + n as u64);
            let mut rng = SimRng::new(boundary ^ (n as u64) << 32);
            run.disk.crash_after(boundary);
            run.process_and_crash(usize::MAX, tear);
            for _ in 0..rng.below(RECOVERIES_MAX + 1) {
                run.disk.crash_after(rng.below(60));
                run.process_and_crash(2, ENDS[rng.below(3) as usize]);
            }
            run.finish();
            kept += run.kept_unacknowledged;
            table.merge(&run.disk.points());
        }
    }
    kept
}

/// A crash at every boundary of the creation, then at every third boundary of what comes after it, another
/// third each time.
fn crash_while_creating(workload: &Workload, table: &mut CrashPoints) {
    let (opening, _) = boundaries(workload);
    for first in 0..opening {
        for second in (first % 3..opening + 4).step_by(3) {
            let mut run = Run::new(workload, first << 32 | second);
            run.disk.crash_after(first);
            run.process_and_crash(0, ENDS[(first / 3 % 3) as usize]);
            run.disk.crash_after(second);
            run.process_and_crash(1, ENDS[(second / 3 % 3) as usize]);
            run.disk.heal();
            let end = run.process(1);
            assert!(matches!(end, End::Done), "{end:?}");
            table.merge(&run.disk.points());
        }
    }
}

#[test]
fn a_crash_at_any_boundary_loses_nothing_acknowledged() {
    let workload = Workload::fixed();
    let (opening, all) = boundaries(&workload);
    let mut table = CrashPoints::default();
    crash_while_creating(&workload, &mut table);
    let kept = crash_everywhere(&workload, &mut table);
    println!("{table}\n{} crashes; {opening} boundaries to open, {all} in all", table.total());
    println!("{kept} times a write was there that was not acknowledged");
    // A second name is only given to a store that is replaced, see `replace`.
    let missed: Vec<_> = table.below(1).into_iter().filter(|(op, _)| *op != Op::Link).collect();
    assert_eq!(missed, [], "boundaries that were never reached");
}

#[test]
fn crashes_anywhere_in_any_workload_lose_nothing_acknowledged() {
    let mut table = CrashPoints::default();
    for seed in 0..300 {
        let mut rng = SimRng::new(seed);
        let workload = Workload::random(&mut rng, 20);
        let mut run = Run::new(&workload, seed);
        for _ in 0..8 {
            run.disk.crash_after(rng.below(250));
            let tear = ENDS[rng.below(3) as usize];
            run.process_and_crash(usize::MAX, tear);
        }
        run.finish();
        table.merge(&run.disk.points());
    }
    println!("{table}\n{} crashes", table.total());
}

#[test]
fn a_wiped_disk_gets_a_store_with_another_id() {
    let disk = SimDisk::new("/sim", SimRng::new(1));
    let first = open(&disk, id(1)).expect("made");
    let image = disk.image();
    drop(first);
    disk.wipe();
    assert_eq!(open(&disk, id(2)).expect("made").store_id(), id(2));
    disk.restore(&image);
    assert_eq!(open(&disk, id(3)).expect("opened").store_id(), id(1), "a rolled back disk has its old id");
}
