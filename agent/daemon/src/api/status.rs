//! `/v1/status` and `/v1/nodes`: this node's own view, and what the leader adds to it when it can be asked.

use std::time::Instant;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use blixard_model::api::{Listing, NodePhase, NodeView, RetryView, StatusView};
use blixard_net::{DownReason, LinkState, TransportDown, TransportState};
use blixard_node::{SubmitError, Summary};

use super::super::context::Agent;
use super::super::cover;
use super::super::retries::{self, Retrying};
use super::super::shell::{HostStanding, millis};
use super::super::views::{self, Reach};
use super::request::{Api, ApiResult, FreshQuery, query, readable};

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
        cluster_version: None,
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
        lease: None,
        lease_terms: None,
        disarmed: None,
    };
    let standing = agent.host.standing().borrow().clone();
    match standing {
        HostStanding::Unborn { waiting_for, ticket_problem } => {
            view.waiting_for = waiting_for;
            view.ticket_problem = ticket_problem;
        }
        HostStanding::Member { cluster_id, summary, .. } => {
            view.cluster_id = Some(cluster_id);
            fill_status(&agent, summary, &mut view).await?;
        }
        HostStanding::Removed { cluster_id } => {
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
    retries::list(agent).await.into_iter().map(view).collect()
}

async fn fill_status(agent: &Agent, summary: Summary, view: &mut StatusView) -> ApiResult<()> {
    let told = agent.host.progress().await;
    let reach = reach(agent);
    let (declared, shared) = (agent.config.declared(), agent.config.shared_dirs());
    let looked = agent.host.look_at_member_now(move |member, now| {
        let (node, state, raft) = (member.replica(), member.state(), member.replica().raft_status());
        let voters = views::voters(state, &raft, &reach, member.progress_report(now).as_ref());
        let report = member.progress(now, told);
        let nodes = views::nodes(state, &raft, &reach, &report);
        let strangers = node.strangers();
        let mut warnings = views::held_twice(state, &report.held_twice);
        warnings.extend(views::warnings(state, &declared, &strangers));
        warnings.extend(views::troubled_vms(member.own_report()));
        warnings.extend(views::waiting_vms(member.own_report(), member.has_read_log()));
        warnings.extend(views::unknown_units(&member.unknown_units(now)));
        warnings.extend(cover::unshared(state, &shared));
        warnings.extend(cover::unfenced(state, &report.fences));
        let mut changes = report.changes;
        changes.extend(views::awaited(state, &declared, &strangers, &reach));
        changes.extend(views::failovers(state, &nodes));
        changes.extend(views::disarmed_change(state, now));
        let leases = (member.lease(now), Some(views::lease_terms(state)), views::disarmed(state, now));
        ((nodes, voters, changes), (state.vms.len(), state.version, leases), warnings, raft)
    });
    let ((members, voters, changes), (vms, version, leases), warnings, raft) =
        looked.await.map_err(SubmitError::from)?;
    view.phase = if summary.is_member { NodePhase::Member } else { NodePhase::Joining };
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
    view.cluster_version = Some(version);
    (view.lease, view.lease_terms, view.disarmed) = leases;
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
    let listed = agent.config.declared();
    let refused = links.iter().filter_map(|(id, link)| {
        let LinkState::Down { reason, .. } = link else { return None };
        let why = match reason {
            DownReason::Refused(why) => why.clone(),
            DownReason::HeldElsewhere(held) => held.to_string(),
            DownReason::Removed(_) => REFUSED_AS_REMOVED.to_owned(),
            _ => return None,
        };
        let name = listed.iter().find(|declared| declared.endpoint_id == *id);
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

pub(super) async fn list_nodes(
    State(Api { agent, .. }): State<Api>,
    parsed: Result<Query<FreshQuery>, QueryRejection>,
) -> ApiResult<Json<Listing<NodeView>>> {
    let FreshQuery { stale } = query(parsed)?;
    readable(&agent, stale).await?;
    let told = agent.host.progress().await;
    let reach = reach(&agent);
    let looked = agent.host.look_at_member_now(move |member, now| {
        let (raft, report) = (member.replica().raft_status(), member.progress(now, told));
        let items = views::nodes(member.state(), &raft, &reach, &report);
        (items, raft.applied, views::disarmed(member.state(), now))
    });
    let (items, applied, disarmed) = looked.await.map_err(SubmitError::from)?;
    Ok(Json(Listing { items, linearizable: !stale, applied, disarmed }))
}
