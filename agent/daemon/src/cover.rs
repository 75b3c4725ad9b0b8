//! What would keep a VM from being started on another node, or from being ended on its own, in words for
//! people. Pure.

use std::collections::BTreeMap;

use blixard_core::{ClusterState, VmRecord};
use blixard_model::fences::{FenceState, Fences};
use blixard_model::{ClusterVersion, NodeName};

/// Most VMs that are named.
const VMS_NAMED_MAX: usize = 8;

/// The VMs that shall be failed over and cannot, because of a disk that they write; and the directories of
/// this node that do not count as shared.
pub(crate) fn unshared(state: &ClusterState, configured: &[String]) -> Vec<String> {
    let mut words: Vec<String> = not_counted(state, configured).collect();
    let mut stuck = state.vms.values().filter_map(|vm| stuck(state, vm));
    words.extend(stuck.by_ref().take(VMS_NAMED_MAX));
    let more = stuck.count();
    words.extend((more > 0).then(|| format!("{more} more VMs like that")));
    words
}

fn not_counted(state: &ClusterState, configured: &[String]) -> impl Iterator<Item = String> {
    let version = state.version;
    let early = (version < ClusterVersion::SHARED_DISKS && !configured.is_empty()).then(|| {
        format!(
            "vms.disk_dirs: what is shared counts from version {} of the cluster on, which has version \
             {version}: upgrade the nodes that keep it there",
            ClusterVersion::SHARED_DISKS
        )
    });
    let refused = configured.iter().filter_map(|dir| state.sharing_problem(dir));
    let refused = refused.map(|why| format!("vms.disk_dirs: {why}"));
    early.into_iter().chain(refused)
}

fn stuck(state: &ClusterState, vm: &VmRecord) -> Option<String> {
    let (name, node) = (&vm.spec.name, &vm.placement.node);
    // Of one that left the cluster its VMs wait for a node with room, or for an operator.
    if !vm.spec.fails_over() || state.member_by_name(node).is_none() {
        return None;
    }
    if let Some(disk) = state.unshared_disk(&vm.spec, node) {
        let path = &disk.path;
        return Some(format!(
            "VM {name} is not started elsewhere when {node} is lost: it writes {path}, and {node} does not \
             share that directory: list it as shared in vms.disk_dirs of {node} again, or `blixard vm set \
             {name} --on-node-loss keep`"
        ));
    }
    let first = vm.spec.written_disks().next()?;
    let has_all = |other: &NodeName| state.unshared_disk(&vm.spec, other).is_none();
    let mut others = state.nodes.members().filter(|member| member.node.name != node);
    let has_another = others.any(|other| !other.node.offer.witness && has_all(other.node.name));
    (!has_another).then(|| {
        format!(
            "VM {name} is not started elsewhere when {node} is lost: no other node shares the directory of \
             {}, which it writes",
            first.path
        )
    })
}

/// The nodes that run VMs that may be failed over, and on which a part is missing that ends those without a
/// lease. Of a node that could not ask systemd something else is said already.
pub(crate) fn unfenced(state: &ClusterState, fences: &BTreeMap<NodeName, Fences>) -> Vec<String> {
    let off = |name: &NodeName| {
        let of_node = fences.get(name)?;
        let failing = |(part, state): (&str, &FenceState)| match state {
            FenceState::Off { why } => Some(format!("{part} ({why})")),
            FenceState::Works | FenceState::Unknown { .. } => None,
        };
        let parts =
            [("its supervisors", &of_node.supervisor), ("systemd's watchdog", &of_node.systemd_watchdog)];
        let parts: Vec<String> = parts.into_iter().filter_map(failing).collect();
        let vms = state.placed_on(name).filter(|vm| vm.spec.fails_over()).count();
        (vms > 0 && !parts.is_empty() && state.leases.is_on).then(|| {
            let parts = parts.join(" and ");
            format!(
                "{name} has {vms} VMs that run under a lease only, and {parts} would not end them without"
            )
        })
    };
    state.nodes.members().filter_map(|member| off(member.node.name)).collect()
}

#[cfg(test)]
mod tests {
    use blixard_model::formation::Genesis;
    use blixard_model::{Capacity, Command, Desired, EndpointId, NodeFacts, Offer, Request, StoreId, VmSpec};

    use super::*;

    fn node(n: u8) -> NodeName {
        format!("n{n}").parse().expect("a name")
    }

    fn offer(n: u8, shared: &[&str]) -> Offer {
        Offer {
            addresses: vec![([10, 77, 0, n], 7431).into()],
            capacity: Some(Capacity { cpus: 64, memory_mib: 65_536 }),
            shared_dirs: shared.iter().map(ToString::to_string).collect(),
            ..Offer::default()
        }
    }

    /// Three nodes in a cluster of this version, and what feeds it.
    struct Cluster(ClusterState, u64);

    impl Cluster {
        fn of(version: ClusterVersion) -> Self {
            let voter = |n: u8| NodeFacts {
                name: node(n),
                endpoint_id: EndpointId::from_bytes([n; 32]),
                store_id: StoreId::from_bytes([n; 16]),
                offer: offer(n, &[]),
            };
            let cluster_name = "lab".parse().expect("a name");
            let voters = (1..=3).map(voter).collect();
            Self(ClusterState::new(Genesis { cluster_name, voters, origin: None, version }), 1)
        }

        fn apply(&mut self, command: Command) {
            self.1 += 1;
            let id = format!("r{}", self.1).parse().expect("an id");
            self.0.apply(self.1, &Request { id, command });
        }

        fn share(&mut self, n: u8, dirs: &[&str]) {
            self.apply(Command::SetNode {
                endpoint_id: EndpointId::from_bytes([n; 32]),
                offer: offer(n, dirs),
            });
        }

        fn create(&mut self, name: &str, path: &str, at: u8) {
            let spec: VmSpec = serde_json::from_value(serde_json::json!({
                "name": name, "cpus": 1, "memory_mib": 64, "kernel": "/k", "disks": [{ "path": path }],
            }))
            .expect("a spec");
            self.apply(Command::CreateVm { spec, desired: Desired::Stopped, eligible: vec![node(at)] });
        }
    }

    #[test]
    fn a_vm_whose_disk_nobody_else_has_is_named_with_the_way_out() {
        let mut c = Cluster::of(ClusterVersion::NEWEST);
        let dirs = vec!["/s".to_owned()];
        c.share(1, &["/s"]);
        c.create("web", "/s/web.raw", 1);
        c.create("own", "/var/own.raw", 1);
        let said = unshared(&c.0, &dirs);
        assert!(said.len() == 1 && said[0].contains("no other node shares the directory of /s/web.raw"));
        c.share(2, &["/s"]);
        assert_eq!(unshared(&c.0, &dirs), [""; 0]);
        c.share(1, &[]);
        let said = unshared(&c.0, &[]);
        assert!(said.len() == 1 && said[0].contains("n1 does not share that directory"), "{said:?}");
        for n in 0..20 {
            c.share(1, &["/s"]);
            c.create(&format!("vm{n}"), &format!("/s/{n}.raw"), 1);
        }
        c.share(1, &[]);
        let said = unshared(&c.0, &[]);
        assert_eq!(said.len(), VMS_NAMED_MAX + 1, "{said:?}");
    }

    #[test]
    fn a_node_whose_vms_would_not_be_ended_is_named_if_it_has_such_vms() {
        let mut c = Cluster::of(ClusterVersion::NEWEST);
        let works = Fences {
            supervisor: FenceState::Works,
            systemd_watchdog: FenceState::Works,
            last_resort: FenceState::off("none"),
            hardware_watchdog: FenceState::off("none"),
        };
        let off = Fences { systemd_watchdog: FenceState::off("switched off"), ..works.clone() };
        let silent = Fences { supervisor: FenceState::Unknown { why: "no bus".to_owned() }, ..works.clone() };
        let all = |of_n1: &Fences| BTreeMap::from([(node(1), of_n1.clone()), (node(2), off.clone())]);
        assert_eq!(unfenced(&c.0, &all(&off)), [""; 0], "they run no such VM");
        c.share(1, &["/s"]);
        c.create("web", "/s/web.raw", 1);
        assert_eq!(unfenced(&c.0, &all(&works)), [""; 0]);
        assert_eq!(unfenced(&c.0, &all(&silent)), [""; 0]);
        let said = unfenced(&c.0, &all(&off));
        let words = "n1 has 1 VMs that run under a lease only, and systemd's watchdog (switched off)";
        assert!(said.len() == 1 && said[0].starts_with(words), "{said:?}");
    }

    #[test]
    fn a_directory_that_does_not_count_is_said_with_the_reason() {
        let mut c = Cluster::of(ClusterVersion::NEWEST);
        c.create("one", "/s/a.raw", 1);
        c.create("two", "/s/a.raw", 2);
        let said = unshared(&c.0, &["/s".to_owned()]);
        assert!(said.len() == 1 && said[0].starts_with("vms.disk_dirs: /s cannot be shared"), "{said:?}");
        let early = Cluster::of(ClusterVersion::LEASES);
        let said = unshared(&early.0, &["/s".to_owned()]);
        assert!(said.len() == 1 && said[0].contains("counts from version 4"), "{said:?}");
        assert_eq!(unshared(&early.0, &[]), [""; 0]);
    }
}
