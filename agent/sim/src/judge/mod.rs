//! The second judge: whether what clients were told can be put into one order, asked of
//! [`stateright`]'s tester of linearizability.
//!
//! It knows nothing of the log, of indices or of nodes: a [`History`] holds the invocations and answers about
//! one name, as the clients saw them. The invariants beside it take the log's index as the witness; what both
//! of them hold for right was looked at in two ways that share nothing but the simulated clients.
//!
//! Everything is bounded: a history by [`OPERATIONS_MAX`] and [`UNANSWERED_MAX`], the search by
//! [`STEPS_MAX`]. A search that comes to its bound has not shown anything, and counts as a failure.

mod history;
mod options;
mod recorder;
mod run;
mod spec;
mod verdict;

pub use history::{ClientAction, ClientAnswer, CreatedAs, History, Operation, Sight};
pub use history::{OPERATIONS_MAX, UNANSWERED_MAX};
pub(crate) use recorder::Recorder;
pub use run::{Judged, run};
pub use spec::{NameState, STEPS_MAX};
pub use verdict::{Verdict, first_wrong, judge};
