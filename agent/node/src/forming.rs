//! From an empty store to a place in a cluster: the steps that `blixard-core` decides, with promises kept.

use std::collections::BTreeMap;

use blixard_core::formation::{DeclaredMember, FormationStep, FormationView, plan_formation};
use blixard_model::formation::{Genesis, Identity};
use blixard_model::{ClusterId, ClusterName, EndpointId, RaftId};
use blixard_store::{Store, WriteError};

/// How a node begins in a cluster.
#[derive(Debug, Clone)]
pub enum Birth {
    /// Born with it.
    Formed(Genesis),
    /// Admitted to it later.
    Joined {
        /// Which.
        cluster_id: ClusterId,
        /// How it was born.
        genesis: Genesis,
        /// Under which id.
        raft_id: RaftId,
    },
}

/// What came of a round of answers.
#[derive(Debug, Clone)]
pub enum Formed {
    /// Not yet: it waits for these.
    Waiting(Vec<String>),
    /// It promised, durably; the others are to hear of it.
    Promised(Genesis),
    /// There is a cluster.
    Born(Birth),
}

/// Looks at a round of answers and takes the next step. A promise is durable when this returns. Who does not
/// answer in this round has not answered: an old answer may be of a store that is gone since.
///
/// # Errors
/// The store's; final.
pub fn advance(
    store: &mut Store,
    me: &Identity,
    (cluster_name, declared): (&ClusterName, &[DeclaredMember]),
    answers: &BTreeMap<EndpointId, Identity>,
) -> Result<Formed, WriteError> {
    Ok(match plan_formation(&FormationView { me, cluster_name, declared, answers }) {
        FormationStep::Promise(genesis) => {
            store.set_promise(&genesis)?;
            Formed::Promised(genesis)
        }
        FormationStep::Wait(waiting_for) => Formed::Waiting(waiting_for),
        FormationStep::Form(genesis) => Formed::Born(Birth::Formed(genesis)),
        FormationStep::Join { cluster_id, genesis, raft_id } => {
            Formed::Born(Birth::Joined { cluster_id, genesis, raft_id })
        }
    })
}
