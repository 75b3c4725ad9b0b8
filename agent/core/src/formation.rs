//! When a cluster is born.
//!
//! Every declared voter with an empty store asks every other one who it is. Once all have answered with an
//! empty store, each computes the same [`Genesis`], *promises* it durably, and forms when all the others have
//! promised the same:
//!
//! ```text
//!            all answered, all empty             all promised the same
//!   Empty ─────────────────────────▶ Promised ─────────────────────────▶ Formed
//!     │                                 │  a voter came back with another store: promise anew
//!     │  somebody is Formed             └──────────────▶ Promised'
//!     ├─▶ and knows this store ───────▶ Formed (the same genesis), or Joining (admitted later)
//!     └─▶ and does not ───────────────▶ wait to be admitted
//! ```
//!
//! Invariant: the disks of one list never hold two different geneses as formed. To form P a node needs
//! everybody's promise of P, its own included; a formed node never promises again; so whoever wants P' lacks
//! its promise. (The one node that formed P may lose its disk before another forms: then P is gone with it,
//! nothing was acknowledged in it, and the list may form P'.)

use std::collections::BTreeMap;
use std::net::SocketAddr;

use blixard_model::formation::{Genesis, Identity, Phase};
use blixard_model::id::ClusterName;
use blixard_model::{ClusterId, ClusterVersion, Contact, EndpointId, NodeName, RaftId, mutant};

use crate::ClusterState;
use crate::declared::DeclaredMember;
use crate::genesis::cluster_id;
use crate::state::MemberRef;
use crate::state::member_check::{CheckedMember, MemberError, MemberField, check_genesis, check_members};

/// How many voters a small cluster has, and a large one.
const VOTERS: [usize; 2] = [3, 5];
/// From this many members on a cluster is a large one.
const LARGE: usize = 7;

/// How many voters a cluster of so many members has; the other members are learners. A list forms its cluster
/// with so many of its first by name; the others are admitted later.
pub fn voter_target(members: usize) -> usize {
    VOTERS[usize::from(members >= LARGE)]
}

/// What is said of whom, wherever a line of [`FormationStep::Wait`] says it: [`WaitClass::of`] reads it back.
const NOT_ANSWERED: &str = "has not answered";
const NOT_AGREED: &str = "has not agreed yet";
const CALLS_ITSELF: &str = "calls itself";
const OTHER_LIST: &str = "declares other members, addresses or another cluster_name";
const UNKNOWN_STORE: &str = "does not know this node's store yet";
const ADMITS_LATER: &str = "admits this node";
const REMOVED_IT: &str = "removed this node";
const NEEDS_TICKET: &str = "a member of the cluster to admit this node, which needs a ticket for it";

/// What a listed node with an empty store waits for that an operator removed from this cluster: its members
/// let it in with a ticket alone.
pub fn removed_words(cluster_id: ClusterId) -> String {
    let id = cluster_id.short();
    format!(
        "a ticket, because an operator {REMOVED_IT} from its cluster ({id}): take `members` out of this \
         node's configuration, write `join = true`, and give it a ticket"
    )
}

/// Why there is no cluster yet, as a class: for counting, where names and addresses would be too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitClass {
    /// A declared voter did not answer in this round.
    NotAnswered,
    /// One answered and has not promised the same yet.
    NotAgreed,
    /// One has another list.
    ListDiffers,
    /// One calls itself otherwise than the list does.
    WrongName,
    /// There is a cluster, which has to admit this node.
    WaitsForAdmission,
    /// The list or the answers cannot become a cluster for another reason.
    Invalid,
}

impl WaitClass {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::NotAnswered,
        Self::NotAgreed,
        Self::ListDiffers,
        Self::WrongName,
        Self::WaitsForAdmission,
        Self::Invalid,
    ];

    /// The class of a line of [`FormationStep::Wait`].
    pub fn of(line: &str) -> Self {
        let says = |what: &str| line.contains(what);
        match () {
            () if says(NOT_ANSWERED) => Self::NotAnswered,
            () if says(NOT_AGREED) || line.ends_with(": formed") => Self::NotAgreed,
            () if says(OTHER_LIST) => Self::ListDiffers,
            () if says(CALLS_ITSELF) => Self::WrongName,
            () if [UNKNOWN_STORE, ADMITS_LATER, NEEDS_TICKET, REMOVED_IT].into_iter().any(says) => {
                Self::WaitsForAdmission
            }
            () => Self::Invalid,
        }
    }

    /// Its name in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotAnswered => "not_answered",
            Self::NotAgreed => "not_agreed",
            Self::ListDiffers => "list_differs",
            Self::WrongName => "wrong_name",
            Self::WaitsForAdmission => "waits_for_admission",
            Self::Invalid => "invalid",
        }
    }
}

/// The facts on which an unborn node decides.
#[derive(Debug)]
pub struct FormationView<'a> {
    /// This node; its phase is [`Phase::Empty`] with its durable promise.
    pub me: &'a Identity,
    /// The configured cluster name.
    pub cluster_name: &'a ClusterName,
    /// The configured list, this node included; empty for an explicit cluster of one.
    pub declared: &'a [DeclaredMember],
    /// It is configured to join a cluster: without a list it forms none of its own.
    pub joins: bool,
    /// What the others answered in this round of questions; an older answer may be of a store that is gone.
    pub answers: &'a BTreeMap<EndpointId, Identity>,
}

/// The next step of an unborn node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormationStep {
    /// Store this promise durably, then announce it.
    Promise(Genesis),
    /// The cluster is formed: begin with this genesis.
    Form(Genesis),
    /// A formed cluster has admitted this store: begin with an empty log under this raft id.
    Join {
        /// The cluster to join.
        cluster_id: ClusterId,
        /// How it was born.
        genesis: Genesis,
        /// Under which id.
        raft_id: RaftId,
        /// The members there are, and where.
        contacts: Vec<Contact>,
    },
    /// Nothing to do but wait for these, or correct what they say.
    Wait(Vec<String>),
}

/// What a member of a formed cluster says of its phase to `asker`, if somebody asks.
pub fn phase_of(state: &ClusterState, (raft_id, applied): (RaftId, u64), asker: Option<&Identity>) -> Phase {
    let cluster_id = cluster_id(&state.genesis);
    let known = asker.and_then(|asker| {
        let member = state.member_by_endpoint(asker.node.endpoint_id)?;
        (member.node.store_id == asker.node.store_id).then_some(member.raft_id)
    });
    let is_member = |asker: &&Identity| state.member_by_endpoint(asker.node.endpoint_id).is_some();
    let lags = asker.filter(is_member).is_some_and(|asker| match asker.phase {
        Phase::Empty { .. } => true,
        Phase::Formed { applied: theirs, .. } => theirs < applied,
    });
    let left = asker.is_some_and(|asker| match &asker.phase {
        Phase::Formed { cluster_id: theirs, raft_id: Some(theirs_in_it), .. } => {
            *theirs == cluster_id && state.has_left(*theirs_in_it)
        }
        Phase::Formed { .. } | Phase::Empty { .. } => false,
    });
    Phase::Formed {
        cluster_id,
        genesis: state.genesis.clone(),
        raft_id: Some(raft_id),
        your_raft_id: known,
        you_left: left,
        you_were_removed: asker.is_some_and(|asker| state.is_kept_out(asker.node.endpoint_id)),
        applied,
        members: if lags { contacts(state) } else { Vec::new() },
    }
}

/// The members and where they are.
pub fn contacts(state: &ClusterState) -> Vec<Contact> {
    let contact = |member: MemberRef<'_>| Contact {
        endpoint_id: member.node.endpoint_id,
        addresses: member.node.offer.addresses.clone(),
        relay_url: member.node.offer.relay_url.clone(),
    };
    state.nodes.members().map(contact).collect()
}

/// Decides the next step. Pure: the same view gives the same step.
pub fn plan_formation(view: &FormationView<'_>) -> FormationStep {
    if let Some(step) = join_formed(view) {
        return step;
    }
    if view.declared.is_empty() && view.joins {
        return FormationStep::Wait(vec![NEEDS_TICKET.to_owned()]);
    }
    if view.declared.is_empty() {
        let genesis = genesis_of_one(view);
        return match objection(check_genesis(&genesis)) {
            None => FormationStep::Form(genesis),
            Some(why) => FormationStep::Wait(vec![why]),
        };
    }
    let voters = declared_voters(view.declared);
    if !voters.iter().any(|voter| voter.endpoint_id == view.me.node.endpoint_id) {
        let first = voters.first().map_or_else(String::new, |voter| voter.name.to_string());
        let count = voters.len();
        return FormationStep::Wait(vec![format!(
            "the first {count} members by name (from {first}) form the cluster; it {ADMITS_LATER} after that"
        )]);
    }
    match gather(view, &voters) {
        Ok(genesis) => agree(view, &voters, genesis),
        Err(missing) => FormationStep::Wait(missing),
    }
}

/// The declared members that form the cluster.
pub fn declared_voters(declared: &[DeclaredMember]) -> Vec<&DeclaredMember> {
    let mut by_name: Vec<&DeclaredMember> = declared.iter().collect();
    by_name.sort_by(|a, b| a.name.cmp(&b.name));
    by_name.truncate(voter_target(declared.len()));
    by_name
}

fn genesis_of_one(view: &FormationView<'_>) -> Genesis {
    Genesis {
        cluster_name: view.cluster_name.clone(),
        voters: vec![view.me.node.clone()],
        origin: None,
        version: view.me.supports,
    }
}

/// What a node is told that is too old for a cluster.
pub fn newer(version: ClusterVersion, supports: ClusterVersion) -> String {
    format!(
        "version {version}, and its release supports {supports} at most: upgrade it to the release of the \
         others"
    )
}

/// Why no cluster can be born so, with what to correct.
fn objection(checked: Result<(), (NodeName, MemberError)>) -> Option<String> {
    let (name, error) = checked.err()?;
    let what = match error.field() {
        MemberField::Addresses => "addresses",
        MemberField::Name | MemberField::EndpointId => "entry in `members`",
        MemberField::StoreId => "store",
        MemberField::Capacity => "resources",
    };
    Some(format!("{name}: no cluster can be formed with its {what}: {error}"))
}

/// Somebody is in a cluster already: this node forms none of its own.
fn join_formed(view: &FormationView<'_>) -> Option<FormationStep> {
    let mut waits = Vec::new();
    for answer in view.answers.values() {
        let Phase::Formed { cluster_id: theirs, genesis, your_raft_id, members, .. } = &answer.phase else {
            continue;
        };
        if cluster_id(genesis) != *theirs {
            waits.push(format!("{}: its cluster id does not match its genesis", answer.node.name));
            continue;
        }
        // Not one that was made of another cluster: it began with that one's state, which this store lacks.
        let born_with_us = genesis.origin.is_none()
            && genesis
                .voters
                .iter()
                .any(|v| v.endpoint_id == view.me.node.endpoint_id && v.store_id == view.me.node.store_id);
        if genesis.version > view.me.supports {
            let version = genesis.version;
            let (theirs, me) = (&answer.node.name, &view.me.node.name);
            waits.push(format!("{me}: the cluster of {theirs} has {}", newer(version, view.me.supports)));
            continue;
        }
        if let Some(why) = objection(check_genesis(genesis)) {
            waits.push(format!("{}: its cluster cannot have been formed so; {why}", answer.node.name));
            continue;
        }
        if born_with_us {
            return Some(FormationStep::Form(genesis.clone()));
        }
        if let Some(raft_id) = your_raft_id {
            let (cluster_id, raft_id) = (*theirs, *raft_id);
            let (genesis, contacts) = (genesis.clone(), members.clone());
            return Some(FormationStep::Join { cluster_id, genesis, raft_id, contacts });
        }
        waits.push(format!(
            "{}: formed (cluster {}), and {UNKNOWN_STORE}; its leader admits it",
            answer.node.name,
            theirs.short()
        ));
    }
    (!waits.is_empty()).then_some(FormationStep::Wait(waits))
}

/// The genesis, if every voter has answered with an empty store and nothing is wrong with it; else whom to
/// wait for, or what to correct.
fn gather(view: &FormationView<'_>, voters: &[&DeclaredMember]) -> Result<Genesis, Vec<String>> {
    let mut missing = Vec::new();
    let mut found = Vec::new();
    let mut supported = None;
    for voter in voters {
        let mine = voter.endpoint_id == view.me.node.endpoint_id;
        let answer = if mine { Some(view.me) } else { view.answers.get(&voter.endpoint_id) };
        match answer {
            None => missing.push(format!("{}: {NOT_ANSWERED}", voter.name)),
            Some(answer) if answer.node.name != voter.name => {
                missing.push(format!(
                    "{}: {CALLS_ITSELF} {}; correct one of the two",
                    voter.name, answer.node.name
                ));
            }
            Some(answer) => {
                found.push(voter.let_in(&answer.node));
                supported = Some(supported.map_or(answer.supports, |least| answer.supports.min(least)));
            }
        }
    }
    if !missing.is_empty() && !mutant::lives("forms-without-everybody") {
        return Err(missing);
    }
    found.sort_by_key(|voter| voter.endpoint_id);
    let version = supported.unwrap_or_default();
    let genesis = Genesis { cluster_name: view.cluster_name.clone(), voters: found, origin: None, version };
    // Those that do not vote are on the list too, and were never asked.
    let listed: Vec<_> = view.declared.iter().map(CheckedMember::from).collect();
    match objection(check_genesis(&genesis).and_then(|()| check_members(&listed))) {
        None => Ok(genesis),
        Some(why) => Err(vec![why]),
    }
}

fn agree(view: &FormationView<'_>, voters: &[&DeclaredMember], genesis: Genesis) -> FormationStep {
    let Phase::Empty { promise } = &view.me.phase else {
        return FormationStep::Wait(vec!["this node is formed".to_owned()]);
    };
    if promise.as_ref() != Some(&genesis) {
        return FormationStep::Promise(genesis);
    }
    let mut waits = Vec::new();
    for voter in voters.iter().filter(|voter| voter.endpoint_id != view.me.node.endpoint_id) {
        let Some(answer) = view.answers.get(&voter.endpoint_id) else { continue };
        match &answer.phase {
            Phase::Empty { promise: Some(theirs) } if *theirs == genesis => {}
            Phase::Empty { promise: Some(theirs) } if differs_by_list(theirs, &genesis) => {
                waits.push(format!("{}: {OTHER_LIST}; the list must be the same everywhere", voter.name))
            }
            Phase::Empty { .. } => waits.push(format!("{}: {NOT_AGREED}", voter.name)),
            Phase::Formed { .. } => waits.push(format!("{}: formed", voter.name)),
        }
    }
    if waits.is_empty() || mutant::lives("forms-without-promises") {
        FormationStep::Form(genesis)
    } else {
        FormationStep::Wait(waits)
    }
}

/// Whether two geneses would differ even if the nodes had answered the same: what they answer of their
/// stores, relays and capacities may change between two answers.
fn differs_by_list(a: &Genesis, b: &Genesis) -> bool {
    let list = |g: &Genesis| -> Vec<(NodeName, EndpointId, Vec<SocketAddr>)> {
        g.voters.iter().map(|v| (v.name.clone(), v.endpoint_id, v.offer.addresses.clone())).collect()
    };
    a.cluster_name != b.cluster_name || list(a) != list(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_people_read_have_their_class() {
        let lines = [
            ("n2: has not answered", WaitClass::NotAnswered),
            ("n2: has not agreed yet", WaitClass::NotAgreed),
            ("n2: formed", WaitClass::NotAgreed),
            (
                "n2: declares other members, addresses or another cluster_name; the list must be the same",
                WaitClass::ListDiffers,
            ),
            ("n2: calls itself n3; correct one of the two", WaitClass::WrongName),
            (
                "n2: formed (cluster ab), and does not know this node's store yet",
                WaitClass::WaitsForAdmission,
            ),
            ("n2: no cluster can be formed with its addresses: none", WaitClass::Invalid),
        ];
        for (line, class) in lines {
            assert_eq!(WaitClass::of(line), class, "{line}");
        }
        let names: std::collections::BTreeSet<_> = WaitClass::ALL.iter().map(|class| class.name()).collect();
        assert_eq!(names.len(), WaitClass::ALL.len());
    }
}
