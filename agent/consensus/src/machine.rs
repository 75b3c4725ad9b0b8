//! The state machine that committed entries are applied to.

use blixard_model::{MembershipChange, RaftId, Refusal};

/// The replicated state machine. Every method is synchronous, total and deterministic.
pub trait Machine {
    /// The outcome of applying an entry.
    type Outcome;
    /// What a snapshot holds, once it is read.
    type State;

    /// Applies the entry with this index and term.
    ///
    /// # Errors
    /// The entry cannot be understood by this version. The process must end: going on would make replicas
    /// differ.
    fn apply(&mut self, at: (u64, u64), data: &[u8]) -> Result<Self::Outcome, String>;

    /// Whether a membership change fits; asked before it is proposed and again before it is applied.
    ///
    /// # Errors
    /// What does not fit. On apply the change is then a no-op, on every replica alike.
    fn check_membership(&self, change: &MembershipChange, voters: &[RaftId]) -> Result<(), Refusal>;

    /// Applies a membership change that was found to fit.
    fn apply_membership(&mut self, change: &MembershipChange);

    /// The whole state, for a snapshot.
    fn snapshot(&self) -> Vec<u8>;

    /// Reads a snapshot's state, before it takes the place of what is here.
    ///
    /// # Errors
    /// The bytes cannot be understood by this version.
    fn read_snapshot(&self, data: &[u8]) -> Result<Self::State, String>;

    /// Replaces the state by a snapshot's.
    fn restore(&mut self, state: Self::State);
}
