//! What is being changed about the members, in words.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::{Cluster, declared, empty, endpoint, genesis};
use blixard_core::genesis::cluster_id;
use blixard_core::planner::explain::{ExplainView, explain_changes};
use blixard_core::planner::membership::{Claim, MembershipView, Progress, plan_membership};
use blixard_model::formation::{Identity, Phase};
use blixard_model::{
    ClusterVersion, EndpointId, Member, MembershipChange, NodeFacts, Offer, RaftId, Removal, Role,
};

/// Voters are lost after ten minutes.
const LOST_AFTER_MS: u64 = 600_000;
const COMMIT: u64 = 5_000;

/// n1 leads; everybody is up to date and heard of until a case says otherwise.
struct Leader {
    cluster: Cluster,
    voters: Vec<RaftId>,
    learners: Vec<RaftId>,
    progress: BTreeMap<RaftId, Progress>,
    /// What was said, and whether that was often enough.
    claims: BTreeMap<EndpointId, (Identity, bool)>,
    pending: Option<MembershipChange>,
    hands_over_to: Option<RaftId>,
    snapshots: BTreeSet<RaftId>,
    silence_ms: BTreeMap<RaftId, u64>,
}

fn member(n: u8) -> Member {
    let identity = empty(n, n, None);
    Member {
        raft_id: RaftId(n.into()),
        node: NodeFacts {
            name: identity.node.name,
            endpoint_id: identity.node.endpoint_id,
            store_id: identity.node.store_id,
            offer: Offer {
                addresses: identity.node.offer.addresses,
                relay_url: None,
                capacity: None,
                witness: false,
                ..Offer::default()
            },
        },
        role: Role::Learner,
    }
}

impl Leader {
    /// Three voters and these learners.
    fn new(learners: std::ops::Range<u8>) -> Self {
        let mut cluster = Cluster::of(3);
        for n in learners.clone() {
            cluster.state.apply_membership(&MembershipChange::AddLearner { member: member(n), ticket: None });
        }
        let current = Progress { matched: COMMIT, heard: true, recent_active: true, lost: false };
        let progress = (1..=3).chain(learners.clone()).map(|n| (RaftId(n.into()), current)).collect();
        Self {
            cluster,
            voters: (1..=3).map(RaftId).collect(),
            learners: learners.map(|n| RaftId(n.into())).collect(),
            progress,
            claims: BTreeMap::new(),
            pending: None,
            hands_over_to: None,
            snapshots: BTreeSet::new(),
            silence_ms: BTreeMap::new(),
        }
    }

    /// Nothing was heard of it for so long.
    fn silent(mut self, n: u64, silence_ms: u64) -> Self {
        self.silence_ms.insert(RaftId(n), silence_ms);
        let progress = self.progress.get_mut(&RaftId(n)).expect("a member");
        (progress.heard, progress.recent_active) = (false, false);
        progress.lost = silence_ms >= LOST_AFTER_MS;
        self
    }

    fn behind(mut self, n: u64, entries: u64) -> Self {
        self.progress.get_mut(&RaftId(n)).expect("a member").matched = COMMIT - entries;
        self
    }

    fn sent(mut self, n: u64) -> Self {
        self.snapshots.insert(RaftId(n));
        self
    }

    fn witness(mut self, n: u8) -> Self {
        self.cluster.change_offer(n, |offer| offer.witness = true);
        self
    }

    /// It votes from now on, or does no more.
    fn votes(mut self, n: u64, votes: bool) -> Self {
        let id = RaftId(n);
        self.voters.retain(|voter| *voter != id);
        self.learners.retain(|learner| *learner != id);
        if votes {
            self.voters.push(id)
        } else {
            self.learners.push(id)
        }
        self
    }

    fn says(mut self, n: u8, identity: Identity, settled: bool) -> Self {
        self.claims.insert(endpoint(n), (identity, settled));
        self
    }

    fn proposes(mut self, change: MembershipChange) -> Self {
        self.pending = Some(change);
        self
    }

    fn plan<T>(&self, look: impl FnOnce(&MembershipView<'_>) -> T) -> T {
        let claims = self.claims.iter().map(|(id, (identity, settled))| {
            let settled = *settled;
            (*id, Claim { identity, settled })
        });
        look(&MembershipView {
            state: &self.cluster.state,
            leader: RaftId(1),
            voters: &self.voters,
            learners: &self.learners,
            declared: &declared(3),
            claims: &claims.collect(),
            progress: &self.progress,
            commit: COMMIT,
            supports: ClusterVersion::NEWEST,
            required: ClusterVersion::NEWEST,
        })
    }

    /// `what | waits for`, one for each change.
    fn changes(&self) -> Vec<String> {
        let explained = self.plan(|plan| {
            explain_changes(&ExplainView {
                plan,
                pending: self.pending.as_ref(),
                hands_over_to: self.hands_over_to,
                snapshots: &self.snapshots,
                silence_ms: &self.silence_ms,
                lost_after_ms: LOST_AFTER_MS,
            })
        });
        explained.into_iter().map(|c| format!("{} | {}", c.what, c.waits_for.unwrap_or_default())).collect()
    }
}

#[test]
fn a_cluster_that_is_as_it_is_to_be_changes_nothing() {
    let cases = [
        Leader::new(4..4),
        Leader::new(4..7),
        Leader::new(4..5).behind(4, 4_000),
        Leader::new(4..5).silent(4, 900_000),
        Leader::new(4..4).silent(3, 60_000),
    ];
    for leader in cases {
        assert_eq!(leader.changes(), [""; 0]);
    }
}

#[test]
fn a_proposed_change_waits_for_a_quorum_to_store_it() {
    let waits = "2 of 3 voters to store it";
    let remove = |why| MembershipChange::Remove { raft_id: RaftId(4), why };
    let cases = [
        (MembershipChange::AddLearner { member: member(5), ticket: None }, "n5 is being admitted"),
        (MembershipChange::Promote { raft_id: RaftId(4) }, "n4 is being given a vote"),
        (MembershipChange::Demote { raft_id: RaftId(2) }, "n2 is to vote no more"),
        (remove(Removal::Operator { vms: None }), "n4 is being removed"),
        (remove(Removal::LostStore), "the place of n4's lost store is being let go"),
        (MembershipChange::Promote { raft_id: RaftId(9) }, "raft id 9 is being given a vote"),
    ];
    for (change, what) in cases {
        assert_eq!(Leader::new(4..5).proposes(change).changes(), [format!("{what} | {waits}")]);
    }
    let mut leader = Leader::new(4..4);
    leader.hands_over_to = Some(RaftId(2));
    let words = "the leadership is being handed over to n2 | n2 to have the whole log";
    assert_eq!(leader.changes(), [words]);
}

#[test]
fn a_learner_that_is_to_vote_says_what_it_lacks() {
    let two = |learners| Leader::new(learners).votes(3, false);
    let cases: [(Leader, &[&str]); 6] = [
        (two(4..4).behind(3, 1_200), &["n3 is to vote | n3 to catch up: it is 1,200 entries behind"]),
        (two(4..4).behind(3, 4_999).sent(3), &["n3 is to vote | n3 to have the state, which is being sent"]),
        (two(4..4).silent(3, 5_000), &["n3 is to vote | n3 to answer"]),
        (two(4..4), &["n3 is to vote | "]),
        (two(4..5).behind(3, 1_200), &["n4 is to vote | "]),
        (two(4..5).witness(4), &["n4 is to vote | "]),
    ];
    for (leader, words) in cases {
        assert_eq!(leader.changes(), words);
    }
}

#[test]
fn a_voter_that_does_not_answer_is_replaced_at_a_time_by_whom_is_named() {
    let four = || Leader::new(4..5);
    let cases: [(Leader, &[&str]); 7] = [
        (
            four().silent(2, 470_000),
            &["n2 does not answer | its answer; in 2 min 10 s n4 votes in its place"],
        ),
        (four().silent(2, 470_000).silent(4, 5_000), &[]),
        (
            Leader::new(4..4).silent(2, 840_000),
            &["n2 is lost since 14 min | a learner that could vote in its place"],
        ),
        (
            four().silent(2, 840_000).silent(4, 9_000),
            &["n2 is lost since 14 min | a learner that could vote in its place"],
        ),
        (
            four().silent(2, 840_000).behind(4, 1_200),
            &["n2 is lost since 14 min: n4 is to vote in its place | n4 to catch up: it is 1,200 entries \
               behind"],
        ),
        (four().silent(2, 840_000), &["n2 is lost since 14 min: n4 is to vote in its place | "]),
        (
            four().silent(2, 840_000).silent(3, 30_000),
            &["n2 is lost since 14 min: n4 is to vote in its place | "],
        ),
    ];
    for (leader, words) in cases {
        assert_eq!(leader.changes(), words);
    }
}

#[test]
fn what_is_said_is_what_is_planned() {
    let promotes = |leader: &Leader| leader.plan(plan_membership);
    let ready = Leader::new(4..6).silent(2, 840_000).behind(4, 1_200);
    assert_eq!(ready.changes(), ["n2 is lost since 14 min: n5 is to vote in its place | "]);
    assert_eq!(promotes(&ready), Some(MembershipChange::Promote { raft_id: RaftId(5) }));
    let waits = Leader::new(4..5).silent(2, 840_000).behind(4, 1_200);
    assert_eq!(promotes(&waits), None);
}

#[test]
fn one_vote_too_many_is_given_up_when_the_others_are_a_quorum() {
    let four = || Leader::new(4..5).votes(4, true);
    assert_eq!(four().changes(), ["n4 is to vote no more: 4 vote, 3 are to | "]);
    assert_eq!(four().silent(2, 840_000).changes(), ["n2 is to vote no more: 4 vote, 3 are to | "]);
    let hindered = four().silent(2, 840_000).silent(3, 9_000).silent(4, 9_000);
    let [words] = &hindered.changes()[..] else { panic!("one") };
    assert!(
        words.starts_with("n2 is to vote no more: 4 vote, 3 are to | a quorum without it: n3"),
        "{words}"
    );
    assert_eq!(hindered.plan(plan_membership), None);
    let proposed = four().proposes(MembershipChange::Demote { raft_id: RaftId(4) });
    assert_eq!(proposed.changes(), ["n4 is to vote no more | 3 of 4 voters to store it"]);
}

#[test]
fn a_lost_store_is_told_until_its_place_is_let_go() {
    let back = |leader: Leader, settled| leader.says(3, empty(3, 33, None), settled);
    let what = "n3 lost its store: it is to be admitted anew";
    let gone = || Leader::new(4..4).silent(3, 5_000);
    assert_eq!(
        back(Leader::new(4..4), true).changes(),
        [format!("{what} | no more word from its old store")]
    );
    assert_eq!(back(gone(), false).changes(), [format!("{what} | it to say so again")]);
    assert_eq!(back(gone(), true).changes(), [format!("{what} | ")]);
    let remove = MembershipChange::Remove { raft_id: RaftId(3), why: Removal::LostStore };
    let proposed = back(gone(), true).proposes(remove);
    let words = "the place of n3's lost store is being let go | 2 of 3 voters to store it";
    assert_eq!(proposed.changes(), [words]);
}

#[test]
fn a_node_that_was_admitted_and_has_not_come_is_waited_for() {
    let leader = || Leader::new(4..5).silent(4, 5_000);
    let came = leader().says(4, empty(4, 4, None), true);
    assert_eq!(came.changes(), ["n4 was admitted | it to come for the state"]);
    let formed = Phase::Formed {
        applied: 1,
        members: Vec::new(),
        you_were_removed: false,
        cluster_id: cluster_id(&genesis(3)),
        genesis: genesis(3),
        raft_id: Some(RaftId(4)),
        your_raft_id: Some(RaftId(1)),
        you_left: false,
    };
    let has_it = leader().says(4, Identity { phase: formed, ..empty(4, 4, None) }, true);
    assert_eq!(has_it.changes(), [""; 0]);
}
