//! From an empty store to a running node, over a real file.

use std::collections::BTreeMap;
use std::path::Path;

use blixard_consensus::{Durable, Limits};
use blixard_core::genesis::cluster_id;
use blixard_model::formation::{Genesis, Identity, Origin, Phase};
use blixard_model::{ClusterVersion, EndpointId, RaftId, StoreId};
use blixard_node::Node;
use blixard_node::forming::{Birth, Configured, Formed, decide};
use blixard_node::host::disk::{BindError, Kept, Write, bind, carry_out};
use blixard_node::resume::{Resume, ResumeError, resume};
use blixard_store::{DirDisk, Store};

use crate::group::{Waiter, declared, endpoint, genesis, identity, name, store};

/// Node 1's store in this directory; made under store id 1.
fn open(dir: &Path) -> Store {
    let cluster = "lab".parse().expect("a name");
    Store::open(&DirDisk::new(dir), endpoint(1), &cluster, store(1)).expect("opened")
}

/// Nodes 2 and 3 with empty stores and this promise.
fn others(promise: Option<&Genesis>) -> BTreeMap<EndpointId, Identity> {
    let other = |n| (endpoint(n), identity(n, store(n), Phase::Empty { promise: promise.cloned() }));
    [other(2), other(3)].into()
}

fn step(kept: &mut Store, answers: &BTreeMap<EndpointId, Identity>) -> Formed {
    let me = identity(1, kept.store_id(), Phase::Empty { promise: kept.promise().cloned() });
    let cluster = "lab".parse().expect("a name");
    let list = declared(3);
    let configured = Configured { cluster_name: &cluster, declared: &list, joins: false };
    let formed = decide(&me, configured, answers);
    if let Formed::Promised(genesis) = &formed {
        let promise = Write::Promise(Box::new(genesis.clone()));
        carry_out(kept, (endpoint(1), &name(1)), &promise).expect("written");
    }
    formed
}

/// What the store holds.
fn loaded(store: &Store) -> Kept {
    Kept::load(store).expect("read").expect("bound")
}

fn who(n: u8) -> Resume {
    Resume {
        supports: ClusterVersion::NEWEST,
        voter_lost_ticks: 600,
        name: name(n),
        declared: declared(3),
        incarnation: 1,
        limits: Limits::default(),
    }
}

type Resumed = Result<Node<Waiter, Waiter>, ResumeError>;

#[test]
fn a_promise_is_on_disk_before_it_is_told_and_a_birth_after_all_promised() {
    let dir = tempfile::tempdir().expect("dir");
    let mut kept = open(dir.path());
    let Formed::Waiting(missing) = step(&mut kept, &BTreeMap::new()) else { panic!("alone") };
    assert_eq!(missing, ["n2: has not answered", "n3: has not answered"]);
    assert_eq!(kept.promise(), None);

    let Formed::Promised(promised) = step(&mut kept, &others(None)) else { panic!("all are there") };
    assert_eq!(promised, genesis(3));
    drop(kept);
    let mut kept = open(dir.path());
    assert_eq!(kept.promise(), Some(&promised), "it is told and not kept");

    // The others have not promised; then they have.
    assert!(matches!(step(&mut kept, &others(None)), Formed::Waiting(_)));
    let born = step(&mut kept, &others(Some(&promised)));
    assert!(matches!(born, Formed::Born(Birth::Formed(of)) if of == promised));
    assert_eq!(kept.cluster(), None, "bound by `bind` alone");
}

#[test]
fn a_birth_binds_marker_and_log_together_and_resumes() {
    let dir = tempfile::tempdir().expect("dir");
    let mut kept = open(dir.path());
    bind(&mut kept, endpoint(1), &name(1), Birth::Formed(genesis(3))).expect("bound");
    drop(kept);
    let kept = open(dir.path());
    let marker = kept.cluster().expect("bound");
    assert_eq!((marker.cluster_id, marker.raft_id), (cluster_id(&genesis(3)), RaftId(1)));
    let log = kept.load().expect("read");
    assert_eq!((log.hard_state.term, log.hard_state.commit, log.snapshot.map(|s| s.index)), (1, 1, Some(1)));

    let node = (resume(loaded(&kept), who(1)) as Resumed).expect("resumed");
    assert_eq!(node.summary().raft_id, RaftId(1));
    assert_eq!(node.raft_status().voters, [1, 2, 3].map(RaftId));
    assert_eq!(node.state().nodes.member_count(), 3);
}

#[test]
fn what_joins_later_begins_with_an_empty_log_and_no_vote() {
    let dir = tempfile::tempdir().expect("dir");
    let mut kept = open(dir.path());
    let birth = Birth::Joined {
        contacts: Vec::new(),
        cluster_id: cluster_id(&genesis(3)),
        genesis: genesis(3),
        raft_id: RaftId(4),
    };
    bind(&mut kept, endpoint(1), &name(1), birth).expect("bound");
    drop(kept);
    let kept = open(dir.path());
    assert_eq!(kept.load().expect("read"), Durable::default());
    let node = (resume(loaded(&kept), who(1)) as Resumed).expect("resumed");
    assert_eq!((node.summary().raft_id, node.summary().is_member), (RaftId(4), false));
}

#[test]
fn a_genesis_of_another_store_or_of_others_binds_nothing() {
    let mut lost_since = genesis(3);
    lost_since.voters[0].store_id = StoreId::from_bytes([99; 16]);
    let mut of_others = genesis(3);
    of_others.voters.remove(0);
    let mut made_of_another = genesis(3);
    let cluster_id = cluster_id(&genesis(2));
    made_of_another.origin = Some(Origin { cluster_id, index: 4, nonce: 5 });
    for genesis in [lost_since, of_others, made_of_another] {
        let dir = tempfile::tempdir().expect("dir");
        let mut kept = open(dir.path());
        let refused = bind(&mut kept, endpoint(1), &name(1), Birth::Formed(genesis));
        assert!(matches!(refused, Err(BindError::NotInGenesis)), "{refused:?}");
        drop(kept);
        let kept = open(dir.path());
        assert_eq!((kept.cluster(), kept.load().expect("read")), (None, Durable::default()));
    }
}

#[test]
fn an_unbound_store_and_a_renamed_node_do_not_resume() {
    let dir = tempfile::tempdir().expect("dir");
    assert!(Kept::load(&open(dir.path())).expect("read").is_none());

    let mut kept = open(dir.path());
    bind(&mut kept, endpoint(1), &name(1), Birth::Formed(genesis(3))).expect("bound");
    let renamed: Resumed = resume(loaded(&kept), who(2));
    let error = renamed.expect_err("resumed under another name");
    assert!(matches!(error, ResumeError::Renamed { .. }), "{error:?}");
    assert!(error.to_string().contains("set node_name back to n1"), "{error}");
}
