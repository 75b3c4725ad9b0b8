//! Two agents with one key, as happens when a machine's data directory is copied: which of them keeps the
//! link.
//!
//! A connection can come from another run of the peer than the run that the link is with. Then one of two
//! things has happened: either the earlier run ended without a word and the peer was started again, or both
//! runs are alive. The link itself tells which: QUIC receives something from a live peer in every
//! [`KEEP_ALIVE_INTERVAL`](crate::limits::KEEP_ALIVE_INTERVAL). So the new connection waits. If the link is
//! silent for [`RIVAL_PATIENCE`], the new connection takes its place. At the first sign of life on the link,
//! the new connection is refused, and the other agent is named until it has made no attempt for
//! [`RIVAL_MEMORY`].

use blixard_model::EndpointId;
use iroh::endpoint::Connection;
use tokio::time::{Instant, sleep_until};

use crate::admission::peers::GreetedConnection;
use crate::limits::{RIVAL_LOOK_PERIOD, RIVAL_MEMORY, RIVAL_PATIENCE};
use crate::link::hello::Hello;
use crate::link::traffic::{LinkOrigin, PeerLink};
use crate::socket::path::LinkPath;
use crate::state::{HeldElsewhere, Rival};
use crate::wire::close::Close;

/// What a new connection of the peer means for the link that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Newcomer {
    /// The peer lost the link and made a new connection to replace it.
    Replaces,
    /// The peer did not know of the link yet when it dialled, and gives up this attempt.
    Duplicate,
    /// The connection comes from another run of the peer.
    OtherRun,
}

impl Newcomer {
    /// Decides by the hello of the connection; see the rules of [`crate::link::peer`].
    pub(crate) fn of(link: &PeerLink, hello: &Hello) -> Self {
        Self::judge(link.origin, link.peer_incarnation, hello)
    }

    fn judge(origin: LinkOrigin, peer_incarnation: u64, hello: &Hello) -> Self {
        match origin {
            _ if hello.incarnation != peer_incarnation => Self::OtherRun,
            LinkOrigin::Dialled(id) if hello.accepted != Some(id) => Self::Duplicate,
            LinkOrigin::Accepted | LinkOrigin::Dialled(_) => Self::Replaces,
        }
    }
}

/// A connection of another run that waits until it is known whether the link is alive.
#[derive(Debug)]
struct Challenger {
    inbound: GreetedConnection,
    /// Datagrams that the link had received when the connection came.
    received: u64,
    /// When the link counts as silent.
    until: Instant,
    look_at: Instant,
}

/// The other runs of a link's peer. At most one connection waits, and at most one run is named.
#[derive(Debug, Default)]
pub(crate) struct Rivals {
    challenger: Option<Challenger>,
    named: Option<(Rival, Instant)>,
}

/// How the wait of a connection ended.
#[derive(Debug)]
pub(crate) enum Resolved {
    /// The link is silent: the run that the link is with has ended, and this connection takes its place.
    Takes(GreetedConnection),
    /// Both runs are alive, and this connection is to be refused.
    BothLive(GreetedConnection),
    /// The other run has not come for a while, and is no longer named.
    Forgotten,
}

impl Rivals {
    /// Makes a connection of another run wait. Returns the connection that waited before, if any, which its
    /// peer has given up.
    pub(crate) fn wait(
        &mut self,
        link: &Connection,
        inbound: GreetedConnection,
    ) -> Option<GreetedConnection> {
        let now = Instant::now();
        let received = received(link);
        // If the same run dials again, the time at which the link counts as silent stays the same.
        let (received, until) = match &self.challenger {
            Some(before) if before.inbound.hello.incarnation == inbound.hello.incarnation => {
                (before.received, before.until)
            }
            _ => (received, now + RIVAL_PATIENCE),
        };
        let challenger = Challenger { inbound, received, until, look_at: now + RIVAL_LOOK_PERIOD };
        self.challenger.replace(challenger).map(|before| before.inbound)
    }

    /// Waits until something is decided. Cancel safe. Never resolves while no connection waits and no run is
    /// named.
    pub(crate) async fn resolve(&mut self, link: &Connection) -> Resolved {
        loop {
            let forget_at = self.named.as_ref().map(|(_, last)| *last + RIVAL_MEMORY);
            let look_at = self.challenger.as_ref().map(|challenger| challenger.look_at);
            match look_at.into_iter().chain(forget_at).min() {
                Some(at) => sleep_until(at).await,
                None => std::future::pending::<()>().await,
            }
            let now = Instant::now();
            if let Some(challenger) = self.challenger.take_if(|challenger| {
                challenger.look_at = now + RIVAL_LOOK_PERIOD;
                now >= challenger.until || received(link) != challenger.received
            }) {
                let lives = received(link) != challenger.received;
                let resolved = if lives { Resolved::BothLive } else { Resolved::Takes };
                return resolved(challenger.inbound);
            }
            if forget_at.is_some_and(|at| at <= now) {
                self.named = None;
                return Resolved::Forgotten;
            }
        }
    }

    /// Refuses a connection that came over `theirs`, because the link, which uses `path`, is alive. Returns
    /// true when the other run was not named yet, or comes from elsewhere now.
    pub(crate) fn turn_away(
        &mut self,
        inbound: GreetedConnection,
        (peer, since): (EndpointId, std::time::Instant),
        (path, theirs): (&LinkPath, &LinkPath),
    ) -> bool {
        let elsewhere = HeldElsewhere {
            other_addr: path.remote_addr(),
            own_addr: theirs.remote_addr(),
            for_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        refuse(inbound, Close::HeldTwice(elsewhere));
        let rival = Rival { remote_addr: theirs.remote_addr() };
        let before = self.named.replace((rival.clone(), Instant::now()));
        let is_new = before.is_none_or(|(before, _)| before != rival);
        if is_new {
            let peer = peer.short();
            tracing::warn!(
                PEER = peer,
                "two agents run with the key of {peer}: the one at {path} keeps its link, the one at \
                 {theirs} is not let in"
            );
        }
        is_new
    }

    /// The other run that is alive and refused, if there is one.
    pub(crate) fn named(&self) -> Option<Rival> {
        self.named.as_ref().map(|(rival, _)| rival.clone())
    }

    /// Refuses the connection that waits, if any: the link ends for another reason.
    pub(crate) fn give_up(&mut self) {
        if let Some(inbound) = self.take_challenger() {
            refuse(inbound, Close::Replaced);
        }
    }

    /// Returns the connection that waits, if any, and ends its wait.
    pub(crate) fn take_challenger(&mut self) -> Option<GreetedConnection> {
        self.challenger.take().map(|challenger| challenger.inbound)
    }
}

/// Tells a connection that waits for this node's verdict to be closed with this reason.
pub(crate) fn refuse(inbound: GreetedConnection, close: Close) {
    // If nobody waits for the verdict, the connection is gone already.
    let _ = inbound.verdict.send(Err(close));
}

/// Datagrams that a connection has received so far.
fn received(connection: &Connection) -> u64 {
    connection.stats().udp_rx.datagrams
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::hello::DialId;

    const MINE: DialId = DialId { incarnation: 1, dial: 5 };

    fn judge(origin: LinkOrigin, incarnation: u64, accepted: Option<DialId>) -> Newcomer {
        let cluster = "lab".parse().expect("name");
        let hello = Hello::new(&cluster, DialId { incarnation, dial: 1 }, accepted);
        Newcomer::judge(origin, 2, &hello)
    }

    #[test]
    fn a_second_inbound_connection_of_the_same_run_always_replaces_the_first() {
        assert_eq!(judge(LinkOrigin::Accepted, 2, None), Newcomer::Replaces);
    }

    #[test]
    fn a_dialled_link_is_replaced_only_by_a_peer_that_lost_it() {
        let mine = LinkOrigin::Dialled(MINE);
        assert_eq!(judge(mine, 2, None), Newcomer::Duplicate, "dialled before it knew of mine");
        let older = DialId { dial: 4, ..MINE };
        assert_eq!(judge(mine, 2, Some(older)), Newcomer::Duplicate, "dialled before it knew of mine");
        assert_eq!(judge(mine, 2, Some(MINE)), Newcomer::Replaces, "it knew mine and dials: it lost it");
    }

    #[test]
    fn another_run_has_to_wait_whoever_dialled() {
        for origin in [LinkOrigin::Accepted, LinkOrigin::Dialled(MINE)] {
            assert_eq!(judge(origin, 3, None), Newcomer::OtherRun);
            assert_eq!(judge(origin, 3, Some(MINE)), Newcomer::OtherRun);
        }
    }
}
