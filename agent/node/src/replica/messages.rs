//! Raft's messages between nodes: a frame is the cluster's id and a message in Raft's encoding.

use blixard_consensus::{Inbound, Outgoing, StepError};
use blixard_model::{EndpointId, RaftId, mutant};
use bytes::Bytes;

use super::Node;
use super::error::NodeError;
use super::waiting::Waits;
use crate::notice::Notice;

/// A Raft message to a peer; may be dropped.
#[derive(Debug)]
pub struct Envelope {
    /// To whom.
    pub to: EndpointId,
    /// Under which raft id, for [`Node::report_unreachable`] and [`Node::report_snapshot`].
    pub member: RaftId,
    /// The Raft message, encoded.
    pub frame: Bytes,
    /// A snapshot: large, and its delivery must be reported.
    pub is_snapshot: bool,
}

impl<P: Waits, R: Waits> Node<P, R> {
    /// A frame from a peer whose endpoint id the network has proved. What is not acceptable is dropped; Raft
    /// sends again what matters.
    ///
    /// # Errors
    /// [`NodeError::RolledBack`]: the message proves that this node's disk lost what it had stored.
    pub fn handle_raft(
        &mut self,
        from: EndpointId,
        frame: &[u8],
        is_snapshot: bool,
    ) -> Result<(), NodeError> {
        let id = self.config.cluster_id;
        let Some((cluster_id, message)) = frame.split_at_checked(id.as_bytes().len()) else { return Ok(()) };
        if cluster_id != id.as_bytes() {
            return Ok(());
        }
        let inbound = match Inbound::decode(message, is_snapshot) {
            Ok(inbound) => inbound,
            Err(why) => {
                self.news.tell(Notice::BadMessage { from, why });
                return Ok(());
            }
        };
        if !self.is_believed(inbound.from(), from) {
            return Ok(());
        }
        let sender = inbound.from();
        let stepped = self.raft.step(inbound);
        // A peer whose messages are all refused does not count as heard.
        if matches!(stepped, Ok(()) | Err(StepError::Late(_) | StepError::Raft(_))) {
            self.signs.note_heard(sender, self.tick);
        }
        match stepped {
            Ok(()) => Ok(()),
            Err(StepError::RolledBack { acknowledged, last }) => {
                Err(NodeError::RolledBack { stored: acknowledged, holds: last })
            }
            Err(StepError::Late(_) | StepError::Raft(_)) if mutant::lives("failed-step-ends-node") => {
                Err(NodeError::Left { raft_id: self.news.summary().raft_id })
            }
            // Harmless, and Raft's own business.
            Err(StepError::Late(_) | StepError::Raft(_)) => Ok(()),
            // Nothing that an honest member says to a whole node.
            Err(why) => {
                self.news.tell(Notice::BadMessage { from, why });
                Ok(())
            }
        }
    }

    /// The sender must be who the log says its raft id is. One that the log here does not know yet is
    /// believed: its connection proved that it is in the list of peers.
    fn is_believed(&mut self, raft_id: RaftId, from: EndpointId) -> bool {
        match self.state().nodes.member(raft_id) {
            Some(member) if member.node.endpoint_id != from => {
                self.news.tell(Notice::FalseSender { from });
                false
            }
            Some(_) => true,
            // It was a member, and never is again.
            None if self.state().has_left(raft_id) => false,
            // It was admitted after what the log here holds: only what it says from now on is its word.
            None => self.routes.learn(raft_id, from, |id| self.signs.forget(id)),
        }
    }

    /// Where a message goes; `None` when nobody is known under the raft id.
    pub(super) fn address(&self, message: Outgoing) -> Option<Envelope> {
        let member = self.state().nodes.member(message.to);
        let known = member.map(|member| member.node.endpoint_id);
        let to = known.or_else(|| self.routes.to(message.to))?;
        let frame = Bytes::from(message.encode_behind(self.config.cluster_id.as_bytes()));
        Some(Envelope { to, member: message.to, frame, is_snapshot: message.is_snapshot })
    }
}
