//! A node in a cluster: what goes in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use blixard_consensus::{Consensus, RaftStatus};
use blixard_core::ClusterState;
use blixard_core::declared::DeclaredMember;
use blixard_core::formation::contacts;
use blixard_core::planner::Raising;
use blixard_core::state::Availability;
use blixard_model::{
    ClusterId, ClusterVersion, Contact, EndpointId, NodeName, RaftId, RelayUrl, TicketId, mutant,
};

use crate::claims::Heard;
use crate::leader_tasks::AskedChange;
use crate::machine::StateMachine;
use crate::notice::Notice;
use crate::summary::Summary;
use crate::waiting::{Waiting, Waits};

/// The leader plans this often.
const PLAN_TICKS: u64 = 5;

/// What a node knows of itself when it starts.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its name.
    pub name: NodeName,
    /// The configured list of members: as leader it admits these.
    pub declared: Vec<DeclaredMember>,
    /// Members that it was told of when it was admitted: all that it knows until it has the log.
    pub told: Told,
    /// As leader, it has a voter replaced that was not heard of for so many ticks.
    pub voter_lost_ticks: u64,
    /// The newest version of a cluster that its release supports.
    pub supports: ClusterVersion,
}

/// The members as another node told of them.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// How much of the log that one had applied.
    pub applied: u64,
    /// Who and where they are.
    pub members: Vec<Contact>,
}

/// A node in a cluster. One owner feeds it and calls [`Node::turn`] after every batch of inputs. `P` waits
/// for the end of a proposal, `R` for a read.
#[derive(Debug)]
pub struct Node<P, R> {
    pub(crate) raft: Consensus<StateMachine>,
    pub(crate) config: NodeConfig,
    pub(crate) tick: u64,
    pub(crate) waiting: Waiting<P, R>,
    /// What peers said of themselves.
    pub(crate) claims: BTreeMap<EndpointId, Heard>,
    /// The peers with a link.
    pub(crate) linked: BTreeSet<EndpointId>,
    /// Where members are whom the state here does not know yet: a node that is behind must answer a leader
    /// that was admitted after what it has applied.
    pub(crate) routes: BTreeMap<RaftId, EndpointId>,
    pub(crate) membership_version: u64,
    /// The members, where they are and through which relay, as `membership_version` counts them.
    pub(crate) peers: Vec<(RaftId, Vec<SocketAddr>, Option<RelayUrl>)>,
    /// When each member was last heard of.
    pub(crate) heard: BTreeMap<RaftId, u64>,
    /// As leader, when each member was last seen to take what is sent to it: one that only speaks is lost
    /// too.
    pub(crate) answered: BTreeMap<RaftId, u64>,
    /// Who led last, as far as this node knows.
    pub(crate) followed: Option<RaftId>,
    /// When this node began to lead its term.
    pub(crate) leads_since: u64,
    /// Its clock, in milliseconds since the Unix epoch.
    pub(crate) wall_ms: u64,
    /// Since which tick each open ticket is known here.
    pub(crate) tickets_known: BTreeMap<TicketId, u64>,
    /// When expired tickets were proposed last.
    pub(crate) expiry_proposed: Option<u64>,
    /// As leader, the version that it is raising the cluster to.
    pub(crate) raising: Option<Raising>,
    /// The cluster's version as it was told to people.
    pub(crate) known_version: ClusterVersion,
    pub(crate) asked_change: Option<AskedChange<P>>,
    /// The members whose removal was asked for lately, and when it was first.
    pub(crate) removals_asked: BTreeMap<RaftId, u64>,
    pub(crate) summary: Summary,
    pub(crate) notices: Vec<Notice>,
}

impl<P: Waits, R: Waits> Node<P, R> {
    /// A node that resumes with this consensus.
    pub fn new(config: NodeConfig, raft: Consensus<StateMachine>) -> Self {
        let summary = Summary::of(&raft, 0, false);
        let known_version = raft.machine().0.version;
        Self {
            raft,
            config,
            tick: 0,
            waiting: Waiting::default(),
            claims: BTreeMap::new(),
            linked: BTreeSet::new(),
            routes: BTreeMap::new(),
            membership_version: 0,
            peers: Vec::new(),
            heard: BTreeMap::new(),
            answered: BTreeMap::new(),
            followed: None,
            leads_since: 0,
            wall_ms: 0,
            tickets_known: BTreeMap::new(),
            expiry_proposed: None,
            raising: None,
            known_version,
            asked_change: None,
            removals_asked: BTreeMap::new(),
            summary,
            notices: Vec::new(),
        }
    }

    /// One [`blixard_consensus::TICK_MS`] has passed.
    pub fn tick(&mut self) {
        self.tick += 1;
        self.raft.tick();
        self.followed = self.raft.status().leader.or(self.followed);
        self.forget_old_claims();
        for (key, waiter) in self.waiting.take_due_reads(self.tick) {
            self.raft.forget_read(key);
            // There is room: it has just left some.
            let _asked = waiter.is_some_and(|waiter| self.read(waiter));
        }
        for key in self.waiting.take_given_up() {
            self.raft.forget_proposal(key);
        }
        if self.tick.is_multiple_of(PLAN_TICKS) && self.raft.leads() {
            self.note_answers();
            self.propose_planned();
        }
    }

    /// Which peers have a link now.
    pub fn note_links(&mut self, linked: BTreeSet<EndpointId>) {
        self.linked = linked;
    }

    /// Hands the waiter out once everything acknowledged before is applied here. False: too many wait, and
    /// this one does not.
    #[must_use]
    pub fn read(&mut self, waiter: R) -> bool {
        let key = self.raft.read();
        if let Some(key) = key {
            self.waiting.add_read(key, waiter, self.tick);
        }
        key.is_some()
    }

    /// Nobody waits any more for the proposals that these made; they may still be applied.
    pub fn forget_proposer(&mut self, is: impl Fn(&P) -> bool) {
        for key in self.waiting.take_proposals_of(is) {
            self.raft.forget_proposal(key);
        }
    }

    /// Nobody waits any more for the reads of these.
    pub fn forget_reader(&mut self, is: impl Fn(&R) -> bool) {
        for key in self.waiting.take_reads_of(is) {
            self.raft.forget_read(key);
        }
    }

    /// The link to a member is down, or its queue full.
    pub fn report_unreachable(&mut self, member: RaftId) {
        self.raft.report_unreachable(member);
    }

    /// How the sending of a snapshot ended.
    pub fn report_snapshot(&mut self, member: RaftId, delivered: bool) {
        self.raft.report_snapshot(member, delivered);
    }

    /// Hands the leadership over, if this node has it; false when there is nobody to take it.
    pub fn transfer_leadership(&mut self) -> bool {
        self.raft.transfer_leadership()
    }

    /// The replicated state, as far as it is applied here.
    pub fn state(&self) -> &ClusterState {
        &self.raft.machine().0
    }

    /// Whom to keep a link with, beside those that are listed, and where: the members; while the log here is
    /// behind, those that others told of as well.
    pub fn peers(&self) -> Vec<Contact> {
        let mut peers = contacts(self.state());
        peers.extend(self.config.told.members.iter().cloned());
        peers
    }

    /// Whether it is one of [`Node::peers`].
    pub fn is_peer(&self, endpoint_id: EndpointId) -> bool {
        self.state().member_by_endpoint(endpoint_id).is_some() || self.is_told(endpoint_id)
    }

    fn is_told(&self, endpoint_id: EndpointId) -> bool {
        self.config.told.members.iter().any(|contact| contact.endpoint_id == endpoint_id)
    }

    /// Whom an operator removed, and under which raft id: nobody lets them in. Who has joined anew since, as
    /// others told while the log here is behind, is none of them: it may be the one who leads.
    pub fn kept_out(&self) -> BTreeMap<EndpointId, RaftId> {
        let is_back = |id: &EndpointId| self.is_told(*id) && !mutant::lives("removed-for-ever");
        let departed = self.state().nodes.departed();
        let removed = departed.filter(|(_, node)| node.availability == Availability::Removed);
        removed.filter(|(id, _)| !is_back(id)).map(|(id, node)| (id, node.raft_id)).collect()
    }

    /// Raft's view.
    pub fn raft_status(&self) -> RaftStatus {
        self.raft.status()
    }

    /// The node's place in the cluster, as of the last turn.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Proposals and reads that wait.
    pub fn waiting(&self) -> (usize, usize) {
        self.waiting.len()
    }
}
