//! Sees to it that the log knows what this node offers and where it is: [`Registration`] carried out.

use std::sync::Arc;
use std::time::Duration;

use blixard_model::api::RetryKind;
use blixard_model::{Outcome, Request};
use blixard_node::{Registration, RegistrationStep};
use tokio::time::{Instant, timeout_at};

use super::addresses;
use super::announce::ms_since;
use super::context::Agent;
use super::handle::ViewError;
use super::random;
use super::retries::Failed;
use super::submit::submit;

/// How often this machine's addresses are looked at.
const ADDRESSES_PERIOD: Duration = Duration::from_secs(5);
/// How long one attempt may take: it finds the leader and asks it until then.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs until the agent ends. Wakes when something changes (leader, members, log) and when a pause is over.
pub(crate) async fn register(agent: Arc<Agent>) {
    let running = agent.wait_running().await;
    let mut summary = running.consensus.summary();
    let begun = Instant::now();
    let mut registration = Registration::new(agent.endpoint_id, agent.offer(), random::u64());
    loop {
        let now = summary.borrow_and_update().clone();
        let (id, mut offer, written) = (agent.endpoint_id, agent.offer(), agent.config.own_addresses());
        let look = running.consensus.view(move |view| {
            offer.addresses = addresses::free(offer.addresses, &written, view.state, id);
            (Registration::standing(view.state, id, &offer), offer)
        });
        let standing = match look.await {
            Ok((standing, offer)) => {
                registration.set_offer(offer);
                standing
            }
            // It may say later.
            Err(ViewError::Behind) => continue,
            Err(ViewError::Stopped(_)) => return,
        };
        let step = registration.next(ms_since(begun), standing, &now);
        show(&agent, &registration, begun);
        let mut until = None;
        match step {
            RegistrationStep::Nothing => {}
            RegistrationStep::Refused(why) => {
                tracing::warn!("the cluster can not take what this node says of itself: {why}");
            }
            RegistrationStep::Wait { until_ms } => until = Some(begun + Duration::from_millis(until_ms)),
            RegistrationStep::Submit(command) => {
                let request = Request { id: random::request_id(), command };
                let ended = match submit(&agent, request, Instant::now() + ATTEMPT_TIMEOUT).await {
                    Ok(Outcome::Done { .. } | Outcome::Admitted { .. }) => Ok(()),
                    Ok(Outcome::Refused { refusal }) => Err(refusal.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                registration.note(ms_since(begun), ended);
                show(&agent, &registration, begun);
                continue;
            }
        }
        // The machine may move without a word to its agent.
        let look = Instant::now() + ADDRESSES_PERIOD;
        let until = until.map_or(look, |until| until.min(look));
        let changed = timeout_at(until, summary.changed()).await.unwrap_or(Ok(()));
        if changed.is_err() {
            return;
        }
    }
}

fn show(agent: &Agent, registration: &Registration, begun: Instant) {
    match registration.trouble() {
        None => agent.retries.done(RetryKind::Register, None),
        Some((failures, at_ms, why)) => {
            let next_try = Some(begun + Duration::from_millis(at_ms));
            let failed = Failed { failures, next_try, why: why.to_owned() };
            agent.retries.failed(RetryKind::Register, None, failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use blixard_consensus::{LogStats, RaftRole, RaftStatus};
    use blixard_core::ClusterState;
    use blixard_model::formation::{Genesis, GenesisVoter};
    use blixard_model::{Capacity, EndpointId, RaftId};
    use blixard_node::NodeStats;
    use blixard_store::StoreStats;
    use tokio::sync::{mpsc, watch};

    use super::super::handle::{Input, View};
    use super::super::retries::Retrying;
    use super::super::testing::{self, shown};
    use super::*;

    /// The log of a cluster of this one node.
    fn log(agent: &Agent, capacity: Option<Capacity>) -> ClusterState {
        let voter = GenesisVoter {
            witness: false,
            name: agent.name().clone(),
            endpoint_id: agent.endpoint_id,
            store_id: agent.store_id,
            addresses: agent.offer().addresses,
            relay_url: None,
            capacity,
        };
        ClusterState::new(Genesis {
            origin: None,
            cluster_name: agent.config.cluster_name.clone(),
            voters: vec![voter],
        })
    }

    /// Shows what the log says at the time, and does nothing else.
    async fn show_log(mut inbox: mpsc::Receiver<Input>, log: watch::Receiver<ClusterState>) {
        let raft = RaftStatus {
            id: RaftId(1),
            role: RaftRole::Follower,
            leader: None,
            term: 1,
            commit: 1,
            applied: 1,
            last: (1, 1),
            voters: vec![RaftId(1)],
            learners: Vec::new(),
            progress: BTreeMap::new(),
        };
        let stats = NodeStats { log: LogStats::default(), proposals: 0, reads: 0 };
        while let Some(input) = inbox.recv().await {
            if let Input::View(look) = input {
                let store = StoreStats::default();
                look(&View { state: &log.borrow(), raft: &raft, node: &testing::Nothing, stats, store });
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_registration_that_reaches_nobody_is_shown_with_its_write_until_the_log_has_it() {
        let dir = tempfile::tempdir().expect("dir");
        let agent = Arc::new(testing::agent(dir.path()));
        let (consensus, inbox, summary) = testing::consensus(Some(EndpointId::from_bytes([7; 32])));
        testing::run(&agent, consensus);
        let (say, said) = watch::channel(log(&agent, None));
        let tasks = [tokio::spawn(show_log(inbox, said)), tokio::spawn(register(Arc::clone(&agent)))];
        let often = |retry: Option<&Retrying>| {
            retry.is_some_and(|retry| retry.failures >= 3 && retry.next_try_in.is_some())
        };
        let write = shown(&agent, RetryKind::Forward, often).await.expect("it fails");
        assert!(write.last_error.contains("n2"), "{write:?}");
        let failed = |retry: Option<&Retrying>| retry.is_some_and(|retry| retry.failures >= 2);
        let seen = shown(&agent, RetryKind::Register, failed).await.expect("it fails");
        assert!(seen.peer.is_none() && !seen.last_error.is_empty(), "{seen:?}");

        say.send_replace(log(&agent, Some(agent.capacity)));
        summary.send_modify(|summary| summary.applied += 1);
        assert_eq!(shown(&agent, RetryKind::Register, |retry| retry.is_none()).await, None);
        assert_eq!(shown(&agent, RetryKind::Forward, |retry| retry.is_none()).await, None);
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
