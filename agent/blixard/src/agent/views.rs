//! What the API shows, made of the state, Raft's status, the links and the reports. Pure.

use std::collections::BTreeMap;

use blixard_consensus::RaftStatus;
use blixard_core::formation::DeclaredMember;
use blixard_core::state::member_check::MemberError;
use blixard_core::{ClusterState, VmRecord};
use blixard_model::api::{ChangeView, NodeView, VmView, VotersView};
use blixard_model::report::{ObservedState, VmReport};
use blixard_model::wire::{AgedReport, CHANGES_MAX, ProgressReport};
use blixard_model::{Desired, EndpointId, Member, NodeName, RaftId, Role};
use blixard_node::{Kinship, Stranger};

/// A report older than this, in milliseconds, says nothing about now.
pub(crate) const REPORT_FRESH_MS: u64 = 5_000;

/// Whom the answering node can talk to.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    /// It.
    pub(crate) me: EndpointId,
    /// Of each peer for how long there has been no link, in milliseconds; `None` while there is one.
    pub(crate) links: BTreeMap<EndpointId, Option<u64>>,
}

impl Reach {
    fn has(&self, peer: EndpointId) -> bool {
        peer == self.me || self.links.get(&peer).is_some_and(Option::is_none)
    }
}

/// The members, with this node's view of who can be reached and the leader's of how far they are.
pub(crate) fn nodes(
    state: &ClusterState,
    raft: &RaftStatus,
    reach: &Reach,
    report: &ProgressReport,
) -> Vec<NodeView> {
    let view = |member: &Member| {
        let (reserved, vms) = state.reserved(&member.name);
        let role = if raft.voters.contains(&member.raft_id) { Role::Voter } else { Role::Learner };
        let reachable = reach.has(member.endpoint_id);
        let progress = report.members.iter().find(|progress| progress.raft_id == member.raft_id);
        NodeView {
            name: member.name.clone(),
            endpoint_id: member.endpoint_id,
            raft_id: member.raft_id,
            store_id: member.store_id,
            role,
            leader: raft.leader == Some(member.raft_id),
            reachable,
            addresses: member.addresses.clone(),
            relay_url: member.relay_url.clone(),
            capacity: member.capacity,
            reserved,
            vms,
            witness: member.witness,
            unreachable_for_ms: reach
                .links
                .get(&member.endpoint_id)
                .copied()
                .flatten()
                .filter(|_| !reachable),
            behind: progress.and_then(|progress| progress.behind),
            snapshot: progress.is_some_and(|progress| progress.snapshot),
            lost: progress.is_some_and(|progress| progress.lost),
        }
    };
    let mut nodes: Vec<NodeView> = state.members.values().map(view).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes
}

/// Whether the voters are a quorum: by this node's links and, when it leads, also by what it lately heard of
/// them. None while it knows of no voters.
pub(crate) fn voters(
    state: &ClusterState,
    raft: &RaftStatus,
    reach: &Reach,
    own: Option<&ProgressReport>,
) -> Option<VotersView> {
    let total = raft.voters.len();
    let heard = |id: &RaftId| {
        own.is_none_or(|own| own.members.iter().any(|member| member.raft_id == *id && member.heard))
    };
    let linked = |id: &RaftId| state.members.get(id).is_some_and(|member| reach.has(member.endpoint_id));
    let reachable = raft.voters.iter().filter(|id| linked(id) && heard(id)).count();
    (total > 0).then_some(VotersView { total, reachable, needed: total / 2 + 1 })
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

/// Why a listed node is no member.
enum Missing {
    /// A member has its name and another key.
    OtherKey,
    /// Its store is of another cluster.
    Strange,
    /// An operator removed it.
    Removed,
    /// As it is listed it can not be one.
    Unfit(MemberError),
    /// It is to be admitted.
    Comes,
}

fn missing<'a>(
    state: &'a ClusterState,
    declared: &'a [DeclaredMember],
    strangers: &'a [Stranger],
) -> impl Iterator<Item = (&'a DeclaredMember, Missing)> {
    let unknown = declared.iter().filter(|d| state.member_by_endpoint(d.endpoint_id).is_none());
    unknown.map(|d| {
        let strange = strangers.iter().find(|stranger| stranger.endpoint_id == d.endpoint_id);
        let removed = state.removed.get(&d.endpoint_id).is_some_and(|removed| !removed.given_up);
        let why = match (strange, state.check_declared(d)) {
            (Some(_), _) => Missing::Strange,
            _ if state.member_by_name(&d.name).is_some() => Missing::OtherKey,
            _ if removed => Missing::Removed,
            (None, Some(error)) => Missing::Unfit(error),
            (None, None) => Missing::Comes,
        };
        (d, why)
    })
}

/// Listed nodes that are no members yet, and why.
pub(crate) fn awaited(
    state: &ClusterState,
    declared: &[DeclaredMember],
    strangers: &[Stranger],
    reach: &Reach,
) -> Vec<ChangeView> {
    let change = |(d, why): (&DeclaredMember, Missing)| {
        let waits_for = match why {
            // Nothing comes of it until the list is corrected: that is a warning.
            Missing::OtherKey => return None,
            Missing::Strange => "an empty store: it has one of another cluster".to_owned(),
            Missing::Removed => "a ticket: an operator removed it".to_owned(),
            Missing::Unfit(error) => format!("a list with which it can be one: {error}"),
            Missing::Comes if reach.has(d.endpoint_id) => "the leader to admit it".to_owned(),
            Missing::Comes => "an answer of it: this node does not reach it".to_owned(),
        };
        Some(ChangeView { what: format!("{} is to become a member", d.name), waits_for: Some(waits_for) })
    };
    missing(state, declared, strangers).filter_map(change).take(CHANGES_MAX).collect()
}

/// What is listed and no member, and the other way round. Of whom something else was said, nothing.
fn differences(state: &ClusterState, declared: &[DeclaredMember], strangers: &[Stranger]) -> Vec<String> {
    let words = |(d, why): (&DeclaredMember, Missing)| {
        let way_out = match why {
            Missing::Strange => return None,
            Missing::OtherKey => {
                return Some(format!(
                    "{} is a member with another key than in this node's `members` list: restore that key, \
                     or list the new one under a new node name",
                    d.name
                ));
            }
            Missing::Removed => {
                "an operator removed it: take it off the list, or let it join with a ticket".to_owned()
            }
            Missing::Unfit(error) => format!("it can not join as it is listed: {error}"),
            Missing::Comes => "it joins once it can be reached".to_owned(),
        };
        Some(format!("{} is in this node's `members` list and not in the cluster: {way_out}", d.name))
    };
    let extra = state
        .members
        .values()
        .filter(|member| !declared.iter().any(|d| d.endpoint_id == member.endpoint_id))
        .map(|member| format!("{} is in the cluster and not in this node's `members` list", member.name));
    missing(state, declared, strangers).filter_map(words).chain(extra).collect()
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
