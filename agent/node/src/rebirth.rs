//! A node begins a new cluster with the state of another one: from a backup, or from the log of its own store
//! when the quorum is lost for good. Its agent is stopped.

use blixard_consensus::{Durable, NewError, ReplayError, check_resumes, first_snapshot, replay_all};
use blixard_core::ClusterState;
use blixard_core::genesis::cluster_id;
use blixard_core::lineage::{self, Founder, Lineage, LineageError};
use blixard_model::backup::BackupHeader;
use blixard_model::{ClusterId, Desired, EndpointId, Member, NodeName, RaftId, mutant};
use blixard_store::{Begin, ClusterMarker, OpenError, Store};

use crate::machine::{StateMachine, encode_state};

/// How much of the old cluster's log a new one begins with, and what its node's store will hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebirth {
    /// The new store's content.
    pub begin: Begin,
    /// The old members that are none any more.
    pub given_up: Vec<Member>,
    /// VMs in the new cluster, those placed on this node, and all.
    pub vms: (usize, usize),
    /// How many of those placed on this node are to run: it starts them as soon as its agent runs.
    pub starts: usize,
}

/// Why a node cannot begin a new cluster.
#[derive(Debug, thiserror::Error)]
pub enum RebirthError {
    /// The state is no beginning of a new cluster.
    #[error(transparent)]
    Lineage(#[from] LineageError),
    /// It would not start afterwards.
    #[error("a node could not start with it: {0}")]
    Unusable(NewError),
}

/// Plans what the store of a node holds that begins a new cluster. Pure: nothing is written.
///
/// # Errors
/// See [`RebirthError`].
pub fn plan_rebirth(old: ClusterState, term: u64, founder: Founder) -> Result<Rebirth, RebirthError> {
    let (me, index) = (founder.me.clone(), founder.index.max(1));
    let Lineage { state, raft_id, given_up } = lineage::begin(old, Founder { index, ..founder })?;
    let log = first_snapshot((index, term.max(1)), &[raft_id], encode_state(&state));
    let vms = (state.placed_on(&me.name).count(), state.vms.len());
    let starts = state.placed_on(&me.name).filter(|vm| vm.desired == Desired::Running).count();
    let genesis = state.genesis.clone();
    // A store that its node cannot start from must not take the place of one that it can.
    let durable = Durable { hard_state: log.1, snapshot: Some(log.0.clone()), entries: Vec::new() };
    check_resumes(raft_id, &durable, StateMachine::new(state)).map_err(RebirthError::Unusable)?;
    let marker = ClusterMarker {
        cluster_id: cluster_id(&genesis),
        genesis,
        raft_id,
        node_name: me.name,
        contacts: Vec::new(),
    };
    Ok(Rebirth { begin: Begin { store_id: me.store_id, marker, log }, given_up, vms, starts })
}

/// What is left of a cluster on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// The state at the end of its log.
    pub state: ClusterState,
    /// The last index of its log.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// How many entries at the end of its log it did not know to be committed.
    pub not_known_committed: u64,
    /// Its raft id.
    pub raft_id: RaftId,
}

/// Why nothing can be recovered from a store.
#[derive(Debug, thiserror::Error)]
pub enum RemainsError {
    /// It belongs to no cluster.
    #[error("the store belongs to no cluster: there is nothing to recover in it")]
    Empty,
    /// The node was renamed.
    #[error(
        "node_name is {ours}, but the cluster knows this store as {theirs}: set node_name back to {theirs}"
    )]
    Renamed {
        /// The configured name.
        ours: NodeName,
        /// The name in the store.
        theirs: NodeName,
    },
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Open(#[from] OpenError),
    /// Its log cannot be applied.
    #[error("the log cannot be applied to its end")]
    Replay(#[from] ReplayError),
    /// The node has no state, or left.
    #[error(
        "by its own log this node (raft id {raft_id}) is no member of the cluster: it was removed, or has \
         not got the state yet; recover on a node that is one"
    )]
    NoMember {
        /// Its raft id.
        raft_id: RaftId,
    },
}

/// Reads what is left of the cluster in this store: all of its log, known to be committed or not.
///
/// # Errors
/// See [`RemainsError`].
pub fn read_remains(store: &Store, name: &NodeName) -> Result<Remains, RemainsError> {
    let marker = store.cluster().ok_or(RemainsError::Empty)?;
    if marker.node_name != *name {
        return Err(RemainsError::Renamed { ours: name.clone(), theirs: marker.node_name.clone() });
    }
    let raft_id = marker.raft_id;
    let machine = StateMachine::new(ClusterState::new(marker.genesis.clone()));
    let replayed = replay_all(raft_id, &store.load()?, machine)?;
    if !replayed.is_member && !mutant::lives("removed-node-recovers") {
        return Err(RemainsError::NoMember { raft_id });
    }
    Ok(Remains {
        state: replayed.machine.0,
        index: replayed.index,
        term: replayed.term,
        not_known_committed: replayed.not_known_committed,
        raft_id,
    })
}

/// Why a backup does not belong here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MisplacedBackup {
    /// The configuration names another cluster.
    #[error(
        "the backup is of cluster {theirs:?}, the configuration says {ours:?}: correct cluster_name, or make \
         a new cluster of it with --as-new"
    )]
    ClusterName {
        /// The backup's.
        theirs: String,
        /// The configured one.
        ours: String,
    },
    /// The store is of another cluster.
    #[error(
        "this node's store belongs to cluster {ours}, the backup is of cluster {theirs}: is it the right \
         node and the right backup? --as-new makes a new cluster of the backup all the same, and keeps the \
         store under another name"
    )]
    ClusterId {
        /// The backup's.
        theirs: ClusterId,
        /// The store's.
        ours: ClusterId,
    },
}

/// Checks that a backup is of the cluster that this node is configured for and that its store is of, or was
/// made of.
///
/// # Errors
/// See [`MisplacedBackup`].
pub fn check_place(
    backup: (&BackupHeader, &ClusterState),
    cluster_name: &str,
    store: Option<&ClusterMarker>,
) -> Result<(), MisplacedBackup> {
    let (header, state) = backup;
    if header.cluster_name.as_str() != cluster_name {
        let theirs = header.cluster_name.to_string();
        return Err(MisplacedBackup::ClusterName { theirs, ours: cluster_name.to_owned() });
    }
    let Some(marker) = store else { return Ok(()) };
    // One step: a restore that is done again, or one from a backup that was made after the last restore.
    let made_of = |genesis: &blixard_model::formation::Genesis, id: ClusterId| {
        genesis.origin.as_ref().is_some_and(|origin| origin.cluster_id == id)
    };
    let same = marker.cluster_id == header.cluster_id
        || made_of(&marker.genesis, header.cluster_id)
        || made_of(&state.genesis, marker.cluster_id);
    if same {
        return Ok(());
    }
    Err(MisplacedBackup::ClusterId { theirs: header.cluster_id, ours: marker.cluster_id })
}

/// The endpoint id under which the state knows a node of this name, when that is another one.
pub fn replaced_endpoint(state: &ClusterState, name: &NodeName, own: EndpointId) -> Option<EndpointId> {
    let member = state.member_by_name(name)?;
    (member.node.endpoint_id != own).then_some(member.node.endpoint_id)
}
