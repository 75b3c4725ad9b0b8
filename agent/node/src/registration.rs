//! How a node sees to it that the log knows what it offers and where it is.
//!
//! ```text
//!            the log differs, somebody leads
//!   Nothing ───────────────────────────────▶ Submit ──▶ the log says so: Nothing
//!      ▲                                       │
//!      └── Wait (backoff, or another leader) ◀─┘ it failed, or the log here does not say so yet
//! ```
//!
//! Idempotent: the command says what is, so one that is applied twice changes nothing. Without a leader, and
//! for what the log would refuse, there is nothing to do until something changes.

use blixard_core::ClusterState;
use blixard_model::backoff::{ANNOUNCE, Retry};
use blixard_model::{EndpointId, Offer, Refusal, WriteAsk, mutant};

use crate::summary::Summary;

/// What the log says of what a node offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The node is no member, as far as the log here goes.
    NoMember,
    /// It knows it.
    Registered,
    /// It says something else, and would take it.
    Differs,
    /// It says something else, and would refuse it.
    Refused(Refusal),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationStep {
    /// Ask again when the summary changes.
    Nothing,
    /// Tell an operator, once; then as [`RegistrationStep::Nothing`].
    Refused(Refusal),
    /// Ask again when the summary changes, and at this time at the latest.
    Wait {
        /// Milliseconds of the caller's clock.
        until_ms: u64,
    },
    /// Bring this to the leader, and tell [`Registration::note`] how it ended.
    Submit(WriteAsk),
}

/// One node's registration, for as long as it runs. Driven by its caller: [`Registration::next`] says what to
/// do.
#[derive(Debug)]
pub struct Registration {
    endpoint_id: EndpointId,
    offer: Offer,
    retry: Retry,
    /// Who led at the last attempt, and in which term.
    asked: Option<(EndpointId, u64)>,
    last_error: Option<String>,
    refused: Option<Refusal>,
}

impl Registration {
    /// Of a node that offers this. The seed spreads the retries of those who fail together.
    pub fn new(endpoint_id: EndpointId, offer: Offer, seed: u64) -> Self {
        let retry = Retry::new(ANNOUNCE, seed);
        Self { endpoint_id, offer, retry, asked: None, last_error: None, refused: None }
    }

    /// Something else is offered from now on, for instance after the machine moved.
    pub fn set_offer(&mut self, offer: Offer) {
        if self.offer != offer && !mutant::lives("move-not-told") {
            self.offer = offer;
            self.retry.reset();
        }
    }

    /// What is offered.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Where a node stands in a log with what it offers.
    pub fn standing(state: &ClusterState, endpoint_id: EndpointId, offer: &Offer) -> Standing {
        let Some(member) = state.member_by_endpoint(endpoint_id) else { return Standing::NoMember };
        if member.node.offer == offer {
            return Standing::Registered;
        }
        match state.check_offer(endpoint_id, offer) {
            Ok(_) => Standing::Differs,
            Err(refusal) => Standing::Refused(refusal),
        }
    }

    /// What to do now. Not to be asked while a [`RegistrationStep::Submit`] is under way.
    pub fn next(&mut self, now_ms: u64, standing: Standing, summary: &Summary) -> RegistrationStep {
        if let Standing::Refused(why) = standing {
            let known = self.refused.replace(why.clone());
            self.settle();
            return if known.as_ref() == Some(&why) {
                RegistrationStep::Nothing
            } else {
                RegistrationStep::Refused(why)
            };
        }
        self.refused = None;
        if standing != Standing::Differs {
            self.settle();
            return RegistrationStep::Nothing;
        }
        let Some((_, leader)) = summary.leader else { return RegistrationStep::Nothing };
        let leads = Some((leader, summary.term));
        if self.asked == leads && !self.retry.is_due(now_ms) {
            return RegistrationStep::Wait { until_ms: self.retry.at_ms() };
        }
        self.asked = leads;
        let (endpoint_id, offer) = (self.endpoint_id, self.offer.clone());
        RegistrationStep::Submit(WriteAsk::SetNode { endpoint_id, offer })
    }

    /// How an attempt ended. One that is committed is done when the log here says so; until then it is
    /// looked at again after a pause, and sent once more.
    pub fn note(&mut self, now_ms: u64, ended: Result<(), String>) {
        match ended {
            Ok(()) => {
                self.last_error = None;
                self.retry.succeeded(now_ms);
            }
            Err(why) => {
                self.last_error = Some(why);
                self.retry.failed(now_ms);
            }
        }
    }

    /// Attempts that failed in a row, when the next one is due in milliseconds of the caller's clock, and why
    /// the last one failed; `None` when none did.
    pub fn trouble(&self) -> Option<(u32, u64, &str)> {
        let why = self.last_error.as_deref()?;
        Some((self.retry.failures(), self.retry.at_ms(), why))
    }

    fn settle(&mut self) {
        self.retry.reset();
        self.asked = None;
        self.last_error = None;
    }
}

#[cfg(test)]
mod tests {
    use blixard_consensus::RaftRole;
    use blixard_model::{Capacity, RaftId};

    use super::*;

    fn summary(leader: Option<u8>, term: u64) -> Summary {
        let leader =
            leader.map(|n| (format!("n{n}").parse().expect("name"), EndpointId::from_bytes([n; 32])));
        Summary {
            joinable: false,
            raft_id: RaftId(1),
            role: RaftRole::Follower,
            leads: false,
            leader,
            term,
            applied: 1,
            is_member: true,
            membership_version: 1,
        }
    }

    fn registration() -> Registration {
        let capacity = Capacity { cpus: 1, memory_mib: 1 };
        let offer = Offer { capacity: Some(capacity), ..Offer::default() };
        Registration::new(EndpointId::from_bytes([9; 32]), offer, 7)
    }

    fn submits(step: &RegistrationStep) -> bool {
        matches!(step, RegistrationStep::Submit(WriteAsk::SetNode { .. }))
    }

    #[test]
    fn what_the_log_knows_or_cannot_know_is_left_alone() {
        let mut r = registration();
        let led = summary(Some(2), 1);
        assert_eq!(r.next(0, Standing::Registered, &led), RegistrationStep::Nothing);
        assert_eq!(r.next(0, Standing::NoMember, &led), RegistrationStep::Nothing);
    }

    #[test]
    fn it_waits_for_a_leader_without_a_time_and_then_goes_at_once() {
        let mut r = registration();
        assert_eq!(r.next(0, Standing::Differs, &summary(None, 1)), RegistrationStep::Nothing);
        assert_eq!(r.next(60_000, Standing::Differs, &summary(None, 2)), RegistrationStep::Nothing);
        assert!(submits(&r.next(60_001, Standing::Differs, &summary(Some(2), 2))));
    }

    #[test]
    fn failures_back_off_with_jitter_and_a_new_leader_is_asked_at_once() {
        let mut r = registration();
        let led = summary(Some(2), 1);
        let (mut now, mut pauses) = (1_000, Vec::new());
        for n in 1..=8 {
            assert!(submits(&r.next(now, Standing::Differs, &led)), "attempt {n}");
            r.note(now, Err("no link".to_owned()));
            let RegistrationStep::Wait { until_ms } = r.next(now, Standing::Differs, &led) else {
                panic!("does not wait after attempt {n}");
            };
            assert_eq!(r.trouble(), Some((n, until_ms, "no link")));
            pauses.push(until_ms - now);
            now = until_ms;
        }
        let most = [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000];
        for (pause, most) in pauses.iter().zip(most) {
            assert!((most / 2..=most).contains(pause), "{pauses:?}");
        }
        assert!(pauses.iter().zip(most).any(|(pause, most)| *pause != most), "no jitter: {pauses:?}");
        assert!(submits(&r.next(now, Standing::Differs, &led)));
        r.note(now, Err("no link".to_owned()));
        assert!(submits(&r.next(now, Standing::Differs, &summary(Some(3), 2))), "another leads");
    }

    #[test]
    fn it_is_done_when_the_log_says_so_and_forgets_its_failures() {
        let mut r = registration();
        let led = summary(Some(2), 1);
        assert!(submits(&r.next(0, Standing::Differs, &led)));
        r.note(0, Err("no link".to_owned()));
        assert!(submits(&r.next(200, Standing::Differs, &led)));
        r.note(210, Ok(()));
        assert_eq!(r.trouble(), None, "it is committed");
        assert!(
            matches!(r.next(211, Standing::Differs, &led), RegistrationStep::Wait { .. }),
            "not here yet"
        );
        assert_eq!(r.next(220, Standing::Registered, &led), RegistrationStep::Nothing);
        assert!(submits(&r.next(221, Standing::Differs, &led)), "changed by somebody else: at once");
    }

    #[test]
    fn what_would_be_refused_is_said_once_and_not_sent() {
        let mut r = registration();
        let led = summary(Some(2), 1);
        let why = Refusal::Invalid { why: "address in use".to_owned().into() };
        let refused = || Standing::Refused(why.clone());
        assert_eq!(r.next(0, refused(), &led), RegistrationStep::Refused(why.clone()));
        assert_eq!(r.next(1, refused(), &led), RegistrationStep::Nothing);
        assert!(submits(&r.next(2, Standing::Differs, &led)), "it fits now");
        r.note(2, Ok(()));
        assert_eq!(r.next(3, refused(), &led), RegistrationStep::Refused(why.clone()), "said again");
    }
}
