//! The caller's side of the host task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use blixard_model::wire::{AgedReport, JoinResponse, PeerResponse, ProgressReport};
use blixard_model::{Ask, ClusterId, EndpointId, Outcome, VmName};
use blixard_node::host::{
    Answer, HoldEnd, Host, Input, JoinRefusal, MemberHost, Moment, NodeRemoval, PeerCallId, RaftFrame,
    StopRefusal, WaiterId, Want,
};
use blixard_node::{SubmitError, Summary};
use blixard_store::StoreStats;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

/// How long a look at the host may take. The task answers within a turn; a turn waits for the disk.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// A host answers within the patience that it is given. Only one that is stuck takes longer than this beyond.
const ANSWER_MARGIN: Duration = Duration::from_secs(15);
/// The same for what nobody has to know for certain.
const SHORT_MARGIN: Duration = Duration::from_millis(500);
/// How long the leader may take to tell what it knows.
const TELL_PATIENCE: Duration = Duration::from_secs(2);
/// Most messages waiting for the host task.
pub(crate) const INBOX_MAX: usize = 1_024;

/// What the host task is given.
pub(crate) enum HostMessage {
    /// An input without an answer.
    Input(Input),
    /// A peer's question: the input, and who passes the answer on.
    PeerAsked(PeerCallId, Input, oneshot::Sender<PeerResponse>),
    /// As above, of a node that asks to be admitted.
    JoinAsked(PeerCallId, Input, oneshot::Sender<JoinResponse>),
    /// Somebody on this machine wants something.
    Wanted(WaiterId, Input, oneshot::Sender<Answer>),
    /// Look at the host.
    Look(Box<dyn FnOnce(&Look<'_>) + Send>),
    /// End the task; the store is closed whole.
    Stop,
}

/// The host as its task shows it for a moment.
pub(crate) struct Look<'a> {
    pub(crate) host: &'a Host,
    pub(crate) now: Moment,
    /// The store's writes.
    pub(crate) store: StoreStats,
}

/// How far the host has come, for whoever waits for a change of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostStanding {
    /// It has no cluster.
    Unborn {
        /// What it waits for.
        waiting_for: Vec<String>,
        /// Why there is no ticket to use, if one was tried.
        ticket_problem: Option<String>,
    },
    /// It is a member of this cluster.
    Member {
        cluster_id: ClusterId,
        summary: Summary,
        /// How many VMs are placed here.
        vms: usize,
    },
    /// An operator removed it from this cluster.
    Removed { cluster_id: ClusterId },
}

impl HostStanding {
    pub(crate) fn of(host: &Host) -> Self {
        if let Some(member) = host.member() {
            let (summary, vms) = (member.replica().summary().clone(), member.own_report().vms.len());
            return Self::Member { cluster_id: member.state().cluster_id(), summary, vms };
        }
        if let Some(removed) = host.removed() {
            return Self::Removed { cluster_id: removed.cluster_id() };
        }
        let unborn = host.unborn();
        Self::Unborn {
            waiting_for: unborn.map_or_else(Vec::new, |unborn| unborn.waiting_for().to_vec()),
            ticket_problem: unborn.and_then(|unborn| unborn.ticket_problem()).map(str::to_owned),
        }
    }
}

/// The host was not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookError {
    /// The task has ended; the process is on its way out.
    #[error("the agent is stopping")]
    Stopped,
    /// It did not get to it in time; it may later.
    #[error("the host task is behind and has not answered in time; is the disk slow?")]
    Behind,
    /// This node has no cluster.
    #[error("this node is in no cluster yet: `blixard status` says whom it waits for")]
    NoCluster,
}

impl From<LookError> for SubmitError {
    fn from(error: LookError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Why the host said nothing of what somebody wanted.
#[derive(Debug)]
enum Unanswered {
    /// The host never saw it: nothing happened.
    NotSeen(LookError),
    /// The host may have seen it, and done it.
    Unknown(LookError),
}

impl From<Unanswered> for SubmitError {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::NotSeen(why) => Self::Unavailable(why.to_string()),
            Unanswered::Unknown(why) => Self::Unknown(why.to_string()),
        }
    }
}

/// Cheap to clone. Every call is bounded by its caller's patience or answered by the next turn of the task.
#[derive(Clone)]
pub(crate) struct HostHandle {
    inbox: mpsc::Sender<HostMessage>,
    standing: watch::Receiver<HostStanding>,
    dropped: Counter,
    numbers: Arc<AtomicU64>,
}

impl HostHandle {
    /// `dropped` counts the Raft messages that found no room.
    pub(crate) fn new(
        inbox: mpsc::Sender<HostMessage>,
        standing: watch::Receiver<HostStanding>,
        dropped: Counter,
    ) -> Self {
        Self { inbox, standing, dropped, numbers: Arc::new(AtomicU64::new(1)) }
    }

    fn new_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Messages that wait.
    pub(crate) fn inbox_len(&self) -> usize {
        self.inbox.max_capacity().saturating_sub(self.inbox.capacity())
    }

    /// How far the host has come; what waits for changes watches this.
    pub(crate) fn standing(&self) -> watch::Receiver<HostStanding> {
        self.standing.clone()
    }

    /// A Raft message; dropped when the task is behind, as any network may do.
    pub(crate) fn offer_raft(&self, from: EndpointId, frame: RaftFrame) {
        if self.inbox.try_send(HostMessage::Input(Input::Raft { from, frame })).is_err() {
            self.dropped.inc();
            tracing::debug!(peer = %from.short(), "raft message dropped: the host task is behind");
        }
    }

    /// An input. False: the task has ended.
    pub(crate) async fn input(&self, input: Input) -> bool {
        self.inbox.send(HostMessage::Input(input)).await.is_ok()
    }

    /// Brings a peer's question to the host. What comes back is the answer, or nothing when the task has
    /// ended.
    pub(crate) async fn peer_asked(
        &self,
        question: impl FnOnce(PeerCallId) -> Input,
    ) -> (PeerCallId, oneshot::Receiver<PeerResponse>) {
        let call = PeerCallId(self.new_number());
        let (reply, answer) = oneshot::channel();
        // An error drops the reply: the answer says so.
        let _ended = self.inbox.send(HostMessage::PeerAsked(call, question(call), reply)).await.is_err();
        (call, answer)
    }

    /// As [`HostHandle::peer_asked`], for a node that asks to be admitted.
    pub(crate) async fn join_asked(
        &self,
        question: impl FnOnce(PeerCallId) -> Input,
    ) -> (PeerCallId, oneshot::Receiver<JoinResponse>) {
        let call = PeerCallId(self.new_number());
        let (reply, answer) = oneshot::channel();
        // As above.
        let _ended = self.inbox.send(HostMessage::JoinAsked(call, question(call), reply)).await.is_err();
        (call, answer)
    }

    /// Wants something of the host.
    async fn want(&self, want: Want, patience: Duration) -> Result<Answer, Unanswered> {
        let margin = match &want {
            Want::Change(_) | Want::RemoveNode(_) | Want::Join { .. } | Want::StopHere(_) => ANSWER_MARGIN,
            Want::Read | Want::Reports | Want::Progress | Want::HandOver | Want::Hold { .. } => SHORT_MARGIN,
        };
        let waiter = WaiterId(self.new_number());
        let patience_ms = millis(patience);
        let (reply, answer) = oneshot::channel();
        let input = Input::Wanted { waiter, want, patience_ms };
        let limit = Instant::now() + patience;
        match timeout_at(limit, self.inbox.send(HostMessage::Wanted(waiter, input, reply))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Unanswered::NotSeen(LookError::Stopped)),
            Err(_) => return Err(Unanswered::NotSeen(LookError::Behind)),
        }
        // A caller that is dropped waits no more, nor does one that has waited long enough.
        let gone = GivesUp { inbox: &self.inbox, waiter, answered: false };
        let unknown = Unanswered::Unknown;
        let answer = timeout_at(limit + margin, answer).await.map_err(|_| unknown(LookError::Behind))?;
        gone.answered();
        answer.map_err(|_| unknown(LookError::Stopped))
    }

    /// Brings a change to whoever leads and waits until it is committed, at most for `patience`.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub(crate) async fn change(
        &self,
        ask: impl Into<Ask>,
        patience: Duration,
    ) -> Result<Outcome, SubmitError> {
        self.end_of_change(Want::Change(Box::new(ask.into())), patience).await
    }

    /// Removes a node by its name, as [`HostHandle::change`] brings a change to whoever leads.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub(crate) async fn remove_node(
        &self,
        removal: NodeRemoval,
        patience: Duration,
    ) -> Result<Outcome, SubmitError> {
        self.end_of_change(Want::RemoveNode(Box::new(removal)), patience).await
    }

    async fn end_of_change(&self, want: Want, patience: Duration) -> Result<Outcome, SubmitError> {
        match self.want(want, patience).await? {
            Answer::Changed(end) => end,
            _ => Err(Unanswered::Unknown(LookError::Stopped).into()),
        }
    }

    /// Waits until everything acknowledged before is applied here.
    ///
    /// # Errors
    /// [`SubmitError::Unavailable`]: no quorum confirmed it.
    pub(crate) async fn readable(&self, patience: Duration) -> Result<(), SubmitError> {
        match self.want(Want::Read, patience).await {
            Ok(Answer::Readable(end)) => end,
            Ok(_) => Err(LookError::Stopped.into()),
            // A read that was seen or not is the same to its caller.
            Err(Unanswered::NotSeen(why) | Unanswered::Unknown(why)) => Err(why.into()),
        }
    }

    /// What every node last reported of its VMs, as far as the leader or this node knows.
    pub(crate) async fn reports(&self) -> Vec<AgedReport> {
        match self.want(Want::Reports, TELL_PATIENCE).await {
            Ok(Answer::Reports(reports)) => reports,
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    /// How far the members are, if a leader tells it in time.
    pub(crate) async fn progress(&self) -> Option<ProgressReport> {
        match self.want(Want::Progress, TELL_PATIENCE).await {
            Ok(Answer::Progress(progress)) => progress,
            Ok(_) | Err(_) => None,
        }
    }

    /// Takes a ticket for this host, which is in no cluster.
    ///
    /// # Errors
    /// Why it takes none; the outer one when it did not say, and [`SubmitError::Unknown`] when it may have
    /// taken it all the same.
    pub(crate) async fn join(&self, want: Want) -> Result<Result<(), JoinRefusal>, SubmitError> {
        match self.want(want, LOOK_TIMEOUT).await? {
            Answer::TicketTaken(taken) => Ok(taken),
            _ => Err(Unanswered::Unknown(LookError::Stopped).into()),
        }
    }

    /// Has a VM stopped on this node, and that kept.
    ///
    /// # Errors
    /// Why it is not; the outer one when the host did not say, and [`SubmitError::Unknown`] when it may have
    /// taken it all the same.
    pub(crate) async fn stop_here(&self, name: VmName) -> Result<Result<(), StopRefusal>, SubmitError> {
        match self.want(Want::StopHere(name), LOOK_TIMEOUT).await? {
            Answer::StopTaken(taken) => Ok(taken),
            _ => Err(Unanswered::Unknown(LookError::Stopped).into()),
        }
    }

    /// Hands the leadership over and waits until this node does not lead, at most for `patience`.
    pub(crate) async fn hand_over(&self, patience: Duration) {
        let leads = match &*self.standing.borrow() {
            HostStanding::Member { summary, .. } => summary.leads,
            HostStanding::Unborn { .. } | HostStanding::Removed { .. } => false,
        };
        if !leads {
            return;
        }
        if !matches!(self.want(Want::HandOver, patience).await, Ok(Answer::HandedOver(true))) {
            tracing::info!("nobody took the leadership over in time");
        }
    }

    /// Has the VMs here that may be failed over run on for so long while the agent is away, and waits until
    /// their supervisors know of it, at most for `patience`.
    pub(crate) async fn hold(&self, length: Duration, patience: Duration) -> HoldEnd {
        match self.want(Want::Hold { for_ms: millis(length) }, patience).await {
            Ok(Answer::Held(end)) => end,
            Ok(_) | Err(_) => HoldEnd::NotTaken,
        }
    }

    /// Looks at the host inside its task, and waits for it no longer than [`LOOK_TIMEOUT`].
    ///
    /// # Errors
    /// [`LookError`].
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Look<'_>) -> T + Send + 'static,
    ) -> Result<T, LookError> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |shown: &Look<'_>| {
            // An error means that the caller gave up.
            let _gone = reply.send(look(shown)).is_err();
        });
        let looked = async {
            self.inbox.send(HostMessage::Look(look)).await.map_err(|_| LookError::Stopped)?;
            answer.await.map_err(|_| LookError::Stopped)
        };
        timeout(LOOK_TIMEOUT, looked).await.unwrap_or(Err(LookError::Behind))
    }

    /// As [`HostHandle::look`], at the member that this host is.
    ///
    /// # Errors
    /// [`LookError`].
    pub(crate) async fn look_at_member<T: Send + 'static>(
        &self,
        look: impl FnOnce(&MemberHost) -> T + Send + 'static,
    ) -> Result<T, LookError> {
        self.look_at_member_now(move |member, _| look(member)).await
    }

    /// As [`HostHandle::look_at_member`], with the time of the look.
    ///
    /// # Errors
    /// [`LookError`].
    pub(crate) async fn look_at_member_now<T: Send + 'static>(
        &self,
        look: impl FnOnce(&MemberHost, Moment) -> T + Send + 'static,
    ) -> Result<T, LookError> {
        let looked =
            self.look(move |shown| shown.host.member().map(|member| look(member, shown.now))).await?;
        looked.ok_or(LookError::NoCluster)
    }

    /// Ends the task after what waits before this.
    pub(crate) async fn stop(&self) {
        // An error means that it has ended.
        let _ended = self.inbox.send(HostMessage::Stop).await.is_err();
    }
}

/// A caller that waits. Dropped without an answer, it tells the host so.
struct GivesUp<'a> {
    inbox: &'a mpsc::Sender<HostMessage>,
    waiter: WaiterId,
    answered: bool,
}

impl GivesUp<'_> {
    fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for GivesUp<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let input = Input::WaiterGaveUp { waiter: self.waiter };
            // Without room it costs no more than the work that nobody waits for.
            let _full = self.inbox.try_send(HostMessage::Input(input)).is_err();
        }
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// Nobody takes anything out of the inbox, which has room for one.
    #[tokio::test(start_paused = true)]
    async fn what_the_host_may_have_seen_has_an_unknown_end_and_what_it_has_not_has_none() {
        let dir = tempfile::tempdir().expect("dir");
        let (agent, mut idle) = testing::agent(dir.path());
        let patience = Duration::from_secs(1);
        let ask = || agent.host.end_of_change(Want::HandOver, patience);
        let seen = ask().await;
        assert!(matches!(&seen, Err(SubmitError::Unknown(why)) if why.contains("is behind")), "{seen:?}");
        let not_seen = ask().await;
        assert!(matches!(not_seen, Err(SubmitError::Unavailable(_))), "{not_seen:?}");
        let first = idle.inbox.recv().await;
        assert!(matches!(first, Some(HostMessage::Wanted(..))));
        let taken = async { (idle.inbox.recv().await, idle.inbox.recv().await) };
        let (seen, (_wanted, next)) = tokio::join!(ask(), taken);
        assert!(matches!(seen, Err(SubmitError::Unknown(_))), "{seen:?}");
        assert!(matches!(next, Some(HostMessage::Input(Input::WaiterGaveUp { .. }))), "it is told");
    }
}
