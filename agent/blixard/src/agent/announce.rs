//! What a node keeps telling the others: who it is, what it offers, what runs on it.

use std::sync::Arc;
use std::time::Duration;

use blixard_core::state::NodeOffer;
use blixard_model::wire::PeerRequest;
use blixard_model::{Command, Refusal, Request};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::context::{Agent, Running};
use super::peer_call::{ask, ask_identities};
use super::random;
use super::submit::submit;
use super::supervise;

/// How often the leader is told what runs here, and asks the others who they are.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a peer may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long declaring what is offered may take.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps the network's list of peers in step with the members.
pub(crate) async fn keep_peers(agent: Arc<Agent>) {
    let running = agent.wait_running().await;
    let mut summary = running.consensus.summary();
    let mut version = None;
    loop {
        let now = summary.borrow_and_update().membership_version;
        if version != Some(now) {
            let look = running.consensus.view(|view| {
                let members = view.state.members.values();
                members.map(|member| (member.endpoint_id, member.addresses.clone())).collect::<Vec<_>>()
            });
            let Ok(members) = look.await else { return };
            agent.set_peers(&members);
            version = Some(now);
        }
        if summary.changed().await.is_err() {
            return;
        }
    }
}

/// Sends reports to the leader: at every change, and each second so that it knows them to be fresh.
pub(crate) async fn report(agent: Arc<Agent>) {
    let running = agent.wait_running().await;
    let mut own = agent.own_report.subscribe();
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = period.tick() => {}
            changed = own.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        own.mark_unchanged();
        let aged = agent.own_aged_report();
        agent.note_report(aged.clone());
        let leader = running.consensus.summary().borrow().leader.clone();
        let Some((leader, endpoint_id)) = leader.filter(|(_, id)| *id != agent.endpoint_id) else { continue };
        if let Err(error) = ask(&agent.net, endpoint_id, &PeerRequest::Report { aged }, ASK_TIMEOUT).await {
            tracing::debug!(%leader, %error, "report not delivered");
        }
    }
}

/// As leader, asks every declared node and member who it is: that is how a lost store and a new node are
/// noticed. A node without a leader asks as well: the others may know that its store has left the cluster.
pub(crate) async fn identify(agent: Arc<Agent>) {
    let running = agent.wait_running().await;
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let asks = {
            let summary = running.consensus.summary();
            let summary = summary.borrow();
            summary.leads || summary.leader.is_none()
        };
        if !asks {
            continue;
        }
        let up: Vec<_> = {
            let links = agent.net.links();
            let links = links.borrow();
            links.iter().filter(|(_, link)| link.is_up()).map(|(id, _)| *id).collect()
        };
        let me = agent.identity(None).await;
        for them in ask_identities(&agent.net, up, &me, ASK_TIMEOUT).await {
            running.consensus.offer_identity(them);
        }
    }
}

/// Declares what this node offers and where it is reached, whenever the log says otherwise.
pub(crate) async fn declare(agent: Arc<Agent>) {
    let running = agent.wait_running().await;
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refused = None;
    loop {
        period.tick().await;
        tell_status(&agent, &running);
        let Some(offer) = new_offer(&agent, &running, &mut refused).await else { continue };
        let command = Command::SetNode {
            endpoint_id: agent.endpoint_id,
            capacity: offer.capacity,
            addresses: offer.addresses,
            relay_url: offer.relay_url,
        };
        let request = Request { id: random::request_id(), command };
        match submit(&agent, &request, Instant::now() + DECLARE_TIMEOUT).await {
            Ok(outcome) => tracing::debug!(?outcome, "declared what this node offers"),
            Err(error) => tracing::debug!(%error, "not declared yet"),
        }
    }
}

/// What this node offers, if the log says otherwise and takes it: what it would refuse is not proposed again
/// and again. `refused` is what was said last, so that it is said once.
async fn new_offer(agent: &Agent, running: &Running, refused: &mut Option<Refusal>) -> Option<NodeOffer> {
    let (id, offer) = (agent.endpoint_id, agent.offer());
    let wanted = offer.clone();
    let look = running.consensus.view(move |view| {
        let member = view.state.member_by_endpoint(id)?;
        let same = member.addresses == wanted.addresses
            && member.relay_url == wanted.relay_url
            && member.capacity == Some(wanted.capacity);
        (!same).then(|| view.state.check_offer(id, &wanted))
    });
    let checked = look.await.ok().flatten()?;
    let now = checked.err();
    if let Some(why) = &now
        && now != *refused
    {
        tracing::warn!("the cluster can not take what this node says of itself: {why}");
    }
    refused.clone_from(&now);
    now.is_none().then_some(offer)
}

/// Keeps systemd's one line true.
fn tell_status(agent: &Agent, running: &Running) {
    let summary = running.consensus.summary().borrow().clone();
    let vms = agent.own_report.borrow().1.vms.len();
    let cluster = &agent.config.cluster_name;
    let text = match (summary.is_member, &summary.leader) {
        (false, _) => format!("Known to cluster {cluster}, waiting for its state"),
        (true, None) => format!(
            "Member of {cluster}: NO QUORUM (no leader, term {}), {vms} VMs placed here",
            summary.term
        ),
        (true, Some((leader, _))) => {
            format!("Member of {cluster}: leader {leader}, term {}, {vms} VMs placed here", summary.term)
        }
    };
    supervise::status(&text);
}
