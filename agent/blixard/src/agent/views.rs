//! What the API shows, made of the state, Raft's status, the links and the reports. Pure.

use std::collections::{BTreeMap, BTreeSet};

use blixard_consensus::RaftStatus;
use blixard_core::formation::DeclaredMember;
use blixard_core::{ClusterState, VmRecord};
use blixard_model::api::{NodeView, VmView};
use blixard_model::report::{ObservedState, VmReport};
use blixard_model::wire::AgedReport;
use blixard_model::{Desired, EndpointId, NodeName, Role};
use blixard_node::{Kinship, Stranger};

/// A report older than this, in milliseconds, says nothing about now.
pub(crate) const REPORT_FRESH_MS: u64 = 5_000;

/// The members, with this node's view of who can be reached.
pub(crate) fn nodes(
    state: &ClusterState,
    raft: &RaftStatus,
    reachable: &BTreeSet<EndpointId>,
) -> Vec<NodeView> {
    let view = |member: &blixard_model::Member| {
        let (reserved, vms) = state.reserved(&member.name);
        let role = if raft.voters.contains(&member.raft_id) { Role::Voter } else { Role::Learner };
        NodeView {
            name: member.name.clone(),
            endpoint_id: member.endpoint_id,
            raft_id: member.raft_id,
            store_id: member.store_id,
            role,
            leader: raft.leader == Some(member.raft_id),
            reachable: reachable.contains(&member.endpoint_id),
            addresses: member.addresses.clone(),
            relay_url: member.relay_url.clone(),
            capacity: member.capacity,
            reserved,
            vms,
        }
    };
    let mut nodes: Vec<NodeView> = state.members.values().map(view).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes
}

/// A VM: what the log wants, and what its node last reported.
pub(crate) fn vm(record: &VmRecord, reports: &BTreeMap<NodeName, AgedReport>) -> VmView {
    let node = &record.placement.node;
    let aged = reports.get(node);
    let seen = aged.and_then(|aged| aged.report.vms.iter().find(|vm| vm.name == record.spec.name));
    let fresh = aged.is_some_and(|aged| aged.age_ms <= REPORT_FRESH_MS && aged.report.problem.is_none());
    let (state, reason) = judge(record, aged, seen, fresh);
    VmView {
        name: record.spec.name.clone(),
        desired: record.desired,
        state,
        node: node.clone(),
        generation: record.placement.generation,
        main_pid: seen.filter(|_| fresh).and_then(|seen| seen.main_pid),
        reason,
        observed_age_ms: aged.map(|aged| aged.age_ms),
        spec: record.spec.clone(),
    }
}

fn judge(
    record: &VmRecord,
    aged: Option<&AgedReport>,
    seen: Option<&VmReport>,
    fresh: bool,
) -> (ObservedState, Option<String>) {
    let node = &record.placement.node;
    let silence = match aged {
        _ if fresh => None,
        Some(aged) => Some(match &aged.report.problem {
            Some(problem) => format!("{node}: {problem}"),
            None => format!("{node} has not reported for {} s", aged.age_ms / 1_000),
        }),
        None => Some(format!("{node} has not reported yet")),
    };
    let state = match (record.desired, seen) {
        (Desired::Absent, _) => ObservedState::Deleting,
        _ if !fresh => ObservedState::Unknown,
        (_, Some(seen)) => seen.state,
        (_, None) => ObservedState::Pending,
    };
    (state, silence.or_else(|| seen.and_then(|seen| seen.reason.clone())))
}

/// Differences between the configured list and the log, and nodes of other clusters, in words.
pub(crate) fn warnings(
    state: &ClusterState,
    declared: &[DeclaredMember],
    strangers: &[Stranger],
) -> Vec<String> {
    let mut warnings: Vec<String> = strangers.iter().map(estranged).collect();
    if !declared.is_empty() {
        warnings.extend(differences(state, declared, strangers));
    }
    warnings
}

fn estranged(stranger: &Stranger) -> String {
    let Stranger { name, cluster_id, kinship, .. } = stranger;
    let id = cluster_id.short();
    match kinship {
        Kinship::None => format!(
            "{name} belongs to another cluster (id {id}): its store has to be moved away before it can join"
        ),
        Kinship::MadeOfIt => format!(
            "{name} still belongs to the cluster that this one was made of (id {id}): its store has to be \
             moved away before it can join"
        ),
        Kinship::MadeOfUs => format!(
            "{name} belongs to a cluster that was made of this one (id {id}), and this node does not: to \
             join it, stop blixard.service here, move store.redb out of the data directory and start it again"
        ),
    }
}

/// What is listed and no member, and the other way round. Of whom something else was said, nothing.
fn differences(state: &ClusterState, declared: &[DeclaredMember], strangers: &[Stranger]) -> Vec<String> {
    let strange = |d: &DeclaredMember| strangers.iter().any(|s| s.endpoint_id == d.endpoint_id);
    let unknown = |d: &&DeclaredMember| state.member_by_endpoint(d.endpoint_id).is_none() && !strange(d);
    let missing = declared.iter().filter(unknown).map(|d| {
        if state.member_by_name(&d.name).is_some() {
            return format!(
                "{} is a member with another key than in this node's `members` list: restore that key, or \
                 list the new one under a new node name",
                d.name
            );
        }
        let way_out = match state.check_declared(d) {
            None => "it joins once it can be reached".to_owned(),
            Some(error) => format!("it can not join as it is listed: {error}"),
        };
        format!("{} is in this node's `members` list and not in the cluster: {way_out}", d.name)
    });
    let extra = state
        .members
        .values()
        .filter(|member| !declared.iter().any(|d| d.endpoint_id == member.endpoint_id))
        .map(|member| format!("{} is in the cluster and not in this node's `members` list", member.name));
    missing.chain(extra).collect()
}

#[cfg(test)]
mod tests {
    use blixard_model::ClusterId;
    use blixard_model::formation::Genesis;

    use super::*;

    #[test]
    fn a_node_of_another_cluster_is_warned_of_once_with_what_to_do() {
        let state = ClusterState::new(Genesis {
            cluster_name: "lab".parse().expect("a name"),
            voters: Vec::new(),
            origin: None,
        });
        let endpoint_id = EndpointId::from_bytes([2; 32]);
        let name: NodeName = "n2".parse().expect("a name");
        let addresses = vec!["10.77.0.2:7431".parse().expect("an address")];
        let declared = [DeclaredMember { name: name.clone(), endpoint_id, addresses }];
        let cluster_id = ClusterId::from_bytes([0xab; 16]);
        let stranger = |kinship| Stranger { endpoint_id, name: name.clone(), cluster_id, kinship };
        let cases = [
            (Kinship::None, "n2 belongs to another cluster (id ababababab): its store has to be moved away"),
            (Kinship::MadeOfIt, "n2 still belongs to the cluster that this one was made of (id ababababab)"),
            (Kinship::MadeOfUs, "move store.redb out of the data directory and start it again"),
        ];
        for (kinship, words) in cases {
            for list in [&declared[..], &[]] {
                let said = warnings(&state, list, &[stranger(kinship)]);
                assert!(said.len() == 1 && said[0].contains(words), "{said:?}");
            }
        }
        let said = warnings(&state, &declared, &[]);
        assert!(said.len() == 1 && said[0].contains("it joins once it can be reached"), "{said:?}");
    }
}
