//! What the host has to say to people: the journal, the metrics, systemd's line.

use std::sync::Arc;

use blixard_core::genesis::cluster_id;
use blixard_core::reconciler::Action;
use blixard_model::NodeName;
use blixard_node::Notice;
use blixard_node::forming::Birth;

use super::super::context::Agent;
use super::super::{supervise, views};

/// Tells it, and counts it.
pub(super) struct Notices {
    agent: Arc<Agent>,
    /// The node that was last seen to lead.
    led_by: Option<NodeName>,
}

impl Notices {
    pub(super) fn new(agent: Arc<Agent>) -> Self {
        Self { agent, led_by: None }
    }

    pub(super) fn tell(&mut self, notice: &Notice) {
        self.count(notice);
        match notice {
            Notice::Leader { .. }
            | Notice::MembershipProposed(_)
            | Notice::MembershipChanged(_)
            | Notice::Restored(_)
            | Notice::VersionRaised(_)
            | Notice::BadMessage { .. }
            | Notice::FalseSender { .. } => tell_of_consensus(notice),
            Notice::AsksAround
            | Notice::NotFormed(_)
            | Notice::Waits { .. }
            | Notice::Promised(_)
            | Notice::Born { .. }
            | Notice::NotLetIn(_)
            | Notice::Removed { .. } => tell_of_life(notice),
            Notice::StandsAside(true) => tracing::error!(
                "another agent runs with this node's key and was there first: this one keeps no links and \
                 starts no VM. Was its data directory copied? `blixard status` names both addresses. Once \
                 the other one is off, restart blixard.service here"
            ),
            Notice::StandsAside(false) => {
                tracing::warn!(
                    "no member refuses this node's key any more: it goes on, and starts no VM until \
                     blixard.service is restarted. Make sure that the other agent is off first"
                );
            }
            Notice::OfferRefused(refusal) => {
                tracing::warn!("the cluster cannot take what this node says of itself: {refusal}");
            }
            Notice::ListedNotAdmitted(refusal) => {
                tracing::warn!("a listed node is not admitted: {refusal}");
            }
            Notice::AsksToJoin { endpoint_id, name, place, ticket } => {
                let peer = endpoint_id.short();
                tracing::info!(PEER = %peer, "{name} ({place}) asks to be let in with ticket {ticket}");
            }
            Notice::Admitted { endpoint_id, name, ticket, raft_id } => {
                let peer = endpoint_id.short();
                tracing::info!(PEER = %peer, "{name} was let in with ticket {ticket}: raft id {raft_id}");
            }
            Notice::NotAdmitted { endpoint_id, name, place, refusal } => {
                let peer = endpoint_id.short();
                tracing::warn!(PEER = %peer, "{name} ({place}) was not let in: {refusal}");
            }
            Notice::VmEnded { vm, how } => {
                tracing::warn!(VM = %vm, "VM {vm} ended, though it should run: {how}");
            }
            Notice::UnknownVm { vm, left_ms } => {
                tracing::warn!(VM = %vm, "{}", views::unknown_unit(vm, *left_ms));
            }
            Notice::ActionFailed { action, why } => tell_of_failed_action(action, why),
            Notice::NodeLost(node) => tracing::warn!(
                NODE = %node,
                "node {node} is lost: it certainly runs no VM that may be failed over, and those go to other \
                 nodes with room"
            ),
            Notice::LeaseNotWritten(why) => tracing::error!(
                "the supervisors of this node's VMs do not know of its lease: those that may be failed over \
                 end with it: {why}"
            ),
            Notice::VmGone(vm) => tracing::info!(VM = %vm, "VM {vm} deleted: its unit is gone"),
        }
    }

    fn count(&mut self, notice: &Notice) {
        let metrics = &self.agent.metrics;
        match notice {
            Notice::Leader { leader: Some(leader), here, .. } => {
                if *here {
                    metrics.elections_won.inc();
                }
                let before = self.led_by.replace(leader.clone());
                if before.is_some_and(|before| before != *leader) {
                    metrics.leader_changes.inc();
                }
            }
            Notice::AsksAround => _ = metrics.formation_attempts.inc(),
            Notice::NotFormed(reasons) => metrics.formation_failed(reasons),
            Notice::Born { after_ms, .. } => {
                metrics.formations.inc();
                metrics.formation_seconds.set(std::time::Duration::from_millis(*after_ms).as_secs_f64());
            }
            _ => {}
        }
    }
}

fn tell_of_consensus(notice: &Notice) {
    match notice {
        Notice::Leader { term, here: true, .. } => {
            tracing::info!(TERM = term, "this node leads (term {term})");
        }
        Notice::Leader { term, leader: Some(leader), .. } => {
            tracing::info!(TERM = term, LEADER = %leader, "follows {leader} (term {term})");
        }
        Notice::Leader { term, leader: None, .. } => tracing::info!(TERM = term, "no leader (term {term})"),
        Notice::MembershipProposed(change) => tracing::info!("membership change proposed: {change:?}"),
        Notice::MembershipChanged(change) => tracing::info!("membership changed: {change:?}"),
        Notice::VersionRaised(version) => {
            tracing::info!("every member supports it: the cluster has version {version} from here on");
        }
        Notice::Restored(index) => {
            tracing::info!(index, "state replaced by the leader's snapshot up to index {index}");
        }
        Notice::BadMessage { from, why } => {
            let peer = from.short();
            tracing::warn!(PEER = peer, "raft message of {peer} dropped: {why}");
        }
        Notice::FalseSender { from } => {
            let peer = from.short();
            tracing::warn!(PEER = peer, "raft message of {peer} dropped: the raft id is another's");
        }
        _ => {}
    }
}

fn tell_of_life(notice: &Notice) {
    match notice {
        Notice::Waits { reasons, is_new: true } => {
            let text = reasons.join("; ");
            tracing::info!("no cluster yet: {text}");
            supervise::status(&format!("No cluster yet: {text}"));
        }
        Notice::Promised(genesis) => {
            let id = cluster_id(genesis);
            tracing::info!(CLUSTER = %id, "promised to form cluster {id} and no other");
        }
        Notice::Born { birth, .. } => match &**birth {
            Birth::Formed(genesis) => {
                let id = cluster_id(genesis);
                tracing::info!(CLUSTER = %id, "cluster {id} formed");
            }
            Birth::Joined { cluster_id: id, raft_id, .. } => tracing::info!(
                CLUSTER = %id,
                %raft_id,
                "admitted to cluster {id} under raft id {raft_id}, waiting for its state"
            ),
        },
        Notice::NotLetIn(refusal) => tracing::error!("this node is not let in: {refusal}"),
        Notice::Removed { cluster_id } => {
            tracing::error!(
                CLUSTER = %cluster_id,
                "this node was removed from cluster {cluster_id}; `blixard status` says what to do to use it \
                 again"
            );
            supervise::status("Removed from its cluster");
        }
        _ => {}
    }
}

fn tell_of_failed_action(action: &Action, why: &str) {
    let vm = action.vm();
    match action {
        Action::Start(_) => tracing::warn!(VM = %vm, "VM {vm} not started: {why}"),
        Action::Stop(_) => tracing::warn!(VM = %vm, "VM {vm} not stopped: {why}"),
        Action::ResetFailed(_) => tracing::warn!(VM = %vm, "failed unit of {vm} not reset: {why}"),
        Action::ConfirmGone(_) => {
            tracing::warn!(VM = %vm, "the cluster could not be told that VM {vm} is gone: {why}");
        }
        Action::ConfirmSpec(_) => {
            tracing::warn!(VM = %vm, "the cluster could not be told that VM {vm} was changed: {why}");
        }
        Action::ConfirmStop(..) => {
            tracing::warn!(VM = %vm, "the cluster could not be told that VM {vm} stays stopped: {why}");
        }
    }
}
