//! From an empty store to a place in a cluster: the steps that `blixard-core` decides, with promises kept.

use std::collections::BTreeMap;

use blixard_core::declared::DeclaredMember;
use blixard_core::formation::{FormationStep, FormationView, plan_formation};
use blixard_model::backoff::{Backoff, Retry};
use blixard_model::formation::{Genesis, Identity, Phase};
use blixard_model::{ClusterId, ClusterName, Contact, EndpointId, RaftId};

/// Asking everybody who they are. The first pause is about how long the links of nodes that start together
/// take; the longest is what a node that comes last may have to wait for the others in the worst case.
pub const FORM: Backoff = Backoff { first_ms: 300, longest_ms: 1_000 };

/// How a node begins in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Birth {
    /// Born with it.
    Formed(Genesis),
    /// Admitted to it later.
    Joined {
        /// The cluster that admitted the node.
        cluster_id: ClusterId,
        /// How it was born.
        genesis: Genesis,
        /// Under which id.
        raft_id: RaftId,
        /// The members there are, and where: some may be on no list of this node.
        contacts: Vec<Contact>,
    },
}

/// What the configuration says of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Configured<'a> {
    /// Its name.
    pub cluster_name: &'a ClusterName,
    /// The list of members, this node included; empty for none.
    pub declared: &'a [DeclaredMember],
    /// It exists already, and this node has or gets a ticket for it.
    pub joins: bool,
}

/// What came of a round of answers.
#[derive(Debug, Clone)]
pub enum Formed {
    /// Not yet: it waits for these.
    Waiting(Vec<String>),
    /// It promises; the others are to hear of it once that is durable.
    Promised(Genesis),
    /// There is a cluster.
    Born(Birth),
}

/// Looks at a round of answers and says what comes of it. A promise has to be made durable before anybody
/// hears of it. A node that does not answer in this round has not answered: an old answer may be of a store
/// that is gone since.
pub fn decide(me: &Identity, configured: Configured<'_>, answers: &BTreeMap<EndpointId, Identity>) -> Formed {
    let Configured { cluster_name, declared, joins } = configured;
    match plan_formation(&FormationView { me, cluster_name, declared, joins, answers }) {
        FormationStep::Promise(genesis) => Formed::Promised(genesis),
        FormationStep::Wait(waiting_for) => Formed::Waiting(waiting_for),
        FormationStep::Form(genesis) => Formed::Born(Birth::Formed(genesis)),
        FormationStep::Join { cluster_id, genesis, raft_id, contacts } => {
            Formed::Born(Birth::Joined { cluster_id, genesis, raft_id, contacts })
        }
    }
}

/// The members that others told of: a node with an empty store whose endpoint is a member's lets these in as
/// well, for whoever leads may be on no list of its own.
pub fn told_members(answers: &BTreeMap<EndpointId, Identity>) -> Vec<Contact> {
    let told = answers.values().filter_map(|answer| match &answer.phase {
        Phase::Formed { applied, members, .. } => Some((*applied, members)),
        Phase::Empty { .. } => None,
    });
    told.max_by_key(|(applied, _)| *applied).map_or_else(Vec::new, |(_, members)| members.clone())
}

/// When the next round is due: soon while something changes, and less and less often while nothing does. Time
/// is the caller's, in milliseconds.
#[derive(Debug, Clone)]
pub struct Pace {
    retry: Retry,
    /// A round is under way.
    asking: bool,
    /// Something changed meanwhile.
    hurried: bool,
    /// When the last one ended.
    ended_ms: u64,
    /// Rounds in a row that ended without a cluster or a promise, whatever changed.
    failures: u32,
    waiting_for: Vec<String>,
    answers: BTreeMap<EndpointId, Identity>,
}

impl Pace {
    /// The first round is due at once. The seed differs from node to node.
    pub fn new(seed: u64) -> Self {
        Self {
            retry: Retry::new(FORM, seed),
            asking: false,
            hurried: false,
            ended_ms: 0,
            failures: 0,
            waiting_for: Vec::new(),
            answers: BTreeMap::new(),
        }
    }

    /// When the next round is due; `None` while one is under way.
    pub fn due_ms(&self) -> Option<u64> {
        (!self.asking).then(|| self.retry.at_ms())
    }

    /// A round begins.
    pub fn begin(&mut self) {
        (self.asking, self.hurried) = (true, false);
    }

    /// The round ended with these answers, and came to this.
    pub fn end(&mut self, now_ms: u64, answers: &BTreeMap<EndpointId, Identity>, formed: &Formed) {
        self.asking = false;
        self.ended_ms = now_ms;
        self.answers.clone_from(answers);
        match formed {
            Formed::Waiting(reasons) => {
                self.failures = self.failures.saturating_add(1);
                if self.waiting_for == *reasons && !self.hurried {
                    self.retry.failed(now_ms);
                } else {
                    self.waiting_for.clone_from(reasons);
                    self.hurry();
                }
            }
            Formed::Promised(_) | Formed::Born(_) => {
                self.failures = 0;
                self.waiting_for.clear();
                self.hurry();
            }
        }
    }

    /// Something changed (a link came up): the next round comes as soon after the last as the second did
    /// after the first. Never sooner, however often this is said. During a round it is the round after it
    /// that comes soon.
    pub fn hurry(&mut self) {
        self.hurried = self.asking;
        self.retry.succeeded(self.ended_ms);
    }

    /// Somebody asked this node. That is news when a declared one asks that did not answer in the last round,
    /// or says something else now than it did: two that wait for a third do not keep each other awake.
    pub fn heard(&mut self, declared: &[DeclaredMember], asker: &Identity) {
        let id = asker.node.endpoint_id;
        let is_news = self.answers.get(&id) != Some(asker);
        if is_news && declared.iter().any(|member| member.endpoint_id == id) {
            self.hurry();
        }
    }

    /// Rounds in a row that ended without a cluster, and what the last one waits for; `None` when none did.
    pub fn trouble(&self) -> Option<(u32, &[String])> {
        (self.failures > 0).then_some((self.failures, self.waiting_for.as_slice()))
    }
}
