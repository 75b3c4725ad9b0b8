//! What a node has under way as leader.

use blixard_model::MembershipChange;

/// A change that somebody waits for.
#[derive(Debug)]
pub(crate) struct AskedChange<P> {
    pub(crate) change: MembershipChange,
    pub(crate) waiter: P,
}
