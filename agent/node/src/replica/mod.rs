//! A node in a cluster: consensus, the replicated state, and what the node knows beside them.
//!
//! Parts, each the only one that writes what it holds. None knows of another, or of the node:
//!
//! | part | holds |
//! |---|---|
//! | [`Waiting`] | who waits for the end of a proposal, or for a read |
//! | [`PeerList`] | whom to keep a link with |
//! | [`Routes`] | which peers have a link, and where members are whom the log here does not know |
//! | [`Claims`] | what peers said of themselves |
//! | [`LastSigns`] | who was heard of and when, who led last, since when this node leads |
//! | [`KnownTickets`] | since when tickets are known, and the clock by which they end |
//! | [`LeaderTasks`] | what is under way while this node leads |
//! | [`News`] | the summary, and what is to be told of this node |
//!
//! What goes in and comes out, over all parts; `error.rs` is why it may be the last:
//!
//! | file | |
//! |---|---|
//! | this one | ticks, links, reads, and what can be asked of a node at any time |
//! | `messages.rs` | Raft's messages, from peers and to them |
//! | `hearing.rs` | what peers say of themselves, of the members and of this node |
//! | `turn.rs` | a turn: what the owner has to carry out |
//! | `facts.rs` | what a leader decides on |
//! | `leading.rs` | what a leader does with asks and plans |
//! | `explain.rs`, `strangers.rs`, `stats.rs` | what people see of it |

mod claims;
mod error;
mod explain;
mod facts;
mod hearing;
mod known_tickets;
mod leader_tasks;
mod leading;
mod messages;
mod news;
mod peer_list;
mod routes;
mod signs;
mod stats;
mod strangers;
mod turn;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};

use blixard_consensus::{Consensus, RaftStatus};
use blixard_core::ClusterState;
use blixard_core::declared::DeclaredMember;
use blixard_model::{ClusterId, ClusterVersion, Contact, EndpointId, NodeName, RaftId};

use self::claims::Claims;
use self::known_tickets::KnownTickets;
use self::leader_tasks::LeaderTasks;
use self::news::News;
use self::peer_list::PeerList;
use self::routes::Routes;
use self::signs::LastSigns;
use self::waiting::Waiting;
use crate::machine::StateMachine;
use crate::summary::Summary;

pub use self::error::NodeError;
pub use self::messages::Envelope;
pub use self::peer_list::Told;
pub use self::stats::NodeStats;
pub use self::strangers::{Kinship, Stranger};
pub use self::turn::Turn;
pub use self::waiting::Waits;

/// The leader plans this often.
const PLAN_TICKS: u64 = 5;

/// What a node knows of itself when it starts.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its name.
    pub name: NodeName,
    /// The configured list of members: as leader it admits these, else it names them to whoever leads.
    pub declared: Vec<DeclaredMember>,
    /// As leader, it has a voter replaced that did not answer for so many ticks.
    pub voter_lost_ticks: u64,
    /// The newest version of a cluster that its release supports.
    pub supports: ClusterVersion,
}

/// A node in a cluster. One owner feeds it and calls [`Node::turn`] after every batch of inputs. `P` waits
/// for the end of a proposal, `R` for a read.
#[derive(Debug)]
pub struct Node<P, R> {
    raft: Consensus<StateMachine>,
    config: NodeConfig,
    tick: u64,
    waiting: Waiting<P, R>,
    peers: PeerList,
    routes: Routes,
    claims: Claims,
    signs: LastSigns,
    tickets: KnownTickets,
    tasks: LeaderTasks<P>,
    /// As leader: the nodes that are known to have a lease.
    leased: BTreeSet<NodeName>,
    /// As leader: the nodes that do not see their units.
    blind: BTreeSet<NodeName>,
    news: News,
}

impl<P: Waits, R: Waits> Node<P, R> {
    /// A node that resumes with this consensus. What it was `told` when it was admitted is all that it knows
    /// of the members until it has the log.
    pub fn new(config: NodeConfig, told: Told, raft: Consensus<StateMachine>) -> Self {
        let summary = Summary::of(&raft, 0, false);
        Self {
            config,
            tick: 0,
            waiting: Waiting::default(),
            peers: PeerList::new(told),
            routes: Routes::default(),
            claims: Claims::default(),
            signs: LastSigns::new(summary.raft_id),
            tickets: KnownTickets::default(),
            tasks: LeaderTasks::default(),
            leased: BTreeSet::new(),
            blind: BTreeSet::new(),
            news: News::new(summary, raft.machine().0.version),
            raft,
        }
    }

    /// One [`blixard_consensus::TICK_MS`] has passed.
    pub fn tick(&mut self) {
        self.tick += 1;
        self.raft.tick();
        self.signs.note_leader(self.raft.status().leader);
        self.claims.forget_old(self.tick);
        for (key, waiter) in self.waiting.take_due_reads(self.tick) {
            self.raft.forget_read(key);
            // There is room: it has just left some.
            let _asked = waiter.is_some_and(|waiter| self.read(waiter));
        }
        for key in self.waiting.take_given_up() {
            self.raft.forget_proposal(key);
        }
        if self.tick.is_multiple_of(PLAN_TICKS) && self.raft.leads() {
            self.signs.note_answers(&self.raft.status().progress, self.tick);
            self.propose_planned();
        }
    }

    /// Which peers have a link now.
    pub fn note_links(&mut self, linked: BTreeSet<EndpointId>) {
        self.routes.note_links(linked);
    }

    /// Which nodes have a lease that this node, as leader, knows of: what needs one is placed on these first.
    pub fn note_leased(&mut self, leased: BTreeSet<NodeName>) {
        self.leased = leased;
    }

    /// Which nodes do not see their units, as they told this node, which leads: VMs are placed on others
    /// first.
    pub fn note_blind(&mut self, blind: BTreeSet<NodeName>) {
        self.blind = blind;
    }

    /// This node's clock, in milliseconds since the Unix epoch. Nothing but the life of tickets rests on it.
    pub fn note_time(&mut self, wall_ms: u64) {
        self.tickets.note_time(wall_ms);
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
        self.peers.contacts(self.state())
    }

    /// Whether it is one of [`Node::peers`].
    pub fn is_peer(&self, endpoint_id: EndpointId) -> bool {
        self.peers.holds(self.state(), endpoint_id)
    }

    /// Whom an operator removed, and under which raft id: nobody lets them in. Who has joined anew since, as
    /// others told while the log here is behind, is none of them: it may be the one who leads.
    pub fn kept_out(&self) -> BTreeMap<EndpointId, RaftId> {
        self.peers.kept_out(self.state())
    }

    /// Raft's view.
    pub fn raft_status(&self) -> RaftStatus {
        self.raft.status()
    }

    /// The node's place in the cluster, as of the last turn.
    pub fn summary(&self) -> &Summary {
        self.news.summary()
    }

    /// Proposals and reads that wait.
    pub fn waiting(&self) -> (usize, usize) {
        self.waiting.len()
    }
}
