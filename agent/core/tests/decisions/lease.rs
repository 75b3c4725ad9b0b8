//! Who is granted a lease, when one is over, and what becomes of the VMs of a node that is lost.

use blixard_core::ClusterState;
use blixard_core::lease::{Grantor, Holder, LeaseFound, LeaseStep, permits};
use blixard_core::lineage::{self, Founder};
use blixard_core::state::LeaseTable;
use blixard_model::{
    BootId, ClusterId, Command, Desired, GrantId, HoldAsk, LeaseDenial, LeaseFile, LeaseGrant, LeaseRenewal,
    LeaseStanding, LeaseTerms, LeaseTermsChoice, MembershipChange, NodeName, OnNodeLoss, Outcome, RaftId,
    VmSpec,
};

use crate::common::{Cluster, name, node, spec};

pub(crate) const TERMS: LeaseTerms = LeaseTerms::DEFAULT;
pub(crate) const BOOT: BootId = BootId::from_bytes([1; 16]);
pub(crate) const NEXT_BOOT: BootId = BootId::from_bytes([2; 16]);
/// What the wall clock says.
pub(crate) const WALL_MS: u64 = 1_700_000_000_000;
/// How long a leader waits after a grant.
pub(crate) const WAIT_MS: u64 = 17_304;

pub(crate) fn enforce(n: u64, boot_id: BootId, epoch: u64) -> Command {
    Command::EnforceLease { raft_id: RaftId(n), boot_id, epoch }
}

/// Three nodes, of which n1 and n2 obey leases.
pub(crate) fn cluster() -> Cluster {
    let mut cluster = Cluster::of(3);
    cluster.apply(enforce(1, BOOT, 1));
    cluster.apply(enforce(2, BOOT, 1));
    cluster
}

pub(crate) fn renewal(quote: Option<GrantId>) -> LeaseRenewal {
    LeaseRenewal { boot_id: BOOT, quote }
}

pub(crate) fn renew(
    grantor: &mut Grantor,
    now_ms: u64,
    table: &LeaseTable,
    renewal: LeaseRenewal,
) -> Result<GrantId, LeaseDenial> {
    grantor.note_holders(now_ms, table);
    let granted = grantor.renew(now_ms, table, (&node("n2"), RaftId(2)), (&renewal, 9));
    granted.map(|(grant, length_ms)| {
        assert_eq!(length_ms, TERMS.lease_ms);
        grant
    })
}

#[test]
fn a_file_that_stays_the_same_is_written_again_in_case_it_was_lost() {
    let state = Cluster::of(1).state;
    let mut holder = holder(None);
    let file = holder.look(step(&state, 0, 1)).expect("a file");
    holder.note_written(0, true);
    let again_ms = TERMS.settle_ms / 6;
    assert_eq!(holder.look(step(&state, again_ms - 1, 1)), None);
    assert_eq!(holder.look(step(&state, again_ms, 1)), Some(file));
    holder.note_written(again_ms, true);
    assert_eq!(holder.look(step(&state, 2 * again_ms - 1, 1)), None);
}

#[test]
fn a_file_is_written_at_once_when_other_vms_are_placed_here() {
    let mut before = cluster();
    on(&mut before, "web", "n1");
    on(&mut before, "db", "n2");
    let mut holder = holder(None);
    let mut listed = |cluster: &Cluster, now_ms| {
        let file = holder.look(step(&cluster.state, now_ms, 4))?;
        holder.note_written(now_ms, true);
        Some(file.vms.into_keys().map(|name| name.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(listed(&before, 0), Some(vec!["web".to_owned()]));
    assert_eq!(listed(&before, 1), None);
    let mut more = cluster();
    for (vm, at) in [("web", "n1"), ("db", "n1"), ("dns", "n2")] {
        on(&mut more, vm, at);
    }
    assert_eq!(listed(&more, 2), Some(vec!["db".to_owned(), "web".to_owned()]));
    let mut anew = cluster();
    for (vm, at) in [("db", "n1"), ("web", "n1")] {
        on(&mut anew, vm, at);
    }
    assert!(listed(&anew, 3).is_some(), "placed anew, under the same names");
    assert_eq!(listed(&anew, 4), None);
    assert_eq!(listed(&cluster(), 5), Some(Vec::new()));
}

#[test]
fn only_who_says_that_it_obeys_leases_in_this_boot_gets_one() {
    let mut cluster = cluster();
    let mut grantor = Grantor::new(3, TERMS, 0);
    let granted = renew(&mut grantor, 5, &cluster.state.leases, renewal(None));
    assert_eq!(granted, Ok(GrantId { term: 3, number: 1, index: 9 }), "no other boot of it has ever had one");
    let other = LeaseRenewal { boot_id: NEXT_BOOT, quote: None };
    let refused = renew(&mut grantor, 5, &cluster.state.leases, other);
    assert_eq!(refused, Err(LeaseDenial::NotEnforced));
    let table = &cluster.state.leases;
    let third = grantor.renew(5, table, (&node("n3"), RaftId(3)), (&renewal(None), 9));
    assert_eq!(third, Err(LeaseDenial::NotEnforced));
    // Another store of the name has not said so.
    let store = grantor.renew(5, table, (&node("n2"), RaftId(7)), (&renewal(None), 9));
    assert_eq!(store, Err(LeaseDenial::NotEnforced));
    // With another time of enforcement it has to say so anew.
    cluster.change_offer(2, |offer| offer.witness = true);
    cluster.change_offer(3, |offer| offer.witness = true);
    cluster.apply(Command::ForgetVms { node: node("n9") });
    assert!(!is_done(&cluster.apply(enforce(9, BOOT, 1))));
}

#[test]
fn another_boot_waits_until_the_lease_of_the_one_before_is_over() {
    let mut cluster = cluster();
    let mut grantor = Grantor::new(3, TERMS, 0);
    renew(&mut grantor, 1_000, &cluster.state.leases, renewal(None)).expect("granted");
    assert!(is_done(&cluster.apply(enforce(2, NEXT_BOOT, 1))));
    let after = |quote| LeaseRenewal { boot_id: NEXT_BOOT, quote };
    let refused = renew(&mut grantor, 1_100, &cluster.state.leases, after(None));
    assert_eq!(refused, Err(LeaseDenial::EarlierBoot { wait_ms: WAIT_MS - 100 }), "from the last grant on");
    // The one before is not what the log says any more.
    let before = renew(&mut grantor, 1_200, &cluster.state.leases, renewal(None));
    assert_eq!(before, Err(LeaseDenial::NotEnforced));
    let at_ms = 1_000 + WAIT_MS;
    assert!(renew(&mut grantor, at_ms - 1, &cluster.state.leases, after(None)).is_err());
    let granted = renew(&mut grantor, at_ms, &cluster.state.leases, after(None)).expect("granted");
    // A leader that has just begun does not know for how long it has been so, unless the node shows a grant.
    let mut next = Grantor::new(4, TERMS, 0);
    let refused = renew(&mut next, 0, &cluster.state.leases, after(None));
    assert_eq!(refused, Err(LeaseDenial::EarlierBoot { wait_ms: WAIT_MS }));
    // One from before the log said that it is this boot: it may have been another time of the same boot.
    let early = GrantId { index: 2, ..granted };
    assert!(renew(&mut next, 10, &cluster.state.leases, after(Some(early))).is_err());
    assert!(renew(&mut next, 11, &cluster.state.leases, after(Some(granted))).is_ok());
}

#[test]
fn who_does_not_show_that_it_received_its_grants_gets_no_more_of_them() {
    let cluster = cluster();
    let table = &cluster.state.leases;
    let mut grantor = Grantor::new(3, TERMS, 0);
    let first = renew(&mut grantor, 0, table, renewal(None)).expect("granted");
    assert!(!grantor.holds(0, &node("n2")), "it may not know of it");
    let second = renew(&mut grantor, 3_000, table, renewal(Some(first))).expect("granted");
    assert!(grantor.holds(9_999, &node("n2")) && !grantor.holds(10_000, &node("n2")));
    for at_ms in [6_000, 9_000, 12_000] {
        renew(&mut grantor, at_ms, table, renewal(Some(first))).expect("some may be lost");
    }
    let refused = renew(&mut grantor, 13_000, table, renewal(Some(first)));
    assert_eq!(refused, Err(LeaseDenial::NotReceived));
    assert_eq!(grantor.over_ms(&node("n2")), 12_000 + WAIT_MS, "what was refused keeps nobody waiting");
    assert!(renew(&mut grantor, 13_100, table, renewal(Some(second))).is_ok(), "it has received one more");
    let newest = GrantId { term: 3, number: 6, index: 9 };
    assert!(renew(&mut grantor, 13_200, table, renewal(Some(newest))).is_ok());
}

#[test]
fn a_node_is_lost_when_all_of_its_leases_are_certainly_over() {
    let cluster = cluster();
    let (table, n2) = (&cluster.state.leases, node("n2"));
    let mut grantor = Grantor::new(3, TERMS, 500);
    let holds = LeaseStanding::Holds { left_ms: 9_900 };
    assert_eq!(grantor.standing(600, &n2), holds, "the leader before may have granted one");
    assert_eq!(grantor.standing(500 + WAIT_MS - 1, &n2), LeaseStanding::Suspect { lost_in_ms: 1 });
    assert_eq!(grantor.standing(500 + WAIT_MS, &n2), LeaseStanding::Lost);
    renew(&mut grantor, 10_000, table, renewal(None)).expect("granted");
    assert_eq!(grantor.standing(500 + WAIT_MS, &n2), LeaseStanding::Suspect { lost_in_ms: 9_500 });
    assert_eq!(grantor.standing(10_000 + WAIT_MS, &n2), LeaseStanding::Lost);
    // Until the log has decided, nothing more is granted.
    grantor.note_verdict(&n2);
    let refused = renew(&mut grantor, 30_000, table, renewal(None));
    assert_eq!(refused, Err(LeaseDenial::Lost));
    grantor.note_verdict_ended(&n2);
    assert!(renew(&mut grantor, 30_001, table, renewal(None)).is_ok(), "the log did not take it");
}

pub(crate) fn holder(found: Option<LeaseFile>) -> Holder {
    Holder::new(node("n1"), (BOOT, cluster_id()), TERMS, found.into(), 0)
}

pub(crate) fn cluster_id() -> ClusterId {
    Cluster::of(1).state.cluster_id()
}

pub(crate) fn step(state: &ClusterState, now_ms: u64, applied: u64) -> LeaseStep<'_> {
    LeaseStep { now_ms, state, applied, raft_id: RaftId(1), up_to_date: true, wall_ms: WALL_MS }
}

pub(crate) fn grant(number: u64, index: u64) -> LeaseGrant {
    LeaseGrant { grant: GrantId { term: 3, number, index }, length_ms: TERMS.lease_ms }
}

#[test]
fn a_lease_is_counted_from_its_renewal_and_counts_once_the_log_is_applied() {
    let mut cluster = cluster();
    cluster.create(VmSpec { node: Some(node("n1")), ..spec("web") });
    let mut holder = holder(None);
    let nothing = holder.look(step(&cluster.state, 0, 4)).expect("what may be known of an earlier one ends");
    assert_eq!((nothing.until_ms, nothing.grant), (Some(0), None));
    holder.note_written(0, true);
    let sent = holder.renewal(step(&cluster.state, 1_000, 4)).expect("due");
    assert_eq!((sent.boot_id, sent.quote), (BOOT, None));
    assert_eq!(holder.renewal(step(&cluster.state, 1_001, 4)), None, "a third of the lease has to pass");
    holder.note_granted(1_000, grant(1, 9));
    assert_eq!(holder.look(step(&cluster.state, 1_500, 8)), None, "it may not be placed here any more");
    let file = holder.look(step(&cluster.state, 1_500, 9)).expect("a file");
    let generation = cluster.state.vms[&name("web")].placement.generation;
    assert_eq!((file.until_ms, file.vms.get(&name("web"))), (Some(11_000), Some(&generation)));
    assert_eq!(holder.file(), Some(&nothing), "it is not written yet");
    assert_eq!(holder.look(step(&cluster.state, 1_600, 9)), None, "it is being written");
    holder.note_written(1_600, false);
    assert_eq!(holder.look(step(&cluster.state, 1_700, 9)), None, "it pauses");
    assert_eq!(holder.look(step(&cluster.state, 2_600, 9)), Some(file.clone()));
    holder.note_written(2_600, true);
    let known = holder.file();
    assert!(permits(known, 10_999, &name("web"), generation));
    assert!(!permits(known, 11_000, &name("web"), generation), "it is over");
    assert!(!permits(known, 5_000, &name("web"), generation + 1) && !permits(known, 5_000, &name("db"), 1));
    let next = holder.renewal(step(&cluster.state, 4_333, 9)).expect("due");
    assert_eq!(next.quote, Some(GrantId { term: 3, number: 1, index: 9 }));
}

#[test]
fn alone_a_node_needs_no_lease_and_obeys_them_before_it_says_so() {
    let mut state = Cluster::of(1).state;
    let mut holder = holder(None);
    let early = LeaseStep { up_to_date: false, ..step(&state, 0, 1) };
    assert_eq!(holder.look(early), None, "an old log may know nothing of the others");
    let file = holder.look(step(&state, 0, 1)).expect("a file");
    assert_eq!(file.until_ms, None);
    holder.note_written(0, true);
    assert_eq!(holder.renewal(step(&state, 0, 1)), None);
    state = Cluster::of(2).state;
    let begins = |now_ms| step(&state, now_ms, 2);
    assert_eq!(holder.enforces(begins(50)), None, "the file has no end yet");
    assert_eq!(holder.look(begins(100)).map(|file| file.until_ms), Some(Some(10_100)));
    assert_eq!(holder.enforces(begins(100)), None, "it is not written yet");
    holder.note_written(110, true);
    let settled_ms = 110 + TERMS.settle_ms;
    for now_ms in (1_000..settled_ms).step_by(1_000) {
        assert_eq!(holder.enforces(begins(now_ms)), None, "a supervisor may not have read it yet");
        if let Some(file) = holder.look(begins(now_ms)) {
            assert_eq!(file.until_ms, Some(now_ms + TERMS.lease_ms), "it goes on by itself");
            holder.note_written(now_ms, true);
        }
        let until_ms = holder.file().and_then(|file| file.until_ms);
        assert!(until_ms.is_some_and(|until_ms| until_ms > now_ms + 5_000), "{now_ms}");
    }
    assert_eq!(holder.enforces(begins(settled_ms)), None, "the next agent could not know of it");
    let file = holder.look(begins(settled_ms)).expect("it is noted");
    assert_eq!(file.enforces, Some(1));
    holder.note_written(settled_ms, true);
    assert_eq!(holder.enforces(begins(settled_ms)), Some(1));
    assert_eq!(holder.enforces(begins(settled_ms + 1)), None, "it is on its way");
}

#[test]
fn an_agent_that_follows_gives_itself_no_lease_once_the_one_before_may_have_told_the_log() {
    let mut state = Cluster::of(2).state;
    let found = |until_ms, enforces| {
        holder(Some(LeaseFile {
            boot_id: BOOT,
            cluster_id: cluster_id(),
            until_ms: Some(until_ms),
            grant: None,
            enforces,
            vms: [(name("web"), 3)].into(),
        }))
    };
    let mut told = found(9_000, Some(1));
    for now_ms in (0..9_000).step_by(500) {
        if let Some(file) = told.look(step(&state, now_ms, 2)) {
            assert_eq!((file.until_ms, file.enforces), (Some(9_000), Some(1)));
            told.note_written(now_ms, true);
        }
    }
    assert_eq!(told.enforces(step(&state, 9_000, 2)), Some(1), "it need not settle once more");
    // One that has not may go on by itself, also when that was at an earlier time of enforcement.
    for (enforces, epoch) in [(None, 1), (Some(1), 2)] {
        state.leases.epoch = epoch;
        let mut untold = found(9_000, enforces);
        assert_eq!(untold.look(step(&state, 8_000, 2)).and_then(|file| file.until_ms), Some(18_000));
        untold.note_written(8_000, true);
        assert_eq!(untold.enforces(step(&state, 8_000 + TERMS.settle_ms - 1, 2)), None);
    }
    // A long lease that was announced at an earlier time is none any more, and has to be settled.
    let mut long = found(900_000, Some(1));
    assert_eq!(long.look(step(&state, 0, 2)).and_then(|file| file.until_ms), Some(10_000));
    long.note_written(100, true);
    for now_ms in (1_000..100 + TERMS.settle_ms).step_by(1_000) {
        assert_eq!(long.enforces(step(&state, now_ms, 2)), None, "a supervisor may not have read it yet");
        if long.look(step(&state, now_ms, 2)).is_some() {
            long.note_written(now_ms, true);
        }
    }
}

#[test]
fn shorter_terms_let_no_node_give_itself_a_lease_once_it_may_have_told_the_log() {
    let mut state = Cluster::of(2).state;
    let found = |until_ms| LeaseFile {
        boot_id: BOOT,
        cluster_id: cluster_id(),
        until_ms: Some(until_ms),
        grant: None,
        enforces: Some(1),
        vms: [(name("web"), 3)].into(),
    };
    let choice = |lease_ms| LeaseTermsChoice { lease_ms, stop_ms: 5_000, margin_ms: 2_000 };
    state.leases.terms = Some(choice(60_000));
    let mut told = holder(Some(found(60_000)));
    for now_ms in (0..60_000).step_by(1_000) {
        if now_ms == 5_000 {
            state.leases.terms = Some(choice(3_000));
        }
        if let Some(file) = told.look(step(&state, now_ms, 2)) {
            assert_eq!(file.until_ms, Some(60_000), "whoever leads may wait for that alone");
            told.note_written(now_ms, true);
        }
    }
}

#[test]
fn an_agent_that_finds_units_and_no_file_waits_until_none_can_know_of_a_lease_without_an_end() {
    let mut placed = Cluster::of(2);
    on(&mut placed, "web", "n1");
    let found = LeaseFound { file: None, units_run: true };
    let mut lost = Holder::new(node("n1"), (BOOT, cluster_id()), TERMS, found, 0);
    for now_ms in (0..TERMS.settle_ms).step_by(1_000) {
        if let Some(file) = lost.look(step(&placed.state, now_ms, 9)) {
            assert_eq!((file.until_ms, file.enforces), (Some(0), None), "it may have told the log before");
            lost.note_written(now_ms, true);
        }
        assert_eq!(lost.enforces(step(&placed.state, now_ms, 9)), None);
    }
    let settled_ms = TERMS.settle_ms;
    assert_eq!(lost.look(step(&placed.state, settled_ms, 9)).and_then(|file| file.enforces), Some(1));
    lost.note_written(settled_ms, true);
    assert_eq!(lost.enforces(step(&placed.state, settled_ms, 9)), Some(1));
}

#[test]
fn an_agent_of_a_new_boot_has_nothing_to_settle_whatever_is_placed_there() {
    let mut placed = Cluster::of(2);
    on(&mut placed, "web", "n1");
    let mut fresh = holder(None);
    for what in ["a file", "it is noted"] {
        fresh.look(step(&placed.state, 0, 9)).expect(what);
        fresh.note_written(0, true);
    }
    assert_eq!(fresh.enforces(step(&placed.state, 0, 9)), Some(1));
}

#[test]
fn shorter_terms_are_taken_up_with_a_renewal_at_once() {
    let mut cluster = cluster();
    let mut holder = holder(None);
    holder.look(step(&cluster.state, 0, 9)).expect("a file");
    holder.note_written(0, true);
    assert!(holder.renewal(step(&cluster.state, 0, 9)).is_some());
    assert!(holder.renewal(step(&cluster.state, 100, 9)).is_none());
    cluster.state.leases.terms = Some(LeaseTermsChoice { lease_ms: 3_000, stop_ms: 5_000, margin_ms: 2_000 });
    holder.look(step(&cluster.state, 100, 9));
    assert!(holder.renewal(step(&cluster.state, 100, 9)).is_some());
}

#[test]
fn a_store_that_has_booted_since_leases_were_needed_waits_for_nobody() {
    let mut cluster = cluster();
    let hold = HoldAsk { boot_id: BOOT, begins_ms: 0, length_ms: 120_000 };
    assert!(is_done(&cluster.apply(Command::TakeHold { raft_id: RaftId(1), hold })));
    cluster.state.leases.epoch = 2;
    assert!(is_done(&cluster.apply(enforce(1, NEXT_BOOT, 2))));
    let holder = cluster.state.leases.holder(&node("n1")).expect("it obeys them");
    assert!(holder.is_first && holder.hold.is_none(), "{holder:?}");
    // At the same time of enforcement another boot waits.
    assert!(is_done(&cluster.apply(enforce(1, BOOT, 2))));
    assert!(!cluster.state.leases.holder(&node("n1")).expect("it obeys them").is_first);
}

#[test]
fn what_an_agent_finds_counts_in_this_boot_and_this_cluster_alone() {
    let grant = Some(GrantId { term: 2, number: 9, index: 5 });
    let file = |boot_id, cluster_id| LeaseFile {
        boot_id,
        cluster_id,
        until_ms: Some(5_000),
        grant,
        enforces: None,
        vms: [(name("web"), 3)].into(),
    };
    let found = holder(Some(file(BOOT, cluster_id())));
    assert!(permits(found.file(), 0, &name("web"), 3));
    let cluster = cluster();
    let mut found = found;
    let old_log = LeaseStep { up_to_date: false, ..step(&cluster.state, 0, 9) };
    assert_eq!((found.look(old_log), found.renewal(old_log)), (None, None), "it may be older than the file");
    assert_eq!(found.enforces(step(&cluster.state, 0, 9)), None, "it has not said so itself yet");
    let again = found.look(step(&cluster.state, 0, 9)).expect("it says so again");
    assert_eq!((again.until_ms, again.grant, again.vms.len()), (Some(5_000), grant, 0));
    assert_eq!(found.renewal(step(&cluster.state, 0, 9)).and_then(|renewal| renewal.quote), grant);
    for other in [file(NEXT_BOOT, cluster_id()), file(BOOT, Cluster::of(3).state.cluster_id())] {
        assert!(holder(Some(other)).file().is_none());
    }
}

pub(crate) fn lost(n: &str) -> Command {
    let eligible = vec![node("n1"), node("n2"), node("n3")];
    Command::NodeLost { node: node(n), term: 3, eligible, seen: None }
}

pub(crate) fn on(cluster: &mut Cluster, vm: &str, at: &str) {
    cluster.eligible = vec![node(at)];
    assert!(is_done(&cluster.create(spec(vm))));
}

pub(crate) fn place(cluster: &Cluster, vm: &str) -> Option<NodeName> {
    cluster.state.vms.get(&name(vm)).map(|vm| vm.placement.node.clone())
}

#[test]
fn the_vms_of_a_lost_node_go_where_there_is_room_and_those_that_are_kept_stay() {
    let mut cluster = cluster();
    on(&mut cluster, "web", "n2");
    on(&mut cluster, "db", "n2");
    on(&mut cluster, "gone", "n2");
    cluster.apply(Command::DeleteVm { name: name("gone") });
    cluster.create(VmSpec { node: Some(node("n2")), ..spec("pinned") });
    assert_eq!(cluster.state.vms[&name("web")].spec.on_node_loss, Some(OnNodeLoss::Failover), "chosen");
    assert_eq!(cluster.state.vms[&name("pinned")].spec.on_node_loss, Some(OnNodeLoss::Keep));
    // Of a node that has not said that it obeys leases nothing is known.
    assert_eq!(cluster.apply(lost("n3")), Outcome::unchanged(Some(node("n3"))));
    let before = cluster.state.vms[&name("web")].placement.generation;
    assert!(is_done(&cluster.apply(lost("n2"))));
    assert_ne!(place(&cluster, "web"), Some(node("n2")));
    assert_ne!(place(&cluster, "db"), Some(node("n2")));
    assert!(cluster.state.vms[&name("web")].placement.generation > before, "by another order");
    assert_eq!(place(&cluster, "pinned"), Some(node("n2")));
    assert_eq!(place(&cluster, "gone"), None, "nobody is left who would say that it is gone");
    assert_eq!(cluster.apply(lost("n2")), Outcome::unchanged(Some(node("n2"))), "nothing is left to move");
    // It has to say anew that it obeys leases.
    let mut grantor = Grantor::new(3, TERMS, 0);
    assert_eq!(renew(&mut grantor, 0, &cluster.state.leases, renewal(None)), Err(LeaseDenial::NotEnforced));
    cluster.apply(enforce(2, BOOT, 1));
    assert!(renew(&mut grantor, 0, &cluster.state.leases, renewal(None)).is_ok());
}

#[test]
fn a_vm_without_room_elsewhere_waits_and_goes_once_it_fits() {
    let mut cluster = cluster();
    cluster.eligible = vec![node("n2")];
    cluster.create(VmSpec { memory_mib: 1_600, ..spec("web") });
    let others = [node("n1"), node("n3")];
    for (vm, at) in [("fills-n1", "n1"), ("fills-n3", "n3")] {
        cluster.eligible = vec![node(at)];
        cluster.create(VmSpec { memory_mib: 1_000, ..spec(vm) });
    }
    assert!(!cluster.state.would_move(&node("n2"), &others), "there is no room");
    cluster.apply(lost("n2"));
    assert_eq!(place(&cluster, "web"), Some(node("n2")));
    // Its spec before asked for a lease as well: nothing of it can run any more.
    let smaller = VmSpec { memory_mib: 256, ..cluster.state.vms[&name("web")].spec.clone() };
    assert!(is_done(&cluster.apply(Command::ChangeVm { spec: smaller, seen: None })));
    assert!(cluster.state.would_move(&node("n2"), &others));
    assert!(is_done(&cluster.apply(lost("n2"))));
    assert_ne!(place(&cluster, "web"), Some(node("n2")));
    assert_eq!(cluster.state.vms[&name("web")].held, None);
}

#[test]
fn a_vm_that_was_kept_is_taken_over_once_its_node_says_that_nothing_runs_as_before() {
    let mut cluster = cluster();
    cluster.eligible = vec![node("n2")];
    cluster.create(VmSpec { on_node_loss: Some(OnNodeLoss::Keep), ..spec("web") });
    let fails_over = VmSpec { on_node_loss: Some(OnNodeLoss::Failover), ..spec("web") };
    assert!(is_done(&cluster.apply(Command::ChangeVm { spec: fails_over.clone(), seen: None })));
    let larger = VmSpec { memory_mib: 512, ..fails_over };
    assert!(is_done(&cluster.apply(Command::ChangeVm { spec: larger, seen: None })));
    cluster.apply(lost("n2"));
    assert_eq!(place(&cluster, "web"), Some(node("n2")), "its unit may run by a spec that asks for no lease");
    let order = cluster.state.vms[&name("web")].order_id();
    cluster.apply(Command::ConfirmSpec { name: name("web"), node: node("n2"), order });
    assert!(is_done(&cluster.apply(lost("n2"))));
    assert_ne!(place(&cluster, "web"), Some(node("n2")));
}

#[test]
fn a_node_that_begins_to_obey_leases_is_waited_for_from_then_on() {
    let mut cluster = Cluster::of(3);
    let mut grantor = Grantor::new(3, TERMS, 0);
    cluster.apply(enforce(2, BOOT, 1));
    // A leader that has led for long, and a node that has given itself a lease just before.
    grantor.note_holders(90_000, &cluster.state.leases);
    let n2 = node("n2");
    assert_eq!(grantor.standing(90_000, &n2), LeaseStanding::Holds { left_ms: TERMS.lease_ms });
    assert_eq!(grantor.standing(90_000 + WAIT_MS - 1, &n2), LeaseStanding::Suspect { lost_in_ms: 1 });
    assert_eq!(grantor.standing(90_000 + WAIT_MS, &n2), LeaseStanding::Lost);
}

#[test]
fn a_cluster_made_of_another_takes_nobody_for_lost_by_what_was_said_there() {
    let mut old = cluster();
    on(&mut old, "web", "n2");
    let me = old.state.member_by_name(&node("n1")).expect("a member").node.to_facts();
    let cluster_name = "lab".parse().expect("a name");
    let founder = Founder { me, cluster_name, index: 9, nonce: 7 };
    let state = lineage::begin(old.state, founder).expect("begins").state;
    assert!(!state.leases.is_on && state.leases.holder(&node("n2")).is_none());
}

#[test]
fn a_cluster_made_of_another_waits_for_nothing_that_was_said_there() {
    let mut old = cluster();
    on(&mut old, "web", "n2");
    old.apply(Command::Disarm { for_ms: 3_600_000, at_ms: WALL_MS });
    let hold = HoldAsk { boot_id: BOOT, begins_ms: 0, length_ms: 3_600_000 };
    assert!(is_done(&old.apply(Command::TakeHold { raft_id: RaftId(1), hold })));
    let joins = old.state.nodes.members().find(|member| *member.node.name == node("n3"));
    let mut joins = joins.expect("a member").to_member();
    let me = old.state.member_by_name(&node("n1")).expect("a member").node.to_facts();
    let cluster_name = "lab".parse().expect("a name");
    let founder = Founder { me, cluster_name, index: 9, nonce: 7 };
    let mut state = lineage::begin(old.state.clone(), founder).expect("begins").state;
    let me = state.member_by_name(&node("n1")).expect("the founder").raft_id;
    // With a second one leases are needed again. The founder's machine has booted since.
    (joins.raft_id, joins.role) = (state.next_raft_id, blixard_model::Role::Learner);
    state.apply_membership(&MembershipChange::AddLearner { member: joins, ticket: None });
    assert!(state.leases.is_on);
    let mut new = old;
    new.state = state;
    let epoch = new.state.leases.epoch;
    let obeys = Command::EnforceLease { raft_id: me, boot_id: NEXT_BOOT, epoch };
    assert!(is_done(&new.apply(obeys)));
    let mut grantor = Grantor::new(3, TERMS, 0);
    grantor.note_holders(0, &new.state.leases);
    let asked = LeaseRenewal { boot_id: NEXT_BOOT, quote: None };
    let granted = grantor.renew(0, &new.state.leases, (&node("n1"), me), (&asked, 9));
    assert!(granted.is_ok(), "{granted:?}");
    // Nor are VMs taken from those that were given up, which may still run them.
    assert_eq!(grantor.verdicts(3_600_000 * 24, (&new.state, true), &std::collections::BTreeSet::new()), []);
}

#[test]
fn a_node_that_comes_back_under_another_name_shows_what_its_leader_granted_it_last() {
    let mut cluster = cluster();
    on(&mut cluster, "web", "n2");
    let grant = |number, index| GrantId { term: 3, number, index };
    // What is left of its time as n3: the leader has counted further there.
    let mut file = holder(None).look(step(&cluster.state, 0, 2)).expect("a file");
    file.grant = Some(grant(9_000, 2));
    let mut grantor = Grantor::new(3, TERMS, 0);
    let mut holder = holder(Some(file));
    for now_ms in (0..60_000).step_by(3_000) {
        let quote = holder.file().and_then(|file| file.grant);
        let got = renew(&mut grantor, now_ms, &cluster.state.leases, renewal(quote)).expect("granted");
        holder.note_granted(now_ms, LeaseGrant { grant: got, length_ms: TERMS.lease_ms });
        if holder.look(LeaseStep { applied: 9, ..step(&cluster.state, now_ms, 2) }).is_some() {
            holder.note_written(now_ms, true);
        }
    }
    assert!(grantor.holds(60_000, &node("n2")));
}

#[test]
fn a_verdict_counts_in_the_term_of_the_leader_that_gave_it() {
    let mut cluster = cluster();
    on(&mut cluster, "web", "n2");
    let request = cluster.request(lost("n2"));
    let outcome = cluster.state.apply_entry((50, 4), &request);
    assert_eq!((outcome, place(&cluster, "web")), (Outcome::unchanged(None), Some(node("n2"))));
    assert!(is_done(&cluster.state.apply_entry((51, 3), &request)));
    assert_ne!(place(&cluster, "web"), Some(node("n2")));
}

#[test]
fn enforcement_begins_with_a_second_node_for_vms_and_each_time_anew() {
    let mut cluster = Cluster::of(1);
    assert!(!cluster.state.leases.is_on && cluster.state.leases.is_empty());
    cluster = Cluster::of(2);
    assert!(cluster.state.leases.is_on);
    assert!(is_done(&cluster.apply(enforce(1, BOOT, 1))));
    assert_eq!(cluster.apply(enforce(1, BOOT, 1)), Outcome::unchanged(Some(node("n1"))));
    assert_eq!(cluster.apply(enforce(1, BOOT, 2)), Outcome::unchanged(Some(node("n1"))), "of another time");
    let offer = cluster.state.member_by_name(&node("n2")).expect("a member").node.offer.clone();
    let endpoint_id = cluster.state.member_by_name(&node("n2")).expect("a member").node.endpoint_id;
    let set = |witness| {
        let offer = blixard_model::Offer { witness, ..offer.clone() };
        Command::SetNode { endpoint_id, offer }
    };
    cluster.apply(set(true));
    assert!(!cluster.state.leases.is_on);
    cluster.apply(set(false));
    assert!((cluster.state.leases.is_on, cluster.state.leases.epoch) == (true, 2));
    assert!(cluster.state.leases.holder(&node("n1")).is_none());
    let created = Command::CreateVm {
        spec: VmSpec { on_node_loss: Some(OnNodeLoss::Keep), ..spec("kept") },
        desired: Desired::Stopped,
        eligible: vec![node("n1")],
    };
    cluster.apply(created);
    assert!(cluster.state.taken_from(&node("n1")).is_empty());
}

pub(crate) fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done { unchanged: false, .. })
}
