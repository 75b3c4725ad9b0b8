//! The replicated state machine as consensus sees it: entries are JSON, the state is `blixard-core`'s.

use blixard_consensus::Machine;
use blixard_core::ClusterState;
use blixard_core::state::RequestTable;
use blixard_model::{Command, MembershipChange, Outcome, RaftId, Refusal, Request, mutant};
use serde::{Deserialize, Serialize};

/// The newest form of entries and snapshots that this version knows.
const FORMAT: u8 = 1;

/// [`ClusterState`] behind consensus' port.
#[derive(Debug)]
pub struct StateMachine(pub ClusterState);

#[derive(Serialize, Deserialize)]
struct SnapshotForm {
    format: u8,
    state: ClusterState,
}

/// A request as it stands in the log: a byte for the form, then JSON.
pub fn encode_request(request: &Request) -> Vec<u8> {
    let mut bytes = vec![FORMAT];
    bytes.extend(serde_json::to_vec(request).unwrap_or_default());
    bytes
}

/// Reads a request as it stands in the log.
///
/// # Errors
/// It is of a newer form, or none.
pub fn decode_request(bytes: &[u8]) -> Result<Request, String> {
    match bytes.split_first() {
        Some((&FORMAT, json)) => serde_json::from_slice(json).map_err(|error| error.to_string()),
        Some((form, _)) => Err(format!("form {form} is newer than this version")),
        None => Err("it is empty".to_owned()),
    }
}

/// A state as it stands in a snapshot.
pub fn encode_state(state: &ClusterState) -> Vec<u8> {
    let mut form = SnapshotForm { format: FORMAT, state: state.clone() };
    if mutant::lives("requests-not-in-snapshot") {
        form.state.requests = RequestTable::default();
    }
    if mutant::lives("vms-not-in-snapshot") {
        form.state.vms.clear();
    }
    serde_json::to_vec(&form).unwrap_or_default()
}

/// Reads a state as it stands in a snapshot.
///
/// # Errors
/// It is of a newer form, or none.
pub(crate) fn decode_state(bytes: &[u8]) -> Result<ClusterState, String> {
    let form: SnapshotForm = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if form.format > FORMAT {
        return Err(format!("form {} is newer than this version", form.format));
    }
    Ok(form.state)
}

impl Machine for StateMachine {
    type Outcome = Outcome;

    fn apply(&mut self, index: u64, data: &[u8]) -> Result<Outcome, String> {
        let request = decode_request(data)?;
        if mutant::lives("apply-ends-the-agent") && matches!(request.command, Command::CreateVm { .. }) {
            return Err("there is no reactor running".to_owned());
        }
        Ok(self.0.apply(index, &request))
    }

    fn check_membership(&self, change: &MembershipChange, voters: &[RaftId]) -> Result<(), Refusal> {
        self.0.check_membership(change, voters)
    }

    fn apply_membership(&mut self, change: &MembershipChange) {
        self.0.apply_membership(change);
    }

    fn snapshot(&self) -> Vec<u8> {
        encode_state(&self.0)
    }

    fn check_snapshot(&self, data: &[u8]) -> Result<(), String> {
        decode_state(data).map(|_| ())
    }

    fn restore(&mut self, data: &[u8]) -> Result<(), String> {
        self.0 = decode_state(data)?;
        Ok(())
    }
}
