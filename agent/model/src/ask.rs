//! What anybody may want of whoever leads.
//!
//! An ask holds what the asker chooses and nothing else. What the leader makes of it is a
//! [`Command`](crate::Command) or a [`MembershipChange`](crate::MembershipChange), and only these stand in
//! the log: they hold what the leader adds as well, and some are decided by nobody but the leader.

use serde::{Deserialize, Serialize};

use crate::boot::BootId;
use crate::command::{Outcome, Refusal};
use crate::formation::Identity;
use crate::id::{EndpointId, NodeName, RaftId, RequestId, TicketHash, TicketId, VmName};
use crate::join::JoinRequest;
use crate::lease::{HoldAsk, LeaseTermsChoice};
use crate::node::Offer;
use crate::removal::VmsFate;
use crate::stop::VmStop;
use crate::version::ClusterVersion;
use crate::vm::{Desired, OrderId, VmSpec};

/// What somebody wants of the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A write: an entry of the log, applied at most once.
    Write(WriteRequest),
    /// A change of the members; asked for twice it is done once.
    Members(MembersAsk),
}

impl From<WriteRequest> for Ask {
    fn from(request: WriteRequest) -> Self {
        Self::Write(request)
    }
}

impl From<MembersAsk> for Ask {
    fn from(ask: MembersAsk) -> Self {
        Self::Members(ask)
    }
}

/// A write that is asked for, with the id under which it is applied at most once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteRequest {
    /// Chosen by the asker.
    pub id: RequestId,
    /// The write. Its name in JSON is that of what becomes of it.
    #[serde(rename = "command")]
    pub ask: WriteAsk,
}

/// A write that somebody asks for. It reads as the [`Command`](crate::Command) of the same kind, without what
/// the leader adds: earlier builds send that along, and it is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WriteAsk {
    /// Make a VM and place it.
    CreateVm {
        /// The wanted VM.
        spec: VmSpec,
        /// Whether it starts at once.
        desired: Desired,
    },
    /// Give a VM another spec; it stays where it is placed.
    ChangeVm {
        /// The wanted VM; its name says which.
        spec: VmSpec,
        /// The revision that whoever asks has seen: with another one it is refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<u64>,
    },
    /// Start a stopped VM.
    StartVm {
        /// The VM.
        name: VmName,
    },
    /// Stop a VM; it keeps its name, disks and reservation.
    StopVm {
        /// The VM.
        name: VmName,
    },
    /// Stop a VM and forget it once its node reports the unit gone.
    DeleteVm {
        /// The VM.
        name: VmName,
    },
    /// A node reports that the unit of a deleted VM is gone.
    ConfirmGone {
        /// The VM.
        name: VmName,
        /// The node that says so.
        node: NodeName,
        /// The placement it speaks of.
        generation: u64,
    },
    /// A node reports that no unit of a VM runs by an earlier spec. From version 2 of
    /// the cluster on.
    ConfirmSpec {
        /// The VM.
        name: VmName,
        /// The node that says so.
        node: NodeName,
        /// The placement and the revision of the spec that it speaks of.
        #[serde(flatten)]
        order: OrderId,
    },
    /// A node reports that a VM that is wanted to run stays stopped there. From version 4 of the cluster on.
    NoteStopped {
        /// The VM.
        name: VmName,
        /// The node that says so.
        node: NodeName,
        /// The placement it speaks of.
        generation: u64,
        /// What happened.
        #[serde(flatten)]
        stop: VmStop,
    },
    /// A node declares what it offers and where it is reached.
    SetNode {
        /// The node that declares it.
        endpoint_id: EndpointId,
        /// What it declares, with its resources.
        #[serde(flatten, deserialize_with = "Offer::with_capacity")]
        offer: Offer,
    },
    /// Make a ticket.
    CreateTicket {
        /// Its id.
        id: TicketId,
        /// The only name that its bearer may take.
        #[serde(default)]
        name: Option<NodeName>,
        /// The hash of its secret.
        hash: TicketHash,
        /// How long it lives, in milliseconds.
        ttl_ms: u64,
    },
    /// Take a ticket back.
    RevokeTicket {
        /// The ticket.
        id: TicketId,
    },
    /// Forget the VMs that were placed on a node that left the cluster for good.
    ForgetVms {
        /// The name it had.
        node: NodeName,
    },
    /// A node runs VMs that may be failed over only under a lease from now on, in this boot of its machine.
    /// From version 3 of the cluster on.
    EnforceLease {
        /// The node, by its raft id.
        raft_id: RaftId,
        /// The boot.
        boot_id: BootId,
        /// Which time of enforcement it speaks of.
        epoch: u64,
    },
    /// A node announces a long lease. From version 4 of
    /// the cluster on.
    TakeHold {
        /// The node, by its raft id: a store of it.
        raft_id: RaftId,
        /// What it announces.
        #[serde(flatten)]
        hold: HoldAsk,
    },
    /// A node says that none of its supervisors counts on a long lease any more. Ignored when it speaks of
    /// another one than the log's, and while the cluster is disarmed. From version 4 of the cluster on.
    EndHold {
        /// The node, by its raft id: a store of it.
        raft_id: RaftId,
        /// The boot of its machine that says so.
        boot_id: BootId,
        /// The long lease that it speaks of, by the log index that it came with.
        since: u64,
    },
    /// For so long no VM is started elsewhere because its node is lost, and every node takes a long lease.
    /// From version 4 of the cluster on.
    Disarm {
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// VMs of lost nodes are started elsewhere again. From version 4 of the cluster on.
    Arm,
    /// Gives leases other terms. From version 4 of the cluster on.
    SetLeaseTerms {
        /// Those from here on.
        #[serde(flatten)]
        terms: LeaseTermsChoice,
    },
}

impl WriteAsk {
    /// The version of a cluster from which on every member understands it. Before that it is not sent to
    /// anybody.
    pub fn needs(&self) -> ClusterVersion {
        match self {
            Self::NoteStopped { .. } => ClusterVersion::STOPS_NOTED,
            Self::CreateVm { spec, .. } | Self::ChangeVm { spec, .. } if !spec.restart.is_default() => {
                ClusterVersion::STOPS_NOTED
            }
            Self::EnforceLease { .. } => ClusterVersion::LEASES,
            Self::TakeHold { .. }
            | Self::EndHold { .. }
            | Self::Disarm { .. }
            | Self::Arm
            | Self::SetLeaseTerms { .. } => ClusterVersion::HOLDS,
            Self::CreateVm { spec, .. } | Self::ChangeVm { spec, .. }
                if spec.fails_over() && spec.written_disks().next().is_some() =>
            {
                ClusterVersion::SHARED_DISKS
            }
            Self::CreateVm { spec, .. } | Self::ChangeVm { spec, .. } if spec.on_node_loss.is_some() => {
                ClusterVersion::LEASES
            }
            Self::ChangeVm { .. } | Self::ConfirmSpec { .. } => ClusterVersion::SPECS_CHANGE,
            Self::CreateVm { .. }
            | Self::StartVm { .. }
            | Self::StopVm { .. }
            | Self::DeleteVm { .. }
            | Self::ConfirmGone { .. }
            | Self::SetNode { .. }
            | Self::CreateTicket { .. }
            | Self::RevokeTicket { .. }
            | Self::ForgetVms { .. } => ClusterVersion::FIRST,
        }
    }
}

/// A change of the members that somebody asks for; the leader decides what it takes. Asked again it changes
/// nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "members", rename_all = "snake_case")]
pub enum MembersAsk {
    /// A node is to leave for good.
    Remove {
        /// The member to remove.
        raft_id: RaftId,
        /// It does not answer and will not come back.
        force: bool,
        /// What becomes of its VMs; they need `force`.
        vms: Option<VmsFate>,
    },
    /// A member names a node of its list that has an empty store, so that the leader admits it.
    Vouch {
        /// The node, with its addresses from the list.
        node: Box<Identity>,
    },
    /// A node with an empty store has a ticket and said this; its endpoint id is the one that its handshake
    /// proved.
    Admit(Box<JoinRequest>),
}

impl MembersAsk {
    /// The version of a cluster from which on every member understands what it may become.
    pub fn needs(&self) -> ClusterVersion {
        match self {
            Self::Remove { vms: Some(VmsFate::Retire), .. } => ClusterVersion::HOLDS,
            Self::Remove { .. } | Self::Vouch { .. } | Self::Admit(_) => ClusterVersion::FIRST,
        }
    }
}

/// How an ask ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum AskOutcome {
    /// It is done, or it was so already.
    Done {
        /// Where the VM is placed, for writes about one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<NodeName>,
        /// The state was as wanted before: nothing changed.
        #[serde(default)]
        unchanged: bool,
    },
    /// A node is a member now, or was so already: the end of [`MembersAsk::Vouch`] and [`MembersAsk::Admit`],
    /// and of no other.
    Admitted {
        /// Under which raft id.
        raft_id: RaftId,
    },
    /// It was refused; nothing changed.
    Refused {
        /// The reason, with the way out.
        refusal: Refusal,
    },
}

impl AskOutcome {
    /// The outcome of an ask that admits nobody; none if this is of one that does.
    pub fn unless_admitted(self) -> Option<Outcome> {
        match self {
            Self::Done { node, unchanged } => Some(Outcome::Done { node, unchanged }),
            Self::Refused { refusal } => Some(Outcome::Refused { refusal }),
            Self::Admitted { .. } => None,
        }
    }
}

impl From<Outcome> for AskOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done { node, unchanged } => Self::Done { node, unchanged },
            Outcome::Refused { refusal } => Self::Refused { refusal },
        }
    }
}

impl From<Refusal> for AskOutcome {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { refusal }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::PeerRequest;
    use crate::{Command, Request};

    /// A write of every kind, and what it lacks of the command of that kind.
    fn writes() -> Vec<(Value, Option<(&'static str, Value)>)> {
        let spec = json!({"name": "web", "cpus": 1, "memory_mib": 256, "kernel": "/k"});
        let endpoint_id = EndpointId::from_bytes([3; 32]);
        let hash = TicketHash::from_bytes([4; 32]);
        let ticket = TicketId::from_bytes([5; 8]);
        vec![
            (
                json!({"kind": "create_vm", "spec": spec, "desired": "running"}),
                Some(("eligible", json!(["n1", "n2"]))),
            ),
            (json!({"kind": "change_vm", "spec": spec, "seen": 7}), None),
            (json!({"kind": "start_vm", "name": "web"}), None),
            (json!({"kind": "stop_vm", "name": "web"}), None),
            (json!({"kind": "delete_vm", "name": "web"}), None),
            (json!({"kind": "confirm_gone", "name": "web", "node": "n1", "generation": 7}), None),
            (
                json!({"kind": "note_stopped", "name": "web", "node": "n1", "generation": 7,
                    "cause": {"ended": "guest_shut_down"}, "at_unix_ms": 1_700_000_000_000_u64}),
                None,
            ),
            (
                json!({"kind": "set_node", "endpoint_id": endpoint_id, "witness": true, "relay_url": null,
                    "capacity": {"cpus": 4, "memory_mib": 2048}, "addresses": ["192.0.2.1:7431"]}),
                None,
            ),
            (
                json!({"kind": "create_ticket", "id": ticket, "name": "n9", "hash": hash, "ttl_ms": 60_000}),
                Some(("at_ms", json!(1_700_000_000_000_u64))),
            ),
            (json!({"kind": "revoke_ticket", "id": ticket}), None),
            (json!({"kind": "forget_vms", "node": "n3"}), None),
            (json!({"kind": "disarm", "for_ms": 60_000}), Some(("at_ms", json!(1_700_000_000_000_u64)))),
            (json!({"kind": "arm"}), None),
        ]
    }

    fn request(command: &Value) -> Value {
        json!({"id": "r-1", "command": command})
    }

    /// Earlier builds read a request as the log holds it, with defaults, and send all of it.
    #[test]
    fn a_write_is_understood_by_earlier_builds_and_theirs_is_here() {
        for (write, added) in writes() {
            let asked: WriteRequest = serde_json::from_value(request(&write)).expect("a write");
            let sent = serde_json::to_value(&asked).expect("JSON");
            let before: Request = serde_json::from_value(sent.clone()).expect("an earlier build reads it");
            assert_eq!(asked.id, before.id);
            let mut theirs = serde_json::to_value(&before).expect("JSON");
            if let Some((field, value)) = added {
                assert!(sent["command"].get(field).is_none(), "{field} is not for the asker to say");
                assert!(theirs["command"][field].take() != Value::Null, "{field} is missing in the log");
                theirs["command"][field] = value;
            } else {
                assert_eq!(sent, theirs);
            }
            assert_eq!(serde_json::from_value::<WriteRequest>(theirs).expect("of an earlier build"), asked);
        }
    }

    #[test]
    fn what_only_a_leader_decides_cannot_be_asked_for() {
        let expiry = Command::ExpireTickets { ids: vec![TicketId::from_bytes([5; 8])] };
        let expiry = serde_json::to_value(&expiry).expect("JSON");
        let said = serde_json::from_value::<WriteRequest>(request(&expiry)).expect_err("no ask").to_string();
        assert!(said.contains("unknown variant `expire_tickets`"), "{said}");
        let propose = |command: &Value| {
            let question = json!({"ask": "propose", "request": request(command), "timeout_ms": 1});
            serde_json::from_value::<PeerRequest>(question)
        };
        assert!(propose(&expiry).is_err());
        assert!(writes().iter().all(|(write, _)| propose(write).is_ok()));
    }

    /// That the time of a disarmed cluster is over is the leader's word: it names the entry that disarmed it.
    #[test]
    fn an_asker_arms_whatever_disarmed_the_cluster() {
        let arm = Command::Arm { since: Some(3) };
        let said = request(&serde_json::to_value(&arm).expect("JSON"));
        assert_eq!(said["command"]["since"], 3);
        assert_eq!(serde_json::from_value::<WriteRequest>(said).expect("a write").ask, WriteAsk::Arm);
    }

    #[test]
    fn an_outcome_of_a_command_is_told_as_the_log_remembers_it() {
        let node: NodeName = "n1".parse().expect("a name");
        let refusal = Refusal::NodeNotFound { node: node.clone() };
        for outcome in [Outcome::done(Some(node.clone())), Outcome::unchanged(None), refusal.into()] {
            let told = AskOutcome::from(outcome.clone());
            let text = |json: serde_json::Result<String>| json.expect("JSON");
            assert_eq!(text(serde_json::to_string(&told)), text(serde_json::to_string(&outcome)));
            assert_eq!(told.unless_admitted(), Some(outcome));
        }
        let admitted: AskOutcome =
            serde_json::from_value(json!({"outcome": "admitted", "raft_id": 4})).expect("an outcome");
        assert_eq!(admitted, AskOutcome::Admitted { raft_id: RaftId(4) });
        assert_eq!(admitted.unless_admitted(), None);
    }
}
