//! A new cluster with the state of another one, over a real store.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use blixard_consensus::{EntryContent, HardState, Limits, LogWrite, StoredEntry, genesis_snapshot};
use blixard_core::ClusterState;
use blixard_core::genesis::cluster_id;
use blixard_core::lineage::Founder;
use blixard_model::backup::BackupHeader;
use blixard_model::formation::Phase;
use blixard_model::{
    ClusterId, ClusterVersion, MembersAsk, MembershipChange, NodeFacts, Offer, RaftId, Role, VmName,
};
use blixard_node::forming::Birth;
use blixard_node::host::disk::{Kept, bind};
use blixard_node::rebirth::{
    MisplacedBackup, RebirthError, RemainsError, check_place, plan_rebirth, read_remains,
};
use blixard_node::resume::{Resume, resume};
use blixard_node::{BackupFacts, decode_backup, encode_backup, encode_state};
use blixard_store::{Begin, ClusterMarker, DirDisk, FILE_NAME, LogStore, Store};

use crate::group::{
    CAPACITY, Group, TestNode, create, declared, endpoint, genesis, identity, name, store, waiter, whole_turn,
};

fn open(dir: &Path) -> Store {
    let cluster = "lab".parse().expect("a name");
    Store::open(&DirDisk::new(dir), endpoint(1), &cluster, store(1)).expect("opened")
}

fn founder(index: u64, nonce: u64) -> Founder {
    let me = NodeFacts {
        name: name(1),
        endpoint_id: endpoint(1),
        store_id: store(50),
        offer: Offer {
            addresses: declared(1).remove(0).addresses,
            relay_url: None,
            capacity: Some(CAPACITY),
            witness: false,
            ..Offer::default()
        },
    };
    Founder { me, cluster_name: "lab".parse().expect("a name"), index, nonce }
}

fn who() -> Resume {
    Resume {
        supports: ClusterVersion::NEWEST,
        voter_lost_ticks: 600,
        name: name(1),
        declared: declared(3),
        incarnation: 1,
        limits: Limits::default(),
    }
}

/// A node and its store.
struct Alone {
    node: TestNode,
    store: Store,
}

impl Alone {
    fn of(store: Store) -> Self {
        let kept = Kept::load(&store).expect("read").expect("bound");
        Self { node: resume(kept, who()).expect("resumed"), store }
    }

    /// A turn, with what it has to be durable written.
    fn turn(&mut self) {
        whole_turn(&mut self.node, |write| self.store.write(write).expect("written"));
    }
}

impl Deref for Alone {
    type Target = TestNode;

    fn deref(&self) -> &TestNode {
        &self.node
    }
}

impl DerefMut for Alone {
    fn deref_mut(&mut self) -> &mut TestNode {
        &mut self.node
    }
}

fn resumed(dir: &Path) -> Alone {
    Alone::of(open(dir))
}

/// Ticks a node that is alone until it leads.
fn elect(node: &mut Alone) {
    for _ in 0..100 {
        node.tick();
        node.turn();
        if node.summary().leads {
            return;
        }
    }
    panic!("it does not elect itself");
}

fn vms(node: &Alone) -> Vec<&str> {
    node.state().vms.keys().map(VmName::as_str).collect()
}

/// Three nodes that have made these VMs, as their state and its index.
fn written(names: &[&'static str]) -> (ClusterState, u64) {
    let mut group = Group::of(3);
    let leader = group.leader();
    group.node(leader).note_links([1, 2, 3].map(endpoint).into());
    group.tick(10);
    for vm in names {
        group.node(leader).ask(create(vm, Some(1)), endpoint(leader), waiter(vm));
        group.until("applied", |group| group.answer(vm).is_some());
    }
    let node = &group.nodes[&leader];
    (node.state().clone(), node.raft_status().applied)
}

#[test]
fn a_restored_node_elects_itself_and_goes_on_where_the_backup_ended() {
    let (state, index) = written(&["a", "b"]);
    let facts = BackupFacts {
        index,
        term: 9,
        linearizable: true,
        node: name(2),
        version: String::new(),
        made_at_ms: 0,
    };
    let backup = decode_backup(&encode_backup(facts, state.clone()).expect("small")).expect("whole");
    let dir = tempfile::tempdir().expect("dir");
    let rebirth = plan_rebirth(backup.state, backup.header.term, founder(index, 5)).expect("planned");
    assert_eq!((rebirth.given_up.len(), rebirth.vms), (2, (2, 2)));
    open(dir.path()).replace(&DirDisk::new(dir.path()), &rebirth.begin, "kept").expect("replaced");
    assert!(!dir.path().join("kept").exists(), "there was nothing to keep");

    let mut node = resumed(dir.path());
    assert_eq!(node.raft_status().applied, index);
    elect(&mut node);
    assert!(node.raft_status().term > 9);
    assert_eq!((node.summary().raft_id, node.raft_status().voters), (RaftId(4), vec![RaftId(4)]));
    assert_eq!(vms(&node), ["a", "b"]);
    // At most once holds across the restore, and new writes go on.
    node.ask(create("a", Some(1)), endpoint(1), waiter("again"));
    node.ask(create("c", Some(1)), endpoint(1), waiter("new"));
    node.turn();
    assert_eq!(vms(&node), ["a", "b", "c"]);
    assert!(node.state().vms["c"].placement.generation > index, "a generation is used twice");
    assert_ne!(node.state().cluster_id(), state.cluster_id());
    drop(node);
    let mut node = resumed(dir.path());
    elect(&mut node);
    assert_eq!(vms(&node), ["a", "b", "c"]);
}

#[test]
fn a_backup_of_index_0_begins_at_1() {
    let rebirth = plan_rebirth(ClusterState::new(genesis(1)), 0, founder(0, 5)).expect("planned");
    let (snapshot, hard_state) = &rebirth.begin.log;
    assert_eq!((snapshot.index, hard_state.term, hard_state.commit), (1, 1, 1));
    for (index, term) in [(u64::MAX, 1), (1, u64::MAX)] {
        let refused = plan_rebirth(ClusterState::new(genesis(1)), term, founder(index, 5));
        assert!(matches!(refused, Err(RebirthError::Unusable(_))), "{refused:?}");
    }
}

/// Node 1's store as it was killed: the log of a node of a cluster of three, of which it knows the first
/// `committed` entries to be committed.
fn killed(dir: &Path, entries: &[StoredEntry], committed: u64) {
    let mut kept = open(dir);
    bind(&mut kept, endpoint(1), &name(1), Birth::Formed(genesis(3))).expect("bound");
    let write = LogWrite {
        entries: entries.to_vec(),
        hard_state: Some(HardState { term: 8, vote: 2, commit: committed }),
        sync: true,
        ..LogWrite::default()
    };
    kept.write(&write).expect("written");
}

/// The log of a cluster of one in which these were made: entries from 2 on.
fn log_of(names: &[&'static str]) -> Vec<StoredEntry> {
    let dir = tempfile::tempdir().expect("dir");
    let mut kept = open(dir.path());
    bind(&mut kept, endpoint(1), &name(1), Birth::Formed(genesis(1))).expect("bound");
    let mut node = Alone::of(kept);
    elect(&mut node);
    for vm in names {
        node.ask(create(vm, Some(1)), endpoint(1), waiter(vm));
        node.turn();
    }
    drop(node);
    open(dir.path()).load().expect("read").entries
}

fn recover(dir: &Path, nonce: u64) -> (Begin, u64) {
    let kept = open(dir);
    let remains = read_remains(&kept, &name(1)).expect("read");
    let count = remains.not_known_committed;
    let rebirth = plan_rebirth(remains.state, remains.term, founder(remains.index, nonce)).expect("planned");
    kept.replace(&DirDisk::new(dir), &rebirth.begin, "kept").expect("replaced");
    (rebirth.begin, count)
}

#[test]
fn a_recovered_node_has_all_of_its_log_known_to_be_committed_or_not() {
    let entries = log_of(&["a", "b", "c"]);
    let last = entries.last().expect("some").index;
    for committed in [1, last - 1, last] {
        let dir = tempfile::tempdir().expect("dir");
        killed(dir.path(), &entries, committed);
        let (begin, count) = recover(dir.path(), 5);
        assert_eq!(count, last - committed);
        let mut node = resumed(dir.path());
        assert_eq!(vms(&node), ["a", "b", "c"], "{committed} of {last}");
        elect(&mut node);
        assert!(node.raft_status().term > 8);
        let members: Vec<_> = node.state().nodes.members().map(|m| (m.raft_id, m.role)).collect();
        assert_eq!(members, [(RaftId(4), Role::Voter)]);
        assert_ne!(begin.marker.cluster_id, cluster_id(&genesis(3)));
        drop(node);
        // What it was is kept as it was.
        let disk = DirDisk::new(dir.path());
        blixard_store::StoreDisk::rename(&disk, "kept", FILE_NAME).expect("put back");
        let old = open(dir.path());
        assert_eq!((old.store_id(), old.load().expect("read").entries), (store(1), entries.clone()));
    }
}

#[test]
fn two_recoveries_of_one_log_are_two_clusters() {
    let entries = log_of(&["a"]);
    let ids: Vec<ClusterId> = [5, 6]
        .map(|nonce| {
            let dir = tempfile::tempdir().expect("dir");
            killed(dir.path(), &entries, 1);
            recover(dir.path(), nonce).0.marker.cluster_id
        })
        .into();
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn what_belongs_to_no_cluster_or_to_another_name_or_left_is_not_recovered() {
    let dir = tempfile::tempdir().expect("dir");
    let empty = read_remains(&open(dir.path()), &name(1));
    assert!(matches!(empty, Err(RemainsError::Empty)), "{empty:?}");

    killed(dir.path(), &[], 1);
    let renamed = read_remains(&open(dir.path()), &name(2)).expect_err("another name");
    assert!(renamed.to_string().contains("set node_name back to n1"), "{renamed}");

    // Admitted, and it never got the state.
    let dir = tempfile::tempdir().expect("dir");
    let birth = Birth::Joined {
        contacts: Vec::new(),
        cluster_id: cluster_id(&genesis(3)),
        genesis: genesis(3),
        raft_id: RaftId(4),
    };
    bind(&mut open(dir.path()), endpoint(1), &name(1), birth).expect("bound");
    let no_state = read_remains(&open(dir.path()), &name(1));
    assert!(matches!(no_state, Err(RemainsError::NoMember { .. })), "{no_state:?}");
}

/// The log of a cluster of one that admits node 2 and then removes it: entries from 2 on.
fn log_with_a_removal() -> Vec<StoredEntry> {
    let dir = tempfile::tempdir().expect("dir");
    let mut kept = open(dir.path());
    bind(&mut kept, endpoint(1), &name(1), Birth::Formed(genesis(1))).expect("bound");
    let mut node = Alone::of(kept);
    elect(&mut node);
    let empty = identity(2, store(2), Phase::Empty { promise: None });
    node.note_identity(empty, None).expect("no end");
    let mut admitted = false;
    for _ in 0..100 {
        node.tick();
        node.turn();
        let members = node.state().nodes.member_count();
        admitted |= members == 2;
        if admitted && members == 2 {
            let ask = MembersAsk::Remove { raft_id: RaftId(2), force: true, vms: None };
            node.ask(ask, endpoint(1), waiter("removed"));
        }
        if admitted && members == 1 {
            drop(node);
            return open(dir.path()).load().expect("read").entries;
        }
    }
    panic!("node 2 does not come and go");
}

#[test]
fn changes_of_the_members_are_applied_and_who_they_removed_does_not_recover() {
    let entries = log_with_a_removal();
    let last = entries.last().expect("some").index;
    // The last entry is the removal, or one after it that says nothing of the members.
    let whole = |raft_id: u64, n: u8, entries: &[StoredEntry]| {
        let dir = tempfile::tempdir().expect("dir");
        let cluster = "lab".parse().expect("a name");
        let disk = DirDisk::new(dir.path());
        let mut kept = Store::open(&disk, endpoint(n), &cluster, store(n)).expect("opened");
        let state = ClusterState::new(genesis(1));
        let mut of = marker(genesis(1));
        (of.raft_id, of.node_name) = (RaftId(raft_id), name(n));
        kept.bind(&of, Some(genesis_snapshot(&[RaftId(1)], encode_state(&state)))).expect("bound");
        let hard_state = Some(HardState { term: 8, vote: 0, commit: 1 });
        let entries = entries.to_vec();
        let write = LogWrite { entries, hard_state, sync: true, ..LogWrite::default() };
        kept.write(&write).expect("written");
        read_remains(&kept, &name(n))
    };
    let remains = whole(1, 1, &entries).expect("a member");
    assert_eq!((remains.index, remains.state.next_raft_id), (last, RaftId(3)));
    assert!(remains.state.is_removed(&name(2)), "the removal was not known to be committed, and is kept");
    let gone = whole(2, 2, &entries).expect_err("removed");
    assert!(matches!(gone, RemainsError::NoMember { raft_id: RaftId(2) }), "{gone}");
    // Before it heard of that, it was one.
    let before = entries.iter().rposition(|entry| {
        matches!(entry.look(), Ok((_, EntryContent::Membership(MembershipChange::Remove { .. }))))
    });
    let before = before.expect("a removal");
    assert!(whole(2, 2, &entries[..before]).is_ok());
}

fn marker(genesis: blixard_model::formation::Genesis) -> ClusterMarker {
    ClusterMarker {
        cluster_id: cluster_id(&genesis),
        genesis,
        raft_id: RaftId(1),
        node_name: name(1),
        contacts: Vec::new(),
    }
}

#[test]
fn a_backup_belongs_to_its_cluster_and_to_what_was_made_of_it() {
    let old = ClusterState::new(genesis(3));
    let header = |state: &ClusterState| -> BackupHeader {
        let facts = BackupFacts {
            index: 4,
            term: 1,
            linearizable: true,
            node: name(1),
            version: String::new(),
            made_at_ms: 0,
        };
        decode_backup(&encode_backup(facts, state.clone()).expect("small")).expect("whole").header
    };
    let of_old = header(&old);
    let check = |state: &ClusterState, marker: Option<&ClusterMarker>| {
        check_place((&header(state), state), "lab", marker)
    };
    assert_eq!(check(&old, None), Ok(()), "an empty store");
    assert_eq!(check(&old, Some(&marker(genesis(3)))), Ok(()));
    // Restored once, and again; and the other way round.
    let reborn = plan_rebirth(old.clone(), 1, founder(4, 5)).expect("planned").begin.marker;
    assert_eq!(check(&old, Some(&reborn)), Ok(()));
    let new = ClusterState::new(reborn.genesis.clone());
    assert_eq!(check(&new, Some(&marker(genesis(3)))), Ok(()));
    // Two steps are another cluster, and so is a stranger.
    let twice = plan_rebirth(new.clone(), 1, founder(4, 6)).expect("planned").begin.marker;
    for other in [twice, marker(genesis(2))] {
        let refused = check(&old, Some(&other)).expect_err("another cluster");
        let expected = MisplacedBackup::ClusterId { theirs: of_old.cluster_id, ours: other.cluster_id };
        assert_eq!(refused, expected);
        assert!(refused.to_string().contains("--as-new"), "{refused}");
    }
    let refused = check_place((&of_old, &old), "prod", None).expect_err("another name");
    assert!(refused.to_string().contains("correct cluster_name"), "{refused}");
}
