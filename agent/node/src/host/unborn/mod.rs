//! A host without a cluster: it asks around until one forms or admits it.
//!
//! ```text
//!              a round is over, all agree                 durable
//!   asks ────────────────────────────────────▶ promises ──────────▶ asks, tells its promise
//!     │
//!     │ a cluster forms, or has this store as a member; or a member admitted it with its ticket
//!     └──────────────────────────────────────▶ binds its store ────▶ a member
//! ```
//!
//! Until the store is bound, whoever asks is told that it is empty.

mod forming;
mod ticket;
mod ticket_in_use;

use std::collections::{BTreeMap, BTreeSet};

use blixard_core::declared::DeclaredMember;
use blixard_core::formation::removed_words;
use blixard_model::api::RetryKind;
use blixard_model::formation::{Genesis, Identity, Phase};
use blixard_model::removal::RemovedFrom;
use blixard_model::wire::{JoinResponse, PeerRequest, PeerResponse};
use blixard_model::{ClusterName, Contact, EndpointId, JoinTicket};

use super::calls::Calls;
use super::disk::{Write, Written};
use super::effect::{Answer, Effect, HoldEnd, StopRefusal};
use super::input::{CallError, CallId, Input, PeerCallId, WaiterId, Want};
use super::member::Own;
use super::moment::Moment;
use super::trouble::Trouble;
use crate::forming::{Birth, Pace};
use crate::joining::JoinFailure;
use crate::notice::Notice;
use crate::submission::SubmitError;
use ticket_in_use::TicketInUse;

/// Why nothing can be asked of a host without a cluster.
const NO_CLUSTER: &str = "this node is in no cluster yet: `blixard status` says whom it waits for";

/// What a question to a peer was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnbornCall {
    /// Who is it?
    Identify,
    /// To be admitted.
    Join,
}

/// What is being written, and what comes after it.
#[derive(Debug)]
enum Writing {
    /// A promise; the round that led to it ends with it.
    Promise(Genesis),
    /// The store is being bound to a cluster.
    Birth,
}

/// What the configuration says of the cluster.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Its name.
    pub(super) cluster_name: ClusterName,
    /// The list of members, this node included; empty for none.
    pub(super) declared: Vec<DeclaredMember>,
    /// It exists already, and this node has or gets a ticket for it.
    pub(super) joins: bool,
    /// What an operator has to do while there is no ticket, if it is something special.
    pub(super) needs: Option<String>,
}

/// A host without a cluster.
#[derive(Debug)]
pub struct Unborn {
    own: Own,
    wanted: Wanted,
    linked: BTreeSet<EndpointId>,
    /// What listed nodes say that refuse this one because an operator removed it.
    removed: Vec<RemovedFrom>,
    promise: Option<Genesis>,
    pace: Pace,
    /// What came back in this round.
    answers: BTreeMap<EndpointId, Identity>,
    calls: Calls<UnbornCall>,
    /// Members of whom others told.
    told: Vec<Contact>,
    ticket: TicketInUse,
    waiting_for: Vec<String>,
    writing: Option<Writing>,
    begun_ms: u64,
    failing_since_ms: Option<u64>,
    out: Vec<Effect>,
}

impl Unborn {
    pub(super) fn new(
        own: Own,
        wanted: Wanted,
        (promise, ticket): (Option<Genesis>, Option<Result<JoinTicket, String>>),
        now: Moment,
    ) -> Self {
        let ticket = TicketInUse::new(ticket, own.incarnation, now.boot_ms);
        let mut unborn = Self {
            pace: Pace::new(own.incarnation),
            own,
            wanted,
            linked: BTreeSet::new(),
            removed: Vec::new(),
            promise,
            answers: BTreeMap::new(),
            calls: Calls::default(),
            told: Vec::new(),
            ticket,
            waiting_for: vec!["the first answers".to_owned()],
            writing: None,
            begun_ms: now.boot_ms,
            failing_since_ms: None,
            out: vec![Effect::ServeJoins(None)],
        };
        unborn.tell_peers();
        unborn
    }

    /// What this node waits for, in words.
    pub fn waiting_for(&self) -> &[String] {
        &self.waiting_for
    }

    /// Why there is no ticket to use, if one was tried.
    pub fn ticket_problem(&self) -> Option<&str> {
        self.ticket.problem()
    }

    /// The promise that is durable.
    pub fn promise(&self) -> Option<&Genesis> {
        self.promise.as_ref()
    }

    pub(super) fn linked(&self) -> &BTreeSet<EndpointId> {
        &self.linked
    }

    pub(super) fn own(&self) -> &Own {
        &self.own
    }

    /// Something waits to be carried out.
    pub(super) fn has_effects(&self) -> bool {
        !self.out.is_empty()
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }

    /// What this node says of itself.
    pub(super) fn identity(&self) -> Identity {
        self.own.identity(Phase::Empty { promise: self.promise.clone() })
    }

    pub(super) fn handle(&mut self, now: Moment, input: Input) {
        match input {
            Input::Links { up, removed } => {
                if !up.is_subset(&self.linked) {
                    self.pace.hurry();
                }
                self.linked = up;
                self.note_removed(removed);
            }
            Input::Offer(offer) => self.own.node.offer = *offer,
            Input::PeerAsked { call, from, request } => self.handle_peer_asked((call, from), *request),
            Input::JoinAsked { call, .. } => {
                let why = "this node is in no cluster".to_owned();
                let response = Box::new(JoinResponse::Later { why, known_as: None });
                self.out.push(Effect::AnswerJoin { call, response });
            }
            Input::PeerAnswered { call, answer } => self.handle_peer_answered(now, call, answer),
            Input::JoinAnswered { call, answer } => {
                if self.calls.take(call).is_some() {
                    self.admission_ended(now, answer.map(|response| *response));
                }
            }
            Input::Wanted { waiter, want, .. } => self.handle_wanted(waiter, want),
            Input::TicketKept { waiter, kept } => self.handle_ticket_kept(now, waiter, kept),
            Input::TicketRead(read) => self.handle_ticket_read(now, *read),
            Input::Written(written) => self.handle_written(now, *written),
            Input::Tick
            | Input::Wake
            | Input::HeldTwice { .. }
            | Input::Raft { .. }
            | Input::RaftNotSent { .. }
            | Input::SnapshotSent { .. }
            | Input::PeerGaveUp { .. }
            | Input::WaiterGaveUp { .. }
            | Input::UnitsChanged
            | Input::Fences(_)
            | Input::Units { .. }
            | Input::ActionDone { .. }
            | Input::LeaseWritten { .. }
            | Input::StopKept { .. }
            | Input::Console { .. } => {}
        }
    }

    /// Does what is due; called after every batch of inputs.
    pub(super) fn turn(&mut self, now: Moment) {
        for (call, purpose, _) in self.calls.take_overdue(now.boot_ms) {
            self.out.push(Effect::ForgetCall { call });
            if purpose == UnbornCall::Join {
                self.admission_ended(now, Err(JoinFailure::Other("no answer".to_owned())));
            }
        }
        self.look_at_answers(now);
        self.begin_round(now);
        self.ask_to_join(now);
    }

    /// When this host wants to be woken at the latest.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        let round = self.pace.due_ms().filter(|_| self.writing.is_none());
        [self.calls.due_ms(), round, self.ticket_due_ms()].into_iter().flatten().min()
    }

    fn handle_peer_asked(&mut self, (call, from): (PeerCallId, EndpointId), request: PeerRequest) {
        let response = match request {
            PeerRequest::Identify { me } if me.node.endpoint_id == from => {
                self.pace.heard(&self.wanted.declared, &me);
                PeerResponse::Identity { me: Box::new(self.identity()), held_twice: Vec::new() }
            }
            PeerRequest::Identify { .. } => PeerResponse::declined("the identity is another endpoint's"),
            _ => PeerResponse::declined("this node is in no cluster"),
        };
        self.out.push(Effect::AnswerPeer { call, response: Box::new(response) });
    }

    fn handle_peer_answered(
        &mut self,
        now: Moment,
        call: CallId,
        answer: Result<Box<PeerResponse>, CallError>,
    ) {
        let Some((UnbornCall::Identify, peer)) = self.calls.take(call) else { return };
        if let Ok(response) = answer
            && let PeerResponse::Identity { me, .. } = *response
            && me.node.endpoint_id == peer
        {
            self.answers.insert(peer, *me);
        }
        self.look_at_answers(now);
    }

    fn handle_wanted(&mut self, waiter: WaiterId, want: Want) {
        let unavailable = || SubmitError::Unavailable(NO_CLUSTER.to_owned());
        let answer = match want {
            Want::Change(_) | Want::RemoveNode(_) => Answer::Changed(Err(unavailable())),
            Want::Read => Answer::Readable(Err(unavailable())),
            Want::Reports => Answer::Reports(Vec::new()),
            Want::Progress => Answer::Progress(None),
            Want::HandOver => Answer::HandedOver(false),
            Want::Hold { .. } => Answer::Held(HoldEnd::NotNeeded),
            Want::StopHere(_) => Answer::StopTaken(Err(StopRefusal::NoMember)),
            Want::Join { ticket, text } => return self.take_ticket(waiter, *ticket, text),
        };
        self.out.push(Effect::Answer { waiter, answer });
    }

    fn handle_written(&mut self, now: Moment, written: Written) {
        match (self.writing.take(), written) {
            (Some(Writing::Promise(genesis)), Written::Promise) => self.promised(now, genesis),
            (writing, _) => self.writing = writing,
        }
    }

    /// Who was removed waits in vain for those who do not answer it.
    fn note_removed(&mut self, removed: Vec<RemovedFrom>) {
        let before = std::mem::replace(&mut self.removed, removed);
        if self.removed != before
            && let Some(words) = self.removed_words()
        {
            self.set_waiting_for(vec![words]);
        }
    }

    /// What this node waits for if it was removed. With a ticket it may come back all the same.
    fn removed_words(&self) -> Option<String> {
        let from = self.removed.first().filter(|_| !self.wanted.joins)?;
        Some(removed_words(from.cluster_id))
    }

    /// There is a cluster: nothing else is begun, and the store is bound to it.
    fn be_born(&mut self, now: Moment, birth: Birth) {
        self.writing = Some(Writing::Birth);
        let after_ms = now.boot_ms.saturating_sub(self.begun_ms);
        self.out.push(Effect::Notice(Notice::Born { birth: Box::new(birth.clone()), after_ms }));
        self.out.push(Effect::Write(Write::Bind(Box::new(birth))));
        for (call, _) in self.calls.clear() {
            self.out.push(Effect::ForgetCall { call });
        }
    }

    /// Whom to keep links with: beside the listed nodes those that the ticket names, and those of whom others
    /// told.
    fn tell_peers(&mut self) {
        let contacts = self.told.iter().chain(self.ticket.contacts()).cloned().collect();
        self.out.push(Effect::Peers { contacts, listed: true, removed: BTreeMap::new() });
    }

    pub(super) fn troubles(&self, now_ms: u64) -> Vec<Trouble> {
        let form = self.pace.trouble().map(|(failures, waiting_for)| Trouble {
            what: RetryKind::Form,
            peer: None,
            failures,
            next_try_ms: self.pace.due_ms().filter(|at| *at > now_ms),
            why: waiting_for.join("; "),
            since_ms: self.failing_since_ms.unwrap_or(now_ms),
        });
        form.into_iter().chain(self.ticket.trouble(now_ms)).collect()
    }

    /// Answers everybody who waits, because this host has got another life.
    pub(super) fn abandon(&mut self) {
        for waiter in self.ticket.take_waiters() {
            let refusal = super::effect::JoinRefusal::TooLate;
            let answer = Answer::TicketTaken(Err(refusal));
            self.out.push(Effect::Answer { waiter, answer });
        }
    }
}
