//! A membership change as an entry of the log has it.

use blixard_model::MembershipChange;
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry};

/// Raft's form of a change; always one step of one member, so that the simple protocol is enough.
pub(crate) fn conf_change(change: &MembershipChange) -> ConfChangeV2 {
    let (kind, raft_id) = match change {
        MembershipChange::AddLearner { member, .. } => (ConfChangeType::AddLearnerNode, member.raft_id),
        MembershipChange::Promote { raft_id } => (ConfChangeType::AddNode, *raft_id),
        // Of a voter, Raft's word for it makes it a learner.
        MembershipChange::Demote { raft_id } => (ConfChangeType::AddLearnerNode, *raft_id),
        MembershipChange::Remove { raft_id, .. } => (ConfChangeType::RemoveNode, *raft_id),
    };
    let mut single = ConfChangeSingle::default();
    single.set_change_type(kind);
    single.node_id = raft_id.0;
    let mut conf_change = ConfChangeV2::default();
    conf_change.mut_changes().push(single);
    conf_change
}

/// The change itself travels in the context: what Raft is told is derived from it, so the two cannot differ.
pub(crate) fn decode_change(entry: &Entry) -> Result<MembershipChange, String> {
    let mut raw_change = ConfChangeV2::default();
    raw_change.merge_from_bytes(&entry.data).map_err(|error| error.to_string())?;
    MembershipChange::decode(&raw_change.context).map_err(|error| error.to_string())
}
