//! What the API shows, made of the state, Raft's status, the links and the reports. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use blixard_consensus::RaftStatus;
use blixard_core::declared::DeclaredMember;
use blixard_core::report::{is_fresh, observed};
use blixard_core::state::{LeaseHold, LeaseHolder, MemberRef};
use blixard_core::{ClusterState, VmRecord};
use blixard_model::api::{ChangeView, DisarmedView, NodeView, VmView, VotersView};
use blixard_model::report::{NodeReport, ObservedState};
use blixard_model::wire::{AgedReport, CHANGES_MAX, KeyHeldTwice, ProgressReport};
use blixard_model::words::duration;
use blixard_model::{
    Desired, EndpointId, LeaseStanding, LeaseTerms, LeaseTermsChoice, NodeName, RaftId, Role, VmName,
};
use blixard_node::host::Moment;
use blixard_node::{Kinship, Missing, Stranger, missing};

/// Most VMs that are named as not running as they should.
const TROUBLED_VMS_MAX: usize = 8;

/// Whom the answering node can talk to.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    /// The endpoint id of the answering node itself.
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
    let view = |member: MemberRef<'_>| {
        let (reserved, vms) = state.reserved(member.node.name);
        let role = if raft.voters.contains(&member.raft_id) { Role::Voter } else { Role::Learner };
        let reachable = reach.has(member.node.endpoint_id);
        let progress = report.members.iter().find(|progress| progress.raft_id == member.raft_id);
        let held_twice = report.held_twice.iter().find(|held| held.endpoint_id == member.node.endpoint_id);
        NodeView {
            name: member.node.name.clone(),
            endpoint_id: member.node.endpoint_id,
            raft_id: member.raft_id,
            store_id: member.node.store_id,
            role,
            leader: raft.leader == Some(member.raft_id),
            reachable,
            addresses: member.node.offer.addresses.clone(),
            relay_url: member.node.offer.relay_url.clone(),
            capacity: member.node.offer.capacity,
            reserved,
            vms,
            witness: member.node.offer.witness,
            unreachable_for_ms: reach
                .links
                .get(&member.node.endpoint_id)
                .copied()
                .flatten()
                .filter(|_| !reachable),
            silent_for_ms: progress.and_then(|progress| progress.silent_ms),
            behind: progress.and_then(|progress| progress.behind),
            snapshot: progress.is_some_and(|progress| progress.snapshot),
            lost: progress.is_some_and(|progress| progress.lost),
            held_twice_at: held_twice.map(|held| held.addresses.clone()).unwrap_or_default(),
            lease: progress.and_then(|progress| progress.lease),
            shared_dirs: member.node.offer.shared_dirs.to_vec(),
            fences: report.fences.get(member.node.name).cloned(),
        }
    };
    let mut nodes: Vec<NodeView> = state.nodes.members().map(view).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes
}

/// What starts VMs elsewhere that were not while the cluster was disarmed.
const ARMED_AGAIN: &str = "the cluster to be armed again, and then its leases to be over";

/// What the VMs of a node that does not renew its lease wait for before they are started elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailoverWait {
    /// The cluster is disarmed.
    ArmedAgain,
    /// The node may have leases still, for so many milliseconds as far as that is known.
    LeaseOver(Option<u64>),
    /// No other node has room.
    Room,
}

impl FailoverWait {
    /// None while the node renews its lease.
    fn of(state: &ClusterState, standing: LeaseStanding) -> Option<Self> {
        match standing {
            LeaseStanding::Holds { .. } => None,
            _ if state.leases.disarmed.is_some() => Some(Self::ArmedAgain),
            LeaseStanding::Suspect { lost_in_ms } => Some(Self::LeaseOver(Some(lost_in_ms))),
            LeaseStanding::Lost => Some(Self::Room),
        }
    }

    /// The same for a node that was removed, of whose lease nobody says anything any more.
    fn of_removed(state: &ClusterState, holder: &LeaseHolder) -> Self {
        match holder.is_lost {
            _ if state.leases.disarmed.is_some() => Self::ArmedAgain,
            true => Self::Room,
            false => Self::LeaseOver(None),
        }
    }

    /// In words about the node.
    fn of_node(self) -> String {
        match self {
            Self::ArmedAgain => ARMED_AGAIN.to_owned(),
            Self::LeaseOver(Some(ms)) => {
                format!("its lease to be over, in {} s, unless it is renewed", ms.div_ceil(1_000))
            }
            Self::LeaseOver(None) => "its leases to be over".to_owned(),
            Self::Room => "another node with room for them".to_owned(),
        }
    }

    /// In words about one of its VMs.
    fn of_vm(self, node: &NodeName) -> String {
        match self {
            Self::ArmedAgain => {
                format!("not started elsewhere while the cluster is disarmed: {node} is silent")
            }
            Self::LeaseOver(Some(ms)) => {
                format!("starts elsewhere in {} s, unless {node} renews its lease", ms.div_ceil(1_000))
            }
            Self::LeaseOver(None) => format!("starts elsewhere once the leases of {node} are over"),
            Self::Room => format!("waits for another node with room for it: {node} is lost"),
        }
    }
}

/// The nodes that do not renew their leases and run VMs that may be failed over, with what comes next.
pub(crate) fn failovers(state: &ClusterState, nodes: &[NodeView]) -> Vec<ChangeView> {
    let change = |node: &NodeView| {
        let vms = state.taken_from(&node.name).len();
        let wait = FailoverWait::of(state, node.lease?).filter(|_| vms > 0)?;
        let what = match wait {
            FailoverWait::ArmedAgain => "is silent",
            FailoverWait::Room => "is lost",
            FailoverWait::LeaseOver(_) => {
                let hold = state.leases.holder(&node.name).and_then(|holder| holder.hold);
                let is_away = hold.is_some_and(|hold| hold.begins_ms.is_some());
                if is_away { "has announced that its agent is away" } else { "is suspect" }
            }
        };
        let what = format!("{} {what}: {vms} of its VMs are to be started on other nodes", node.name);
        Some(ChangeView { what, waits_for: Some(wait.of_node()) })
    };
    let removed = state.leases.holders.keys().filter_map(|node| left_behind(state, node));
    nodes.iter().filter_map(change).chain(removed).take(CHANGES_MAX).collect()
}

/// The VMs that a removed node left behind and that other nodes may run once its leases are over.
fn left_behind(state: &ClusterState, node: &NodeName) -> Option<ChangeView> {
    let wait = FailoverWait::of_removed(state, state.leases.holder(node)?);
    let vms = state.taken_from(node).len();
    if vms == 0 || state.nodes.member_by_name(node).is_some() {
        return None;
    }
    let what = format!("{node} was removed: {vms} of its VMs are to be started on other nodes, or forgotten");
    Some(ChangeView { what, waits_for: Some(wait.of_node()) })
}

/// Whether it may be on its way to another node because its own is silent.
pub(crate) fn may_go_elsewhere(vm: &VmView) -> bool {
    vm.state == ObservedState::Unknown && vm.desired == Desired::Running && vm.spec.fails_over()
}

/// What each VM waits for that is to be started elsewhere because its node is silent, in words.
pub(crate) fn waits_elsewhere(state: &ClusterState, report: &ProgressReport) -> BTreeMap<VmName, String> {
    let members = report.members.iter().filter_map(|progress| {
        let node = state.nodes.member(progress.raft_id)?.node.name;
        Some((node, FailoverWait::of(state, progress.lease?)?))
    });
    let gone = state.leases.holders.keys().filter(|node| state.nodes.member_by_name(node).is_none());
    // Of one that obeyed leases at an earlier time of enforcement alone nothing is started elsewhere.
    let gone =
        gone.filter_map(|node| Some((node, FailoverWait::of_removed(state, state.leases.holder(node)?))));
    let words = |(node, wait): (&NodeName, FailoverWait)| {
        let vms = state.taken_from(node).into_iter();
        vms.map(|vm| (vm, wait.of_vm(node))).collect::<Vec<_>>()
    };
    members.chain(gone).flat_map(words).collect()
}

/// Says beside what is seen of a VM what it waits for.
pub(crate) fn add_wait(vm: &mut VmView, waits: &BTreeMap<VmName, String>) {
    let Some(wait) = waits.get(&vm.name).filter(|_| may_go_elsewhere(vm)) else { return };
    vm.reason = Some(match vm.reason.take() {
        Some(seen) => format!("{wait}; {seen}"),
        None => wait.clone(),
    });
}

/// The terms of leases that hold.
pub(crate) fn lease_terms(state: &ClusterState) -> LeaseTermsChoice {
    state.leases.terms.unwrap_or(LeaseTerms::DEFAULT.into())
}

/// Whether no VM is started elsewhere, for how long, and whose VMs would not outlast a cut.
pub(crate) fn disarmed(state: &ClusterState, now: Moment) -> Option<DisarmedView> {
    let disarmed = state.leases.disarmed?;
    let until_unix_ms = disarmed.until_unix_ms;
    let has_long = |node: &NodeName| {
        let is_of_it = |holder: &LeaseHolder, hold: LeaseHold| {
            hold.begins_ms.is_some() && hold.since > disarmed.since && hold.boot_id == holder.boot_id
        };
        let holder = state.leases.holder(node);
        holder.is_some_and(|holder| holder.hold.is_some_and(|hold| is_of_it(holder, hold)))
    };
    let runs = |node: &&NodeName| {
        state.placed_on(node).any(|vm| vm.desired == Desired::Running && vm.spec.fails_over())
    };
    let names = state.nodes.members().map(|member| member.node.name);
    let names = names.filter(|_| state.leases.is_on);
    let waits_for = names.filter(runs).filter(|node| !has_long(node)).cloned().collect();
    Some(DisarmedView { until_unix_ms, left_ms: until_unix_ms.saturating_sub(now.wall_ms), waits_for })
}

/// The line of a cluster that is disarmed.
pub(crate) fn disarmed_change(state: &ClusterState, now: Moment) -> Option<ChangeView> {
    let DisarmedView { left_ms, waits_for, .. } = disarmed(state, now)?;
    let mut what = "the cluster is disarmed: no VM is started elsewhere when its node is lost".to_owned();
    if !waits_for.is_empty() {
        let names: Vec<String> = waits_for.iter().map(ToString::to_string).collect();
        what.push_str(&format!("; {} did not acknowledge it yet", names.join(", ")));
    }
    let left = duration(Duration::from_millis(left_ms));
    Some(ChangeView { what, waits_for: Some(format!("{left} to pass, or `blixard cluster arm`")) })
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
    let linked =
        |id: &RaftId| state.nodes.member(*id).is_some_and(|member| reach.has(member.node.endpoint_id));
    let reachable = raft.voters.iter().filter(|id| linked(id) && heard(id)).count();
    (total > 0).then_some(VotersView { total, reachable, needed: total / 2 + 1 })
}

/// A VM: what the log wants, and what its node last reported.
pub(crate) fn vm(record: &VmRecord, reports: &BTreeMap<NodeName, AgedReport>) -> VmView {
    let node = &record.placement.node;
    let aged = reports.get(node);
    let seen = aged.and_then(|aged| aged.report.vms.iter().find(|vm| vm.name == record.spec.name));
    let fresh = aged.is_some_and(is_fresh);
    let (state, reason) = observed(record, aged);
    VmView {
        name: record.spec.name.clone(),
        desired: record.desired,
        state,
        node: node.clone(),
        generation: record.placement.generation,
        revision: record.revision,
        main_pid: seen.filter(|_| fresh).and_then(|seen| seen.main_pid),
        reason,
        observed_age_ms: aged.map(|aged| aged.age_ms),
        stopped: record.stopped.clone(),
        last_end: seen.and_then(|seen| seen.last_end.clone()),
        spec: record.spec.clone(),
    }
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

/// The units on this machine whose VMs the cluster does not know, in words, up to a number.
pub(crate) fn unknown_units(units: &[(VmName, u64)]) -> Vec<String> {
    units.iter().map(|(vm, left_ms)| unknown_unit(vm, *left_ms)).take(TROUBLED_VMS_MAX).collect()
}

/// One of them, which is left running for so many milliseconds.
pub(crate) fn unknown_unit(vm: &VmName, left_ms: u64) -> String {
    let left_s = left_ms.div_ceil(1_000);
    format!("blixard-vm@{vm}.service runs, and the cluster knows no VM {vm}: it is stopped in {left_s} s")
}

/// The VMs of this node that do not run as they should, in words; of more than [`TROUBLED_VMS_MAX`] only how
/// many.
pub(crate) fn troubled_vms(own: &NodeReport) -> Vec<String> {
    let troubled = own.vms.iter().filter_map(|vm| {
        let reason = vm.reason.as_deref();
        match (vm.state, reason) {
            (ObservedState::Running, None) => None,
            (ObservedState::Running, Some(why)) => Some(format!("VM {}: {why}", vm.name)),
            (ObservedState::Paused | ObservedState::Failed, why) => {
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                Some(format!("VM {} is {}{why}", vm.name, vm.state))
            }
            _ => None,
        }
    });
    let mut words: Vec<String> = troubled.collect();
    let more = words.len().saturating_sub(TROUBLED_VMS_MAX);
    words.truncate(TROUBLED_VMS_MAX);
    words.extend((more > 0).then(|| format!("{more} more VMs of this node: see `blixard vm list`")));
    words
}

/// That VMs of this node are not started because it has not read the log since its agent started, in words.
pub(crate) fn waiting_vms(own: &NodeReport, has_read_log: bool) -> Option<String> {
    let waiting = own.vms.iter().filter(|vm| vm.state == ObservedState::Pending && !has_read_log).count();
    let vms = match waiting {
        0 => return None,
        1 => "a VM of this node waits".to_owned(),
        n => format!("{n} VMs of this node wait"),
    };
    Some(format!("{vms} to be started until the node has read the log, which takes a quorum"))
}

/// Keys with which two agents run, in words.
pub(crate) fn held_twice(state: &ClusterState, held: &[KeyHeldTwice]) -> Vec<String> {
    let words = |held: &KeyHeldTwice| {
        let member = state.member_by_endpoint(held.endpoint_id);
        let name = member.map_or_else(|| held.endpoint_id.short(), |member| member.node.name.to_string());
        let mut places: Vec<String> = held.addresses.iter().map(ToString::to_string).collect();
        places.resize(places.len().max(2), "an unknown address".to_owned());
        format!(
            "two agents run with the key of {name} at the same time, at {}: its data directory was copied. \
             Stop blixard.service on the machine that is not {name}, and remove the key and the store there; \
             the agent that came later is not let in and starts no VM",
            places.join(" and at ")
        )
    };
    held.iter().map(words).collect()
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
            Missing::Unfit(error) => format!("it cannot join as it is listed: {error}"),
            Missing::Comes => "it joins once it can be reached".to_owned(),
        };
        Some(format!("{} is in this node's `members` list and not in the cluster: {way_out}", d.name))
    };
    let extra = state
        .nodes
        .members()
        .filter(|member| !declared.iter().any(|d| d.endpoint_id == member.node.endpoint_id))
        .map(|member| {
            format!("{} is in the cluster and not in this node's `members` list", member.node.name)
        });
    missing(state, declared, strangers).filter_map(words).chain(extra).collect()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use blixard_consensus::RaftRole;
    use blixard_core::state::NodeTable;
    use blixard_model::formation::Genesis;
    use blixard_model::removal::RemovedNode;
    use blixard_model::report::VmReport;
    use blixard_model::wire::MemberProgress;
    use blixard_model::{
        BootId, Capacity, ClusterId, ClusterVersion, Command, Desired, MembershipChange, NodeFacts, Offer,
        Removal, Request, StoreId, VmsFate,
    };

    use super::*;

    #[test]
    fn vms_that_do_not_run_as_they_should_are_named_up_to_a_number() {
        let vm = |n: usize, state, reason: Option<&str>| VmReport {
            name: format!("vm{n}").parse().expect("a name"),
            state,
            main_pid: None,
            revision: 0,
            reason: reason.map(str::to_owned),
            last_end: None,
        };
        let words = |vms| {
            troubled_vms(&NodeReport {
                node: "n1".parse().expect("a name"),
                vms,
                problem: None,
                fences: None,
            })
        };
        let full = "disk0 /srv/a.raw: No space left on device";
        let vms = vec![
            vm(1, ObservedState::Running, None),
            vm(2, ObservedState::Paused, Some(full)),
            vm(3, ObservedState::Running, Some("not answering: for long")),
            vm(4, ObservedState::Failed, Some("exited 1 (next try in 2 s)")),
            vm(5, ObservedState::Stopped, None),
            vm(6, ObservedState::Stopping, Some("it runs by its spec as it was before")),
        ];
        let paused = format!("VM vm2 is paused: {full}");
        assert_eq!(
            words(vms),
            [&paused, "VM vm3: not answering: for long", "VM vm4 is failed: exited 1 (next try in 2 s)"]
        );
        let many = (1..=20).map(|n| vm(n, ObservedState::Failed, None)).collect();
        let said = words(many);
        assert_eq!(said.len(), TROUBLED_VMS_MAX + 1);
        assert_eq!(said.last().expect("words"), "12 more VMs of this node: see `blixard vm list`");
    }

    #[test]
    fn units_of_vms_that_the_cluster_does_not_know_are_named_up_to_a_number() {
        let units: Vec<(VmName, u64)> =
            (0..20).map(|n| (format!("vm{n}").parse().expect("a name"), 8_100)).collect();
        let said = unknown_units(&units);
        let first = "blixard-vm@vm0.service runs, and the cluster knows no VM vm0: it is stopped in 9 s";
        assert_eq!((said.len(), said[0].as_str()), (TROUBLED_VMS_MAX, first));
    }

    #[test]
    fn vms_that_wait_for_the_log_are_warned_of_until_it_was_read() {
        let vm = |n: usize, state| VmReport {
            name: format!("vm{n}").parse().expect("a name"),
            state,
            main_pid: None,
            revision: 0,
            reason: None,
            last_end: None,
        };
        let said = |count: usize, has_read_log| {
            let mut vms: Vec<VmReport> = (0..count).map(|n| vm(n, ObservedState::Pending)).collect();
            vms.push(vm(98, ObservedState::Running));
            vms.push(vm(99, ObservedState::Stopped));
            let own = NodeReport { node: "n1".parse().expect("a name"), vms, problem: None, fences: None };
            waiting_vms(&own, has_read_log).unwrap_or_default()
        };
        assert!(
            said(3, false).starts_with("3 VMs of this node wait to be started until"),
            "{}",
            said(3, false)
        );
        assert!(
            said(1, false).starts_with("a VM of this node waits to be started until"),
            "{}",
            said(1, false)
        );
        assert_eq!((said(0, false), said(3, true)), (String::new(), String::new()));
    }

    #[test]
    fn a_node_of_another_cluster_is_warned_of_once_with_what_to_do() {
        let state = ClusterState::new(Genesis {
            cluster_name: "lab".parse().expect("a name"),
            voters: Vec::new(),
            origin: None,
            version: ClusterVersion::NEWEST,
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

    /// n1..n3 vote; n1 answers.
    fn three() -> (ClusterState, RaftStatus) {
        let voter = |n: u8| NodeFacts {
            name: format!("n{n}").parse().expect("a name"),
            endpoint_id: EndpointId::from_bytes([n; 32]),
            store_id: StoreId::from_bytes([n; 16]),
            offer: Offer {
                addresses: vec![SocketAddr::from(([10, 77, 0, n], 7431))],
                relay_url: None,
                capacity: None,
                witness: n == 3,
                ..Offer::default()
            },
        };
        let cluster_name = "lab".parse().expect("a name");
        let state = ClusterState::new(Genesis {
            cluster_name,
            voters: (1..=3).map(voter).collect(),
            origin: None,
            version: ClusterVersion::NEWEST,
        });
        let raft = RaftStatus {
            id: RaftId(1),
            role: RaftRole::Follower,
            leader: Some(RaftId(2)),
            term: 1,
            commit: 9,
            applied: 9,
            last: (1, 9),
            voters: (1..=3).map(RaftId).collect(),
            learners: Vec::new(),
            progress: BTreeMap::new(),
        };
        (state, raft)
    }

    fn apply(state: &mut ClusterState, index: u64, command: Command) {
        let id = format!("r{index}").parse().expect("an id");
        state.apply(index, &Request { id, command });
    }

    /// Three nodes, the second of which obeys leases and runs a VM that may be failed over.
    fn with_a_vm() -> ClusterState {
        let (mut state, _) = three();
        let capacity = Some(Capacity { cpus: 4, memory_mib: 4_096 });
        for n in 1..=2_u8 {
            let addresses = vec![SocketAddr::from(([10, 77, 0, n], 7431))];
            let offer = Offer { addresses, capacity, ..Offer::default() };
            let command = Command::SetNode { endpoint_id: EndpointId::from_bytes([n; 32]), offer };
            apply(&mut state, n.into(), command);
        }
        let boot_id = BootId::from_bytes([7; 16]);
        apply(&mut state, 3, Command::EnforceLease { raft_id: RaftId(2), boot_id, epoch: 1 });
        let spec = serde_json::from_str(r#"{"name":"web","cpus":1,"memory_mib":64,"kernel":"/k"}"#);
        let (spec, eligible) = (spec.expect("a spec"), vec!["n2".parse().expect("a name")]);
        apply(&mut state, 4, Command::CreateVm { spec, desired: Desired::Running, eligible });
        state
    }

    #[test]
    fn a_vm_whose_node_is_silent_says_when_it_starts_elsewhere() {
        let mut state = with_a_vm();
        let seen = |state: &ClusterState, lease, age_ms| {
            let node: NodeName = "n2".parse().expect("a name");
            let web = VmReport {
                name: "web".parse().expect("a name"),
                state: ObservedState::Running,
                main_pid: None,
                revision: 0,
                reason: None,
                last_end: None,
            };
            let report = NodeReport { node: node.clone(), vms: vec![web], problem: None, fences: None };
            let reports = BTreeMap::from([(node, AgedReport { report, age_ms })]);
            let record = state.vms.values().next().expect("a VM");
            let mut vm = vm(record, &reports);
            let members = vec![MemberProgress { lease, ..progress(2, true) }];
            add_wait(&mut vm, &waits_elsewhere(state, &ProgressReport { members, ..Default::default() }));
            vm.reason.unwrap_or_default()
        };
        let suspect = Some(LeaseStanding::Suspect { lost_in_ms: 8_100 });
        assert_eq!(
            seen(&state, suspect, 9_000),
            "starts elsewhere in 9 s, unless n2 renews its lease; n2 has not reported for 9 s"
        );
        assert_eq!(seen(&state, suspect, 1_000), "", "it runs, as its node says");
        let silent = "n2 has not reported for 9 s";
        for lease in [None, Some(LeaseStanding::Holds { left_ms: 9_000 })] {
            assert_eq!(seen(&state, lease, 9_000), silent);
        }
        let lost = seen(&state, Some(LeaseStanding::Lost), 9_000);
        assert_eq!(lost, format!("waits for another node with room for it: n2 is lost; {silent}"));
        apply(&mut state, 5, Command::Disarm { for_ms: 60_000, at_ms: 0 });
        let disarmed = seen(&state, suspect, 9_000);
        assert!(disarmed.starts_with("not started elsewhere while the cluster is disarmed"), "{disarmed}");
    }

    #[test]
    fn the_vms_that_a_removed_node_left_behind_are_told_with_what_they_wait_for() {
        let mut state = with_a_vm();
        let n2: NodeName = "n2".parse().expect("a name");
        assert_eq!(failovers(&state, &[]), [], "it is a member");
        let why = Removal::Operator { vms: Some(VmsFate::Keep) };
        state.apply_membership(&MembershipChange::Remove { raft_id: RaftId(2), why });
        let of_vm = |state: &ClusterState| {
            let waits = waits_elsewhere(state, &ProgressReport::default());
            waits.into_values().next().expect("it waits")
        };
        let waits_for = |state: &ClusterState| {
            let told = failovers(state, &[]).remove(0);
            assert!(told.what.starts_with("n2 was removed: 1 of its VMs are"), "{}", told.what);
            told.waits_for.expect("it waits")
        };
        assert_eq!(waits_for(&state), "its leases to be over");
        assert_eq!(of_vm(&state), "starts elsewhere once the leases of n2 are over");
        let lost = Command::NodeLost { node: n2, term: 1, eligible: Vec::new(), seen: None };
        apply(&mut state, 5, lost);
        assert_eq!(waits_for(&state), "another node with room for them");
        apply(&mut state, 6, Command::Disarm { for_ms: 60_000, at_ms: 0 });
        assert_eq!(waits_for(&state), ARMED_AGAIN);
    }

    /// n1's links: since when each is down.
    fn links(links: &[(u8, Option<u64>)]) -> Reach {
        let links = links.iter().map(|(n, down)| (EndpointId::from_bytes([*n; 32]), *down)).collect();
        Reach { me: EndpointId::from_bytes([1; 32]), links }
    }

    fn progress(n: u64, heard: bool) -> MemberProgress {
        let silent_ms = (n > 1).then_some(n * 100);
        MemberProgress {
            raft_id: RaftId(n),
            behind: Some(n),
            snapshot: n == 3,
            heard,
            lost: !heard,
            silent_ms,
            lease: None,
        }
    }

    #[test]
    fn the_voters_are_those_with_a_link_and_on_the_leader_those_it_hears_of() {
        let (state, raft) = three();
        let heard = |of: [bool; 3]| ProgressReport {
            members: (1..).zip(of).map(|(n, heard)| progress(n, heard)).collect(),
            ..ProgressReport::default()
        };
        let cases = [
            (links(&[(2, None), (3, None)]), None, 3),
            (links(&[(2, None), (3, Some(0))]), None, 2),
            (links(&[(2, Some(0))]), None, 1),
            (links(&[(2, None), (3, None)]), Some(heard([true, true, false])), 2),
            (links(&[(2, None), (3, Some(0))]), Some(heard([true, true, true])), 2),
        ];
        for (reach, own, reachable) in cases {
            let view = voters(&state, &raft, &reach, own.as_ref());
            assert_eq!(view, Some(VotersView { total: 3, reachable, needed: 2 }), "{reach:?} {own:?}");
        }
        let none = RaftStatus { voters: Vec::new(), ..raft };
        assert_eq!(voters(&state, &none, &links(&[]), None), None);
    }

    #[test]
    fn a_member_shows_since_when_it_has_no_link_and_what_the_leader_knows_of_it() {
        let (state, raft) = three();
        let reach = links(&[(2, None), (3, Some(4_000))]);
        let members = vec![progress(2, true), progress(3, false)];
        let report = ProgressReport { members, ..ProgressReport::default() };
        let shown = nodes(&state, &raft, &reach, &report);
        let facts: Vec<_> = shown
            .iter()
            .map(|n| (n.reachable, n.unreachable_for_ms, n.behind, n.snapshot, n.lost, n.witness))
            .collect();
        assert_eq!(facts[0], (true, None, None, false, false, false), "itself, of which nothing was said");
        assert_eq!(facts[1], (true, None, Some(2), false, false, false));
        assert_eq!(facts[2], (false, Some(4_000), Some(3), true, true, true));
        let silent: Vec<_> = shown.iter().map(|node| node.silent_for_ms).collect();
        assert_eq!(silent, [None, Some(200), Some(300)]);
        let never = nodes(&state, &raft, &links(&[]), &ProgressReport::default());
        assert!(!never[1].reachable && never[1].unreachable_for_ms.is_none(), "never looked");
    }

    #[test]
    fn a_key_that_two_agents_hold_is_warned_of_with_both_addresses() {
        let (state, raft) = three();
        let at = |n: u8| SocketAddr::from(([10, 77, 0, n], 7431));
        let held = |n: u8, addresses: &[u8]| KeyHeldTwice {
            endpoint_id: EndpointId::from_bytes([n; 32]),
            addresses: addresses.iter().map(|n| at(*n)).collect(),
        };
        let all = vec![held(2, &[2, 9]), held(7, &[])];
        let said = held_twice(&state, &all);
        assert!(
            said[0].starts_with(
                "two agents run with the key of n2 at the same time, at 10.77.0.2:7431 and \
                                     at 10.77.0.9:7431: "
            ),
            "{said:?}"
        );
        assert!(said[1].contains("at an unknown address and at an unknown address"), "{said:?}");
        let report = ProgressReport { held_twice: all, ..ProgressReport::default() };
        let shown = nodes(&state, &raft, &links(&[]), &report);
        let places: Vec<_> = shown.into_iter().map(|node| node.held_twice_at).collect();
        assert_eq!(places, [vec![], vec![at(2), at(9)], vec![]]);
    }

    #[test]
    fn a_listed_node_that_is_no_member_says_what_it_waits_for() {
        let (mut state, _) = three();
        let listed = |n: u8, at: u8| DeclaredMember {
            name: format!("n{n}").parse().expect("a name"),
            endpoint_id: EndpointId::from_bytes([n; 32]),
            addresses: vec![SocketAddr::from(([10, 77, 0, at], 7431))],
        };
        let removed = |n: u8, given_up| {
            let raft_id = RaftId(n.into());
            RemovedNode { name: format!("n{n}").parse().expect("a name"), raft_id, given_up }
        };
        let departed = [(7, false), (8, true)]
            .map(|(n, given_up)| (EndpointId::from_bytes([n; 32]), removed(n, given_up)));
        let members = state.nodes.members_form();
        state.nodes = NodeTable::from_forms(members, departed.into()).expect("a table");
        let other_key = DeclaredMember { endpoint_id: EndpointId::from_bytes([9; 32]), ..listed(3, 9) };
        let declared =
            [listed(1, 1), listed(4, 4), listed(5, 5), listed(6, 2), listed(7, 7), listed(8, 8), other_key];
        let cluster_id = ClusterId::from_bytes([0xab; 16]);
        let name = "n5".parse().expect("a name");
        let endpoint_id = EndpointId::from_bytes([5; 32]);
        let strangers = [Stranger { endpoint_id, name, cluster_id, kinship: Kinship::None }];
        let said = awaited(&state, &declared, &strangers, &links(&[(8, None)]));
        let said: Vec<String> =
            said.into_iter().map(|c| format!("{} | {}", c.what, c.waits_for.unwrap_or_default())).collect();
        assert_eq!(
            said,
            [
                "n4 is to become a member | an answer of it: this node does not reach it",
                "n5 is to become a member | an empty store: it has one of another cluster",
                "n6 is to become a member | a list with which it can be one: 10.77.0.2:7431 is n2's as \
                 well: correct one of the two",
                "n7 is to become a member | a ticket: an operator removed it",
                "n8 is to become a member | the leader to admit it",
            ]
        );
        let warned = warnings(&state, &declared, &strangers);
        let says = |words: &str| warned.iter().filter(|line| line.contains(words)).count();
        assert_eq!(says("take it off the list, or let it join with a ticket"), 1, "{warned:?}");
        assert_eq!(says("n3 is a member with another key"), 1, "{warned:?}");
        assert_eq!(says("it joins once it can be reached"), 2, "{warned:?}");
    }
}
