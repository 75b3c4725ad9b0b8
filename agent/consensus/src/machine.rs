//! What committed entries are applied to.

use blixard_model::{MembershipChange, RaftId, Refusal};

/// The replicated state machine. Every method is synchronous, total and deterministic.
pub trait Machine {
    /// What applying an entry gives.
    type Outcome;

    /// Applies the entry at `index`.
    ///
    /// # Errors
    /// The entry can not be understood by this version. The process must end: going on would make replicas
    /// differ.
    fn apply(&mut self, index: u64, data: &[u8]) -> Result<Self::Outcome, String>;

    /// Whether a membership change fits; asked before it is proposed and again before it is applied.
    ///
    /// # Errors
    /// What does not fit. On apply the change is then a no-op, on every replica alike.
    fn check_membership(&self, change: &MembershipChange, voters: &[RaftId]) -> Result<(), Refusal>;

    /// Applies a membership change that was found to fit.
    fn apply_membership(&mut self, change: &MembershipChange);

    /// The whole state, for a snapshot.
    fn snapshot(&self) -> Vec<u8>;

    /// Whether a snapshot's state can be restored; asked before a peer's snapshot takes the place of what is
    /// here.
    ///
    /// # Errors
    /// The bytes can not be understood by this version.
    fn check_snapshot(&self, data: &[u8]) -> Result<(), String>;

    /// Replaces the state by a snapshot's.
    ///
    /// # Errors
    /// The bytes can not be understood by this version.
    fn restore(&mut self, data: &[u8]) -> Result<(), String>;
}
