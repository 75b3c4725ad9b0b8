//! What comes out of the Raft node: everything that its owner has to carry out, and why it may have to end.

use blixard_model::{MembershipChange, RaftId};
use raft::eraftpb::{Message, MessageType};

use crate::stored_form::{LogWrite, encode_behind};

/// A message to a member.
#[derive(Debug)]
pub struct Outgoing {
    /// The member that it is for.
    pub to: RaftId,
    /// A snapshot: large, and its delivery must be reported.
    pub is_snapshot: bool,
    message: Message,
}

impl Outgoing {
    pub(crate) fn new(message: Message) -> Self {
        let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
        Self { to: RaftId(message.to), is_snapshot, message }
    }

    /// Raft's encoding, behind a head. A snapshot is copied once.
    pub fn encode_behind(&self, head: &[u8]) -> Vec<u8> {
        encode_behind(head, &self.message)
    }
}

/// An applied command.
#[derive(Debug)]
pub struct Applied<O> {
    /// Its place in the log.
    pub index: u64,
    /// The key of the proposal, if it was this node's in this run.
    pub key: Option<u64>,
    /// The outcome of applying it.
    pub outcome: O,
}

/// What the owner has to carry out. Nothing in it rests on `write`: what does comes out of
/// [`crate::Consensus::written`].
#[derive(Debug)]
#[must_use = "a write that is dropped stops the node"]
pub struct Effects<O> {
    /// To be made durable before anything else is put into the node; then [`crate::Consensus::written`] goes
    /// on. `None`: the node is at rest, and takes inputs.
    pub write: Option<LogWrite>,
    /// To be sent, in order; any may be dropped.
    pub messages: Vec<Outgoing>,
    /// Applied commands, in log order.
    pub applied: Vec<Applied<O>>,
    /// Applied membership changes, in log order.
    pub membership: Vec<MembershipChange>,
    /// Keys of the reads that may be served now.
    pub reads: Vec<u64>,
    /// The state was replaced by a leader's snapshot.
    pub restored: bool,
}

impl<O> Effects<O> {
    pub(crate) fn none() -> Self {
        Self {
            write: None,
            messages: Vec::new(),
            applied: Vec::new(),
            membership: Vec::new(),
            reads: Vec::new(),
            restored: false,
        }
    }

    pub(crate) fn send(&mut self, messages: Vec<Message>) {
        self.messages.extend(messages.into_iter().map(Outgoing::new));
    }

    /// Puts what came out later behind what is here, for an owner that carries out all of it at once. The
    /// write is the later one.
    pub fn extend(&mut self, later: Self) {
        self.write = later.write;
        self.messages.extend(later.messages);
        self.applied.extend(later.applied);
        self.membership.extend(later.membership);
        self.reads.extend(later.reads);
        self.restored |= later.restored;
    }
}

/// The node cannot go on. The process must end: only the content of the disk counts.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// An entry or snapshot that this version does not understand.
    #[error("index {index} cannot be applied: {why}; upgrade this node")]
    Apply {
        /// The index of the entry.
        index: u64,
        /// Why the entry cannot be applied.
        why: String,
    },
    /// Raft refused a configuration that the log holds.
    #[error("raft refused the configuration at index {index}")]
    Configuration {
        /// The index of the entry.
        index: u64,
        /// Why Raft does not take the configuration.
        source: raft::Error,
    },
}
