//! At most once: what became of recent requests.

use std::collections::BTreeMap;

use blixard_model::{Command, Outcome, RequestId, mutant};
use serde::{Deserialize, Serialize};

/// Most requests remembered. Beyond it the one applied first is forgotten; sent again after that it is a new
/// request.
pub const REQUESTS_MAX: usize = 1_024;

/// Outcomes of recent requests, evicted by log index so that every replica forgets the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct RequestTable {
    by_id: BTreeMap<RequestId, Remembered>,
    by_index: BTreeMap<u64, RequestId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Remembered {
    digest: String,
    outcome: Outcome,
}

/// What the table says of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Not remembered.
    New,
    /// Applied before, with this outcome.
    Before(Outcome),
    /// The id was used for another command.
    Other,
}

impl RequestTable {
    pub(super) fn look_up(&self, id: &RequestId, command: &Command) -> Seen {
        match self.by_id.get(id) {
            None => Seen::New,
            Some(_) if mutant::lives("request-table-not-consulted") => Seen::New,
            Some(known) if known.digest == digest(command) => Seen::Before(known.outcome.clone()),
            Some(_) => Seen::Other,
        }
    }

    pub(super) fn remember(&mut self, index: u64, id: RequestId, command: &Command, outcome: Outcome) {
        self.by_index.insert(index, id.clone());
        self.by_id.insert(id, Remembered { digest: digest(command), outcome });
        while self.by_id.len() > REQUESTS_MAX {
            let Some((_, oldest)) = self.by_index.pop_first() else { break };
            self.by_id.remove(&oldest);
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

/// What makes two commands the same request: all that the client chose, and nothing the leader filled in.
fn digest(command: &Command) -> String {
    let mut asked = command.clone();
    match &mut asked {
        Command::CreateVm { eligible, .. } => eligible.clear(),
        Command::CreateTicket { at_ms, .. } | Command::Disarm { at_ms, .. } => *at_ms = 0,
        _ => {}
    }
    let text = serde_json::to_vec(&asked).unwrap_or_default();
    blake3::hash(&text).to_hex()[..32].to_owned()
}
