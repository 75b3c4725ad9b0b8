//! Disks that several nodes have: the directories that nodes share, and what lies in them.
//!
//! Two nodes that share a directory of one path have the same files there. What lies in a directory that any
//! member shares belongs to one VM in the whole cluster, if a VM writes it: wherever that VM is placed, and
//! also where a node does not share the directory. That refuses little that would be right, and it does not
//! depend on which node has said at this moment what it shares.

use std::collections::BTreeMap;

use blixard_model::node::SHARED_DIRS_MAX;
use blixard_model::vm::{InvalidSpec, check_plain_path};
use blixard_model::{
    ClusterVersion, Disk, FieldProblem, FieldRefused, NodeName, Offer, OnNodeLoss, Reason, Refusal, VmSpec,
};

use super::{ClusterState, VmRecord};

impl ClusterState {
    /// Whether what lies at this path is one file for several nodes.
    pub fn is_shared(&self, path: &str) -> bool {
        self.nodes.members().any(|member| member.node.offer.shares(path))
    }

    /// The first disk that a VM writes and that the node of this name does not share. Of a node that is no
    /// member nothing is known: it shares nothing.
    pub fn unshared_disk<'a>(&self, spec: &'a VmSpec, node: &NodeName) -> Option<&'a Disk> {
        let member = self.member_by_name(node);
        let shares = |disk: &&Disk| member.is_some_and(|member| member.node.offer.shares(&disk.path));
        spec.written_disks().find(|disk| !shares(disk))
    }

    /// Whether a node shares all that this VM writes.
    fn some_node_shares_disks_of(&self, spec: &VmSpec) -> bool {
        let shares_all =
            |offer: &Offer| spec.written_disks().all(|disk| offer.shares(&disk.path)) && !offer.witness;
        self.nodes.members().any(|member| shares_all(member.node.offer))
    }

    /// What becomes of a VM when its node is lost, unless somebody says otherwise.
    pub(crate) fn usual_on_node_loss(&self, spec: &VmSpec) -> OnNodeLoss {
        spec.usual_on_node_loss(self.some_node_shares_disks_of(spec))
    }

    /// Checks that a VM that shall be failed over writes nothing that its node alone has.
    pub(super) fn check_failover(&self, spec: &VmSpec) -> Result<(), InvalidSpec> {
        let Some(first) = spec.written_disks().next().filter(|_| spec.fails_over()) else { return Ok(()) };
        let path = first.path.clone();
        let problem = match self.version < ClusterVersion::SHARED_DISKS {
            true => FieldProblem::FailoverOfWritable { path },
            false if self.some_node_shares_disks_of(spec) => return Ok(()),
            false => FieldProblem::FailoverOfUnshared { path },
        };
        Err(InvalidSpec::new("on_node_loss", problem))
    }

    /// Whether other nodes still have all that a VM writes. A node that does not share a directory any more,
    /// or has not said so yet, may have other files there than the nodes that would take the VM over. The one
    /// that left the cluster cannot say it: of it counts what was said when the VM was placed.
    pub(super) fn disks_can_move(&self, vm: &VmRecord) -> bool {
        let node = &vm.placement.node;
        self.member_by_name(node).is_none() || self.unshared_disk(&vm.spec, node).is_none()
    }

    /// Checks what a node says that it shares, beside the disks that VMs have.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with what is wrong.
    pub(super) fn check_shared_dirs(&self, offer: &Offer) -> Result<(), Refusal> {
        let refuse = |why| Err(Refusal::Invalid { why: Reason::Code(why) });
        if offer.shared_dirs.len() > SHARED_DIRS_MAX {
            return refuse(FieldRefused::TooManySharedDirs { max: SHARED_DIRS_MAX as u64 });
        }
        for (i, dir) in offer.shared_dirs.iter().enumerate() {
            let twice = offer.shared_dirs[..i].contains(dir).then_some(FieldProblem::ListedTwice);
            if let Some(problem) = check_plain_path(dir).err().or(twice) {
                return refuse(FieldRefused::SharedDir { dir: dir.clone(), problem });
            }
            if let Some(why) = self.sharing_problem(dir) {
                return refuse(why);
            }
        }
        Ok(())
    }

    /// Why a node cannot say that it shares this directory: two VMs have a file there that would be one.
    pub fn sharing_problem(&self, dir: &str) -> Option<FieldRefused> {
        // What is shared already was looked at then, and at each placement since.
        if self.nodes.members().any(|member| member.node.offer.shared_dirs.iter().any(|known| known == dir)) {
            return None;
        }
        let mut seen: BTreeMap<&str, (&VmRecord, bool)> = BTreeMap::new();
        for vm in self.vms.values() {
            for disk in vm.reserved_disks().filter(|disk| blixard_model::node::lies_in(&disk.path, dir)) {
                match seen.get_mut(disk.path.as_str()) {
                    Some((other, written)) if other.spec.name != vm.spec.name => {
                        if *written || !disk.read_only {
                            return Some(FieldRefused::SharedDiskTwice {
                                dir: dir.to_owned(),
                                path: disk.path.clone(),
                                vm: other.spec.name.clone(),
                                other: vm.spec.name.clone(),
                            });
                        }
                    }
                    Some((_, written)) => *written |= !disk.read_only,
                    None => _ = seen.insert(&disk.path, (vm, !disk.read_only)),
                }
            }
        }
        None
    }
}
