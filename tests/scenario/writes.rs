//! Writes through any node, each of which is applied at most once.

use super::cluster::Cluster;

#[test]
fn any_node_takes_writes_and_every_node_shows_them() {
    let c = Cluster::formed();
    for (n, name) in ["a", "b", "c"].iter().enumerate() {
        assert_eq!(c.nodes[n].blixard(&format!("vm create {name} --kernel /k")).code, 0);
        for node in &c.nodes {
            let names: Vec<String> = node.vms().iter().map(|vm| vm.name.to_string()).collect();
            assert!(names.contains(&(*name).to_owned()), "{}: {names:?}", node.name);
        }
    }
    c.until("replicated", |c| c.nodes.iter().all(|node| node.stale_names() == ["a", "b", "c"]));
}

#[test]
fn the_same_request_id_is_applied_once() {
    let c = Cluster::formed();
    let create = "vm create a --kernel /k --json --request-id once";
    let first = c.nodes[0].blixard(create);
    let second = c.nodes[1].blixard(create);
    assert_eq!((first.code, &first.stdout), (0, &second.stdout));
    c.nodes[2].blixard("vm create a --kernel /k").ends(1, "exists");
    c.nodes[2].blixard("vm create b --kernel /k --request-id once").ends(1, "was used for another request");
}

#[test]
fn a_vm_that_fits_nowhere_is_refused_with_what_each_node_lacks() {
    let c = Cluster::formed();
    let run = c.nodes[0].blixard("vm create big --kernel /k --memory-mib 4000 --cpus 5");
    run.ends(1, "n3: 2048 MiB of memory free, 4192 needed and 4 cpus free, 5 needed");
}

#[test]
fn unknown_vms_and_nodes_are_refused() {
    let c = Cluster::formed();
    c.nodes[0].blixard("vm start nope").ends(1, "there is no VM named nope");
    c.nodes[1].blixard("vm create a --kernel /k --node n9").ends(1, "there is no node named n9");
}

#[test]
fn a_spec_is_changed_through_any_node_and_a_refused_change_changes_nothing() {
    let c = Cluster::formed();
    assert_eq!(c.nodes[0].blixard("vm create a --kernel /k --initrd /i").code, 0);
    let run = c.nodes[1].blixard("vm set a --memory-mib 512 --unset initrd");
    assert_eq!(run.code, 0, "{run:?}");
    let vm = c.nodes[2].vms().remove(0);
    let said = format!("a is changed on {}; it is so from its next start on", vm.node);
    assert!(run.stdout.contains(&said), "{run:?}");
    assert_eq!((vm.spec.memory_mib, vm.spec.initrd.as_deref()), (512, None));
    assert!(vm.revision > vm.generation, "{vm:?}");
    let run = c.nodes[2].blixard("vm set a --memory-mib 512");
    assert!(run.stdout.contains("a was so before"), "{run:?}");
    c.nodes[0].blixard("vm set a").ends(2, "nothing is to be changed");
    c.nodes[0].blixard("vm set a --memory-mib 1").ends(2, "is not between 64 and 1048576");
    c.nodes[0].blixard("vm set nope --cpus 2").ends(1, "there is no VM named nope");
    let other = if vm.node.as_str() == "n2" { "n3" } else { "n2" };
    let pinned = format!("vm set a --node {other}");
    c.nodes[0].blixard(&pinned).ends(2, "failover is for a VM that may run on other nodes");
    let moved = c.nodes[0].blixard(&format!("{pinned} --on-node-loss keep"));
    moved.ends(1, "a change of its spec does not move it");
    c.nodes[1].blixard("vm set a --cpus 64").ends(1, "4 cpus free, 64 needed");
    assert_eq!(c.nodes[0].vms().remove(0).spec, vm.spec, "a refusal changes nothing");
}

#[test]
fn a_vm_without_systemd_says_why_it_does_not_run() {
    let c = Cluster::formed();
    assert_eq!(c.nodes[0].blixard("vm run a --kernel /k --no-wait").code, 0);
    c.until("the reason is shown", |c| {
        let vms = c.nodes[2].vms();
        vms[0].reason.as_ref().is_some_and(|reason| reason.contains("systemd"))
    });
}
