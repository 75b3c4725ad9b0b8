//! What this node offers, on its way into the log: [`Registration`] with the addresses and the shared
//! directories that may be offered.

use std::net::SocketAddr;

use blixard_core::ClusterState;
use blixard_model::api::RetryKind;
use blixard_model::{ClusterVersion, EndpointId, Offer, Outcome, SharedDirs};

use crate::host::trouble::Trouble;
use crate::registration::{Registration, RegistrationStep};
use crate::submission::SubmitError;
use crate::summary::Summary;

/// How long one attempt may take, in milliseconds: it finds the leader and asks it until then.
pub(super) const ATTEMPT_MS: u64 = 10_000;

/// The registration of this node.
#[derive(Debug)]
pub(super) struct Registering {
    me: EndpointId,
    /// Addresses that an operator wrote down. All others are guesses.
    written: Vec<SocketAddr>,
    /// What this machine offers, guesses included.
    offer: Offer,
    registration: Registration,
    due_ms: Option<u64>,
    failing_since_ms: Option<u64>,
}

impl Registering {
    pub(super) fn new(me: EndpointId, offer: Offer, written: Vec<SocketAddr>, seed: u64) -> Self {
        let registration = Registration::new(me, offer.clone(), seed);
        Self { me, written, offer, registration, due_ms: None, failing_since_ms: None }
    }

    /// This machine offers something else now.
    pub(super) fn set_offer(&mut self, offer: Offer) {
        self.offer = offer;
    }

    /// What to do now; not to be asked while a change is under way.
    pub(super) fn next(&mut self, now_ms: u64, state: &ClusterState, summary: &Summary) -> RegistrationStep {
        let mut offer = self.offer.clone();
        offer.addresses = without_taken(offer.addresses, &self.written, state, self.me);
        offer.shared_dirs = shared(&offer.shared_dirs, state);
        let standing = Registration::standing(state, self.me, &offer);
        self.registration.set_offer(offer);
        let step = self.registration.next(now_ms, standing, summary);
        self.due_ms = match &step {
            RegistrationStep::Wait { until_ms } => Some(*until_ms),
            RegistrationStep::Nothing | RegistrationStep::Refused(_) | RegistrationStep::Submit(_) => None,
        };
        self.note_trouble(now_ms);
        step
    }

    /// When to look again, if nothing changes before.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// An attempt ended.
    pub(super) fn ended(&mut self, now_ms: u64, end: Result<Outcome, SubmitError>) {
        let ended = match end {
            Ok(Outcome::Done { .. }) => Ok(()),
            Ok(Outcome::Refused { refusal }) => Err(refusal.to_string()),
            Err(error) => Err(error.to_string()),
        };
        self.registration.note(now_ms, ended);
        self.note_trouble(now_ms);
    }

    fn note_trouble(&mut self, now_ms: u64) {
        match self.registration.trouble() {
            None => self.failing_since_ms = None,
            Some(_) => _ = self.failing_since_ms.get_or_insert(now_ms),
        }
    }

    pub(super) fn trouble(&self, now_ms: u64) -> Option<Trouble> {
        let (failures, at_ms, why) = self.registration.trouble()?;
        Some(Trouble {
            what: RetryKind::Register,
            peer: None,
            failures,
            next_try_ms: Some(at_ms).filter(|at| *at > now_ms),
            why: why.to_owned(),
            since_ms: self.failing_since_ms.unwrap_or(now_ms),
        })
    }
}

/// Addresses without those guesses that are another member's by the log: a machine's inner networks may look
/// like another machine's.
fn without_taken(
    offered: Vec<SocketAddr>,
    written: &[SocketAddr],
    state: &ClusterState,
    me: EndpointId,
) -> Vec<SocketAddr> {
    let others = || state.nodes.members().filter(|member| member.node.endpoint_id != me);
    let is_taken =
        |address: &SocketAddr| others().any(|member| member.node.offer.addresses.contains(address));
    offered.into_iter().filter(|address| written.contains(address) || !is_taken(address)).collect()
}

/// The directories without those that the log would refuse: what else the node offers does not wait for an
/// operator. Older replicas do not know any.
fn shared(offered: &SharedDirs, state: &ClusterState) -> SharedDirs {
    if state.version < ClusterVersion::SHARED_DISKS {
        return SharedDirs::default();
    }
    offered.iter().filter(|dir| state.sharing_problem(dir).is_none()).cloned().collect()
}
