//! How a node with a ticket, the joiner, becomes a member: whom it asks and when, and what it makes of the
//! answer ([`Joining`]). And the other side: what the member that is asked brings to the leader
//! ([`ask_for_joiner`]), and what it answers ([`answer_to_joiner`]).
//!
//! ```text
//!            one contact after another, with backoff
//!   Asking ────────────────────────────────────────▶ Admitted (bind the store, go on as a member)
//!     ▲ │                                          └▶ Refused  (for good: another ticket is needed)
//!     └─┘ nobody answers, or not now
//! ```
//!
//! A crash anywhere resumes: the ticket is kept until the store is bound, and a store that was admitted is
//! told so again, by the same ticket or by anybody who asks it who it is.

use std::collections::BTreeMap;

use blixard_core::ClusterState;
use blixard_core::formation::contacts;
use blixard_core::genesis::cluster_id;
use blixard_core::state::member_check::check_genesis;
use blixard_model::backoff::{Backoff, Retry};
use blixard_model::wire::{JoinRequest, JoinResponse};
use blixard_model::{AskOutcome, ClusterId, Contact, EndpointId, MembersAsk, RaftId, Refusal};

use crate::forming::Birth;
use crate::submission::SubmitError;

/// Asking to be let in. An operator waits: the longest pause is short.
pub const JOIN: Backoff = Backoff { first_ms: 300, longest_ms: 5_000 };

/// Why a member that was asked gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinFailure {
    /// It lets nobody in, because it knows of no ticket that is open.
    #[error("{0}")]
    NotServed(String),
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinStep {
    /// Ask this one, and tell [`Joining::note`] how it ended.
    Ask(Contact),
    /// Nothing before this.
    Wait {
        /// Milliseconds of the caller's clock.
        until_ms: u64,
    },
    /// This ticket admits nobody.
    Refused(Refusal),
}

/// One ticket's use. Driven by its caller: [`Joining::next`] says what to do.
#[derive(Debug)]
pub struct Joining {
    cluster_id: ClusterId,
    contacts: Vec<Contact>,
    turn: usize,
    retry: Retry,
    refused: Option<Refusal>,
    last_error: Option<String>,
    /// The contacts whose last word was that they let nobody in, and how they said it.
    not_served: BTreeMap<EndpointId, String>,
    known_as: Option<RaftId>,
}

impl Joining {
    /// With a ticket of this cluster, which names these. The seed spreads the retries of those who fail
    /// together.
    pub fn new(cluster_id: ClusterId, contacts: Vec<Contact>, seed: u64) -> Self {
        let retry = Retry::new(JOIN, seed);
        Self {
            cluster_id,
            contacts,
            turn: 0,
            retry,
            refused: None,
            last_error: None,
            not_served: BTreeMap::new(),
            known_as: None,
        }
    }

    /// What to do now. Not to be asked while a [`JoinStep::Ask`] is under way.
    pub fn next(&mut self, now_ms: u64) -> JoinStep {
        if let Some(refusal) = &self.refused {
            return JoinStep::Refused(refusal.clone());
        }
        if !self.retry.is_due(now_ms) {
            return JoinStep::Wait { until_ms: self.retry.at_ms() };
        }
        let Some(contact) = self.contact() else {
            let why = "it names no member that could be asked".to_owned();
            return JoinStep::Refused(Refusal::Ticket { why: why.into() });
        };
        JoinStep::Ask(contact.clone())
    }

    /// Whose turn it is.
    fn contact(&self) -> Option<&Contact> {
        self.contacts.get(self.turn % self.contacts.len().max(1))
    }

    /// Whether every contact said that it lets nobody in: no ticket of that cluster is open, and so not this
    /// one. It is tried on all the same, because all of them may be behind.
    pub fn is_served_by_nobody(&self) -> bool {
        let says_so = |contact: &Contact| self.not_served.contains_key(&contact.endpoint_id);
        !self.contacts.is_empty() && self.contacts.iter().all(says_so)
    }

    /// When [`Joining::next`] has something to say.
    pub fn due_ms(&self) -> u64 {
        if self.refused.is_some() { 0 } else { self.retry.at_ms() }
    }

    /// How an attempt ended; the node's place once it has one. An answer of another cluster than the ticket's
    /// is none.
    pub fn note(&mut self, now_ms: u64, ended: Result<JoinResponse, JoinFailure>) -> Option<Birth> {
        if let Some(asked) = self.contact().map(|contact| contact.endpoint_id) {
            match &ended {
                Err(JoinFailure::NotServed(why)) => _ = self.not_served.insert(asked, why.clone()),
                Ok(_) | Err(JoinFailure::Other(_)) => _ = self.not_served.remove(&asked),
            }
        }
        let why = match ended {
            Ok(JoinResponse::Admitted { cluster_id: theirs, genesis, raft_id, contacts }) => {
                if theirs == self.cluster_id
                    && cluster_id(&genesis) == theirs
                    && check_genesis(&genesis).is_ok()
                {
                    return Some(Birth::Joined { cluster_id: theirs, genesis, raft_id, contacts });
                }
                "the answer is of another cluster than the ticket's".to_owned()
            }
            Ok(JoinResponse::Refused { refusal }) => {
                self.refused = Some(refusal);
                return None;
            }
            Ok(JoinResponse::Later { why, known_as }) => {
                // One that is behind may know an earlier place.
                self.known_as = self.known_as.max(known_as);
                why
            }
            Err(why) => why.to_string(),
        };
        self.last_error = Some(why);
        self.turn = self.turn.wrapping_add(1);
        self.retry.failed(now_ms);
        None
    }

    /// What [`JoinRequest::known_as`](blixard_model::wire::JoinRequest::known_as) has to say.
    pub fn known_as(&self) -> Option<RaftId> {
        self.known_as
    }

    /// Attempts that failed in a row, when the next one is due in milliseconds of the caller's clock, and why
    /// the last one failed; `None` when none did. That a member lets nobody in counts for more than that
    /// another one does not answer.
    pub fn trouble(&self) -> Option<(u32, u64, &str)> {
        let last = self.last_error.as_deref()?;
        let why = self.not_served.values().next().map_or(last, String::as_str);
        Some((self.retry.failures(), self.retry.at_ms(), why))
    }
}

/// What a member asks the leader for a node with a ticket; or what it answers at once, when it knows that the
/// leader would do nothing yet.
///
/// # Errors
/// The node has another store than it is known with, and has not heard of that.
pub fn ask_for_joiner(state: &ClusterState, request: JoinRequest) -> Result<MembersAsk, Box<JoinResponse>> {
    let asker = &request.node;
    let lost = state
        .member_by_endpoint(asker.node.endpoint_id)
        .filter(|member| member.node.store_id != asker.node.store_id);
    if lost.is_some_and(|member| request.known_as < Some(member.raft_id)) {
        let why = "it is known with another store: it is to ask again, now that it knows".to_owned();
        return Err(Box::new(later(state, asker.node.endpoint_id, why)));
    }
    Ok(MembersAsk::Admit(Box::new(request)))
}

/// What a member answers to a node with a ticket, once it knows what the leader decided.
pub fn answer_to_joiner(
    state: &ClusterState,
    asker: EndpointId,
    end: Result<AskOutcome, SubmitError>,
) -> JoinResponse {
    match end {
        Ok(AskOutcome::Admitted { raft_id }) => JoinResponse::Admitted {
            cluster_id: state.cluster_id(),
            genesis: state.genesis.clone(),
            raft_id,
            contacts: contacts(state),
        },
        Ok(AskOutcome::Refused { refusal }) => JoinResponse::Refused { refusal },
        Ok(AskOutcome::Done { .. }) => later(state, asker, "nothing was decided".to_owned()),
        Err(error) => later(state, asker, error.to_string()),
    }
}

fn later(state: &ClusterState, asker: EndpointId, why: String) -> JoinResponse {
    let known_as = state.member_by_endpoint(asker).map(|member| member.raft_id);
    JoinResponse::Later { why, known_as }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_place_that_it_was_told_of_is_what_it_says_when_it_asks_again() {
        let mut joining = Joining::new(ClusterId::from_bytes([7; 16]), Vec::new(), 1);
        assert_eq!(joining.known_as(), None);
        let later = |known_as| Ok(JoinResponse::Later { why: "later".to_owned(), known_as });
        let ends = [
            (later(Some(RaftId(4))), Some(RaftId(4))),
            (Err(JoinFailure::Other("no answer".to_owned())), Some(RaftId(4))),
            (later(Some(RaftId(6))), Some(RaftId(6))),
            (later(Some(RaftId(4))), Some(RaftId(6))),
            (later(None), Some(RaftId(6))),
        ];
        for (at, (ended, known_as)) in ends.into_iter().enumerate() {
            assert!(joining.note(at as u64, ended).is_none());
            assert_eq!(joining.known_as(), known_as, "after the answer {at}");
        }
    }

    #[test]
    fn a_ticket_is_of_no_use_when_every_contact_lets_nobody_in() {
        let contact = |n: u8| Contact {
            endpoint_id: EndpointId::from_bytes([n; 32]),
            addresses: Vec::new(),
            relay_url: None,
        };
        let mut joining = Joining::new(ClusterId::from_bytes([7; 16]), vec![contact(1), contact(2)], 1);
        let closed = || Err(JoinFailure::NotServed("it lets nobody in".to_owned()));
        let silent = || Err(JoinFailure::Other("nobody answers there".to_owned()));
        let mut ends = |ended| {
            joining.note(0, ended);
            let why = joining.trouble().map(|(_, _, why)| why.to_owned()).unwrap_or_default();
            (joining.is_served_by_nobody(), why)
        };
        let said = |why: &str| why.to_owned();
        assert_eq!(ends(closed()), (false, said("it lets nobody in")));
        assert_eq!(ends(silent()), (false, said("it lets nobody in")), "what one of them said is the reason");
        assert_eq!(ends(closed()), (false, said("it lets nobody in")));
        assert_eq!(ends(closed()), (true, said("it lets nobody in")), "both");
        assert_eq!(ends(silent()), (false, said("it lets nobody in")));
        let later = Ok(JoinResponse::Later { why: "later".to_owned(), known_as: None });
        assert_eq!(ends(later), (false, said("later")), "a ticket is open");
        let none = Joining::new(ClusterId::from_bytes([7; 16]), Vec::new(), 1);
        assert!(!none.is_served_by_nobody());
    }
}
