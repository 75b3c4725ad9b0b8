//! What is asked of the store, and what it must hold at each step.

use blixard_consensus::{Durable, HardState, LogWrite, StoredEntry, StoredSnapshot};
use blixard_model::formation::Genesis;
use blixard_model::{ClusterId, ClusterVersion, EndpointId, RaftId, StoreId};
use blixard_sim::SimRng;
use blixard_sim::disk::SimDisk;
use blixard_store::{ClusterMarker, LogStore, OpenError, Store, WriteError};

/// One thing that is written.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Promise(u64),
    Bind { with_log: bool },
    Log { write: Written },
}

/// [`LogWrite`], but to be had twice.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    pub(crate) snapshot: Option<u64>,
    pub(crate) clear_log: bool,
    pub(crate) entries: std::ops::Range<u64>,
    pub(crate) bytes: usize,
    pub(crate) term: u64,
    pub(crate) sync: bool,
}

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Held {
    pub(crate) promise: Option<Genesis>,
    pub(crate) cluster: Option<ClusterMarker>,
    pub(crate) durable: Durable,
}

/// The steps, and what is held before each and after all. No two states are the same.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) steps: Vec<Step>,
    pub(crate) states: Vec<Held>,
}

fn genesis(n: u64) -> Genesis {
    Genesis {
        cluster_name: format!("lab-{n}").parse().expect("name"),
        voters: Vec::new(),
        origin: None,
        version: ClusterVersion::NEWEST,
    }
}

fn marker() -> ClusterMarker {
    ClusterMarker {
        cluster_id: ClusterId::from_bytes([3; 16]),
        genesis: Genesis {
            cluster_name: "lab".parse().expect("name"),
            voters: Vec::new(),
            origin: None,
            version: ClusterVersion::NEWEST,
        },
        raft_id: RaftId(1),
        node_name: "n1".parse().expect("name"),
        contacts: Vec::new(),
    }
}

fn snapshot(index: u64, term: u64) -> StoredSnapshot {
    StoredSnapshot { index, bytes: format!("snapshot {index} {term} ").repeat(300).into_bytes() }
}

impl Written {
    fn log_write(&self) -> LogWrite {
        let entry = |index| StoredEntry { index, bytes: vec![self.term as u8 ^ index as u8; self.bytes] };
        LogWrite {
            snapshot: self.snapshot.map(|index| snapshot(index, self.term)),
            clear_log: self.clear_log,
            entries: self.entries.clone().map(entry).collect(),
            hard_state: Some(HardState { term: self.term, vote: 1, commit: 1 }),
            sync: self.sync,
        }
    }
}

impl Step {
    /// Whether it is durable once it is acknowledged.
    pub(crate) fn is_synced(&self) -> bool {
        !matches!(self, Self::Log { write } if !write.sync)
    }

    pub(crate) fn write(&self, store: &mut Store) -> Result<(), WriteError> {
        match self {
            Self::Promise(n) => store.set_promise(&genesis(*n)),
            Self::Bind { with_log } => {
                let begin = with_log.then(|| (snapshot(1, 1), HardState { term: 1, vote: 0, commit: 1 }));
                store.bind(&marker(), begin)
            }
            Self::Log { write } => store.write(&write.log_write()),
        }
    }

    fn apply(&self, held: &mut Held) {
        match self {
            Self::Promise(n) => held.promise = Some(genesis(*n)),
            Self::Bind { with_log } => {
                held.cluster = Some(marker());
                if *with_log {
                    held.durable.snapshot = Some(snapshot(1, 1));
                    held.durable.hard_state = HardState { term: 1, vote: 0, commit: 1 };
                }
            }
            Self::Log { write } => write.log_write().apply_to(&mut held.durable),
        }
    }
}

/// What the documentation of [`LogWrite`] says.
trait ApplyTo {
    fn apply_to(self, durable: &mut Durable);
}

impl ApplyTo for LogWrite {
    fn apply_to(self, durable: &mut Durable) {
        if let Some(snapshot) = self.snapshot {
            durable.entries.retain(|entry| !self.clear_log && entry.index > snapshot.index);
            durable.snapshot = Some(snapshot);
        }
        if let Some(first) = self.entries.first() {
            durable.entries.retain(|entry| entry.index < first.index);
        }
        durable.entries.extend(self.entries);
        if let Some(hard_state) = self.hard_state {
            durable.hard_state = hard_state;
        }
    }
}

impl Workload {
    fn new(steps: Vec<Step>) -> Self {
        let mut states = vec![Held::default()];
        for step in &steps {
            let mut held = states.last().cloned().unwrap_or_default();
            step.apply(&mut held);
            assert!(!states.contains(&held), "{step:?} changes nothing: a crash there could not be seen");
            states.push(held);
        }
        Self { steps, states }
    }

    /// Every operation of the store, in the order of a node's life.
    pub(crate) fn fixed() -> Self {
        let log = |write| Step::Log { write };
        let written =
            |term, entries, bytes, sync| Written { term, entries, bytes, sync, ..Written::default() };
        Self::new(vec![
            Step::Promise(1),
            Step::Promise(2),
            Step::Bind { with_log: true },
            log(written(2, 2..3, 200, true)),
            log(written(3, 3..7, 200, true)),
            log(written(4, 0..0, 0, false)),
            log(written(5, 7..9, 3000, false)),
            log(written(6, 0..0, 0, true)),
            // A conflicting suffix, shorter than what it replaces.
            log(written(7, 4..6, 300, true)),
            log(written(8, 6..20, 900, true)),
            log(Written { snapshot: Some(10), ..written(9, 0..0, 0, true) }),
            log(written(10, 20..24, 20_000, true)),
            log(written(11, 22..23, 100, false)),
            log(Written { snapshot: Some(22), ..written(12, 23..25, 50, true) }),
            log(Written { snapshot: Some(100), clear_log: true, ..written(13, 0..0, 0, true) }),
            log(written(14, 101..103, 10, true)),
        ])
    }

    /// `count` steps of `rng`, after the birth.
    pub(crate) fn random(rng: &mut SimRng, count: u64) -> Self {
        let mut steps = vec![Step::Promise(1), Step::Bind { with_log: rng.chance(3, 4) }];
        let (mut first, mut end) = (2, 2);
        for term in 2..2 + count {
            let mut write = Written { term, sync: rng.chance(3, 4), ..Written::default() };
            if rng.chance(1, 6) {
                write.sync = true;
                write.clear_log = rng.chance(1, 3);
                let index = if write.clear_log { end + 10 } else { first + rng.below(end - first + 1) };
                write.snapshot = Some(index);
                (first, end) = (index + 1, end.max(index + 1));
                if write.clear_log {
                    end = first;
                }
            }
            if rng.chance(4, 5) {
                let from = if rng.chance(1, 4) { first + rng.below(end - first + 1) } else { end };
                end = from + 1 + rng.below(6);
                write.entries = from..end;
                write.bytes = 1 << rng.below(14);
            }
            steps.push(Step::Log { write });
        }
        Self::new(steps)
    }
}

pub(crate) fn id(n: u8) -> StoreId {
    StoreId::from_bytes([n; 16])
}

pub(crate) fn open(disk: &SimDisk, fresh: StoreId) -> Result<Store, OpenError> {
    Store::open(disk, EndpointId::from_bytes([1; 32]), &"lab".parse().expect("name"), fresh)
}

pub(crate) fn held(store: &Store) -> Result<Held, OpenError> {
    let (promise, cluster) = (store.promise().cloned(), store.cluster().cloned());
    Ok(Held { promise, cluster, durable: store.load()? })
}
