//! The forming task: asks the declared nodes who they are until `blixard-core` says that the cluster is born.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blixard_model::EndpointId;
use blixard_model::api::RetryKind;
use blixard_model::formation::{Genesis, Identity, Phase as IdentityPhase};
use blixard_node::forming::{Birth, Configured, Formed, Pace, advance, told_members};
use blixard_store::{Store, WriteError};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, sleep_until};

use super::announce::{linked, ms_since};
use super::context::{Agent, Phase};
use super::peer_call::ask_identities;
use super::random;
use super::retries::Failed;
use super::supervise;

/// How long an answer may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until there is a cluster. Promises are durable before anybody hears of them.
///
/// # Errors
/// The store's; final.
pub(crate) async fn form(agent: &Agent, store: &mut Store) -> Result<Birth, WriteError> {
    let begun = Instant::now();
    let mut pace = Pace::new(random::u64());
    let mut news = News { askers: agent.askers.subscribe(), up: BTreeSet::new() };
    loop {
        news.wait_due(agent, &mut pace, begun).await;
        pace.begin();
        show(agent, &pace, begun);
        agent.metrics.formation_attempts.inc();
        supervise::feed_watchdog();
        let answers = ask_all(agent).await;
        let me = agent.identity(None).await;
        let cluster_name = &agent.config.cluster_name;
        let list = Configured { cluster_name, declared: &agent.declared, joins: agent.joins };
        agent.let_in(&told_members(&answers));
        let formed = tokio::task::block_in_place(|| advance(store, &me, list, &answers))?;
        pace.end(ms_since(begun), &answers, &formed);
        show(agent, &pace, begun);
        match formed {
            Formed::Promised(genesis) => {
                set_forming(agent, Some(genesis), vec!["the others' agreement".to_owned()]);
            }
            Formed::Waiting(mut waiting_for) => {
                if agent.joins {
                    waiting_for = vec![agent.tickets.words()];
                }
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

/// What may have changed since the last round, without this node having asked.
struct News {
    askers: broadcast::Receiver<Identity>,
    /// The links that were up.
    up: BTreeSet<EndpointId>,
}

impl News {
    /// Waits until a round is due. While there is no cluster only declared nodes have links.
    async fn wait_due(&mut self, agent: &Agent, pace: &mut Pace, begun: Instant) {
        let mut links = agent.net.links();
        links.mark_changed();
        loop {
            let due = begun + Duration::from_millis(pace.due_ms().unwrap_or(0));
            tokio::select! {
                // Who asks without end does not keep a round from beginning.
                biased;
                () = sleep_until(due) => return,
                asker = self.askers.recv() => match asker {
                    Ok(asker) => pace.heard(&agent.declared, &asker),
                    // More than are kept asked during one round: one of them is surely new.
                    Err(RecvError::Lagged(_)) => pace.hurry(),
                    Err(RecvError::Closed) => return sleep_until(due).await,
                },
                changed = links.changed() => {
                    if changed.is_err() {
                        return sleep_until(due).await;
                    }
                    let up = linked(agent);
                    if !up.is_subset(&self.up) {
                        pace.hurry();
                    }
                    self.up = up;
                }
            }
            show(agent, pace, begun);
        }
    }
}

fn show(agent: &Agent, pace: &Pace, begun: Instant) {
    match pace.trouble() {
        None => agent.retries.done(RetryKind::Form, None),
        Some((failures, waiting_for)) => {
            let next_try = pace.due_ms().map(|due| begun + Duration::from_millis(due));
            let failed = Failed { failures, next_try, why: waiting_for.join("; ") };
            agent.retries.failed(RetryKind::Form, None, failed);
        }
    }
}

fn set_forming(agent: &Agent, promise: Option<Genesis>, waiting_for: Vec<String>) {
    let changed = match &*agent.phase.borrow() {
        Phase::Forming { waiting_for: before, .. } => *before != waiting_for,
        Phase::Running(_) | Phase::Removed { .. } => true,
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
async fn ask_all(agent: &Agent) -> BTreeMap<EndpointId, Identity> {
    let me = agent.identity(None).await;
    let answered = ask_identities(&agent.net, agent.asked_while_forming(), &me, ASK_TIMEOUT).await;
    answered.into_iter().filter_map(|(id, them)| Some((id, them.ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use blixard_net::{LinkState, Net, NetConfig, NodeKey, PeerConfig, RelayList, TransportState};
    use blixard_node::forming::FORM;

    use super::super::testing;
    use super::*;

    async fn listening(net: &Net) -> PeerConfig {
        let mut transport = net.transport();
        transport.wait_for(TransportState::is_up).await.expect("it listens");
        let addresses = net.local_addr().into_iter().collect();
        PeerConfig { endpoint_id: net.endpoint_id(), addresses, relay_url: None }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_link_that_came_up_makes_the_next_round_come_soon() {
        let dir = tempfile::tempdir().expect("dir");
        let agent = testing::agent(dir.path());
        let bind = "127.0.0.1:0".parse().expect("address");
        let cluster_name = agent.config.cluster_name.clone();
        let other = NetConfig {
            key: NodeKey::generate(),
            bind,
            cluster_name,
            relays: RelayList::default(),
            relay_ca: None,
        };
        let (other, _incoming) = Net::start(other).expect("started");
        let (here, there) = (listening(&agent.net).await, listening(&other).await);
        let id = there.endpoint_id;

        let begun = Instant::now();
        let mut news = News { askers: agent.askers.subscribe(), up: BTreeSet::new() };
        let mut pace = Pace::new(1);
        for _ in 0..6 {
            pace.begin();
            let reasons = Formed::Waiting(vec!["n2: has not answered".to_owned()]);
            pace.end(ms_since(begun), &BTreeMap::new(), &reasons);
        }
        let slow = pace.due_ms().expect("waits");
        agent.net.set_peers(vec![there], BTreeMap::new());
        other.set_peers(vec![here], BTreeMap::new());
        let mut links = agent.net.links();
        let up = links.wait_for(|links| links.get(&id).is_some_and(LinkState::is_up));
        assert!(up.await.is_ok(), "they find each other");

        news.wait_due(&agent, &mut pace, begun).await;
        let due = pace.due_ms().expect("waits");
        assert!(due < slow && due <= FORM.first_ms + FORM.first_ms / 2, "{due} of {slow}");
    }
}
