//! The answer of `GET /metrics`: what was counted, and what can be looked up at this moment.

use std::collections::BTreeMap;
use std::fmt;

use blixard_consensus::{RaftRole, RaftStatus};
use blixard_model::fences::{FenceState, Fences};
use blixard_model::{EndpointId, NodeName};
use blixard_net::{LinkState, Links, NetStats, PeerStats};
use blixard_node::NodeStats;
use blixard_store::StoreStats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::context::Agent;
use super::retries::{self, Retrying};

/// What the answer calls itself.
pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;
/// The label of a peer that nobody lists: the receiver of messages to a node that has left.
const UNLISTED: &str = "unlisted";

type Labels = Vec<(&'static str, String)>;
/// Name, help, and where the number is.
type OfNode<'a> = (&'a str, &'a str, fn(&Running) -> f64);
type OfPeer<'a> = (&'a str, &'a str, fn(&PeerStats) -> f64);

/// All metrics as text. A node without a cluster has no series of the log and the store.
///
/// # Errors
/// A metric could not be written, which is a fault of this program.
pub(crate) async fn text(agent: &Agent) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("blixard");
    agent.metrics.register(&mut registry);
    registry.register_collector(Box::new(look(agent).await));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

async fn look(agent: &Agent) -> Scraped {
    let names = agent.peer_names().await;
    let inbox = agent.host.inbox_len();
    let looked = agent.host.look(move |look| {
        let node = look.host.member()?.replica();
        let running = Running { raft: node.raft_status(), node: node.stats(), store: look.store, inbox };
        let member = look.host.member()?;
        let disarmed = member.state().leases.disarmed.is_some();
        Some((running, (member.own_report().fences.clone(), disarmed)))
    });
    let (running, leases) = looked.await.ok().flatten().unzip();
    let (fences, disarmed) = leases.unzip();
    let fences = fences.flatten();
    let (net, links) = (agent.net.stats(), agent.net.links().borrow().clone());
    let transport_up = agent.net.transport().borrow().is_up();
    let retrying = retries::list(agent).await;
    Scraped { names, running, fences, disarmed, links, transport_up, retrying, net }
}

#[derive(Debug)]
struct Running {
    raft: RaftStatus,
    node: NodeStats,
    store: StoreStats,
    inbox: usize,
}

/// One look at everything.
#[derive(Debug)]
struct Scraped {
    names: BTreeMap<EndpointId, NodeName>,
    running: Option<Running>,
    fences: Option<Box<Fences>>,
    disarmed: Option<bool>,
    net: NetStats,
    links: Links,
    transport_up: bool,
    retrying: Vec<Retrying>,
}

impl Collector for Scraped {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.consensus(&mut out)?;
        self.peers(&mut out)?;
        self.network(&mut out)?;
        self.fences(&mut out)?;
        self.retries(&mut out)
    }
}

impl Scraped {
    fn consensus(&self, out: &mut Out<'_>) -> fmt::Result {
        let all = |pick: fn(&Running) -> f64| -> Vec<(Labels, f64)> {
            self.running.iter().map(|running| (Labels::new(), pick(running))).collect()
        };
        let gauges: [OfNode<'_>; 11] = [
            ("raft_term", "Raft's term", |r| float(r.raft.term)),
            ("raft_commit_index", "Highest index known committed", |r| float(r.raft.commit)),
            ("raft_applied_index", "Highest index applied here", |r| float(r.raft.applied)),
            ("raft_leads", "1 while this node leads", |r| bit(r.raft.role == RaftRole::Leader)),
            ("inbox_length", "Inputs that wait for the host task", |r| float(r.inbox)),
            ("proposals_waiting", "Writes that wait to be applied", |r| float(r.node.proposals)),
            ("reads_waiting", "Reads that wait for their index", |r| float(r.node.reads)),
            ("log_entries", "Entries of the log in memory", |r| float(r.node.log.entries)),
            ("log_bytes", "Their size", |r| float(r.node.log.bytes)),
            ("snapshot_index", "Last index of the last snapshot", |r| float(r.node.log.snapshot_index)),
            ("snapshot_bytes", "Size of its state", |r| float(r.node.log.snapshot_bytes)),
        ];
        for (name, help, pick) in gauges {
            out.gauge(name, help, all(pick))?;
        }
        let counters: [OfNode<'_>; 4] = [
            ("store_synced_writes", "Commits with fsyncs, two each", |r| float(r.store.synced_writes)),
            ("store_synced_write_seconds", "How long they took", |r| r.store.synced_time.as_secs_f64()),
            ("store_unsynced_writes", "Commits without", |r| float(r.store.unsynced_writes)),
            ("store_written_bytes", "Entries and snapshots in both", |r| float(r.store.bytes)),
        ];
        for (name, help, pick) in counters {
            out.counter(name, help, all(pick))?;
        }
        Ok(())
    }

    fn name(&self, peer: &EndpointId) -> String {
        self.names.get(peer).map_or_else(|| peer.short(), ToString::to_string)
    }

    fn of_peers(&self, pick: impl Fn(&PeerStats) -> f64) -> Vec<(Labels, f64)> {
        let peers = self.net.peers.iter();
        peers.map(|(id, peer)| (vec![("peer", self.name(id))], pick(peer))).collect()
    }

    fn peers(&self, out: &mut Out<'_>) -> fmt::Result {
        let up = |id: &EndpointId| self.links.get(id).is_some_and(LinkState::is_up);
        let peers = self.net.peers.keys();
        let links = peers.map(|id| (vec![("peer", self.name(id))], bit(up(id)))).collect();
        out.gauge("net_link_up", "1 while there is a link to the peer", links)?;
        let gauges: [OfPeer<'_>; 2] = [
            ("net_queue_messages", "Raft messages that wait to be sent", |p| float(p.queue_messages)),
            ("net_queue_bytes", "Their size", |p| float(p.queue_bytes)),
        ];
        for (name, help, pick) in gauges {
            out.gauge(name, help, self.of_peers(pick))?;
        }
        let counters: [OfPeer<'_>; 7] = [
            ("net_raft_sent_messages", "Raft messages sent", |p| float(p.raft_sent)),
            ("net_raft_sent_bytes", "Their size", |p| float(p.raft_sent_bytes)),
            ("net_raft_received_messages", "Raft messages received", |p| float(p.raft_received)),
            ("net_raft_received_bytes", "Their size", |p| float(p.raft_received_bytes)),
            ("net_connect_attempts", "Attempts to connect", |p| float(p.connect_attempts)),
            ("net_connect_failures", "Those that gave no link", |p| float(p.connect_failures)),
            ("net_task_restarts", "Times the peer's task was started again", |p| float(p.task_restarts)),
        ];
        for (name, help, pick) in counters {
            out.counter(name, help, self.of_peers(pick))?;
        }
        out.counter("net_raft_dropped_messages", "Raft messages dropped", self.dropped())
    }

    fn dropped(&self) -> Vec<(Labels, f64)> {
        let of_peer = |(id, peer): (&EndpointId, &PeerStats)| {
            let (dropped, name) = (&peer.dropped, self.name(id));
            let causes = [
                ("queue_full", dropped.queue_full),
                ("link_down", dropped.link_down),
                ("no_transport", dropped.no_transport),
                ("too_long", dropped.too_long),
                ("inbox_full", dropped.inbox_full),
            ];
            causes.map(|(cause, n)| (vec![("peer", name.clone()), ("cause", cause.to_owned())], float(n)))
        };
        let labels = vec![("peer", UNLISTED.to_owned()), ("cause", "not_a_peer".to_owned())];
        let unlisted = (labels, float(self.net.dropped_not_a_peer));
        self.net.peers.iter().flat_map(of_peer).chain([unlisted]).collect()
    }

    fn network(&self, out: &mut Out<'_>) -> fmt::Result {
        let refused = &self.net.refused;
        let causes = [
            ("not_listed", refused.not_listed),
            ("bad_hello", refused.bad_hello),
            ("no_hello", refused.no_hello),
            ("handshake", refused.handshake),
            ("crowded", refused.crowded),
            ("crowded_source", refused.crowded_source),
            ("removed", refused.removed),
            ("join_crowded", refused.join_crowded),
            ("join_rate", refused.join_rate),
            ("bad_join", refused.bad_join),
            ("join_not_served", refused.join_not_served),
        ];
        let causes = causes.map(|(cause, n)| (vec![("cause", cause.to_owned())], float(n)));
        out.counter("net_refused_connections", "Inbound connections refused", causes.into())?;
        let one = |value: f64| vec![(Labels::new(), value)];
        let up = one(bit(self.transport_up));
        out.gauge("net_transport_up", "1 while this node listens on its UDP address", up)?;
        let handshakes = one(float(self.net.handshakes));
        out.gauge("net_handshakes", "Connections that have not said hello yet", handshakes)?;
        let joins = &self.net.joins;
        out.gauge("net_joins", "Nodes that ask to join, at this moment", one(float(joins.under_way)))?;
        let requests = one(float(joins.requests));
        out.counter("net_join_requests", "Requests to join that were looked at", requests)?;
        let foreign = one(float(self.net.foreign_relays));
        out.counter("net_foreign_relays", "Times a relay was named that is not in the own list", foreign)?;
        let failures = one(float(self.net.transport_failures));
        out.counter("net_transport_failures", "Attempts to listen that failed", failures)?;
        let rebuilds = one(float(self.net.transport_rebuilds));
        out.counter("net_transport_rebuilds", "Times it listened again", rebuilds)
    }

    fn fences(&self, out: &mut Out<'_>) -> fmt::Result {
        let series =
            |(name, state): (&str, &FenceState)| (vec![("fence", name.to_owned())], bit(state.works()));
        let all = self.fences.iter().flat_map(|fences| fences.each()).map(series).collect();
        out.gauge("fence_works", "1 where it ends VMs that have no lease", all)?;
        let disarmed = self.disarmed.map(|disarmed| (Labels::new(), bit(disarmed)));
        out.gauge("disarmed", "1 while no VM is started elsewhere", disarmed.into_iter().collect())
    }

    fn retries(&self, out: &mut Out<'_>) -> fmt::Result {
        let labels = |retrying: &Retrying| {
            let peer = retrying.peer.map_or_else(String::new, |peer| self.name(&peer));
            vec![("what", retrying.what.name().to_owned()), ("peer", peer)]
        };
        let all = self.retrying.iter();
        let failures = all.clone().map(|r| (labels(r), float(r.failures))).collect();
        out.gauge("retry_failures", "Failures in a row of what is tried again", failures)?;
        let waits = all.filter_map(|r| Some((labels(r), r.next_try_in?.as_secs_f64()))).collect();
        out.gauge("retry_next_seconds", "Until the next try", waits)
    }
}

struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counter(&mut self, name: &str, help: &str, series: Vec<(Labels, f64)>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in series {
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, series: Vec<(Labels, f64)>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn bit(set: bool) -> f64 {
    f64::from(u8::from(set))
}

/// Prometheus' numbers are floats: exact up to 2^53.
fn float(number: impl TryInto<u64>) -> f64 {
    number.try_into().unwrap_or(u64::MAX) as f64
}
