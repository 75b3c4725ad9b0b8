//! The version of a cluster: what it begins with, when it is raised, who is not let in any more.

use std::collections::BTreeMap;

use blixard_core::ClusterState;
use blixard_core::formation::{FormationStep, FormationView, plan_formation};
use blixard_core::genesis::cluster_id;
use blixard_core::planner::explain::{ExplainView, explain_changes};
use blixard_core::planner::membership::{Claim, MembershipView, plan_membership};
use blixard_core::planner::version::plan_version;
use blixard_model::formation::{Genesis, Identity, Phase};
use blixard_model::{ClusterVersion, Command, EndpointId, MembershipChange, Outcome, RaftId};

use crate::common::{Cluster, declared, empty, genesis};

const OLD: ClusterVersion = ClusterVersion::FIRST;
const NEW: ClusterVersion = ClusterVersion::NEWEST;

fn form(me: &Identity, others: &[Identity]) -> FormationStep {
    let answers = others.iter().map(|other| (other.node.endpoint_id, other.clone())).collect();
    plan_formation(&FormationView {
        me,
        cluster_name: &"lab".parse().expect("a cluster name"),
        declared: &declared(3),
        joins: false,
        answers: &answers,
    })
}

fn of(n: u8, supports: ClusterVersion) -> Identity {
    Identity { supports, ..empty(n, n, None) }
}

#[test]
fn a_cluster_begins_with_the_newest_version_that_all_its_voters_support() {
    for (supports, begins_with) in [([NEW, NEW, NEW], NEW), ([NEW, OLD, NEW], OLD), ([OLD, NEW, NEW], OLD)] {
        let [me, n2, n3] = [of(1, supports[0]), of(2, supports[1]), of(3, supports[2])];
        let FormationStep::Promise(genesis) = form(&me, &[n2, n3]) else { panic!("no promise") };
        assert_eq!(genesis.version, begins_with);
        assert_eq!(ClusterState::new(genesis).version, begins_with);
    }
    // The others would not know what it was, were it written.
    let first = Genesis { version: OLD, ..genesis(3) };
    assert!(!serde_json::to_string(&first).expect("json").contains("version"));
    assert_ne!(cluster_id(&first), cluster_id(&genesis(3)));
}

#[test]
fn a_node_forms_no_cluster_of_a_version_that_it_does_not_support() {
    let phase = Phase::Formed {
        applied: 1,
        members: Vec::new(),
        you_were_removed: false,
        cluster_id: cluster_id(&genesis(3)),
        genesis: genesis(3),
        raft_id: Some(RaftId(2)),
        your_raft_id: None,
        you_left: false,
    };
    let answer = Identity { phase, ..of(2, NEW) };
    // n1 is one of the genesis' voters: it would begin with it at once.
    assert_eq!(form(&of(1, NEW), std::slice::from_ref(&answer)), FormationStep::Form(genesis(3)));
    let FormationStep::Wait(lines) = form(&of(1, OLD), &[answer]) else { panic!("does not wait") };
    assert!(
        lines[0].starts_with("n1: the cluster of n2 has version 4") && lines[0].contains("upgrade"),
        "{lines:?}"
    );
}

/// A leader, n1, of three.
struct Leader {
    cluster: Cluster,
    claims: BTreeMap<EndpointId, Identity>,
    required: ClusterVersion,
}

impl Leader {
    /// Of a cluster that began with the first version.
    fn new() -> Self {
        let mut cluster = Cluster::of(3);
        cluster.state.version = OLD;
        Self { cluster, claims: BTreeMap::new(), required: OLD }
    }

    fn hears(mut self, identity: Identity) -> Self {
        self.claims.insert(identity.node.endpoint_id, identity);
        self
    }

    fn look<T>(&self, listed: u8, look: impl FnOnce(&MembershipView<'_>) -> T) -> T {
        let claims = self.claims.iter().map(|(id, identity)| (*id, Claim { identity, settled: true }));
        look(&MembershipView {
            state: &self.cluster.state,
            leader: RaftId(1),
            voters: &[RaftId(1), RaftId(2), RaftId(3)],
            learners: &[],
            declared: &declared(listed),
            claims: &claims.collect(),
            progress: &BTreeMap::new(),
            commit: 100,
            supports: NEW,
            required: self.required,
        })
    }

    fn changes(&self, listed: u8) -> Vec<String> {
        let explain = |plan: &MembershipView<'_>| {
            explain_changes(&ExplainView {
                plan,
                pending: None,
                hands_over_to: None,
                snapshots: &std::collections::BTreeSet::new(),
                silence_ms: &BTreeMap::new(),
                lost_after_ms: 1,
            })
        };
        let changes = self.look(listed, explain).into_iter();
        changes.map(|c| format!("{} | {}", c.what, c.waits_for.unwrap_or_default())).collect()
    }
}

#[test]
fn the_version_is_raised_once_every_member_has_said_that_it_supports_the_next() {
    let leader = Leader::new().hears(of(2, NEW));
    assert_eq!(leader.look(3, plan_version), None, "n3 has not said anything");
    let held = "the cluster goes on with version 1, its leader supports 4 | n3 to say what it supports";
    assert!(leader.changes(3).iter().any(|line| line == held), "{:?}", leader.changes(3));
    let leader = leader.hears(of(3, OLD));
    assert_eq!(leader.look(3, plan_version), None, "n3 does not");
    let held = "the cluster goes on with version 1, its leader supports 4 | n3 to run a release that does";
    assert!(leader.changes(3).iter().any(|line| line == held), "{:?}", leader.changes(3));
    let other_store = Identity { supports: NEW, ..empty(3, 33, None) };
    let leader = leader.hears(other_store);
    assert_eq!(leader.look(3, plan_version), None, "that was said with another store");
    let leader = leader.hears(of(3, NEW));
    assert_eq!(leader.look(3, plan_version), Some(NEW));
    assert!(!leader.changes(3).iter().any(|line| line.contains("version")), "{:?}", leader.changes(3));
    let mut leader = leader;
    leader.cluster.apply(Command::RaiseVersion { to: NEW });
    assert_eq!(leader.look(3, plan_version), None, "it is raised");
}

#[test]
fn a_node_whose_release_is_too_old_is_not_let_in_and_it_is_said_why() {
    let mut leader = Leader::new().hears(of(4, OLD));
    let admitted = |leader: &Leader| leader.look(4, plan_membership);
    assert!(matches!(admitted(&leader), Some(MembershipChange::AddLearner { .. })));
    // It is being raised: both are entries of one log.
    leader.required = NEW;
    assert_eq!(admitted(&leader), None);
    let line = "n4 is to be admitted | a newer release on it: it supports version 1, the cluster has 4";
    assert!(leader.changes(4).iter().any(|said| said == line), "{:?}", leader.changes(4));
    let leader = leader.hears(of(4, NEW));
    assert!(matches!(admitted(&leader), Some(MembershipChange::AddLearner { .. })));
}

#[test]
fn the_log_never_lowers_the_version() {
    let mut cluster = Cluster::of(3);
    cluster.state.version = OLD;
    assert_eq!(cluster.apply(Command::RaiseVersion { to: NEW }), Outcome::done(None));
    assert_eq!(cluster.apply(Command::RaiseVersion { to: OLD }), Outcome::unchanged(None));
    assert_eq!(cluster.apply(Command::RaiseVersion { to: NEW }), Outcome::unchanged(None));
    assert_eq!(cluster.state.version, NEW);
    assert!(cluster.state.requests.is_empty(), "nobody asks for it");
}
