//! What peers said of themselves.

use blixard_model::formation::Identity;

/// What an endpoint said of itself, and when.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) identity: Identity,
    pub(crate) at_tick: u64,
    /// The version of the membership that this node knew when it last asked and was told this store.
    pub(crate) asked: Option<u64>,
}
