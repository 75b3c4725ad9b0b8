//! `/v1/status` and `/v1/nodes`: this node's own view, and what the leader adds to it when it can be asked.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use blixard_model::api::{Listing, NodePhase, NodeView, RetryView, StatusView};
use blixard_model::wire::{PeerRequest, PeerResponse, ProgressReport};
use blixard_net::{DownReason, LinkState, TransportDown, TransportState};

use super::super::context::{Agent, Phase, Running};
use super::super::peer_call::ask;
use super::super::retries::Retrying;
use super::super::submit::SubmitError;
use super::super::views::{self, Reach};
use super::routes::{Api, ApiResult, FreshQuery, query, readable};

/// How long the leader may take to tell how far everybody is.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a node that was removed and has an empty store is not let in.
const REFUSED_AS_REMOVED: &str = "an operator removed it from the cluster; to let it in again, take \
                                  `members` out of its configuration, write `join = true`, and give it a \
                                  ticket";
/// What a removed node has to say.
const REMOVED: &str = "an operator removed this node from the cluster; its VMs are not looked after any \
                       more. To use it again, stop blixard.service, move store.redb out of the data \
                       directory, and let it join with a ticket";

pub(super) async fn status(State(Api { agent, .. }): State<Api>) -> ApiResult<Json<StatusView>> {
    let mut view = StatusView {
        node: agent.name().clone(),
        endpoint_id: agent.endpoint_id,
        store_id: agent.store_id,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_name: agent.config.cluster_name.clone(),
        phase: NodePhase::Forming,
        waiting_for: Vec::new(),
        cluster_id: None,
        leader: None,
        quorum: false,
        term: 0,
        commit: 0,
        applied: 0,
        last_term: 0,
        last_index: 0,
        members: Vec::new(),
        vms: 0,
        warnings: network_warnings(&agent),
        retrying: retrying(&agent).await,
        ticket_problem: None,
        voters: None,
        changes: Vec::new(),
    };
    let phase = agent.phase.borrow().clone();
    match phase {
        Phase::Forming { waiting_for, .. } => {
            view.waiting_for = waiting_for;
            view.ticket_problem = agent.tickets.trouble();
        }
        Phase::Running(running) => fill_status(&agent, &running, &mut view).await?,
        Phase::Removed { cluster_id } => {
            view.phase = NodePhase::Removed;
            view.cluster_id = Some(cluster_id);
            view.waiting_for = vec![REMOVED.to_owned()];
        }
    }
    Ok(Json(view))
}

async fn retrying(agent: &Agent) -> Vec<RetryView> {
    let names = agent.peer_names().await;
    let view = |retrying: Retrying| RetryView {
        what: retrying.what,
        peer: retrying.peer.and_then(|peer| names.get(&peer).cloned()),
        failures: retrying.failures,
        next_try_in_ms: retrying.next_try_in.map(millis),
        last_error: retrying.last_error,
        failing_for_ms: Some(millis(retrying.failing_for)),
    };
    agent.retries.list(&agent.net).into_iter().map(view).collect()
}

async fn fill_status(agent: &Agent, running: &Running, view: &mut StatusView) -> ApiResult<()> {
    let summary = running.consensus.summary().borrow().clone();
    let told = leaders_word(agent, running).await;
    let reach = reach(agent);
    let declared = agent.declared.clone();
    let looked = running.consensus.view(move |look| {
        let own = look.node.progress_report();
        let voters = views::voters(look.state, look.raft, &reach, own.as_ref());
        let report = own.or(told).unwrap_or_default();
        let nodes = views::nodes(look.state, look.raft, &reach, &report);
        let strangers = look.node.strangers();
        let warnings = views::warnings(look.state, &declared, &strangers);
        let mut changes = report.changes;
        changes.extend(views::awaited(look.state, &declared, &strangers, &reach));
        ((nodes, voters, changes), look.state.vms.len(), warnings, look.raft.clone())
    });
    let ((members, voters, changes), vms, warnings, raft) =
        looked.await.map_err(|error| SubmitError::Unavailable(error.to_string()))?;
    view.phase = if summary.is_member { NodePhase::Member } else { NodePhase::Joining };
    view.cluster_id = Some(running.cluster_id);
    view.leader = summary.leader.map(|(name, _)| name);
    view.quorum = view.leader.is_some();
    view.term = raft.term;
    view.commit = raft.commit;
    view.applied = raft.applied;
    (view.last_term, view.last_index) = raft.last;
    view.members = members;
    view.voters = voters;
    view.changes = changes;
    view.vms = vms;
    view.warnings.extend(warnings);
    Ok(())
}

/// No network at all, and peers that answer and refuse: an operator has to mend something.
fn network_warnings(agent: &Agent) -> Vec<String> {
    let missing = match &*agent.net.transport().borrow() {
        TransportState::Down { reason, .. } if *reason != TransportDown::Starting => {
            Some(format!("this node has no network: {reason}"))
        }
        _ => None,
    };
    let links = agent.net.links();
    let links = links.borrow();
    let refused = links.iter().filter_map(|(id, link)| {
        let LinkState::Down { reason, .. } = link else { return None };
        let why = match reason {
            DownReason::Refused(why) => why.as_str(),
            DownReason::Removed(_) => REFUSED_AS_REMOVED,
            _ => return None,
        };
        let name = agent.declared.iter().find(|declared| declared.endpoint_id == *id);
        let name = name.map_or_else(|| id.short(), |declared| declared.name.to_string());
        Some(format!("{name} refuses this node: {why}"))
    });
    missing.into_iter().chain(refused).collect()
}

/// Whom this node has a link with, and since when it has none with the others.
fn reach(agent: &Agent) -> Reach {
    let links = agent.net.links();
    let now = Instant::now();
    let of = |link: &LinkState| match link {
        LinkState::Up { .. } => None,
        LinkState::Down { since, .. } => Some(millis(now.saturating_duration_since(*since))),
    };
    let links = links.borrow().iter().map(|(id, link)| (*id, of(link))).collect();
    Reach { me: agent.endpoint_id, links }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What the leader knows of the members, when another node leads and answers in time.
async fn leaders_word(agent: &Agent, running: &Running) -> Option<ProgressReport> {
    let leader = running.consensus.summary().borrow().leader.clone();
    let (_, id) = leader.filter(|(_, id)| *id != agent.endpoint_id)?;
    match ask(&agent.net, id, &PeerRequest::Progress, PROGRESS_TIMEOUT).await {
        Ok(PeerResponse::Progress { progress }) => Some(progress.bounded()),
        // One that leads no more, or an older version: the others are told of later.
        Ok(_) | Err(_) => None,
    }
}

pub(super) async fn list_nodes(
    State(Api { agent, .. }): State<Api>,
    parsed: Result<Query<FreshQuery>, QueryRejection>,
) -> ApiResult<Json<Listing<NodeView>>> {
    let FreshQuery { stale } = query(parsed)?;
    let running = readable(&agent, stale).await?;
    let told = leaders_word(&agent, &running).await;
    let reach = reach(&agent);
    let looked = running.consensus.view(move |look| {
        let report = look.node.progress_report().or(told).unwrap_or_default();
        (views::nodes(look.state, look.raft, &reach, &report), look.raft.applied)
    });
    let (items, applied) = looked.await.map_err(|error| SubmitError::Unavailable(error.to_string()))?;
    Ok(Json(Listing { items, linearizable: !stale, applied }))
}
