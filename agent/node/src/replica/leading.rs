//! As leader: carries out what is decided about what others ask for, and what is planned without being asked.
//!
//! A change of the members that is asked for is one configuration change, like those that the leader plans
//! itself, and there is one at a time. Asked for again it changes nothing more: a raft id leaves once, a
//! ticket admits one store.

use blixard_consensus::{ProposeError, RaftRole};
use blixard_core::planner::prepare::{end_of, prepare};
use blixard_core::planner::{NotNow, Planned, Prepared, Raising, plan};
use blixard_model::{
    Ask, ClusterVersion, Command, EndpointId, MembershipChange, NodeName, Outcome, RaftId, Request, TicketId,
    mutant,
};

use super::Node;
use super::waiting::Waits;
use crate::attempt::AttemptEnd;
use crate::machine::encode_request;
use crate::notice::Notice;

impl<P: Waits, R: Waits> Node<P, R> {
    /// Does what the node `asker` asks of a leader, if this node leads; `asker` may be this node itself. The
    /// answer comes with a later [`crate::Turn`].
    pub fn ask(&mut self, ask: impl Into<Ask>, asker: EndpointId, waiter: P) {
        let ask = ask.into();
        let leads = match ask {
            Ask::Write(_) => self.raft.status().role == RaftRole::Leader,
            // The members that count are those of the newest state.
            Ask::Members(_) => self.raft.leads(),
        };
        if !leads {
            let end = self.leads_not();
            return self.waiting.end(waiter, end);
        }
        let facts = self.leader_facts();
        let prepared = prepare(&facts.view(self), asker, ask);
        let end = match prepared {
            Prepared::Propose(request) => return self.propose(&request, waiter),
            Prepared::Change(change) => return self.propose_asked(change, waiter),
            Prepared::HandOver if self.raft.transfer_leadership() => AttemptEnd::NotNow(NotNow::HandsOver),
            Prepared::HandOver => AttemptEnd::NotNow(NotNow::NobodyToHandOverTo),
            Prepared::AwaitSigns(raft_id) => {
                self.tasks.note_removal_asked(raft_id, self.tick);
                AttemptEnd::NotNow(NotNow::SignsAskedFor)
            }
            Prepared::Answer(outcome) => AttemptEnd::Decided(outcome),
            Prepared::NotNow(why) => AttemptEnd::NotNow(why),
        };
        self.waiting.end(waiter, end);
    }

    fn leads_not(&self) -> AttemptEnd {
        let status = self.raft.status();
        self.led_by(status.leader.filter(|id| *id != status.id))
    }

    fn led_by(&self, leader: Option<RaftId>) -> AttemptEnd {
        let leader = leader.and_then(|id| self.state().nodes.member(id));
        AttemptEnd::NotLeader { leader: leader.map(|member| member.node.name.clone()) }
    }

    fn propose(&mut self, request: &Request, waiter: P) {
        let end = match self.raft.propose(encode_request(request)) {
            Ok(_) if mutant::lives("answered-at-propose") => AttemptEnd::Decided(Outcome::done(None).into()),
            Ok(key) => return self.waiting.add_proposal(key, waiter),
            Err(error) => self.not_proposed(error),
        };
        self.waiting.end(waiter, end);
    }

    fn propose_asked(&mut self, change: MembershipChange, waiter: P) {
        match self.raft.propose_membership(&change) {
            Ok(()) => {
                self.news.tell(Notice::MembershipProposed(change.clone()));
                self.tasks.await_change(change, waiter);
            }
            Err(error) => {
                let end = self.not_proposed(error);
                self.waiting.end(waiter, end);
            }
        }
    }

    fn not_proposed(&self, error: ProposeError) -> AttemptEnd {
        match error {
            ProposeError::NotLeader(leader) => self.led_by(leader),
            ProposeError::Refused(refusal) => AttemptEnd::Decided(refusal.into()),
            ProposeError::ChangeUnderWay => AttemptEnd::NotNow(NotNow::ChangeUnderWay),
            error @ (ProposeError::Busy | ProposeError::TooLarge) => {
                AttemptEnd::NotTaken { why: error.to_string() }
            }
        }
    }

    /// What became of the change that somebody waits for; called after every pump.
    pub(super) fn note_asked_change(&mut self, applied: &[MembershipChange]) {
        let is_pending = self.raft.membership_pending();
        let Some(ended) = self.tasks.take_ended_change(applied, is_pending) else { return };
        let (change, is_applied, waiter) = ended;
        let end = if is_applied { end_of(&change) } else { Err(NotNow::MembersChanged) };
        self.waiting.end(waiter, end.map_or_else(AttemptEnd::NotNow, AttemptEnd::Decided));
    }

    /// What a leader had under way. A change may still be committed by the next leader; asked for again it
    /// changes nothing more.
    pub(super) fn abandon_tasks(&mut self) {
        if let Some(waiter) = self.tasks.give_up() {
            let why = "the leadership was lost before it was committed".to_owned();
            self.waiting.end(waiter, AttemptEnd::Unknown { why });
        }
    }

    /// Plans what there is to do without being asked, and proposes it.
    pub(super) fn propose_planned(&mut self) {
        let facts = self.leader_facts();
        for planned in plan(&facts.view(self)) {
            // Not taken: planned again when it still fits.
            match planned {
                Planned::Change(change) => {
                    if self.raft.propose_membership(&change).is_ok() {
                        self.news.tell(Notice::MembershipProposed(change));
                    }
                }
                Planned::Expire(ids) => self.propose_expiry(ids),
                Planned::Raise(to) => self.propose_version(to),
            }
        }
    }

    fn propose_expiry(&mut self, ids: Vec<TicketId>) {
        self.tasks.note_expiry_proposed(self.tick);
        self.propose_unasked("expire", Command::ExpireTickets { ids });
    }

    fn propose_version(&mut self, to: ClusterVersion) {
        if self.propose_unasked("raise", Command::RaiseVersion { to }) {
            self.tasks.note_raising(Raising { to, at_tick: self.tick });
        }
    }

    /// The VMs of a node that is lost go to others: decided by the leader of this term. The waiter hears of
    /// the end with a later [`crate::Turn`].
    pub fn propose_lost(&mut self, term: u64, node: &NodeName, eligible: Vec<NodeName>, waiter: P) {
        let text = format!("lost-{term}-{}", self.tasks.next_unasked());
        let Ok(id) = text.parse() else { return };
        let is_known = self.state().version >= ClusterVersion::HOLDS;
        let seen = is_known.then_some(self.news.summary().applied);
        let command = Command::NodeLost { node: node.clone(), term, eligible, seen };
        self.propose(&Request { id, command }, waiter);
    }

    /// The time is over for which the cluster was disarmed by the entry at this index. False: not taken.
    pub fn propose_arm(&mut self, since: u64) -> bool {
        self.propose_unasked("arm", Command::Arm { since: Some(since) })
    }

    /// A command whose outcome nobody waits for. False: it was not taken.
    fn propose_unasked(&mut self, what: &str, command: Command) -> bool {
        let text = format!("{what}-{}-{}", self.news.summary().term, self.tasks.next_unasked());
        let Ok(id) = text.parse() else { return false };
        let Ok(key) = self.raft.propose(encode_request(&Request { id, command })) else { return false };
        self.raft.forget_proposal(key);
        true
    }
}
