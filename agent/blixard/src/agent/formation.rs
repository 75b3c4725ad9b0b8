//! The forming task: asks the declared nodes who they are until `blixard-core` says that the cluster is born.

use std::collections::BTreeMap;
use std::time::Duration;

use blixard_model::EndpointId;
use blixard_model::formation::{Genesis, Identity, Phase as IdentityPhase};
use blixard_node::forming::{Birth, Formed, advance};
use blixard_store::{Store, WriteError};
use tokio::time::{Instant, interval};

use super::context::{Agent, Phase};
use super::peer_call::ask_identities;
use super::supervise;

/// How often everybody is asked.
const ASK_PERIOD: Duration = Duration::from_millis(300);
/// How long an answer may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until there is a cluster. Promises are durable before anybody hears of them.
///
/// # Errors
/// The store's; final.
pub(crate) async fn form(agent: &Agent, store: &mut Store) -> Result<Birth, WriteError> {
    let mut answers: BTreeMap<EndpointId, Identity> = BTreeMap::new();
    let mut period = interval(ASK_PERIOD);
    let begun = Instant::now();
    loop {
        period.tick().await;
        agent.metrics.formation_attempts.inc();
        supervise::feed_watchdog();
        ask_all(agent, &mut answers).await;
        let me = agent.identity(None).await;
        let list = (&agent.config.cluster_name, agent.declared.as_slice());
        match tokio::task::block_in_place(|| advance(store, &me, list, &answers))? {
            Formed::Promised(genesis) => {
                set_forming(agent, Some(genesis), vec!["the others' agreement".to_owned()]);
            }
            Formed::Waiting(waiting_for) => {
                agent.metrics.formation_failed(&waiting_for);
                let promise = match me.phase {
                    IdentityPhase::Empty { promise } => promise,
                    IdentityPhase::Formed { .. } => None,
                };
                set_forming(agent, promise, waiting_for);
            }
            Formed::Born(birth) => {
                agent.metrics.formations.inc();
                agent.metrics.formation_seconds.set(begun.elapsed().as_secs_f64());
                return Ok(birth);
            }
        }
    }
}

fn set_forming(agent: &Agent, promise: Option<Genesis>, waiting_for: Vec<String>) {
    let changed = match &*agent.phase.borrow() {
        Phase::Forming { waiting_for: before, .. } => *before != waiting_for,
        Phase::Running(_) => true,
    };
    if changed {
        let text = waiting_for.join("; ");
        tracing::info!("no cluster yet: {text}");
        supervise::status(&format!("No cluster yet: {text}"));
    }
    agent.phase.send_replace(Phase::Forming { promise, waiting_for });
}

/// Asks every declared node at once. Who does not answer now has not answered: an old answer may be of a
/// store that is gone since.
async fn ask_all(agent: &Agent, answers: &mut BTreeMap<EndpointId, Identity>) {
    let me = agent.identity(None).await;
    let others = agent.declared.iter().map(|declared| declared.endpoint_id);
    let others = others.filter(|id| *id != agent.endpoint_id).collect();
    let answered = ask_identities(&agent.net, others, &me, ASK_TIMEOUT).await;
    *answers = answered.into_iter().filter_map(|(id, them)| Some((id, them.ok()?))).collect();
}
