//! What a node keeps telling the others: who it is, what runs on it. What it offers: `register`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use blixard_model::api::RetryKind;
use blixard_model::backoff::{ANNOUNCE, Retry};
use blixard_model::removal::RemovedFrom;
use blixard_model::wire::{PeerRequest, PeerResponse};
use blixard_model::{EndpointId, Outcome};
use blixard_node::Summary;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::context::Agent;
use super::handle::ViewError;
use super::peer_call::{ask, ask_identities};
use super::random;
use super::retries::Failed;
use super::submit::submit;
use super::supervise;

/// How often the leader is told what runs here, and asks the others who they are.
const PERIOD: Duration = Duration::from_secs(1);
/// How often the leader is told of listed nodes that wait.
const VOUCH_PERIOD: Duration = Duration::from_secs(2);
/// How long it may take to admit one.
const VOUCH_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a peer may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Keeps the network's list of peers in step with the members.
pub(crate) async fn keep_peers(agent: Arc<Agent>) {
    let running = agent.wait_running().await;
    let mut summary = running.consensus.summary();
    let mut version = None;
    loop {
        let now = summary.borrow_and_update().membership_version;
        if version != Some(now) {
            let look = running.consensus.view(|view| {
                let cluster_id = view.state.cluster_id();
                let word = |raft_id| RemovedFrom { cluster_id, raft_id }.to_string();
                let removed = view.node.kept_out().into_iter().map(|(id, raft_id)| (id, word(raft_id)));
                (view.node.peers(), removed.collect())
            });
            let (members, removed) = match look.await {
                Ok(looked) => looked,
                // It may have them later.
                Err(ViewError::Behind) => continue,
                Err(ViewError::Stopped(_)) => return,
            };
            agent.set_peers(members, removed);
            version = Some(now);
        }
        if summary.changed().await.is_err() {
            return;
        }
    }
}

/// Sends reports to the leader: at every change, and each second so that it knows them to be fresh. One that
/// does not take them is asked less and less often; another leader at once.
pub(crate) async fn report(agent: Arc<Agent>) {
    let running = agent.wait_running().await;
    let mut summary = running.consensus.summary();
    let mut own = agent.own_report.subscribe();
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begun = Instant::now();
    let mut retry = Retry::new(ANNOUNCE, random::u64());
    let mut asked = None;
    loop {
        let woken = tokio::select! {
            _ = period.tick() => true,
            changed = own.changed() => changed.is_ok(),
            other = summary.wait_for(|now| leader_of(now) != asked) => other.is_ok(),
        };
        if !woken {
            return;
        }
        own.mark_unchanged();
        let aged = agent.own_aged_report();
        agent.note_report(aged.clone());
        let leader = leader_of(&summary.borrow());
        if leader != asked {
            agent.retries.done(RetryKind::Report, asked);
            retry.reset();
            asked = leader;
        }
        let Some(to) = leader.filter(|id| *id != agent.endpoint_id) else { continue };
        if !retry.is_due(ms_since(begun)) {
            continue;
        }
        let answer = ask(&agent.net, to, &PeerRequest::Report { aged }, ASK_TIMEOUT).await;
        let why = match answer {
            Ok(PeerResponse::Noted) => {
                retry.reset();
                agent.retries.done(RetryKind::Report, leader);
                continue;
            }
            Ok(PeerResponse::Declined { why }) => why,
            Ok(other) => format!("answered {other:?}"),
            Err(error) => error.to_string(),
        };
        retry.failed(ms_since(begun));
        agent.retries.failed(RetryKind::Report, leader, failed(&retry, begun, why));
    }
}

fn leader_of(summary: &Summary) -> Option<EndpointId> {
    summary.leader.as_ref().map(|(_, id)| *id)
}

/// A failure as it is shown; `begun` is where the retry's clock begins.
pub(crate) fn failed(retry: &Retry, begun: Instant, why: String) -> Failed {
    let next_try = Some(begun + Duration::from_millis(retry.at_ms()));
    Failed { failures: retry.failures(), next_try, why }
}

/// Milliseconds since a task began.
pub(crate) fn ms_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Serves the join protocol while there is a ticket by which somebody may be admitted.
pub(crate) async fn serve_joins(agent: Arc<Agent>) {
    let running = agent.wait_running().await;
    let mut summary = running.consensus.summary();
    loop {
        let joinable = summary.borrow_and_update().joinable;
        agent.net.serve_joins(joinable.then_some(running.cluster_id));
        if summary.wait_for(|now| now.joinable != joinable).await.is_err() {
            return;
        }
    }
}

/// As follower, tells the leader of nodes on this node's list that wait to be admitted: it may have another
/// list, or none.
pub(crate) async fn vouch(agent: Arc<Agent>) {
    let running = agent.wait_running().await;
    if agent.declared.is_empty() {
        return std::future::pending().await;
    }
    let mut period = interval(VOUCH_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let asks = match running.consensus.view(|view| view.node.vouches()).await {
            Ok(asks) => asks,
            Err(ViewError::Behind) => continue,
            Err(ViewError::Stopped(_)) => return,
        };
        for ask in asks {
            match submit(&agent, ask, Instant::now() + VOUCH_TIMEOUT).await {
                Ok(Outcome::Refused { refusal }) => {
                    tracing::warn!("a listed node is not admitted: {refusal}")
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the leader was not told of a listed node"),
            }
        }
    }
}

/// As leader, asks every declared node and member who it is: that is how a lost store and a new node are
/// noticed. A node without a leader asks as well: the others may know that its store has left the cluster.
/// Only linked ones are asked, and one that does not answer less and less often.
pub(crate) async fn identify(agent: Arc<Agent>) {
    let running = agent.wait_running().await;
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begun = Instant::now();
    let mut retries: BTreeMap<EndpointId, Retry> = BTreeMap::new();
    loop {
        period.tick().await;
        let (asks, version) = {
            let summary = running.consensus.summary();
            let summary = summary.borrow();
            (summary.leads || summary.leader.is_none(), summary.membership_version)
        };
        let up = if asks { linked(&agent) } else { BTreeSet::new() };
        // The others are not tried any more: a new link is a new beginning.
        retries.retain(|peer, _| {
            let stays = up.contains(peer);
            if !stays {
                agent.retries.done(RetryKind::Identify, Some(*peer));
            }
            stays
        });
        let now = ms_since(begun);
        let due = |peer: &EndpointId| retries.get(peer).is_none_or(|retry| retry.is_due(now));
        let whom: Vec<_> = up.into_iter().filter(due).collect();
        if whom.is_empty() {
            continue;
        }
        let me = agent.identity(None).await;
        for (peer, answer) in ask_identities(&agent.net, whom, &me, ASK_TIMEOUT).await {
            match answer {
                Ok(them) => {
                    retries.remove(&peer);
                    agent.retries.done(RetryKind::Identify, Some(peer));
                    running.consensus.offer_identity(them, Some(version));
                }
                Err(why) => {
                    let retry = retries.entry(peer).or_insert_with(|| Retry::new(ANNOUNCE, random::u64()));
                    retry.failed(ms_since(begun));
                    agent.retries.failed(RetryKind::Identify, Some(peer), failed(retry, begun, why));
                }
            }
        }
    }
}

/// Whom there is a link with.
pub(crate) fn linked(agent: &Agent) -> BTreeSet<EndpointId> {
    let links = agent.net.links();
    let links = links.borrow();
    links.iter().filter(|(_, link)| link.is_up()).map(|(id, _)| *id).collect()
}

/// Keeps systemd's one line true.
pub(crate) async fn tell_status(agent: Arc<Agent>) {
    let running = agent.wait_running().await;
    let mut summary = running.consensus.summary();
    let mut own = agent.own_report.subscribe();
    let mut said = String::new();
    loop {
        let vms = own.borrow_and_update().1.vms.len();
        let text = status_line(agent.config.cluster_name.as_str(), &summary.borrow_and_update().clone(), vms);
        if text != said {
            supervise::status(&text);
            said = text;
        }
        let changed = tokio::select! {
            changed = summary.changed() => changed,
            changed = own.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn status_line(cluster: &str, summary: &Summary, vms: usize) -> String {
    match (summary.is_member, &summary.leader) {
        (false, _) => format!("Known to cluster {cluster}, waiting for its state"),
        (true, None) => format!(
            "Member of {cluster}: NO QUORUM (no leader, term {}), {vms} VMs placed here",
            summary.term
        ),
        (true, Some((leader, _))) => {
            format!("Member of {cluster}: leader {leader}, term {}, {vms} VMs placed here", summary.term)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::retries::Retrying;
    use super::super::testing::{self, shown};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reports_that_are_not_taken_are_shown_and_another_leader_is_told_at_once() {
        let dir = tempfile::tempdir().expect("dir");
        let agent = Arc::new(testing::agent(dir.path()));
        let (gone, next) = (EndpointId::from_bytes([7; 32]), EndpointId::from_bytes([8; 32]));
        let (consensus, _inbox, summary) = testing::consensus(Some(gone));
        testing::run(&agent, consensus);
        let task = tokio::spawn(report(Arc::clone(&agent)));
        let often = |retry: Option<&Retrying>| {
            retry.is_some_and(|retry| retry.failures >= 5 && retry.next_try_in.is_some())
        };
        let seen = shown(&agent, RetryKind::Report, often).await.expect("it fails");
        assert_eq!(seen.peer, Some(gone));
        let next_try = seen.next_try_in.expect("planned");
        assert!(next_try <= Duration::from_millis(ANNOUNCE.longest_ms), "{seen:?}");
        assert!(!seen.last_error.is_empty(), "{seen:?}");

        summary.send_replace(testing::summary(Some(next)));
        let is_next = |retry: Option<&Retrying>| retry.is_some_and(|retry| retry.peer == Some(next));
        let seen = shown(&agent, RetryKind::Report, is_next).await.expect("asked");
        assert_eq!(seen.failures, 1, "a new beginning");

        // It leads itself: its report is where it belongs.
        summary.send_replace(testing::summary(Some(agent.endpoint_id)));
        assert_eq!(shown(&agent, RetryKind::Report, |retry| retry.is_none()).await, None);
        task.abort();
    }
}
