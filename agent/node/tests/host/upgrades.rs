//! Machines of an older release and of a newer one in one cluster, and their upgrade.

use blixard_model::api::RetryKind;
use blixard_model::formation::{Identity, Phase};
use blixard_model::{ClusterVersion, Disk, MembersAsk, WriteAsk, WriteRequest};
use blixard_node::Notice;
use blixard_node::host::{Answer, HostConfig, Want};

use super::hosts::{Hosts, config};
use crate::group::{create, identity, name, store};

const OLD: ClusterVersion = ClusterVersion::FIRST;
const NEW: ClusterVersion = ClusterVersion::NEWEST;

/// n3 runs a release that supports the first version only.
fn with_an_old_third() -> Hosts {
    Hosts::formed_as(3, |n| HostConfig { supports: if n == 3 { OLD } else { NEW }, ..config(n, 3) })
}

fn versions(hosts: &Hosts) -> Vec<ClusterVersion> {
    let of = |n: &u8| hosts.host(*n).member().expect("a member").state().version;
    hosts.machines.keys().map(of).collect()
}

fn change(vm: &str) -> WriteRequest {
    let WriteAsk::CreateVm { mut spec, .. } = create(vm, None).ask else { panic!("another ask") };
    spec.memory_mib = 512;
    WriteRequest {
        id: format!("change-{vm}").parse().expect("an id"),
        ask: WriteAsk::ChangeVm { spec, seen: None },
    }
}

#[test]
fn a_cluster_goes_on_with_the_old_version_until_its_last_member_is_upgraded() {
    let mut hosts = with_an_old_third();
    hosts.pass(3_000);
    assert_eq!(versions(&hosts), [OLD, OLD, OLD]);
    let made = hosts.change(1, create("a", None));
    hosts.until("it is made", |hosts| hosts.answers.contains_key(&made));
    // Said at once, and to nobody else: whoever leads may not understand it.
    let early = hosts.change(1, change("a"));
    let Answer::Changed(Err(why)) = &hosts.answers[&early] else { panic!("{:?}", hosts.answers[&early]) };
    assert!(why.to_string().contains("the cluster has version 1, and this takes version 2"), "{why}");
    hosts.restart(3, config(3, 3));
    hosts.until("it is raised everywhere", |hosts| versions(hosts) == [NEW, NEW, NEW]);
    let told = |notice: &Notice| matches!(notice, Notice::VersionRaised(version) if *version == NEW);
    assert!(hosts.machines.values().all(|machine| machine.notices.iter().filter(|it| told(it)).count() == 1));
    let changed = hosts.change(2, change("a"));
    hosts.until("it is changed", |hosts| hosts.answers.contains_key(&changed));
    let vm = &hosts.host(1).member().expect("a member").state().vms["a"];
    assert!(vm.spec.memory_mib == 512 && vm.revision > vm.placement.generation, "{vm:?}");
}

#[test]
fn who_was_upgraded_keeps_the_version_through_a_restart_and_lets_nobody_older_in() {
    let mut hosts = Hosts::formed(3);
    assert_eq!(versions(&hosts), [NEW, NEW, NEW], "all support it from the beginning");
    let leader = hosts.leader();
    let other = if leader == 1 { 2 } else { 1 };
    hosts.restart(other, config(other, 3));
    hosts.pass(1_000);
    assert_eq!(versions(&hosts), [NEW, NEW, NEW]);
    let node = Identity { supports: OLD, ..identity(4, store(4), Phase::Empty { promise: None }) };
    let vouched =
        hosts.want(leader, Want::Change(Box::new(MembersAsk::Vouch { node: Box::new(node) }.into())));
    hosts.until("it is answered", |hosts| hosts.answers.contains_key(&vouched));
    let said = format!("{:?}", hosts.answers[&vouched]);
    assert!(said.contains("supports 1 at most: upgrade it"), "{said}");
}

fn shared_dirs(hosts: &Hosts) -> Vec<Vec<String>> {
    let state = hosts.host(2).member().expect("a member").state();
    state.nodes.members().map(|member| member.node.offer.shared_dirs.to_vec()).collect()
}

#[test]
fn what_nodes_share_is_told_once_all_members_know_what_that_is_and_as_far_as_it_may_be() {
    let sharing = |n: u8, supports| {
        let mut config = HostConfig { supports, ..config(n, 3) };
        let dirs = ["/a", "/b"].map(str::to_owned);
        config.node.offer.shared_dirs = dirs.into_iter().collect();
        config
    };
    let mut hosts = Hosts::formed_as(3, |n| sharing(n, if n == 3 { ClusterVersion::LEASES } else { NEW }));
    let disk = |node: u8| {
        let WriteAsk::CreateVm { mut spec, desired } = create(&format!("on-{node}"), None).ask else {
            panic!("another ask")
        };
        spec.node = Some(name(node));
        spec.disks = vec![Disk { path: "/a/disk.raw".to_owned(), read_only: false }];
        let id = format!("create-on-{node}").parse().expect("an id");
        WriteRequest { id, ask: WriteAsk::CreateVm { spec, desired } }
    };
    for n in [1, 2] {
        let made = hosts.change(n, disk(n));
        hosts.until("it is made", |hosts| hosts.answers.contains_key(&made));
    }
    hosts.pass(3_000);
    assert_eq!(shared_dirs(&hosts), [[""; 0]; 3], "n3 would not keep it");
    hosts.restart(3, sharing(3, NEW));
    // Two VMs have one file in the other directory, which was not shared when they were made.
    hosts.until("all share it", |hosts| shared_dirs(hosts) == [["/b"]; 3]);
    hosts.pass(1_000);
    assert!((1..=3).all(|n| hosts.trouble(n, RetryKind::Register).is_none()));
}
