//! The caller's side of the consensus task.

use std::collections::BTreeMap;
use std::time::Duration;

use blixard_consensus::{RaftRole, RaftStatus};
use blixard_core::ClusterState;
use blixard_model::formation::Identity;
use blixard_model::wire::{Contact, MembersAsk, ProgressReport, ProposeResult};
use blixard_model::{EndpointId, RaftId};
use blixard_node::{Ask, NodeStats, Stranger, Summary};
use blixard_store::StoreStats;
use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

/// How long a look at the state may take. The task answers within a turn; a turn waits for the disk.
const VIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// Most inputs waiting for the consensus task.
pub(crate) const INBOX_MAX: usize = 1_024;

/// What the consensus task is given. Closed: nothing else reaches Raft.
pub(crate) enum Input {
    /// A Raft message from a peer.
    Raft { from: EndpointId, bytes: Bytes, is_snapshot: bool },
    /// What a peer said of itself just now.
    Identity { identity: Box<Identity>, asked: Option<u64> },
    /// Do this, if this node leads.
    Ask { ask: Ask, reply: oneshot::Sender<ProposeResult> },
    /// Answer once everything acknowledged before is applied here.
    Read { reply: oneshot::Sender<()> },
    /// Look at the state.
    View(Box<dyn FnOnce(&View<'_>) + Send>),
    /// Hand the leadership over, if this node has it; answers whether there is somebody to take it.
    TransferLeadership { reply: oneshot::Sender<bool> },
    /// End the task; the store is closed whole.
    Stop,
}

/// What is made anew at each look.
pub(crate) trait Seldom {
    /// Whom to keep a link with, beside those that are listed.
    fn peers(&self) -> Vec<Contact>;
    /// Whom not to let in, and under which raft id they were removed.
    fn kept_out(&self) -> BTreeMap<EndpointId, RaftId>;
    /// What the leader is to be told of listed nodes.
    fn vouches(&self) -> Vec<MembersAsk>;
    /// Listed nodes that belong to another cluster.
    fn strangers(&self) -> Vec<Stranger>;
    /// What this node knows of the members as leader.
    fn progress_report(&self) -> Option<ProgressReport>;
}

/// The state as the consensus task shows it for a moment.
pub(crate) struct View<'a> {
    /// The replicated state, as far as it is applied here.
    pub(crate) state: &'a ClusterState,
    /// Raft's.
    pub(crate) raft: &'a RaftStatus,
    /// What is seldom looked at and costs more.
    pub(crate) node: &'a dyn Seldom,
    /// Sizes and lengths.
    pub(crate) stats: NodeStats,
    /// The store's writes.
    pub(crate) store: StoreStats,
}

/// The consensus task has ended; the process is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent is stopping")]
pub(crate) struct Stopped;

/// The state was not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ViewError {
    /// The task has ended.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// It did not get to it in time; it may later.
    #[error(
        "the consensus task is behind: it has not shown its state within {} s; is the disk slow?",
        VIEW_TIMEOUT.as_secs()
    )]
    Behind,
}

/// Cheap to clone. Every call is bounded by its caller's deadline or answered by the next turn of the task.
#[derive(Clone)]
pub(crate) struct ConsensusHandle {
    inbox: mpsc::Sender<Input>,
    summary: watch::Receiver<Summary>,
    dropped: Counter,
}

impl ConsensusHandle {
    /// `dropped` counts the Raft messages that found no room.
    pub(crate) fn new(
        inbox: mpsc::Sender<Input>,
        summary: watch::Receiver<Summary>,
        dropped: Counter,
    ) -> Self {
        Self { inbox, summary, dropped }
    }

    /// Inputs that wait.
    pub(crate) fn inbox_len(&self) -> usize {
        self.inbox.max_capacity().saturating_sub(self.inbox.capacity())
    }

    /// What waits for changes watches this.
    pub(crate) fn summary(&self) -> watch::Receiver<Summary> {
        self.summary.clone()
    }

    /// A Raft message; dropped when the task is behind, as any network may do.
    pub(crate) fn offer_raft(&self, from: EndpointId, bytes: Bytes, is_snapshot: bool) {
        if self.inbox.try_send(Input::Raft { from, bytes, is_snapshot }).is_err() {
            self.dropped.inc();
            tracing::debug!(peer = %from.short(), "raft message dropped: the consensus task is behind");
        }
    }

    /// What a peer said of itself, as the answer to a question asked at this version of the membership, or
    /// unasked; the next one replaces it, so one may be lost.
    pub(crate) fn offer_identity(&self, identity: Identity, asked: Option<u64>) {
        if self.inbox.try_send(Input::Identity { identity: Box::new(identity), asked }).is_err() {
            tracing::debug!("identity dropped: the consensus task is behind");
        }
    }

    /// Asks it of this node and waits for the end, at most `patience`.
    pub(crate) async fn ask(&self, ask: Ask, patience: Duration) -> ProposeResult {
        let (reply, answer) = oneshot::channel();
        let begun = Instant::now();
        match timeout(patience, self.inbox.send(Input::Ask { ask, reply })).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return ProposeResult::Rejected { why: Stopped.to_string() },
            Err(_) => return ProposeResult::Rejected { why: "the consensus task is behind".to_owned() },
        }
        match timeout(patience.saturating_sub(begun.elapsed()), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => ProposeResult::Unknown { why: Stopped.to_string() },
            Err(_) => ProposeResult::Unknown { why: "not committed in time".to_owned() },
        }
    }

    /// Waits until everything acknowledged before this call is applied here. Resolves to false when the task
    /// ended.
    pub(crate) async fn read_barrier(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Input::Read { reply }).await.is_ok() && answer.await.is_ok()
    }

    /// Looks at the state inside the task, and waits for it no longer than [`VIEW_TIMEOUT`].
    ///
    /// # Errors
    /// [`ViewError`].
    pub(crate) async fn view<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, ViewError> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |view: &View<'_>| {
            // An error means that the asker gave up.
            let _gone = reply.send(look(view)).is_err();
        });
        let looked = async {
            self.inbox.send(Input::View(look)).await.map_err(|_| Stopped)?;
            answer.await.map_err(|_| Stopped)
        };
        match timeout(VIEW_TIMEOUT, looked).await {
            Ok(shown) => Ok(shown?),
            Err(_) => Err(ViewError::Behind),
        }
    }

    /// Ends the task after what waits before this.
    pub(crate) async fn stop(&self) {
        // An error means that it has ended.
        let _ended = self.inbox.send(Input::Stop).await.is_err();
    }

    /// Hands the leadership over and waits until this node does not lead, at most `patience`.
    pub(crate) async fn transfer_leadership(&self, patience: Duration) {
        let (reply, begun) = oneshot::channel();
        let handed = async {
            let asked = self.inbox.send(Input::TransferLeadership { reply }).await.is_ok();
            if asked && begun.await.unwrap_or(false) {
                let mut summary = self.summary.clone();
                // An error means that the task has ended.
                let _ended = summary.wait_for(|summary| summary.role != RaftRole::Leader).await.is_err();
            }
        };
        if timeout(patience, handed).await.is_err() {
            tracing::info!("nobody took the leadership over in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_ends_at_its_deadline_whether_it_was_taken_or_not() {
        let (handle, _inbox, _summary) = testing::consensus(None);
        for what in ["taken and not answered", "no room"] {
            let begun = Instant::now();
            assert_eq!(handle.view(|view| view.raft.term).await, Err(ViewError::Behind), "{what}");
            assert_eq!(begun.elapsed().as_secs(), VIEW_TIMEOUT.as_secs(), "{what}");
        }
        let words = ViewError::Behind.to_string();
        assert!(words.contains("the consensus task is behind") && words.contains("5 s"), "{words}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leadership_is_handed_over_or_not_within_the_time_that_was_given() {
        let (handle, _inbox, _summary) = testing::consensus(None);
        let begun = Instant::now();
        handle.transfer_leadership(Duration::from_secs(2)).await;
        assert_eq!(begun.elapsed().as_secs(), 2, "a task that is behind is not waited for");
    }

    #[tokio::test]
    async fn a_task_that_ended_shows_nothing_and_is_not_waited_for() {
        let (handle, inbox, _summary) = testing::consensus(None);
        drop(inbox);
        assert_eq!(handle.view(|view| view.raft.term).await, Err(ViewError::Stopped(Stopped)));
    }
}
