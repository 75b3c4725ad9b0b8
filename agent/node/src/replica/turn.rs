//! A turn: one pump of consensus, and what the owner has to carry out.

use blixard_consensus::{Effects, LogWrite, RaftRole};
use blixard_model::{Outcome, mutant};

use super::Node;
use super::error::NodeError;
use super::messages::Envelope;
use super::waiting::Waits;
use crate::attempt::AttemptEnd;
use crate::notice::Notice;
use crate::summary::Summary;

/// What the owner has to carry out.
#[derive(Debug)]
pub struct Turn<P, R> {
    /// To be sent, in order.
    pub sends: Vec<Envelope>,
    /// To be made durable after [`Turn::sends`] were handed over, and before anything else happens.
    pub write: Option<LogWrite>,
    /// Proposals that ended.
    pub answers: Vec<(P, AttemptEnd)>,
    /// Reads that may be served now.
    pub reads: Vec<R>,
    /// To be logged.
    pub notices: Vec<Notice>,
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
        let stalls = |send: &Envelope| {
            mutant::lives("dead-peer-stalls-all") && !self.routes.linked().contains(&send.to)
        };
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
        effects.membership.into_iter().for_each(|change| self.news.tell(Notice::MembershipChanged(change)));
        if effects.restored {
            self.news.tell(Notice::Restored(self.raft.status().applied));
        }
        self.note_members();
        let state = &self.raft.machine().0;
        self.tickets.note(&state.tickets, self.tick);
        self.news.note_version(state.version);
        self.note_summary();
        let (answers, notices) = (self.waiting.take_answers(), self.news.take_notices());
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

    /// Members came, went or moved. Where they are is in the state now, and of who is no member any more
    /// nothing is kept.
    fn note_members(&mut self) {
        let nodes = &self.raft.machine().0.nodes;
        if self.peers.note_members(nodes, self.raft.status().applied) {
            self.routes.forget(|id| nodes.has_member(id));
            self.signs.retain(|id| nodes.has_member(id) || self.routes.to(id).is_some());
        }
    }

    /// They may still be committed by the next leader; sent again under the same id they are applied once. A
    /// leadership may be won and lost between two turns.
    fn abandon_proposals(&mut self) {
        for key in self.waiting.abandon_proposals("the leadership was lost before it was committed") {
            self.raft.forget_proposal(key);
        }
    }

    fn note_summary(&mut self) {
        let leads = self.raft.leads();
        let joinable = self.tickets.may_admit(&self.raft.machine().0.tickets, self.tick, leads);
        let new = Summary::of(&self.raft, self.peers.version(), joinable);
        if new.role != RaftRole::Leader {
            self.abandon_proposals();
            self.abandon_tasks();
        }
        if self.news.note_summary(new) {
            self.signs.begin_to_lead(self.tick);
        }
    }
}
