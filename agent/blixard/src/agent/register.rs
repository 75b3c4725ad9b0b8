//! Sees to it that the log knows what this node offers and where it is: [`Registration`] carried out.

use std::sync::Arc;
use std::time::Duration;

use blixard_model::api::RetryKind;
use blixard_model::{Outcome, Request};
use blixard_node::{Registration, RegistrationStep};
use tokio::time::{Instant, timeout_at};

use super::announce::ms_since;
use super::context::Agent;
use super::handle::ViewError;
use super::random;
use super::retries::Failed;
use super::submit::submit;

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
        let (id, offer) = (agent.endpoint_id, registration.offer().clone());
        let look = running.consensus.view(move |view| Registration::standing(view.state, id, &offer));
        let standing = match look.await {
            Ok(standing) => standing,
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
                let ended = match submit(&agent, &request, Instant::now() + ATTEMPT_TIMEOUT).await {
                    Ok(Outcome::Done { .. }) => Ok(()),
                    Ok(Outcome::Refused { refusal }) => Err(refusal.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                registration.note(ms_since(begun), ended);
                show(&agent, &registration, begun);
                continue;
            }
        }
        let changed = match until {
            None => summary.changed().await,
            Some(until) => timeout_at(until, summary.changed()).await.unwrap_or(Ok(())),
        };
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
