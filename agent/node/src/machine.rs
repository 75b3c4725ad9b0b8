//! The replicated state machine as consensus sees it: entries are JSON, the state is `blixard-core`'s.

use std::collections::BTreeMap;

use blixard_consensus::Machine;
use blixard_core::ClusterState;
use blixard_core::state::{LeaseTable, RequestTable};
use blixard_model::formation::Genesis;
use blixard_model::removal::RemovedNode;
use blixard_model::{
    ClusterVersion, Command, EndpointId, Member, MembershipChange, Outcome, RaftId, Refusal, Request,
    TicketId, TicketRecord, mutant,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::encoded_vms::EncodedVms;

/// The form of entries: what is in them the version of the cluster bounds.
const ENTRY_FORM: u8 = 1;

/// [`ClusterState`] behind consensus' port, and its VMs as a snapshot has them.
#[derive(Debug)]
pub struct StateMachine(pub ClusterState, EncodedVms);

impl StateMachine {
    /// In this state.
    pub fn new(state: ClusterState) -> Self {
        let encoded = EncodedVms::of(&state.vms);
        Self(state, encoded)
    }
}

/// A snapshot. Its form is the version of the cluster, so that a release that does not support it says so
/// and reads no further.
#[derive(Deserialize)]
struct SnapshotForm<S> {
    format: ClusterVersion,
    state: S,
}

/// All of a state but its VMs, which stand behind it.
#[derive(Serialize)]
struct StateHead<'a> {
    genesis: &'a Genesis,
    #[serde(skip_serializing_if = "ClusterVersion::is_first")]
    version: ClusterVersion,
    members: BTreeMap<RaftId, Member>,
    next_raft_id: &'a RaftId,
    tickets: &'a BTreeMap<TicketId, TicketRecord>,
    removed: BTreeMap<EndpointId, RemovedNode>,
    requests: &'a RequestTable,
    #[serde(skip_serializing_if = "LeaseTable::is_empty")]
    leases: &'a LeaseTable,
}

/// A request as it stands in the log: a byte for the form, then JSON.
pub fn encode_request(request: &Request) -> Vec<u8> {
    let mut bytes = vec![ENTRY_FORM];
    bytes.extend(serde_json::to_vec(request).unwrap_or_default());
    bytes
}

/// Reads a request as it stands in the log.
///
/// # Errors
/// It is of a newer form, or none.
pub fn decode_request(bytes: &[u8]) -> Result<Request, String> {
    match bytes.split_first() {
        Some((&ENTRY_FORM, json)) => serde_json::from_slice(json).map_err(|error| error.to_string()),
        Some((form, _)) => Err(format!("form {form} is newer than this version")),
        None => Err("it is empty".to_owned()),
    }
}

/// A state as it stands in a snapshot.
pub fn encode_state(state: &ClusterState) -> Vec<u8> {
    encode_with(state, &EncodedVms::default())
}

fn encode_with(state: &ClusterState, encoded: &EncodedVms) -> Vec<u8> {
    // Named one by one: a field that is added must be written.
    let ClusterState { genesis, version, nodes, next_raft_id, vms, tickets, requests, leases } = state;
    let (no_requests, no_vms) = (RequestTable::default(), BTreeMap::new());
    let requests = if mutant::lives("requests-not-in-snapshot") { &no_requests } else { requests };
    let vms = if mutant::lives("vms-not-in-snapshot") { &no_vms } else { vms };
    let (version, members, removed) = (*version, nodes.members_form(), nodes.removed_form());
    let head = StateHead { genesis, version, members, next_raft_id, tickets, removed, requests, leases };
    let mut bytes = format!("{{\"format\":{version},\"state\":").into_bytes();
    bytes.extend(serde_json::to_vec(&head).unwrap_or_default());
    // The head's closing brace comes after the VMs.
    bytes.pop();
    bytes.extend_from_slice(b",\"vms\":");
    encoded.write(vms, &mut bytes);
    bytes.extend_from_slice(b"}}");
    bytes
}

/// Reads a state as it stands in a snapshot.
///
/// # Errors
/// It is of a newer form, or none.
pub(crate) fn decode_state(bytes: &[u8]) -> Result<ClusterState, String> {
    let form: SnapshotForm<ClusterState> = serde_json::from_slice(bytes).map_err(|error| {
        // A newer one may look otherwise.
        match serde_json::from_slice::<SnapshotForm<IgnoredAny>>(bytes) {
            Ok(form) if form.format > ClusterVersion::NEWEST => too_new(form.format),
            Ok(_) | Err(_) => error.to_string(),
        }
    })?;
    let SnapshotForm { format, state } = form;
    if format > ClusterVersion::NEWEST {
        return Err(too_new(format));
    }
    if format != state.version {
        return Err(format!("it is of version {format}, and its state of version {}", state.version));
    }
    Ok(state)
}

fn too_new(version: ClusterVersion) -> String {
    format!(
        "the cluster has version {version}, and this release supports {} at most: install the release that \
         the other nodes run",
        ClusterVersion::NEWEST
    )
}

impl Machine for StateMachine {
    type Outcome = Outcome;
    type State = ClusterState;

    fn apply(&mut self, (index, term): (u64, u64), data: &[u8]) -> Result<Outcome, String> {
        let request = decode_request(data)?;
        if mutant::lives("apply-ends-the-agent") && matches!(request.command, Command::CreateVm { .. }) {
            return Err("there is no reactor running".to_owned());
        }
        if let Command::RaiseVersion { to } = request.command
            && to > ClusterVersion::NEWEST
        {
            return Err(too_new(to));
        }
        let outcome = self.0.apply_entry((index, term), &request);
        if let Command::NodeLost { .. } = &request.command {
            let moved = self.0.vms.iter().filter(|(_, vm)| vm.placement.generation == index);
            moved.for_each(|(name, vm)| self.1.note(name, Some(vm)));
            self.1.retain(&self.0.vms);
        } else if let Some(name) = request.command.vm() {
            self.1.note(name, self.0.vms.get(name));
        } else if matches!(request.command, Command::ForgetVms { .. }) {
            self.1.retain(&self.0.vms);
        }
        Ok(outcome)
    }

    fn check_membership(&self, change: &MembershipChange, voters: &[RaftId]) -> Result<(), Refusal> {
        self.0.check_membership(change, voters)
    }

    fn apply_membership(&mut self, change: &MembershipChange) {
        self.0.apply_membership(change);
        self.1.retain(&self.0.vms);
    }

    fn snapshot(&self) -> Vec<u8> {
        encode_with(&self.0, &self.1)
    }

    fn read_snapshot(&self, data: &[u8]) -> Result<ClusterState, String> {
        decode_state(data)
    }

    fn restore(&mut self, state: ClusterState) {
        *self = Self::new(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(version: ClusterVersion) -> ClusterState {
        let cluster_name = "lab".parse().expect("a name");
        ClusterState::new(Genesis { cluster_name, voters: Vec::new(), origin: None, version })
    }

    /// A release that does not support it reads no further than the form.
    #[test]
    fn a_snapshot_names_the_version_of_its_cluster() {
        for (version, form) in [(ClusterVersion::FIRST, "1"), (ClusterVersion::NEWEST, "4")] {
            let bytes = encode_state(&state(version));
            let text = String::from_utf8(bytes.clone()).expect("text");
            assert!(text.starts_with(&format!("{{\"format\":{form},\"state\":{{")), "{text}");
            assert_eq!(decode_state(&bytes), Ok(state(version)));
        }
        let newest = String::from_utf8(encode_state(&state(ClusterVersion::NEWEST))).expect("text");
        let lies = decode_state(newest.replacen("\"format\":4", "\"format\":1", 1).as_bytes());
        assert!(lies.is_err_and(|why| why.contains("it is of version 1, and its state of version 4")));
        for newer in ["{\"format\":5,\"state\":{\"other\":7}}", "{\"format\":5,\"state\":[]}"] {
            let why = decode_state(newer.as_bytes()).expect_err("newer");
            assert!(why.contains("version 5") && why.contains("install the release"), "{why}");
        }
        assert!(decode_state(b"{\"format\":4,\"state\":{}}").is_err());
    }

    #[test]
    fn a_version_that_this_release_does_not_support_ends_it_before_anything_is_applied() {
        let mut machine = StateMachine::new(state(ClusterVersion::NEWEST));
        let entry = |to: u32| {
            let to = ClusterVersion::try_from(to).expect("a version");
            let id = "raise".parse().expect("an id");
            encode_request(&Request { id, command: Command::RaiseVersion { to } })
        };
        assert_eq!(machine.apply((7, 1), &entry(4)), Ok(Outcome::unchanged(None)));
        let why = machine.apply((8, 1), &entry(5)).expect_err("newer");
        assert!(why.contains("the cluster has version 5, and this release supports 4 at most"), "{why}");
        assert_eq!(machine.0.version, ClusterVersion::NEWEST);
    }
}
