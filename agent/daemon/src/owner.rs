//! The consensus task: the one owner of the [`Node`] and, with it, of the state and the store.
//!
//! Turns: wait for a tick or inputs, take all that wait, let the node have one turn (one durable write for
//! all of them), carry out what it says. Ticks and inputs are awaited fairly, so that a full inbox starves
//! no tick. Any error of the store ends the task, and with it the process.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use blixard_consensus::TICK_MS;
use blixard_model::removal::RemovedFrom;
use blixard_model::wire::{Contact, MembersAsk, ProgressReport, ProposeResult};
use blixard_model::{EndpointId, NodeName, RaftId};
use blixard_net::{DownReason, LinkState, Links, Net, SendOutcome};
use blixard_node::{NodeError, Notice, Send, Stranger, Summary, Turn, Waits};
use blixard_store::{Store, WriteError};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::clock;
use super::handle::{Input, Seldom, View};
use super::metrics::Metrics;
use super::supervise::feed_watchdog;

/// Most inputs taken in one turn.
const BATCH_MAX: usize = 256;
/// The watchdog is fed this often.
const WATCHDOG_TICKS: u64 = 20;

/// The node of an agent.
pub(crate) type Node = blixard_node::Node<Store, Asker<ProposeResult>, Asker<()>>;

impl Seldom for Node {
    fn peers(&self) -> Vec<Contact> {
        Self::peers(self)
    }

    fn kept_out(&self) -> BTreeMap<EndpointId, RaftId> {
        Self::kept_out(self)
    }

    fn vouches(&self) -> Vec<MembersAsk> {
        Self::vouches(self)
    }

    fn strangers(&self) -> Vec<Stranger> {
        Self::strangers(self)
    }

    fn progress_report(&self) -> Option<ProgressReport> {
        Self::progress_report(self)
    }
}

/// Somebody in another task who waits for an answer.
pub(crate) struct Asker<T> {
    reply: oneshot::Sender<T>,
    since: Instant,
}

impl<T> Asker<T> {
    fn new(reply: oneshot::Sender<T>) -> Self {
        Self { reply, since: Instant::now() }
    }

    fn answer(self, answer: T) {
        // An error means that the asker gave up.
        let _gone = self.reply.send(answer).is_err();
    }
}

impl<T> Waits for Asker<T> {
    fn gave_up(&self) -> bool {
        self.reply.is_closed()
    }
}

/// What the task is made of.
pub(crate) struct OwnerTask {
    pub(crate) node: Node,
    pub(crate) net: Net,
    pub(crate) links: watch::Receiver<Links>,
    pub(crate) inbox: mpsc::Receiver<Input>,
    pub(crate) summary: watch::Sender<Summary>,
    pub(crate) metrics: Metrics,
}

struct Owner {
    task: OwnerTask,
    tick: u64,
    deliveries: FuturesUnordered<BoxFuture<'static, (RaftId, bool)>>,
    stopping: bool,
    /// Who was last seen to lead.
    led_by: Option<NodeName>,
}

impl OwnerTask {
    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// The store failed or went back in time, or the log holds what this version can not apply.
    pub(crate) async fn run(self) -> Result<(), NodeError<WriteError>> {
        let deliveries = FuturesUnordered::new();
        let mut owner = Owner { task: self, tick: 0, deliveries, stopping: false, led_by: None };
        let ended = owner.run().await;
        if let Err(NodeError::Removed { .. }) = &ended {
            // It says so also after a restart, when nobody talks to it any more.
            let mut store = owner.task.node.into_store();
            if let Err(error) = tokio::task::block_in_place(|| store.set_removed()) {
                tracing::warn!("that this node was removed could not be written down: {error}");
            }
        }
        ended
    }
}

impl Owner {
    async fn run(&mut self) -> Result<(), NodeError<WriteError>> {
        let owner = self;
        let mut ticks = interval(Duration::from_millis(TICK_MS));
        // After a pause the missed ticks would come at once and end every election timeout.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => owner.handle_tick()?,
                input = owner.task.inbox.recv() => {
                    let Some(input) = input else { return Ok(()) };
                    owner.handle_input(input)?;
                    for _ in 1..BATCH_MAX {
                        let Ok(input) = owner.task.inbox.try_recv() else { break };
                        owner.handle_input(input)?;
                    }
                    if owner.stopping {
                        return Ok(());
                    }
                }
                Some((member, delivered)) = owner.deliveries.next() => {
                    owner.task.node.report_snapshot(member, delivered);
                }
            }
            // Writes wait for the disk: the runtime's other tasks go on meanwhile.
            let (begun, before) = (Instant::now(), owner.task.node.summary().applied);
            let turn = tokio::task::block_in_place(|| owner.task.node.turn())?;
            if owner.task.node.summary().applied != before {
                owner.task.metrics.turn(begun.elapsed());
            }
            owner.carry_out(turn);
        }
    }

    fn handle_tick(&mut self) -> Result<(), NodeError<WriteError>> {
        self.tick += 1;
        if self.tick.is_multiple_of(WATCHDOG_TICKS) {
            feed_watchdog();
        }
        self.note_links()?;
        self.task.node.note_time(clock::wall_ms());
        self.task.node.tick();
        Ok(())
    }

    fn note_links(&mut self) -> Result<(), NodeError<WriteError>> {
        if !self.task.links.has_changed().unwrap_or(false) {
            return Ok(());
        }
        let links = self.task.links.borrow_and_update();
        let up = links.iter().filter(|(_, link)| LinkState::is_up(link)).map(|(id, _)| *id).collect();
        let removed: Vec<RemovedFrom> = links.values().filter_map(removed_as).collect();
        drop(links);
        self.task.node.note_links(up);
        removed.into_iter().try_for_each(|removed| self.task.node.note_removed(removed))
    }

    fn handle_input(&mut self, input: Input) -> Result<(), NodeError<WriteError>> {
        match input {
            Input::Raft { from, bytes, is_snapshot } => {
                self.task.node.handle_raft(from, &bytes, is_snapshot)?;
            }
            Input::Identity { identity, asked } => self.task.node.note_identity(*identity, asked)?,
            Input::Ask { ask, reply } => {
                self.note_links()?;
                self.task.node.note_time(clock::wall_ms());
                self.task.node.ask(ask, Asker::new(reply));
            }
            Input::Read { reply } => self.task.node.read(Asker::new(reply)),
            Input::View(look) => {
                let raft = self.task.node.raft_status();
                let node = &self.task.node;
                let (stats, store) = (node.stats(), node.store().stats());
                look(&View { state: node.state(), raft: &raft, node, stats, store });
            }
            Input::Stop => self.stopping = true,
            Input::TransferLeadership { reply } => {
                Asker::new(reply).answer(self.task.node.transfer_leadership());
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, turn: Turn<Asker<ProposeResult>, Asker<()>>) {
        turn.sends.into_iter().for_each(|message| self.send(message));
        for (asker, result) in turn.answers {
            if matches!(result, ProposeResult::Applied { .. }) {
                self.task.metrics.proposal(asker.since.elapsed());
            }
            asker.answer(result);
        }
        turn.reads.into_iter().for_each(|asker| asker.answer(()));
        for notice in &turn.notices {
            self.count(notice);
            tell(notice);
        }
        self.task.summary.send_if_modified(|known| {
            let changed = known != self.task.node.summary();
            if changed {
                known.clone_from(self.task.node.summary());
            }
            changed
        });
    }

    fn count(&mut self, notice: &Notice) {
        let Notice::Leader { leader: Some(leader), here, .. } = notice else { return };
        if *here {
            self.task.metrics.elections_won.inc();
        }
        let before = self.led_by.replace(leader.clone());
        if before.is_some_and(|before| before != *leader) {
            self.task.metrics.leader_changes.inc();
        }
    }

    fn send(&mut self, message: Send) {
        let member = message.member;
        if message.is_snapshot {
            let delivery = self.task.net.send_snapshot(message.to, message.frame);
            self.deliveries.push(Box::pin(async move { (member, delivery.await.is_ok()) }));
            return;
        }
        if self.task.net.send_raft(message.to, message.frame) != SendOutcome::Queued {
            self.task.node.report_unreachable(member);
        }
    }
}

/// From where this node was removed, when the peer says so.
fn removed_as(link: &LinkState) -> Option<RemovedFrom> {
    match link {
        LinkState::Down { reason: DownReason::Removed(word), .. } => word.parse().ok(),
        _ => None,
    }
}

fn tell(notice: &Notice) {
    match notice {
        Notice::Leader { term, here: true, .. } => {
            tracing::info!(TERM = term, "this node leads (term {term})");
        }
        Notice::Leader { term, leader: Some(leader), .. } => {
            tracing::info!(TERM = term, LEADER = %leader, "follows {leader} (term {term})");
        }
        Notice::Leader { term, leader: None, .. } => tracing::info!(TERM = term, "no leader (term {term})"),
        Notice::MembershipProposed(change) => tracing::info!("membership change proposed: {change:?}"),
        Notice::MembershipChanged(change) => tracing::info!("membership changed: {change:?}"),
        Notice::Restored(index) => {
            tracing::info!(index, "state replaced by the leader's snapshot up to index {index}");
        }
        Notice::BadMessage { from, why } => {
            let peer = from.short();
            tracing::warn!(PEER = peer, "raft message of {peer} dropped: {why}");
        }
        Notice::FalseSender { from } => {
            let peer = from.short();
            tracing::warn!(PEER = peer, "raft message of {peer} dropped: the raft id is another's");
        }
    }
}
