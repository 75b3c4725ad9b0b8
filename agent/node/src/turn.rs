//! A turn: one pump of consensus, and what the owner has to carry out.

use blixard_consensus::{Effects, LogWrite, PumpError, RaftRole};
use blixard_core::state::MemberRef;
use blixard_model::{EndpointId, Outcome, RaftId, mutant};
use bytes::Bytes;

use crate::attempt::AttemptEnd;
use crate::node::Node;
use crate::notice::Notice;
use crate::summary::Summary;
use crate::waiting::Waits;

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

/// What the owner has to carry out.
#[derive(Debug)]
pub struct Turn<P, R> {
    /// To be sent, in order.
    pub sends: Vec<Envelope>,
    /// To be made durable after these were handed over to be sent, and before anything else happens.
    pub write: Option<LogWrite>,
    /// Proposals that ended.
    pub answers: Vec<(P, AttemptEnd)>,
    /// Reads that may be served now.
    pub reads: Vec<R>,
    /// To be logged.
    pub notices: Vec<Notice>,
}

/// Why a node must end. What is on disk is what counts.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The log holds what this version cannot apply.
    #[error(transparent)]
    Pump(#[from] PumpError),
    /// The disk went back in time: an older copy was put in its place, or it forgot what it had synced.
    #[error(
        "this node's disk went back in time: the leader knows that it had stored the log up to {stored}, it \
         holds {holds}. It counts as lost: stop blixard.service, move store.redb out of the data directory \
         and start it again; the cluster admits this node anew, under a new raft id"
    )]
    RolledBack {
        /// What this node had acknowledged to have stored.
        stored: u64,
        /// Its last index.
        holds: u64,
    },
    /// An operator removed this node.
    #[error("this node (raft id {raft_id}) was removed from the cluster")]
    Removed {
        /// The raft id that it had.
        raft_id: RaftId,
    },
    /// The store is one that the cluster has let go: it was lost, and an old copy came back.
    #[error(
        "this node's store takes part as raft id {raft_id}, which has left the cluster for good: the store \
         was lost or removed before. It counts as lost: stop blixard.service, move store.redb out of the \
         data directory and start it again; the cluster admits this node anew, under a new raft id"
    )]
    Left {
        /// The raft id that it has.
        raft_id: RaftId,
    },
}

impl<P: Waits, R: Waits> Node<P, R> {
    /// Does what there is to do after a batch of inputs. With [`Turn::write`] there is more to come: once
    /// that is durable, [`Node::written`] goes on, and nothing else may reach the node before.
    ///
    /// # Errors
    /// Final: the node must not be used any more.
    pub fn turn(&mut self) -> Result<Turn<P, R>, NodeError> {
        let effects = self.raft.pump()?;
        Ok(self.end_of_pump(effects))
    }

    /// What the last turn gave to be written is durable: goes on with the turn.
    ///
    /// # Errors
    /// Final: the node must not be used any more.
    pub fn written(&mut self) -> Result<Turn<P, R>, NodeError> {
        let effects = self.raft.written()?;
        Ok(self.end_of_pump(effects))
    }

    fn end_of_pump(&mut self, effects: Effects<Outcome>) -> Turn<P, R> {
        let sends = effects.messages.into_iter().filter_map(|message| self.address(message));
        let stalls =
            |send: &Envelope| mutant::lives("dead-peer-stalls-all") && !self.linked.contains(&send.to);
        let sends = sends.take_while(|send| !stalls(send)).collect();
        #[cfg(blixard_mutants)]
        self.write_past_the_log();
        for applied in effects.applied {
            if let Some(key) = applied.key {
                self.waiting.answer(key, AttemptEnd::Decided(applied.outcome.into()));
            }
        }
        let reads = effects.reads.into_iter().filter_map(|key| self.waiting.take_read(key)).collect();
        self.note_asked_change(&effects.membership);
        self.notices.extend(effects.membership.into_iter().map(Notice::MembershipChanged));
        if effects.restored {
            self.notices.push(Notice::Restored(self.raft.status().applied));
        }
        self.note_members();
        self.note_tickets();
        self.note_version();
        self.note_summary();
        let answers = std::mem::take(&mut self.waiting.answers);
        let notices = std::mem::take(&mut self.notices);
        Turn { sends, write: effects.write, answers, reads, notices }
    }

    /// What a node's own deletions become in a planted bug.
    #[cfg(blixard_mutants)]
    fn write_past_the_log(&mut self) {
        if mutant::lives("state-written-past-the-log") {
            let (vms, name) = (&mut self.raft.machine_mut().0.vms, &self.config.name);
            vms.retain(|_, vm| vm.placement.node != *name || vm.desired != blixard_model::Desired::Absent);
        }
    }

    /// Members came, went or moved, or what others told of them is not needed any more: whoever keeps the
    /// list of peers is woken.
    fn note_members(&mut self) {
        let told = &mut self.config.told;
        let caught_up = !told.members.is_empty() && self.raft.status().applied >= told.applied;
        if caught_up {
            told.members.clear();
        }
        let nodes = &self.raft.machine().0.nodes;
        let is = |member: MemberRef<'_>, (known, addresses, relay): &(_, _, _)| {
            let offer = member.node.offer;
            member.raft_id == *known && offer.addresses == *addresses && offer.relay_url == *relay
        };
        let same = nodes.member_count() == self.peers.len()
            && nodes.members().zip(&self.peers).all(|(now, was)| is(now, was));
        if same && !caught_up {
            return;
        }
        let peer = |member: MemberRef<'_>| {
            let offer = member.node.offer;
            (member.raft_id, offer.addresses.clone(), offer.relay_url.clone())
        };
        self.peers = nodes.members().map(peer).collect();
        self.routes.retain(|id, _| !nodes.has_member(*id));
        self.heard.retain(|id, _| nodes.has_member(*id) || self.routes.contains_key(id));
        self.membership_version += 1;
    }

    /// They may still be committed by the next leader; sent again under the same id they are applied once. A
    /// leadership may be won and lost between two turns.
    fn abandon_proposals(&mut self) {
        for key in self.waiting.abandon_proposals("the leadership was lost before it was committed") {
            self.raft.forget_proposal(key);
        }
    }

    fn note_summary(&mut self) {
        let new = Summary::of(&self.raft, self.membership_version, self.is_joinable());
        if new.role != RaftRole::Leader {
            self.abandon_proposals();
            self.abandon_asked_change();
            self.raising = None;
        }
        let old = &self.summary;
        if *old == new {
            return;
        }
        if old.role != RaftRole::Leader && new.role == RaftRole::Leader {
            self.leads_since = self.tick;
        }
        if old.leader != new.leader || old.term != new.term {
            self.notices.push(Notice::Leader {
                term: new.term,
                leader: new.leader.as_ref().map(|(name, _)| name.clone()),
                here: new.role == RaftRole::Leader,
            });
        }
        self.summary = new;
    }
}
