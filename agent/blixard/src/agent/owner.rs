//! The consensus task: the one owner of the Raft node, the state and the store.
//!
//! Turns: wait for a tick or inputs, take all that wait, pump once (one durable write for all of them), carry
//! out the effects. Ticks and inputs are awaited fairly, so that a full inbox starves no tick. Any error of
//! the store ends the task, and with it the process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use blixard_consensus::{
    Consensus, Effects, Inbound, Outgoing, ProposeError, PumpError, RaftRole, StepError, TICK_MS,
};
use blixard_core::formation::DeclaredMember;
use blixard_core::planner::membership::{MembershipView, Progress, plan_membership};
use blixard_model::formation::Identity;
use blixard_model::wire::ProposeResult;
use blixard_model::{ClusterId, Command, EndpointId, Member, NodeName, Outcome, RaftId, Request};
use blixard_net::{Links, Net, SendOutcome};
use blixard_store::{Store, WriteError};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::handle::{Input, Summary, View};
use super::machine::{StateMachine, encode_request};
use super::supervise::feed_watchdog;

/// Most inputs taken in one turn.
const BATCH_MAX: usize = 256;
/// A read that was not answered after this many ticks is asked again: Raft drops reads silently.
const READ_RETRY_TICKS: u64 = 5;
/// The leader looks at the membership this often.
const MEMBERSHIP_TICKS: u64 = 5;
/// What a peer said of itself counts for this long.
const IDENTITY_TICKS: u64 = 60;
/// A member that was not heard of for this long is not reachable, whatever its link says: links end later.
const HEARD_TICKS: u64 = 15;
/// A new leader waits this long for the first word of each linked member: a live one answers the first
/// heartbeat.
const FIRST_WORD_TICKS: u64 = 5;
/// Most senders kept that the log here does not know yet.
const ROUTES_MAX: usize = 64;
/// The nodes of a new cluster say what they offer within this time.
const DECLARE_TICKS: u64 = 30;
/// The watchdog is fed this often.
const WATCHDOG_TICKS: u64 = 20;

type Raft = Consensus<StateMachine, Store>;

/// What the task is made of.
pub(crate) struct OwnerTask {
    pub(crate) raft: Raft,
    pub(crate) cluster_id: ClusterId,
    pub(crate) name: NodeName,
    pub(crate) declared: Vec<DeclaredMember>,
    pub(crate) net: Net,
    pub(crate) links: watch::Receiver<Links>,
    pub(crate) inbox: mpsc::Receiver<Input>,
    pub(crate) summary: watch::Sender<Summary>,
}

struct WaitingRead {
    reply: oneshot::Sender<()>,
    since_tick: u64,
}

struct Owner {
    task: OwnerTask,
    tick: u64,
    proposals: BTreeMap<u64, oneshot::Sender<ProposeResult>>,
    reads: BTreeMap<u64, WaitingRead>,
    identities: BTreeMap<EndpointId, (Identity, u64)>,
    /// Where members are whom the state here does not know yet: a node that is behind must answer a leader
    /// that was admitted after what it has applied.
    routes: BTreeMap<RaftId, EndpointId>,
    deliveries: FuturesUnordered<BoxFuture<'static, (RaftId, bool)>>,
    membership_version: u64,
    /// The members and where they are, as `membership_version` counts them.
    peers: Vec<(RaftId, Vec<SocketAddr>)>,
    /// When each member was last heard of.
    heard: BTreeMap<RaftId, u64>,
    /// When this node began to lead its term.
    leads_since: u64,
    stopping: bool,
}

/// Looks at the node before its task begins.
pub(crate) fn first_summary(raft: &Raft) -> Summary {
    summarise(raft, 0)
}

fn summarise(raft: &Raft, membership_version: u64) -> Summary {
    let status = raft.status();
    let state = &raft.machine().0;
    let leader = status.leader.and_then(|id| state.members.get(&id));
    Summary {
        raft_id: status.id,
        role: status.role,
        leads: raft.leads(),
        leader: leader.map(|member| (member.name.clone(), member.endpoint_id)),
        term: status.term,
        applied: status.applied,
        is_member: raft.is_member(),
        membership_version,
    }
}

impl OwnerTask {
    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// The store failed, or the log holds what this version can not apply.
    pub(crate) async fn run(self) -> Result<(), PumpError<WriteError>> {
        let mut owner = Owner {
            task: self,
            tick: 0,
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            identities: BTreeMap::new(),
            routes: BTreeMap::new(),
            deliveries: FuturesUnordered::new(),
            membership_version: 0,
            peers: Vec::new(),
            heard: BTreeMap::new(),
            leads_since: 0,
            stopping: false,
        };
        let mut ticks = interval(Duration::from_millis(TICK_MS));
        // After a pause the missed ticks would come at once and end every election timeout.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => owner.handle_tick(),
                input = owner.task.inbox.recv() => {
                    let Some(input) = input else { return Ok(()) };
                    owner.handle_input(input);
                    for _ in 1..BATCH_MAX {
                        let Ok(input) = owner.task.inbox.try_recv() else { break };
                        owner.handle_input(input);
                    }
                    if owner.stopping {
                        return Ok(());
                    }
                }
                Some((member, delivered)) = owner.deliveries.next() => {
                    owner.task.raft.report_snapshot(member, delivered);
                }
            }
            // Writes wait for the disk: the runtime's other tasks go on meanwhile.
            let effects = tokio::task::block_in_place(|| owner.task.raft.pump())?;
            owner.carry_out(effects);
            owner.publish();
        }
    }
}

impl Owner {
    fn handle_tick(&mut self) {
        self.tick += 1;
        self.task.raft.tick();
        if self.tick.is_multiple_of(WATCHDOG_TICKS) {
            feed_watchdog();
        }
        let now = self.tick;
        self.identities.retain(|_, (_, heard)| now.saturating_sub(*heard) < IDENTITY_TICKS);
        self.retry_reads();
        if self.tick.is_multiple_of(MEMBERSHIP_TICKS) && self.task.raft.leads() {
            self.propose_membership();
        }
    }

    fn handle_input(&mut self, input: Input) {
        match input {
            Input::Raft { from, bytes, is_snapshot } => self.handle_raft(from, &bytes, is_snapshot),
            Input::Identity(identity) => {
                self.identities.insert(identity.endpoint_id, (*identity, self.tick));
            }
            Input::Propose { request, reply } => self.handle_propose(request, reply),
            Input::Read { reply } => self.ask_read(reply),
            Input::View(look) => {
                let raft = self.task.raft.status();
                look(&View { state: &self.task.raft.machine().0, raft: &raft });
            }
            Input::Stop => self.stopping = true,
            Input::TransferLeadership { reply } => {
                // An error means that the asker gave up.
                let _gone = reply.send(self.task.raft.transfer_leadership()).is_err();
            }
        }
    }

    /// A frame is the cluster's id and a Raft message.
    fn handle_raft(&mut self, from: EndpointId, frame: &Bytes, is_snapshot: bool) {
        let id_len = self.task.cluster_id.as_bytes().len();
        let Some((cluster_id, message)) = frame.split_at_checked(id_len) else { return };
        if cluster_id != self.task.cluster_id.as_bytes() {
            tracing::debug!(peer = %from.short(), "raft message of another cluster dropped");
            return;
        }
        let inbound = match Inbound::decode(message, is_snapshot) {
            Ok(inbound) => inbound,
            Err(error) => {
                tracing::warn!(PEER = %from.short(), "raft message of {} dropped: {error}", from.short());
                return;
            }
        };
        // The sender must be who the log says its raft id is. One that the log here does not know yet is
        // believed: its connection proved that it is in the list of peers.
        match self.task.raft.machine().0.members.get(&inbound.from()) {
            Some(member) if member.endpoint_id != from => {
                let peer = from.short();
                tracing::warn!(PEER = peer, "raft message of {peer}: the raft id is another's");
                return;
            }
            Some(_) => {}
            None if self.routes.len() >= ROUTES_MAX && !self.routes.contains_key(&inbound.from()) => return,
            None => {
                self.routes.insert(inbound.from(), from);
            }
        }
        self.heard.insert(inbound.from(), self.tick);
        match self.task.raft.step(inbound) {
            Ok(()) => {}
            Err(error @ StepError::Raft(_)) => {
                tracing::debug!(peer = %from.short(), %error, "raft message dropped");
            }
            // Nothing that an honest member says to a whole node.
            Err(error) => {
                tracing::warn!(PEER = %from.short(), "raft message of {} dropped: {error}", from.short());
            }
        }
    }

    fn handle_propose(&mut self, mut request: Request, reply: oneshot::Sender<ProposeResult>) {
        if let Command::CreateVm { eligible, .. } = &mut request.command {
            if self.unsettled() {
                let why = "this leader is new and has not heard of every node yet".to_owned();
                // An error means that the asker gave up.
                let _gone = reply.send(ProposeResult::Rejected { why }).is_err();
                return;
            }
            *eligible = self.reachable();
        }
        match self.task.raft.propose(encode_request(&request)) {
            Ok(key) => {
                self.proposals.insert(key, reply);
            }
            Err(error) => {
                let result = match error {
                    ProposeError::NotLeader(leader) => {
                        let members = &self.task.raft.machine().0.members;
                        let name = leader.and_then(|id| members.get(&id)).map(|member| member.name.clone());
                        ProposeResult::NotLeader { leader: name }
                    }
                    other => ProposeResult::Rejected { why: other.to_string() },
                };
                // As above.
                let _gone = reply.send(result).is_err();
            }
        }
    }

    /// The members with a link that were heard of lately, and this node itself.
    fn reachable(&self) -> Vec<NodeName> {
        let members = self.task.raft.machine().0.members.values();
        let reachable = members.filter(|m| m.name == self.task.name || self.is_linked(m) && self.is_heard(m));
        reachable.map(|member| member.name.clone()).collect()
    }

    /// A new leader has heard of those who voted for it; the others answer its first heartbeats, or are gone
    /// although their link still stands. In a new cluster every node has yet to say what it offers.
    fn unsettled(&self) -> bool {
        let leads_for = self.tick.saturating_sub(self.leads_since);
        let state = &self.task.raft.machine().0;
        let unheard = |m: &Member| m.name != self.task.name && self.is_linked(m) && !self.is_heard(m);
        let unsaid = |m: &Member| !state.capacity.contains_key(&m.name) && !unheard(m);
        let waits =
            |m: &Member| leads_for < FIRST_WORD_TICKS && unheard(m) || leads_for < DECLARE_TICKS && unsaid(m);
        self.task.raft.leads() && state.members.values().any(waits)
    }

    fn is_linked(&self, member: &Member) -> bool {
        self.task.links.borrow().get(&member.endpoint_id).is_some_and(blixard_net::LinkState::is_up)
    }

    /// Heard of lately, and since this node leads: what was heard before may have been the last word.
    fn is_heard(&self, member: &Member) -> bool {
        let heard = self.heard.get(&member.raft_id);
        heard.is_some_and(|at| *at >= self.leads_since && self.tick.saturating_sub(*at) < HEARD_TICKS)
    }

    fn ask_read(&mut self, reply: oneshot::Sender<()>) {
        // Without room the reply is dropped, and the asker told.
        if let Some(key) = self.task.raft.read() {
            self.reads.insert(key, WaitingRead { reply, since_tick: self.tick });
        }
    }

    fn retry_reads(&mut self) {
        let now = self.tick;
        let due = |read: &WaitingRead| now.saturating_sub(read.since_tick) >= READ_RETRY_TICKS;
        let keys: Vec<u64> = self.reads.iter().filter(|(_, read)| due(read)).map(|(key, _)| *key).collect();
        for key in keys {
            self.task.raft.forget_read(key);
            if let Some(read) = self.reads.remove(&key)
                && !read.reply.is_closed()
            {
                self.ask_read(read.reply);
            }
        }
        let given_up: Vec<u64> =
            self.proposals.iter().filter(|(_, reply)| reply.is_closed()).map(|(key, _)| *key).collect();
        for key in given_up {
            self.proposals.remove(&key);
            self.task.raft.forget_proposal(key);
        }
    }

    fn propose_membership(&mut self) {
        if self.task.raft.membership_pending() {
            return;
        }
        let status = self.task.raft.status();
        let identities = self.identities.iter().map(|(id, (identity, _))| (*id, identity.clone())).collect();
        let progress = status
            .progress
            .iter()
            .map(|(id, (matched, active))| (*id, Progress { matched: *matched, recent_active: *active }))
            .collect();
        let change = plan_membership(&MembershipView {
            state: &self.task.raft.machine().0,
            leader: status.id,
            voters: &status.voters,
            learners: &status.learners,
            declared: &self.task.declared,
            identities: &identities,
            progress: &progress,
            commit: status.commit,
        });
        let Some(change) = change else { return };
        match self.task.raft.propose_membership(&change) {
            Ok(()) => tracing::info!("membership change proposed: {change:?}"),
            Err(error) => tracing::debug!(?change, %error, "membership change not proposed"),
        }
    }

    fn carry_out(&mut self, effects: Effects<Outcome>) {
        effects.messages.into_iter().for_each(|message| self.send(message));
        for applied in effects.applied {
            let Some(reply) = applied.key.and_then(|key| self.proposals.remove(&key)) else { continue };
            // An error means that the asker gave up.
            let _gone = reply.send(ProposeResult::Applied { outcome: applied.outcome }).is_err();
        }
        for key in effects.reads {
            if let Some(read) = self.reads.remove(&key) {
                // As above.
                let _gone = read.reply.send(()).is_err();
            }
        }
        for change in &effects.membership {
            tracing::info!("membership changed: {change:?}");
        }
        if effects.restored {
            let applied = self.task.raft.status().applied;
            tracing::info!(applied, "state replaced by the leader's snapshot up to index {applied}");
        }
        self.note_members();
    }

    /// Members came, went or moved: whoever keeps the list of peers is woken.
    fn note_members(&mut self) {
        let members = &self.task.raft.machine().0.members;
        let same = members.len() == self.peers.len()
            && members
                .iter()
                .zip(&self.peers)
                .all(|((id, member), (known, addresses))| id == known && member.addresses == *addresses);
        if same {
            return;
        }
        self.peers = members.iter().map(|(id, member)| (*id, member.addresses.clone())).collect();
        self.routes.retain(|id, _| !members.contains_key(id));
        self.membership_version += 1;
    }

    fn send(&mut self, message: Outgoing) {
        let members = &self.task.raft.machine().0.members;
        let known = members.get(&message.to).map(|member| member.endpoint_id);
        let Some(to) = known.or_else(|| self.routes.get(&message.to).copied()) else { return };
        let cluster_id = self.task.cluster_id.as_bytes();
        let mut frame = BytesMut::with_capacity(cluster_id.len() + message.bytes.len());
        frame.put_slice(cluster_id);
        frame.put_slice(&message.bytes);
        let frame = frame.freeze();
        if message.is_snapshot {
            let delivery = self.task.net.send_snapshot(to, frame);
            let member = message.to;
            self.deliveries.push(Box::pin(async move { (member, delivery.await.is_ok()) }));
            return;
        }
        if self.task.net.send_raft(to, frame) != SendOutcome::Queued {
            self.task.raft.report_unreachable(message.to);
        }
    }

    fn publish(&mut self) {
        let new = summarise(&self.task.raft, self.membership_version);
        let old = self.task.summary.borrow().clone();
        if old == new {
            return;
        }
        if old.role != RaftRole::Leader && new.role == RaftRole::Leader {
            self.leads_since = self.tick;
        }
        if old.role == RaftRole::Leader && new.role != RaftRole::Leader {
            // They may still be committed by the next leader; sent again under the same id they are applied
            // once.
            for (key, reply) in std::mem::take(&mut self.proposals) {
                self.task.raft.forget_proposal(key);
                let why = "the leadership was lost before it was committed".to_owned();
                let _gone = reply.send(ProposeResult::Unknown { why }).is_err();
            }
        }
        if old.leader != new.leader || old.term != new.term {
            let term = new.term;
            match (&new.leader, new.role) {
                (_, RaftRole::Leader) => tracing::info!(TERM = term, "this node leads (term {term})"),
                (Some((leader, _)), _) => {
                    tracing::info!(TERM = term, LEADER = %leader, "follows {leader} (term {term})")
                }
                (None, _) => tracing::info!(TERM = term, "no leader (term {term})"),
            }
        }
        self.task.summary.send_replace(new);
    }
}
