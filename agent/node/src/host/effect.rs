//! Everything that a host may want done. Closed: a shell carries out each of these and decides nothing.

use std::collections::BTreeMap;

use blixard_core::VmRecord;
use blixard_core::reconciler::Action;
use blixard_model::removal::RemovedFrom;
use blixard_model::wire::{AgedReport, JoinRequest, JoinResponse, PeerRequest, PeerResponse, ProgressReport};
use blixard_model::{ClusterId, Contact, EndpointId, LeaseFile, Outcome, StopNote, TicketId, VmName};

use super::disk::Write;
use super::input::{CallId, PeerCallId, WaiterId};
use crate::notice::Notice;
use crate::replica::Envelope;
use crate::submission::SubmitError;

/// Something to be done.
#[derive(Debug)]
pub enum Effect {
    /// Send a Raft message; it may be dropped, and is reported if it is.
    Raft(Envelope),
    /// Ask a peer. The answer, or that there is none, comes back as
    /// [`Input::PeerAnswered`](super::Input::PeerAnswered).
    AskPeer {
        /// For the answer.
        call: CallId,
        /// The peer that is asked.
        to: EndpointId,
        /// What it is asked.
        request: Box<PeerRequest>,
        /// The host gives up after this many milliseconds.
        patience_ms: u64,
    },
    /// Ask a member to be admitted, over the join protocol. The answer comes back as
    /// [`Input::JoinAnswered`](super::Input::JoinAnswered).
    AskToJoin {
        /// For the answer.
        call: CallId,
        /// The member that is asked.
        contact: Contact,
        /// The cluster that it has to prove to be of before it is told anything.
        cluster_id: ClusterId,
        /// What to say.
        request: Box<JoinRequest>,
        /// The host gives up after this many milliseconds.
        patience_ms: u64,
    },
    /// The host does not wait for this answer any more.
    ForgetCall {
        /// The question whose answer is not waited for.
        call: CallId,
    },
    /// Answer a peer.
    AnswerPeer {
        /// The question.
        call: PeerCallId,
        /// The answer.
        response: Box<PeerResponse>,
    },
    /// Answer a node that asked to be admitted.
    AnswerJoin {
        /// The question.
        call: PeerCallId,
        /// The answer.
        response: Box<JoinResponse>,
    },
    /// Answer somebody on this machine.
    Answer {
        /// Who is answered.
        waiter: WaiterId,
        /// The answer, which is the only one to that waiter.
        answer: Answer,
    },
    /// Keep links with these peers, admit them and nobody else.
    Peers {
        /// The peers, beside those that the configuration lists, and where they are.
        contacts: Vec<Contact>,
        /// Whether the nodes that the configuration lists are peers as well.
        listed: bool,
        /// Who is told that it was removed, and from where.
        removed: BTreeMap<EndpointId, RemovedFrom>,
    },
    /// Keep links with nobody and dial nobody but those who refuse this node because another agent runs with
    /// its key; or keep links again.
    StandAside(bool),
    /// Serve the join protocol for this cluster, or not at all.
    ServeJoins(Option<ClusterId>),
    /// List the units of this machine's VMs; answered by [`Input::Units`](super::Input::Units).
    ListUnits {
        /// Tells this look from others.
        look: u64,
    },
    /// Do this to a unit; answered by [`Input::ActionDone`](super::Input::ActionDone).
    Act {
        /// What to do, and to which unit.
        action: Action,
        /// The VM as the log has it; none for a unit that the log does not know.
        vm: Option<Box<VmRecord>>,
        /// The cluster under whose lease the VM runs, if it needs one.
        lease: Option<ClusterId>,
    },
    /// Forget the launch order and the limits of a VM that is deleted; answered by
    /// [`Input::ActionDone`](super::Input::ActionDone) for its [`Action::ConfirmGone`].
    ForgetOrder {
        /// Of which VM.
        vm: VmName,
    },
    /// Let the supervisors of this machine's VMs know this; answered by
    /// [`Input::LeaseWritten`](super::Input::LeaseWritten).
    WriteLease(Box<LeaseFile>),
    /// Fetch the last lines of a VM's console; answered by [`Input::Console`](super::Input::Console).
    FetchConsole {
        /// Of which VM.
        vm: VmName,
        /// How many at most.
        lines: u32,
    },
    /// Make this durable. Nothing that comes later in the list may be carried out before it is; a failed
    /// write ends the process.
    Write(Write),
    /// Keep this ticket on disk; answered by [`Input::TicketKept`](super::Input::TicketKept).
    KeepTicket {
        /// For whom.
        waiter: WaiterId,
        /// The ticket's text. It is a secret.
        text: String,
    },
    /// Look whether there is a ticket on disk now; answered by
    /// [`Input::TicketRead`](super::Input::TicketRead).
    ReadTicket,
    /// The kept ticket is of no use any more; none stands for whichever is kept.
    ForgetTicket(Option<TicketId>),
    /// Make these durable: what was stopped by hand here; answered by
    /// [`Input::StopKept`](super::Input::StopKept).
    KeepStop {
        /// For whom.
        waiter: WaiterId,
        /// What to keep, each beside what is kept already.
        notes: Vec<StopNote>,
    },
    /// These are of no use any more.
    ForgetStops(Vec<StopNote>),
    /// Tell people.
    Notice(Notice),
}

/// How something that somebody on this machine wanted ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Want::Change`](super::Want::Change) and [`Want::RemoveNode`](super::Want::RemoveNode).
    Changed(Result<Outcome, SubmitError>),
    /// To [`Want::Read`](super::Want::Read): the state may be read now.
    Readable(Result<(), SubmitError>),
    /// To [`Want::Reports`](super::Want::Reports).
    Reports(Vec<AgedReport>),
    /// To [`Want::Progress`](super::Want::Progress); none when no leader told it in time.
    Progress(Option<ProgressReport>),
    /// To [`Want::HandOver`](super::Want::HandOver): whether this node leads no more.
    HandedOver(bool),
    /// To [`Want::Hold`](super::Want::Hold).
    Held(HoldEnd),
    /// To [`Want::Join`](super::Want::Join): the ticket is kept and will be used, or why not.
    TicketTaken(Result<(), JoinRefusal>),
    /// To [`Want::StopHere`](super::Want::StopHere): the VM is being stopped and stays so, whatever becomes
    /// of this agent, or why not.
    StopTaken(Result<(), StopRefusal>),
}

/// Why a node does not stop a VM by hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopRefusal {
    /// Neither the log places it here nor is there a unit of it.
    #[error("no VM named {0} is placed on this node, and none runs here: `blixard local list` shows them")]
    NotHere(VmName),
    /// It would be started again by whoever does not know of it.
    #[error("that {vm} is stopped by hand cannot be kept: {why}")]
    NotKept {
        /// The VM.
        vm: VmName,
        /// What the disk said.
        why: String,
    },
    /// The node has no cluster yet, or none any more.
    #[error("this node is in no cluster, and its agent does not manage VMs")]
    NoMember,
}

/// What became of the wish that VMs run on while the agent is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldEnd {
    /// No VM of this node needs it.
    NotNeeded,
    /// The log has it, and the supervisors know of it.
    Taken,
    /// The log did not take it in time, or the supervisors could not be told.
    NotTaken,
}

/// Why a node takes no ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    /// It is where the ticket leads.
    #[error("this node is a member of that cluster already")]
    MemberAlready,
    /// Its store is not empty.
    #[error(
        "this node's store belongs to cluster {}: a node joins with an empty store. To give that cluster up \
         here, stop blixard.service, write `join = true` into the configuration, move store.redb out of the \
         data directory and start it again",
        cluster_id.short()
    )]
    InAnotherCluster {
        /// Which cluster it belongs to.
        cluster_id: ClusterId,
    },
    /// It waits for the leader to find it on a list.
    #[error(
        "this node is on a list of `members` and is admitted because it is listed: for a ticket, take the \
         list out of its configuration and write `join = true`"
    )]
    Listed,
    /// The disk does not take it.
    #[error("the ticket cannot be kept: {why}")]
    NotKept {
        /// What the disk said.
        why: String,
    },
    /// It came into a cluster while the ticket was written to disk.
    #[error("this node has come into a cluster meanwhile")]
    TooLate,
}
