//! A machine: its disk, its clock, its units, and the agent that runs on it or not.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};

use blixard_core::reconciler::{Action, Ongoing};
use blixard_model::formation::{Genesis, Identity};
use blixard_model::wire::Contact;
use blixard_model::{Capacity, ClusterId, EndpointId, NodeName, StoreId, TicketId, TicketSecret};
use blixard_node::forming::{Birth, Pace};
use blixard_node::joining::Joining;
use blixard_node::{Registration, Submission, Waits};
use blixard_store::Store;

use super::event::MachineId;
use super::hypervisor::Hypervisor;
use super::mirror::{Mirror, Watched};
use crate::disk::{Image, SimDisk};

/// When a run begins, by every wall clock, in ms since the epoch.
const WALL_BEGIN_MS: u64 = 1_700_000_000_000;

/// A node as the simulated agent holds it.
pub(crate) type Node = blixard_node::Node<Watched, Ticket, ReadTicket>;

/// Who waits for a proposal, as long as it does.
#[derive(Debug)]
pub(crate) enum Ticket {
    /// A submission of this agent.
    Submission(u64, Weak<()>),
    /// Another agent.
    Peer { to: MachineId, call: u64, waits: Weak<()> },
}

impl Waits for Ticket {
    fn gave_up(&self) -> bool {
        let (Self::Submission(_, waits) | Self::Peer { waits, .. }) = self;
        waits.strong_count() == 0
    }
}

/// Who waits for a read, as long as it does.
#[derive(Debug)]
pub(crate) enum ReadTicket {
    /// A client's list.
    Client { client: usize, op: u64, waits: Weak<()> },
    /// The reconciler's first look at an up to date log.
    Barrier,
}

impl Waits for ReadTicket {
    fn gave_up(&self) -> bool {
        match self {
            Self::Client { waits, .. } => waits.strong_count() == 0,
            Self::Barrier => false,
        }
    }
}

/// Whose write a submission is.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    /// A client's.
    Client { client: usize, op: u64 },
    /// The agent's own: what it offers.
    Declare,
    /// The reconciler's: a unit is gone.
    Confirm(Action),
    /// The operator's.
    Operator(u64),
    /// A word for a node on its list.
    Vouch,
    /// A node's with a ticket, which waits for the answer.
    Join { to: MachineId, call: u64 },
}

/// A submission under way.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) submission: Submission,
    pub(crate) purpose: Purpose,
    /// An attempt is under way: here, or as this call.
    pub(crate) asked: Option<Asked>,
}

/// The attempt that a submission waits for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// This node proposes. Dropped with the attempt: then nobody waits for it.
    Here { _waits: Rc<()> },
    /// Another one does.
    Call(u64),
}

/// What a question to another agent was for.
#[derive(Debug)]
pub(crate) enum Call {
    /// A forwarded write, of a client or to confirm that a unit is gone. What is dropped with the call tells
    /// that nobody waits for it.
    Forward { submission: u64, confirms: bool, waits: Rc<()> },
    /// Who is it? Asked at this version of the membership.
    Identify { of: MachineId, version: Option<u64> },
    /// To be let in with a ticket.
    Join,
}

/// An agent that is in no cluster.
#[derive(Debug)]
pub(crate) struct Forming {
    pub(crate) store: Store,
    /// What came back in this round.
    pub(crate) answers: BTreeMap<EndpointId, Identity>,
    pub(crate) promise: Option<Genesis>,
    /// Whom it waits for.
    pub(crate) waiting_for: Vec<String>,
    /// When it asks again.
    pub(crate) pace: Pace,
    /// There is a cluster, and the store is being bound to it.
    pub(crate) birth: Option<Birth>,
    /// It has a ticket.
    pub(crate) joining: Option<Joining>,
    /// The members that others told of.
    pub(crate) told: Vec<EndpointId>,
}

/// How far an agent has come.
#[derive(Debug)]
pub(crate) enum Phase {
    /// It asks around.
    Forming(Box<Forming>),
    /// In a cluster.
    Running(Box<Node>),
}

/// One run of an agent.
#[derive(Debug)]
pub(crate) struct Process {
    /// Different for every run of every agent.
    pub(crate) run: u64,
    pub(crate) store_id: StoreId,
    pub(crate) phase: Phase,
    pub(crate) mirror: Rc<RefCell<Mirror>>,
    pub(crate) genesis: Option<Genesis>,
    pub(crate) ongoing: Ongoing,
    pub(crate) up_to_date: bool,
    pub(crate) registration: Registration,
    pub(crate) submissions: BTreeMap<u64, Sub>,
    pub(crate) calls: BTreeMap<u64, Call>,
    pub(crate) turn_due: bool,
    pub(crate) reconcile_due: bool,
}

impl Process {
    pub(crate) fn node(&self) -> Option<&Node> {
        match &self.phase {
            Phase::Running(node) => Some(node),
            Phase::Forming(_) => None,
        }
    }

    pub(crate) fn node_mut(&mut self) -> Option<&mut Node> {
        match &mut self.phase {
            Phase::Running(node) => Some(node),
            Phase::Forming(_) => None,
        }
    }

    /// Whether somebody waits for the answer to this call, for as long as somebody does.
    pub(crate) fn waits_for(&self, call: u64) -> Weak<()> {
        match self.calls.get(&call) {
            Some(Call::Forward { waits, .. }) => Rc::downgrade(waits),
            Some(Call::Identify { .. } | Call::Join) | None => Weak::new(),
        }
    }

    /// Without a cluster: whether others said that this one is a member of theirs.
    pub(crate) fn is_told_of(&self, endpoint_id: EndpointId) -> bool {
        match &self.phase {
            Phase::Forming(forming) => forming.told.contains(&endpoint_id),
            Phase::Running(_) => false,
        }
    }

    pub(crate) fn forming_mut(&mut self) -> Option<&mut Forming> {
        match &mut self.phase {
            Phase::Forming(forming) => Some(forming),
            Phase::Running(_) => None,
        }
    }

    pub(crate) fn vouches(&self) -> bool {
        self.submissions.values().any(|sub| matches!(sub.purpose, Purpose::Vouch))
    }

    pub(crate) fn declares(&self) -> bool {
        self.submissions.values().any(|sub| matches!(sub.purpose, Purpose::Declare))
    }
}

/// A ticket, as a machine that is to join holds it.
#[derive(Debug, Clone)]
pub(crate) struct HeldTicket {
    pub(crate) cluster_id: ClusterId,
    pub(crate) id: TicketId,
    pub(crate) secret: TicketSecret,
    pub(crate) contacts: Vec<Contact>,
}

impl HeldTicket {
    pub(crate) fn names(&self, endpoint_id: EndpointId) -> bool {
        self.contacts.iter().any(|contact| contact.endpoint_id == endpoint_id)
    }
}

/// How a machine's disk is, as far as an operator would know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskHealth {
    /// Fine.
    Good,
    /// It failed, or went back in time, and counts as lost.
    Lost,
}

/// A machine. It outlives its agents.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: NodeName,
    pub(crate) endpoint_id: EndpointId,
    pub(crate) capacity: Capacity,
    pub(crate) disk: SimDisk,
    pub(crate) disk_health: DiskHealth,
    /// The store that its last agent had.
    pub(crate) store_id: Option<StoreId>,
    pub(crate) hypervisor: Hypervisor,
    pub(crate) process: Option<Process>,
    /// Counts power losses: jobs of an earlier boot are void.
    pub(crate) boot: u64,
    /// The agent stands still until then: paused, or waiting for its disk.
    pub(crate) held_until_us: u64,
    /// How fast its clock runs, as parts per million of true time.
    pub(crate) clock_ppm: u64,
    /// What its clock has jumped ahead, in µs.
    pub(crate) jumped_us: u64,
    /// The machines it can send to.
    pub(crate) view: BTreeSet<EndpointId>,
    /// Which machines its configuration lists: the first so many.
    pub(crate) listed: usize,
    /// An older copy of its disk.
    pub(crate) old_image: Option<Image>,
    /// The store that is in it.
    pub(crate) old_image_of: Option<StoreId>,
    /// That copy was put in its place, and nobody has noticed yet.
    pub(crate) rolled_back: bool,
    /// It is not to be started before this.
    pub(crate) start_scheduled: bool,
    /// It votes and runs no VMs.
    pub(crate) witness: bool,
    /// Configured to join a cluster, with no list of members.
    pub(crate) joins: bool,
    /// The ticket in its directory.
    pub(crate) ticket: Option<HeldTicket>,
    /// It is off, for all that its operator knows for good.
    pub(crate) retired: bool,
    /// Its agent has ended because an operator removed it from the cluster.
    pub(crate) removed: bool,
}

impl Machine {
    /// Its monotonic clock, in ms.
    pub(crate) fn mono_ms(&self, now_us: u64) -> u64 {
        scale(now_us, self.clock_ppm) / 1_000
    }

    /// Its CLOCK_BOOTTIME, in ms.
    pub(crate) fn boot_ms(&self, now_us: u64) -> u64 {
        (scale(now_us, self.clock_ppm) + self.jumped_us) / 1_000
    }

    /// Its wall clock, in ms since the epoch; it jumps with the other one.
    pub(crate) fn wall_ms(&self, now_us: u64) -> u64 {
        WALL_BEGIN_MS + self.boot_ms(now_us)
    }

    /// How much true time a span of its own clock takes.
    pub(crate) fn true_us(&self, local_us: u64) -> u64 {
        let true_us = u128::from(local_us) * 1_000_000 / u128::from(self.clock_ppm.max(1));
        u64::try_from(true_us).unwrap_or(u64::MAX)
    }

    pub(crate) fn node(&self) -> Option<&Node> {
        self.process.as_ref().and_then(Process::node)
    }

    pub(crate) fn is_in_cluster(&self) -> bool {
        self.node().is_some_and(|node| node.summary().is_member)
    }
}

fn scale(us: u64, ppm: u64) -> u64 {
    u64::try_from(u128::from(us) * u128::from(ppm) / 1_000_000).unwrap_or(u64::MAX)
}
