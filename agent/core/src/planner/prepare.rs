//! What a leader makes of what it is asked for.

use blixard_model::{
    Ask, AskOutcome, ClusterVersion, Command, EndpointId, MembersAsk, MembershipChange, NodeName, Outcome,
    Refusal, Removal, Request, VmName, VmSpec, WriteAsk, WriteRequest, mutant,
};

use super::prepared::{NotNow, Prepared};
use super::removal::{RemovalAsk, prepare_removal};
use super::view::LeaderView;
use super::{admission, placement};
use crate::state::{ClusterState, MemberRef};

/// What a leader is to do with an ask that the node `asker` brought.
pub fn prepare(view: &LeaderView<'_>, asker: EndpointId, ask: Ask) -> Prepared {
    match ask {
        Ask::Write(write) => prepare_write(view, asker, write),
        Ask::Members(ask) => {
            if let Some(why) = earlier_than(view.members.state, ask.needs()) {
                return why.into();
            }
            let prepared = match ask {
                MembersAsk::Remove { raft_id, force, vms } => {
                    prepare_removal(view, RemovalAsk { raft_id, force, vms })
                }
                MembersAsk::Vouch { node } => admission::by_list(view, *node),
                MembersAsk::Admit(request) => admission::by_ticket(view, *request),
            };
            one_at_a_time(view, prepared)
        }
    }
}

/// Why a write waits for the upgrade of a member. A leader proposes nothing that not everybody can apply, and
/// nobody else sends a leader what it may not be able to read.
pub fn too_early(state: &ClusterState, ask: &Ask) -> Option<NotNow> {
    let needs = match ask {
        Ask::Write(write) => write.ask.needs(),
        Ask::Members(ask) => ask.needs(),
    };
    earlier_than(state, needs)
}

/// As above, of what needs this version.
pub fn earlier_than(state: &ClusterState, needs: ClusterVersion) -> Option<NotNow> {
    let version = state.version;
    (version < needs).then_some(NotNow::EarlierVersion { version, needs })
}

/// The command that a write becomes, with what the leader adds.
fn prepare_write(
    view: &LeaderView<'_>,
    asker: EndpointId,
    WriteRequest { id, ask }: WriteRequest,
) -> Prepared {
    if let Some(why) = earlier_than(view.members.state, ask.needs()) {
        return why.into();
    }
    let command = match ask {
        WriteAsk::CreateVm { .. } if view.is_unsettled() => return NotNow::NewLeader.into(),
        WriteAsk::CreateVm { spec, desired } => {
            let eligible = eligible(view, asker, &spec);
            Command::CreateVm { spec, desired, eligible }
        }
        WriteAsk::ChangeVm { spec, seen } => Command::ChangeVm { spec, seen },
        WriteAsk::StartVm { name } => Command::StartVm { name },
        WriteAsk::StopVm { name } => Command::StopVm { name },
        // A change that removes its node may be on its way into the log.
        WriteAsk::DeleteVm { .. } if view.is_changing => return NotNow::ChangeUnderWay.into(),
        WriteAsk::DeleteVm { name } => match view.members.state.runs_unheard_on(&name) {
            Some(node) if !mutant::lives("deleted-unheard") => return may_run_on(&name, node).into(),
            _ => Command::DeleteVm { name },
        },
        WriteAsk::ConfirmGone { name, node, generation } => Command::ConfirmGone { name, node, generation },
        WriteAsk::ConfirmSpec { name, node, order } => Command::ConfirmSpec { name, node, order },
        WriteAsk::NoteStopped { name, node, generation, stop } => {
            Command::NoteStopped { name, node, generation, stop }
        }
        WriteAsk::SetNode { endpoint_id, offer } => Command::SetNode { endpoint_id, offer },
        WriteAsk::CreateTicket { id, name, hash, ttl_ms } => {
            Command::CreateTicket { id, name, hash, ttl_ms, at_ms: view.wall_ms }
        }
        WriteAsk::RevokeTicket { id } => Command::RevokeTicket { id },
        WriteAsk::ForgetVms { node } if was_there_lately(view, &node) => {
            return NotNow::StillThere { node }.into();
        }
        WriteAsk::ForgetVms { node } => Command::ForgetVms { node },
        WriteAsk::EnforceLease { raft_id, boot_id, epoch } => {
            Command::EnforceLease { raft_id, boot_id, epoch }
        }
        WriteAsk::TakeHold { raft_id, hold } => Command::TakeHold { raft_id, hold },
        WriteAsk::EndHold { raft_id, boot_id, since } => Command::EndHold { raft_id, boot_id, since },
        WriteAsk::Disarm { for_ms } => Command::Disarm { for_ms, at_ms: view.wall_ms },
        WriteAsk::Arm => Command::Arm { since: None },
        WriteAsk::SetLeaseTerms { terms } => Command::SetLeaseTerms { terms },
    };
    Prepared::Propose(Request { id, command })
}

/// A VM whose node was removed, and that may go on there: it is forgotten by an operator's word alone.
fn may_run_on(name: &VmName, node: &NodeName) -> Refusal {
    let why = format!(
        "{node} was removed and may still run {name}, whose name and disks would be free at once: if you \
         know that the machine is off, `blixard node remove {node} --force --vms delete --i-know-it-is-off` \
         forgets its VMs"
    );
    Refusal::Membership { why }
}

/// The nodes that a new VM may be placed on. The node that asks is there, even if the leader has received no
/// Raft message from it yet: it came back a moment ago.
fn eligible(view: &LeaderView<'_>, asker: EndpointId, spec: &VmSpec) -> Vec<NodeName> {
    let state = view.members.state;
    let is_there = |member: &MemberRef<'_>| member.node.endpoint_id == asker || view.is_reachable(*member);
    let reachable = state.nodes.members().filter(is_there);
    let mut eligible: Vec<NodeName> = reachable.map(|member| member.node.name.clone()).collect();
    let on_node_loss = spec.on_node_loss.unwrap_or_else(|| state.usual_on_node_loss(spec));
    let spec = &VmSpec { on_node_loss: Some(on_node_loss), ..spec.clone() };
    // Whoever does not see its units, or has no lease, would not start it. Where no other node has room it
    // waits for one of these.
    eligible = placement::prefer(state, spec, eligible, |node| !view.blind.contains(node));
    if state.leases.is_on && spec.fails_over() {
        eligible = placement::prefer(state, spec, eligible, |node| view.leased.contains(node));
    }
    if mutant::lives("capacity-checked-before-propose-only") {
        let need = spec.reserved_memory_mib();
        let room = |node: &NodeName| {
            let reserved = state.reserved(node).0.memory_mib;
            state.capacity_of(node).is_some_and(|offered| reserved + need <= offered.memory_mib)
        };
        eligible.retain(room);
    }
    eligible
}

/// Whether a node of this name said something lately, member or not.
fn was_there_lately(view: &LeaderView<'_>, node: &NodeName) -> bool {
    view.members.claims.values().any(|claim| claim.identity.node.name == *node)
}

/// Raft takes one change of the members at a time, and none that would be refused.
fn one_at_a_time(view: &LeaderView<'_>, prepared: Prepared) -> Prepared {
    let Prepared::Change(change) = prepared else { return prepared };
    if view.is_changing {
        return NotNow::ChangeUnderWay.into();
    }
    match view.members.state.check_membership(&change, view.members.voters) {
        Ok(()) => Prepared::Change(change),
        Err(refusal) => refusal.into(),
    }
}

/// What somebody is told who asked for something that took this change, once it is applied.
///
/// # Errors
/// It took this change first, and is to be asked for again.
pub fn end_of(change: &MembershipChange) -> Result<AskOutcome, NotNow> {
    match change {
        MembershipChange::AddLearner { member, .. } => Ok(AskOutcome::Admitted { raft_id: member.raft_id }),
        MembershipChange::Remove { why: Removal::LostStore, .. } => Err(NotNow::PlaceLetGo),
        MembershipChange::Remove { why: Removal::Operator { .. }, .. }
        | MembershipChange::Promote { .. }
        | MembershipChange::Demote { .. } => Ok(Outcome::done(None).into()),
    }
}
