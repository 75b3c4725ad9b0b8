//! Starts a peer's task, and starts it again if it ends by itself: a fault in the handling of one peer costs
//! that peer's link for a moment, and nothing else.

use std::sync::Arc;

use blixard_model::EndpointId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::admission::peers::{PeerHandle, Slot};
use crate::context::Context;
use crate::limits::{INBOX_MAX, RESTART_WAIT, SNAPSHOT_QUEUE_MAX};
use crate::link::peer::{DialProgress, PeerTask};
use crate::link::queue::RaftQueue;
use crate::link::shares::StreamShares;
use crate::link::snapshot_room::SnapshotRoom;
use crate::link::traffic::OutgoingQueues;
use crate::link::whereabouts::Whereabouts;
use crate::state::{DownReason, LinkState};
use crate::stats::PeerCounters;
use crate::wire::close::Close;

/// What a peer's task shares with the task that replaces it.
#[derive(Debug, Clone)]
pub(crate) struct Lasting {
    /// Where the peer may be dialled. It is shared so that a change during the restart is not lost.
    pub(crate) whereabouts: Arc<watch::Sender<Whereabouts>>,
    pub(crate) counters: Arc<PeerCounters>,
    /// Shared so that snapshots that the application still holds go on counting.
    pub(crate) snapshot_room: Arc<SnapshotRoom>,
    pub(crate) shares: Arc<StreamShares>,
}

impl Lasting {
    /// For a peer that is new in the list.
    pub(crate) fn new(context: &Context, whereabouts: Whereabouts) -> Self {
        Self {
            whereabouts: Arc::new(watch::Sender::new(whereabouts)),
            counters: Arc::default(),
            snapshot_room: Arc::new(SnapshotRoom::new(Arc::clone(&context.snapshot_room))),
            shares: Arc::new(StreamShares::new()),
        }
    }
}

/// Starts the task of a peer that is, or is about to be, in the list.
pub(crate) fn spawn(context: &Arc<Context>, id: EndpointId, lasting: Lasting) -> PeerHandle {
    let Lasting { whereabouts, counters, snapshot_room, shares } = lasting;
    let (raft, raft_receiver) = RaftQueue::new(Arc::clone(&counters));
    let (snapshots, snapshot_receiver) = mpsc::channel(SNAPSHOT_QUEUE_MAX);
    let (inbox, inbox_receiver) = mpsc::channel(INBOX_MAX);
    let cancel = context.cancel.child_token();
    let (slot, parting) = (Arc::new(Slot::default()), Arc::default());
    let task = PeerTask {
        context: Arc::clone(context),
        id,
        whereabouts: whereabouts.subscribe(),
        inbox: inbox_receiver,
        outgoing: OutgoingQueues { raft: raft_receiver, snapshots: snapshot_receiver },
        slot: Arc::clone(&slot),
        cancel: cancel.clone(),
        parting: Arc::clone(&parting),
        counters: Arc::clone(&counters),
        transport: context.transport.subscribe(),
        aside: context.aside.subscribe(),
        progress: DialProgress::default(),
    };
    let task = tokio::spawn(task.run());
    let peer = PeerHandle {
        whereabouts,
        inbox,
        raft,
        snapshots,
        snapshot_room,
        shares,
        slot,
        cancel,
        parting,
        counters,
        #[cfg(test)]
        task: task.abort_handle(),
    };
    context.tracker.spawn(watch_over(Arc::clone(context), id, peer.clone(), task));
    peer
}

/// Waits for the task's end. If the task was cancelled, nothing more is done; otherwise another task takes
/// its place.
async fn watch_over(context: Arc<Context>, id: EndpointId, peer: PeerHandle, task: JoinHandle<()>) {
    let ended = task.await;
    if peer.cancel.is_cancelled() {
        return;
    }
    let cause = match ended {
        Ok(()) => "it returned".to_owned(),
        Err(error) => error.to_string(),
    };
    peer.counters.task_restarts.add(1);
    let times = peer.counters.task_restarts.get();
    // Logged only at powers of two: a new cause is seen, and a fault that comes each second does not fill the
    // journal.
    if times.is_power_of_two() {
        tracing::error!(
            PEER = %id.short(),
            times,
            "the task of peer {id} ended by itself ({cause}); it is started again. This is a fault of \
             blixard: please report it with this line"
        );
    }
    // Does what the task could not do any more.
    if let Some(connection) = peer.slot.get() {
        peer.slot.set(None);
        Close::Broken("this node lost its task for you".to_owned()).apply(&connection);
    }
    let reason = DownReason::Lost(format!("a fault of this node: {cause}"));
    context.links.send_if_modified(|links| {
        let Some(link) = links.get_mut(&id).filter(|_| !peer.cancel.is_cancelled()) else { return false };
        *link = LinkState::Down { since: std::time::Instant::now(), reason, attempts: 0 };
        true
    });
    if peer.cancel.run_until_cancelled(sleep(RESTART_WAIT)).await.is_none() {
        return;
    }
    context.peers.change(|list| {
        // Checked under the lock: a peer that was taken off the list stays off it.
        if !peer.cancel.is_cancelled() && list.contains_key(&id) {
            let lasting = Lasting {
                whereabouts: Arc::clone(&peer.whereabouts),
                counters: Arc::clone(&peer.counters),
                snapshot_room: Arc::clone(&peer.snapshot_room),
                shares: Arc::clone(&peer.shares),
            };
            list.insert(id, spawn(&context, id, lasting));
        }
    });
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::timeout;

    use crate::admission::peers::PeerHandle;
    use crate::link::whereabouts::Whereabouts;
    use crate::testing::{CapturedLog, LONG, node, pair};
    use crate::{DownReason, LinkState, PeerConfig, SendOutcome};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_peer_whose_task_ended_is_unreachable_until_the_task_is_started_again() {
        let (a, mut b) = pair().await;
        let b_id = b.net.endpoint_id();
        a.net.peer(&b_id).expect("listed").task.abort();
        let fault = |link: &LinkState| match link {
            LinkState::Down { reason: DownReason::Lost(why), .. } => why.contains("fault"),
            _ => false,
        };
        a.until(&b, "down for a fault", fault).await;
        assert_eq!(a.net.send_raft(b_id, Bytes::from_static(b"lost")), SendOutcome::Unreachable);
        a.until(&b, "up again", LinkState::is_up).await;
        b.until(&a, "up again", LinkState::is_up).await;
        a.reaches(&mut b, b"on").await;
        let stats = a.net.stats().peers[&b_id].clone();
        assert_eq!(stats.task_restarts, 1);
        assert!(stats.dropped.link_down >= 1 && stats.raft_sent >= 1, "{stats:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn addresses_that_change_while_a_task_is_started_again_are_dialled() {
        let (a, b) = (node().await, node().await);
        let b_id = b.net.endpoint_id();
        // Neither node knows the address of the other.
        a.set_peers(vec![PeerConfig { addresses: Vec::new(), ..b.as_peer() }]);
        b.set_peers(vec![PeerConfig { addresses: Vec::new(), ..a.as_peer() }]);
        let ended = a.net.peer(&b_id).expect("listed");
        ended.task.abort();
        let started_again = async {
            while a.net.peer(&b_id).expect("listed").task.id() == ended.task.id() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, started_again).await.expect("started again");
        // A change that comes a moment before the task is started again does the same.
        let mut whereabouts = Whereabouts::default();
        whereabouts.add(b.as_peer().addresses, []);
        ended.set_whereabouts(whereabouts);
        a.until(&b, "up", LinkState::is_up).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_closed_queue_is_an_outcome_and_is_counted() {
        let (a, b) = pair().await;
        let peer = a.net.peer(&b.net.endpoint_id()).expect("listed");
        peer.task.abort();
        let queue = peer.raft.clone();
        timeout(LONG, queue.closed()).await.expect("its receiver is gone");
        let before = peer.counters.snapshot().dropped.link_down;
        assert_eq!(queue.push(Bytes::from_static(b"x")), SendOutcome::Unreachable);
        assert_eq!(peer.counters.snapshot().dropped.link_down, before + 1);
    }

    // The next two tests, which look at what is logged, run on one thread, so that only their own lines are
    // captured.

    #[tokio::test]
    async fn a_queue_closed_by_a_fault_is_one_error_with_its_cause() {
        let (log, _guard) = CapturedLog::start();
        let (a, b) = pair().await;
        let b_id = b.net.endpoint_id();
        let peer = a.net.peer(&b_id).expect("listed");
        assert_eq!(log.lines("ERROR"), [""; 0]);
        peer.task.abort();
        timeout(LONG, peer.raft.closed()).await.expect("its receiver is gone");
        for _ in 0..10 {
            assert_eq!(peer.raft.push(Bytes::from_static(b"x")), SendOutcome::Unreachable);
        }
        assert!(peer.counters.snapshot().dropped.link_down >= 10);
        let noticed = async {
            while peer.counters.task_restarts.get() == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, noticed).await.expect("noticed");
        let errors = log.lines("ERROR");
        let [error] = &errors[..] else { panic!("{errors:#?}") };
        assert!(error.contains(&b_id.to_string()) && error.contains("was cancelled"), "{error}");
    }

    #[tokio::test]
    async fn a_queue_closed_by_a_removal_or_by_the_end_of_the_node_is_no_error() {
        let (log, _guard) = CapturedLog::start();
        let (a, b) = pair().await;
        let c = node().await;
        a.set_peers(vec![b.as_peer(), c.as_peer()]);
        let [to_b, to_c] = [&b, &c].map(|node| a.net.peer(&node.net.endpoint_id()).expect("listed"));
        let closed = async |peer: &PeerHandle| {
            timeout(LONG, peer.raft.closed()).await.expect("its receiver is gone");
            let before = peer.counters.snapshot().dropped.link_down;
            assert_eq!(peer.raft.push(Bytes::from_static(b"x")), SendOutcome::Unreachable);
            assert_eq!(peer.counters.snapshot().dropped.link_down, before + 1);
        };
        a.set_peers(vec![b.as_peer()]);
        closed(&to_c).await;
        // Returns when the tasks that watch over the peers' tasks have ended.
        a.net.close().await;
        closed(&to_b).await;
        assert_eq!(log.lines("ERROR"), [""; 0]);
        assert!(!log.lines("INFO").is_empty(), "the log was looked at");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stopping_node_starts_no_task_again() {
        let (a, b) = pair().await;
        let peer = a.net.peer(&b.net.endpoint_id()).expect("listed");
        let handle = a.net.clone();
        a.net.close().await;
        assert_ne!(handle.send_raft(b.net.endpoint_id(), Bytes::from_static(b"x")), SendOutcome::Queued);
        assert_eq!(peer.counters.snapshot().task_restarts, 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_endpoint_that_ends_by_itself_is_opened_again_on_its_address() {
        let (mut a, mut b) = pair().await;
        let address = a.net.local_addr().expect("listens");
        let mut transport = a.net.transport();
        let endpoint = a.net.endpoint().expect("up");
        // The state is copied at once, because whoever changes it waits while it is borrowed.
        let noticed = async {
            let down = timeout(LONG, transport.wait_for(|state| !state.is_up())).await;
            down.expect("noticed").expect("not closed").clone()
        };
        let ((), down) = tokio::join!(endpoint.close(), noticed);
        let crate::TransportState::Down { reason, .. } = down else { panic!("{down:?}") };
        assert!(reason.to_string().contains("ended"), "{reason}");
        drop(endpoint);
        timeout(LONG, transport.wait_for(crate::TransportState::is_up)).await.expect("up").expect("open");
        assert_eq!(a.net.local_addr(), Some(address));
        a.until(&b, "up again", LinkState::is_up).await;
        b.until(&a, "up again", LinkState::is_up).await;
        a.reaches(&mut b, b"there").await;
        b.reaches(&mut a, b"back").await;
        assert_eq!(a.net.stats().transport_rebuilds, 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_peer_without_an_address_is_not_down_for_want_of_a_network_once_there_is_one() {
        let (a, b) = (node().await, node().await);
        // Only b can dial, and it goes for good while a has no endpoint.
        a.set_peers(vec![PeerConfig { addresses: Vec::new(), ..b.as_peer() }]);
        b.set_peers(vec![a.as_peer()]);
        a.until(&b, "up", LinkState::is_up).await;
        let mut transport = a.net.transport();
        let endpoint = a.net.endpoint().expect("up");
        let down = async {
            let down = timeout(LONG, transport.wait_for(|state| !state.is_up())).await;
            drop(down.expect("noticed").expect("not closed"));
            b.net.clone().close().await;
        };
        let ((), ()) = tokio::join!(endpoint.close(), down);
        drop(endpoint);
        timeout(LONG, transport.wait_for(crate::TransportState::is_up)).await.expect("up").expect("open");
        let says_why = |state: &LinkState| match state {
            LinkState::Down { reason, .. } => *reason != DownReason::NoTransport,
            LinkState::Up { .. } => false,
        };
        a.until(&b, "down, and not for want of a network", says_why).await;
    }
}
