//! A host that is in a cluster.
//!
//! Parts, each the only one that writes what it holds:
//!
//! | part | owns |
//! |---|---|
//! | [`Replica`] | Raft, the replicated state, who was heard of, what a leader is asked |
//! | [`Submissions`] | changes on their way to whoever leads |
//! | [`Identities`] | whom to ask who they are |
//! | [`HeldTwice`] | which keys two agents run with |
//! | [`Reports`] | what nodes report of their VMs |
//! | [`Registering`] | what this node offers, until the log says so |
//! | [`Leases`] | this node's lease and, while it leads, those that it grants |
//! | [`Vms`] | this node's units, and what is done to them |
//! | [`Removals`] | removals of nodes by name, step by step |
//! | [`Waiters`] | reads, and peers that wait for what this node leads |
//! | [`Calls`] | questions to peers that are not answered yet |

mod by_hand;
mod held_twice;
mod identities;
mod leases;
mod leasing;
mod local;
mod pages;
mod peer_questions;
mod registering;
mod removals;
mod reports;
mod seen;
mod stopping;
mod submissions;
mod submitting;
mod timers;
mod vms;
mod waiters;

use std::collections::{BTreeMap, BTreeSet};

use blixard_core::ClusterState;
use blixard_core::formation::phase_of;
use blixard_core::lease::LeaseFound;
use blixard_model::formation::{Identity, Phase};
use blixard_model::removal::RemovedFrom;
use blixard_model::report::NodeReport;
use blixard_model::wire::{AgedReport, KeyHeldTwice, MemberProgress, ProgressReport};
use blixard_model::{
    ClusterVersion, EndpointId, LeaseTerms, NodeFacts, NodeName, Offer, RaftId, SharedDirs, TicketId,
    WriteAsk, WriteRequest, mutant,
};
use bytes::Bytes;

use super::calls::Calls;
use super::disk::Write;
use super::effect::{Answer, Effect};
use super::input::{HolderRefusal, Input, PeerCallId, RaftFrame, WaiterId};
use super::moment::Moment;
use super::trouble::Trouble;
use crate::attempt::AttemptEnd;
use crate::notice::Notice;
use crate::replica::{Node, NodeError, Waits};
use crate::summary::Summary;
use held_twice::HeldTwice;
use identities::Identities;
use leases::Leases;
use pages::Collected;
use registering::Registering;
use removals::Removals;
use reports::Reports;
pub use stopping::LocalVms;
pub use submissions::SubmissionId;
use submissions::Submissions;
use vms::Vms;
use waiters::Waiters;

/// Who waits for the end of a proposal that this node made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proposer {
    /// A change of this node's own table.
    Submission(SubmissionId),
    /// A peer that asked this node because it leads.
    Peer(PeerCallId),
    /// This node itself, which has found another one to be lost.
    Verdict(u64),
}

/// Who waits for a read index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The reconciler: the log is up to date then.
    UpToDate,
    /// Somebody on this machine.
    Waiter(WaiterId),
    /// Renewals of leases that came before this round of confirmations began.
    Leases(u64),
}

/// The node of a host that is a member of a cluster.
pub type Replica = Node<Proposer, Reader>;

/// What a question to a peer was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MemberCall {
    /// A change was forwarded.
    Forward(SubmissionId),
    /// Who is it? Asked at this version of the membership.
    Identify { version: u64 },
    /// The own report, to the leader.
    Report,
    /// The node's own lease; asked for at this time.
    RenewLease { sent_ms: u64 },
    /// All reports, for somebody on this machine.
    Reports(WaiterId),
    /// How far the members are, for somebody on this machine.
    Progress(WaiterId),
}

/// A node with a ticket that waits for what the leader decides.
#[derive(Debug, Clone)]
struct Joiner {
    endpoint_id: EndpointId,
    name: NodeName,
    place: String,
    ticket: TicketId,
}

/// What a member is made of beside its replica.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) node: NodeFacts,
    /// The newest version of a cluster that its release supports.
    pub(super) supports: ClusterVersion,
    /// Addresses that an operator wrote down.
    pub(super) written: Vec<std::net::SocketAddr>,
    /// Random, other in every run: it spreads retries, and makes request ids.
    pub(super) incarnation: u64,
}

impl Own {
    /// What the node says of itself in this phase of its life.
    pub(super) fn identity(&self, phase: Phase) -> Identity {
        let mut node = self.node.clone();
        // It stands in geneses and changes of the members, where older releases do not know it.
        node.offer.shared_dirs = SharedDirs::default();
        Identity { node, supports: self.supports, phase }
    }
}

/// A host in a cluster.
#[derive(Debug)]
pub struct MemberHost {
    own: Own,
    replica: Replica,
    linked: BTreeSet<EndpointId>,
    calls: Calls<MemberCall>,
    submissions: Submissions,
    waiters: Waiters,
    removals: Removals,
    joiners: BTreeMap<PeerCallId, Joiner>,
    identities: Identities,
    held_twice: HeldTwice,
    reports: Reports,
    /// The leader's reports on their way to somebody on this machine.
    collected: BTreeMap<WaiterId, Collected>,
    registering: Registering,
    leases: Leases,
    vms: Vms,
    /// When listed nodes that wait are named to the leader again.
    vouch_due_ms: u64,
    next_request: u64,
    /// What the shell was told last.
    told_version: Option<u64>,
    told_joinable: Option<bool>,
    /// Something went into the replica since its last turn.
    dirty: bool,
    /// The write of the last turn is durable.
    written: bool,
    /// The summary changed in a turn that is not over yet.
    changed: bool,
    /// Proposals that ended in a turn that is not over yet.
    ended: Vec<(Proposer, AttemptEnd)>,
    out: Vec<Effect>,
}

impl Waits for Proposer {
    // Who gives up says so: see `Input::PeerGaveUp` and `Input::WaiterGaveUp`.
    fn gave_up(&self) -> bool {
        false
    }
}

impl Waits for Reader {
    fn gave_up(&self) -> bool {
        false
    }
}

impl MemberHost {
    pub(super) fn new(
        own: Own,
        mut replica: Replica,
        (linked, lease): (BTreeSet<EndpointId>, (LeaseTerms, LeaseFound)),
        now: Moment,
    ) -> Self {
        let (name, me, now_ms) = (own.node.name.clone(), own.node.endpoint_id, now.boot_ms);
        // Retries of different kinds do not fall together.
        let seed = |nth: u64| own.incarnation.rotate_left(u32::try_from(nth * 8).unwrap_or(0)) ^ nth;
        replica.note_links(linked.clone());
        // The first of all reads finds room.
        let _asked = replica.read(Reader::UpToDate);
        Self {
            calls: Calls::default(),
            submissions: Submissions::default(),
            waiters: Waiters::default(),
            removals: Removals::default(),
            joiners: BTreeMap::new(),
            identities: Identities::new(seed(1), now_ms),
            held_twice: HeldTwice::new(me, &linked, now_ms),
            linked,
            reports: Reports::new(name.clone(), seed(2), now_ms),
            collected: BTreeMap::new(),
            registering: Registering::new(me, own.node.offer.clone(), own.written.clone(), seed(3)),
            leases: Leases::new(name.clone(), replica.state().cluster_id(), lease, now),
            vms: Vms::new(me, name, now_ms),
            vouch_due_ms: now_ms,
            next_request: 0,
            told_version: None,
            told_joinable: None,
            dirty: true,
            written: false,
            changed: true,
            ended: Vec::new(),
            out: Vec::new(),
            own,
            replica,
        }
    }

    /// The replicated state, as far as it is applied here.
    pub fn state(&self) -> &ClusterState {
        self.replica.state()
    }

    /// The replica: Raft's status, who was heard of, what a leader knows.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What this node knows of the members as leader; none when it does not lead.
    pub fn progress_report(&self, now: Moment) -> Option<ProgressReport> {
        let report = self.replica.progress_report()?;
        let mut report = ProgressReport { held_twice: self.held_twice.all(&[]), ..report };
        self.add_leases(now, &mut report);
        report.fences = self.reports.fences(now.boot_ms);
        Some(report)
    }

    /// How far the members are: by this node's own word when it leads, else by what the leader told, with
    /// what this node itself knows beside that.
    pub fn progress(&self, now: Moment, told: Option<ProgressReport>) -> ProgressReport {
        let mut report = self.progress_report(now).or(told).unwrap_or_default();
        report.held_twice = self.held_twice.all(&report.held_twice);
        // What this node knows of itself is newer than what the leader was told.
        report.fences.extend(self.reports.own_fences());
        if let Some((raft_id, silent_ms)) = self.replica.leader_heard_ms_ago() {
            let silent_ms = Some(silent_ms);
            match report.members.iter_mut().find(|member| member.raft_id == raft_id) {
                Some(leader) => leader.silent_ms = leader.silent_ms.or(silent_ms),
                None => report.members.push(MemberProgress { silent_ms, ..MemberProgress::unknown(raft_id) }),
            }
        }
        report
    }

    /// What was reported here of all nodes' VMs, with its age.
    pub fn reports(&self, now: Moment) -> Vec<AgedReport> {
        self.reports.all(now.boot_ms)
    }

    /// Something waits to be carried out.
    pub(super) fn has_effects(&self) -> bool {
        !self.out.is_empty()
    }

    /// What was last reported of this node's own VMs.
    pub fn own_report(&self) -> &NodeReport {
        self.reports.own_report()
    }

    /// The log here is known to hold everything that was acknowledged when this agent started. Nothing is
    /// started before.
    pub fn has_read_log(&self) -> bool {
        self.vms.has_read_log()
    }

    /// The units here whose VMs the cluster does not know, each with how long it is left running, in
    /// milliseconds.
    pub fn unknown_units(&self, now: Moment) -> Vec<(blixard_model::VmName, u64)> {
        self.vms.unknown(now.boot_ms)
    }

    /// What this node says of itself, to this asker if one asks.
    pub(super) fn identity(&self, asker: Option<&Identity>) -> Identity {
        let summary = self.replica.summary();
        let phase = phase_of(self.replica.state(), (summary.raft_id, summary.applied), asker);
        self.own.identity(phase)
    }

    /// What failed and is tried again.
    pub(super) fn troubles(&self, now_ms: u64) -> Vec<Trouble> {
        let one = [
            self.registering.trouble(now_ms),
            self.reports.trouble(now_ms),
            self.submissions.trouble(now_ms),
        ];
        one.into_iter().flatten().chain(self.identities.trouble(now_ms)).collect()
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }

    /// Whether the turn goes on after its write.
    pub(super) fn is_written(&self) -> bool {
        self.written
    }

    /// Something waits for a turn.
    pub(super) fn wants_turn(&self) -> bool {
        self.dirty
    }

    /// Takes an input.
    ///
    /// # Errors
    /// Final: see [`NodeError`].
    pub(super) fn handle(&mut self, now: Moment, input: Input) -> Result<(), NodeError> {
        self.replica.note_time(now.wall_ms);
        match input {
            Input::Tick => {
                self.replica.tick();
                self.dirty = true;
            }
            Input::Links { up, removed } => self.handle_links(now, up, removed)?,
            Input::HeldTwice { seen, refusals } => self.handle_held_twice(now, seen, refusals),
            Input::Offer(offer) => self.handle_offer(now, *offer),
            Input::Raft { from, frame } => self.handle_raft(from, &frame)?,
            Input::RaftNotSent { member } => self.replica.report_unreachable(member),
            Input::SnapshotSent { member, delivered } => self.handle_snapshot_sent(member, delivered),
            Input::PeerAsked { call, from, request } => {
                self.handle_peer_asked(now, (call, from), *request)?
            }
            Input::JoinAsked { call, from, source, request } => {
                self.handle_join_asked(now, (call, from), source, *request);
            }
            Input::PeerGaveUp { call } => self.handle_peer_gave_up(call),
            Input::PeerAnswered { call, answer } => self.handle_peer_answered(now, call, answer)?,
            Input::Wanted { waiter, want, patience_ms } => {
                self.handle_wanted(now, waiter, want, patience_ms);
            }
            Input::WaiterGaveUp { waiter } => self.handle_waiter_gave_up(waiter),
            Input::UnitsChanged => self.vms.hurry(now.boot_ms),
            Input::Units { look, listed, stopped } => self.handle_units(now, look, (listed, stopped)),
            Input::StopKept { waiter, notes, failure } => {
                self.handle_stop_kept(now, waiter, (notes, failure));
            }
            Input::Fences(fences) => self.vms.note_fences(fences),
            Input::LeaseWritten { failure } => self.handle_lease_written(now, failure),
            Input::ActionDone { action, failure } => self.handle_action_done(now, &action, failure),
            Input::Console { vm, lines } => self.vms.note_console(now.boot_ms, &vm, &lines),
            // The timers are looked at after every turn.
            Input::Wake => {}
            // Of the life before this one.
            Input::JoinAnswered { .. }
            | Input::TicketKept { .. }
            | Input::TicketRead(_)
            | Input::Written(_) => {}
        }
        Ok(())
    }

    fn handle_links(
        &mut self,
        now: Moment,
        up: BTreeSet<EndpointId>,
        removed: Vec<RemovedFrom>,
    ) -> Result<(), NodeError> {
        self.linked.clone_from(&up);
        self.held_twice.note_links(now.boot_ms, &up);
        self.replica.note_links(up);
        // What waits for a link need not wait for its next period.
        self.go_on_all(now);
        if mutant::lives("own-removal-not-learned") {
            return Ok(());
        }
        removed.into_iter().try_for_each(|removed| self.replica.note_removed(removed))
    }

    fn handle_held_twice(&mut self, now: Moment, seen: Vec<KeyHeldTwice>, refusals: Vec<HolderRefusal>) {
        let before = self.held_twice.is_later();
        self.held_twice.note(now.boot_ms, seen, refusals);
        let is_later = self.held_twice.is_later();
        if is_later != before {
            // It never starts one again: when the links change, the first one's VMs may still run.
            self.vms.stand_aside();
            self.out.push(Effect::StandAside(is_later));
            self.out.push(Effect::Notice(Notice::StandsAside(is_later)));
        }
    }

    fn handle_offer(&mut self, now: Moment, offer: Offer) {
        self.own.node.offer.clone_from(&offer);
        self.registering.set_offer(offer);
        self.register(now);
    }

    fn handle_raft(&mut self, from: EndpointId, frame: &RaftFrame) -> Result<(), NodeError> {
        self.dirty = true;
        let (bytes, is_snapshot): (&Bytes, bool) = match frame {
            RaftFrame::Message(bytes) => (bytes, false),
            RaftFrame::Snapshot(bytes) => (bytes, true),
        };
        self.replica.handle_raft(from, bytes, is_snapshot)
    }

    fn handle_snapshot_sent(&mut self, member: RaftId, delivered: bool) {
        self.replica.report_snapshot(member, delivered);
        self.dirty = true;
    }

    /// A request of this node itself, under an id that no other has.
    fn own_request(&mut self, ask: WriteAsk) -> Option<WriteRequest> {
        self.next_request += 1;
        let (short, run) = (self.own.node.endpoint_id.short(), self.own.incarnation);
        let id = format!("agent-{short}-{run:016x}-{}", self.next_request).parse().ok()?;
        Some(WriteRequest { id, ask })
    }

    fn answer(&mut self, waiter: WaiterId, answer: Answer) {
        self.out.push(Effect::Answer { waiter, answer });
    }

    /// What the last turn gave to be written is durable.
    pub(super) fn log_written(&mut self) {
        self.written = true;
    }

    /// One turn of the replica, and everything that follows from it. True: something is to be written, and
    /// nothing may happen before it is.
    ///
    /// # Errors
    /// Final: see [`NodeError`].
    pub(super) fn turn(&mut self, now: Moment) -> Result<bool, NodeError> {
        if self.written || self.dirty {
            let before = self.replica.summary().clone();
            let turn = match std::mem::take(&mut self.written) {
                true => self.replica.written()?,
                false => {
                    self.dirty = false;
                    self.replica.turn()?
                }
            };
            self.out.extend(turn.notices.into_iter().map(Effect::Notice));
            self.out.extend(turn.sends.into_iter().map(Effect::Raft));
            self.ended.extend(turn.answers);
            turn.reads.into_iter().for_each(|reader| self.read_served(now, reader));
            if let Some(write) = turn.write {
                self.out.push(Effect::Write(Write::Log(Box::new(write))));
                self.changed |= *self.replica.summary() != before;
                return Ok(true);
            }
            // What a change that ended leads to may go into the replica, which takes nothing during a write.
            for (proposer, end) in std::mem::take(&mut self.ended) {
                self.proposal_ended(now, proposer, end);
            }
            if std::mem::take(&mut self.changed) || *self.replica.summary() != before {
                self.summary_changed(now);
            }
        }
        self.tell_peers();
        self.look_at_timers(now)?;
        Ok(false)
    }

    fn proposal_ended(&mut self, now: Moment, proposer: Proposer, end: AttemptEnd) {
        match proposer {
            Proposer::Submission(id) => self.attempt_ended(now, id, end),
            Proposer::Peer(call) => self.serve_peer(call, end),
            Proposer::Verdict(number) => self.verdict_ended(number, &end),
        }
    }

    fn read_served(&mut self, now: Moment, reader: Reader) {
        match reader {
            Reader::UpToDate => self.vms.note_up_to_date(now.boot_ms),
            Reader::Leases(round) => self.leases_confirmed(now, round),
            Reader::Waiter(waiter) => {
                if self.waiters.end_read(waiter) {
                    self.readable(now, waiter, Ok(()));
                }
            }
        }
    }

    fn summary_changed(&mut self, now: Moment) {
        let summary = self.replica.summary();
        self.vms.note_leader(summary.leader.as_ref().map(|(_, id)| *id));
        let leads_or_tries = summary.role != blixard_consensus::RaftRole::Follower;
        if summary.leader.is_some() {
            self.begin_reads(now);
        }
        if !leads_or_tries {
            for waiter in self.waiters.take_hand_overs() {
                self.answer(waiter, Answer::HandedOver(true));
            }
        }
        self.lead_leases(now);
        self.go_on_all(now);
        self.register(now);
        self.vms.hurry(now.boot_ms);
    }

    /// The shell learns whom to keep links with, and whether to serve the join protocol.
    fn tell_peers(&mut self) {
        let Summary { membership_version, joinable, .. } = *self.replica.summary();
        if self.told_version != Some(membership_version) {
            self.told_version = Some(membership_version);
            let cluster_id = self.replica.state().cluster_id();
            let word = |(id, raft_id)| (id, RemovedFrom { cluster_id, raft_id });
            let removed = self.replica.kept_out().into_iter().map(word).collect();
            self.out.push(Effect::Peers { contacts: self.replica.peers(), listed: true, removed });
            let state = self.replica.state();
            self.reports.retain(|name| state.member_by_name(name).is_some());
        }
        if self.told_joinable != Some(joinable) {
            self.told_joinable = Some(joinable);
            let cluster_id = joinable.then(|| self.replica.state().cluster_id());
            self.out.push(Effect::ServeJoins(cluster_id));
        }
    }
}
