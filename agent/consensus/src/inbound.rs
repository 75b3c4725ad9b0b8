//! A message of a peer, decoded and of good form.

use blixard_model::RaftId;
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};

use crate::error::StepError;
use crate::limits::MESSAGE_LEN_MAX;
use crate::{accept, shape};

/// A decoded message of a peer, of a kind that a peer may send.
#[derive(Debug)]
pub struct Inbound(Message);

impl Inbound {
    /// Decodes what a peer sent.
    ///
    /// # Errors
    /// It is no message, too large, or of a kind that no node sends this way.
    pub fn decode(bytes: &[u8], is_snapshot: bool) -> Result<Self, StepError> {
        if bytes.len() > MESSAGE_LEN_MAX && !is_snapshot {
            return Err(StepError::Unacceptable("too large"));
        }
        shape::check(bytes).map_err(|why| StepError::Malformed(why.to_owned()))?;
        let mut message = Message::default();
        message.merge_from_bytes(bytes).map_err(|error| StepError::Malformed(error.to_string()))?;
        if (message.get_msg_type() == MessageType::MsgSnapshot) != is_snapshot {
            return Err(StepError::Unacceptable("a snapshot came by the wrong way"));
        }
        accept::check_form(&message).map_err(StepError::Unacceptable)?;
        Ok(Self(message))
    }

    /// The sender that the message names.
    pub fn from(&self) -> RaftId {
        RaftId(self.0.from)
    }

    pub(crate) fn message(&self) -> &Message {
        &self.0
    }

    pub(crate) fn into_message(self) -> Message {
        self.0
    }
}
