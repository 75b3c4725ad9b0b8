//! What the agent's tasks share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use blixard_core::formation::{DeclaredMember, phase_of};
use blixard_core::state::NodeOffer;
use blixard_model::formation::{Genesis, Identity, Phase as IdentityPhase};
use blixard_model::report::NodeReport;
use blixard_model::wire::{AgedReport, Contact};
use blixard_model::{Capacity, ClusterId, EndpointId, NodeName, StoreId};
use blixard_net::{IpFamilies, Net, PeerConfig};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::addresses;
use super::config::{Config, NodeRole};
use super::handle::ConsensusHandle;
use super::joining::Tickets;
use super::metrics::Metrics;
use super::retries::Retries;

/// Most questions kept for the forming task: more than any list has members, twice.
const ASKERS_MAX: usize = 512;

/// How far this node has come.
#[derive(Clone)]
pub(crate) enum Phase {
    /// No cluster yet.
    Forming {
        /// The genesis it promised durably.
        promise: Option<Genesis>,
        /// Whom it waits for.
        waiting_for: Vec<String>,
    },
    /// In a cluster.
    Running(Running),
    /// Removed from it by an operator. The store is of no use any more.
    Removed {
        /// Which cluster it was.
        cluster_id: ClusterId,
    },
}

/// A node in a cluster.
#[derive(Clone)]
pub(crate) struct Running {
    /// Which.
    pub(crate) cluster_id: ClusterId,
    /// How it was born.
    pub(crate) genesis: Genesis,
    /// The consensus task.
    pub(crate) consensus: ConsensusHandle,
}

/// Shared by all tasks of one agent; holds no decision.
pub(crate) struct Agent {
    pub(crate) config: Config,
    pub(crate) declared: Vec<DeclaredMember>,
    pub(crate) endpoint_id: EndpointId,
    pub(crate) store_id: StoreId,
    pub(crate) capacity: Capacity,
    pub(crate) net: Net,
    pub(crate) retries: Retries,
    pub(crate) metrics: Metrics,
    /// It joins a cluster with a ticket, and forms none of its own.
    pub(crate) joins: bool,
    /// The ticket to join with.
    pub(crate) tickets: Tickets,
    /// Members of which others told, while this node is in no cluster.
    told: Mutex<Vec<Contact>>,
    /// Where the peers are: from which of its own addresses this machine reaches them.
    peer_addresses: Mutex<Vec<SocketAddr>>,
    pub(crate) phase: watch::Sender<Phase>,
    /// Who asked this node while it is in no cluster, as they describe themselves.
    pub(crate) askers: broadcast::Sender<Identity>,
    /// What this node reports of its own VMs, and when it looked.
    pub(crate) own_report: watch::Sender<(Instant, NodeReport)>,
    reports: Mutex<BTreeMap<NodeName, (Instant, NodeReport)>>,
}

/// What an agent is made of.
pub(crate) struct AgentParts {
    pub(crate) config: Config,
    pub(crate) endpoint_id: EndpointId,
    pub(crate) store_id: StoreId,
    pub(crate) capacity: Capacity,
    pub(crate) net: Net,
    pub(crate) promise: Option<Genesis>,
    /// Why it begins no cluster of its own, if it was in one and has neither its store nor a list.
    pub(crate) was_in: Option<String>,
}

impl Agent {
    pub(crate) fn new(parts: AgentParts) -> Self {
        let problem = Some("systemd has not been asked yet".to_owned());
        let joins = parts.config.joins() || parts.was_in.is_some();
        let report = NodeReport { node: parts.config.node_name.clone(), vms: Vec::new(), problem };
        Self {
            declared: parts.config.declared(),
            endpoint_id: parts.endpoint_id,
            store_id: parts.store_id,
            capacity: parts.capacity,
            net: parts.net,
            retries: Retries::default(),
            metrics: Metrics::default(),
            joins,
            tickets: Tickets::load(&parts.config, joins, parts.was_in),
            told: Mutex::default(),
            peer_addresses: Mutex::default(),
            phase: watch::Sender::new(Phase::Forming {
                promise: parts.promise,
                waiting_for: vec!["the first answers".to_owned()],
            }),
            askers: broadcast::Sender::new(ASKERS_MAX),
            own_report: watch::Sender::new((Instant::now(), report)),
            reports: Mutex::new(BTreeMap::new()),
            config: parts.config,
        }
    }

    pub(crate) fn name(&self) -> &NodeName {
        &self.config.node_name
    }

    /// The cluster this node is in, once it is.
    pub(crate) fn running(&self) -> Option<Running> {
        match &*self.phase.borrow() {
            Phase::Forming { .. } | Phase::Removed { .. } => None,
            Phase::Running(running) => Some(running.clone()),
        }
    }

    /// The names of the peers: the members', and of the others as they are listed.
    pub(crate) async fn peer_names(&self) -> BTreeMap<EndpointId, NodeName> {
        let listed = self.declared.iter().map(|member| (member.endpoint_id, member.name.clone()));
        let mut names: BTreeMap<_, _> = listed.collect();
        if let Some(running) = self.running() {
            let look = running.consensus.view(|view| {
                let members = view.state.members.values();
                members.map(|member| (member.endpoint_id, member.name.clone())).collect::<Vec<_>>()
            });
            // The list still names them when the agent is behind or on its way out.
            names.extend(look.await.unwrap_or_default());
        }
        names
    }

    /// Waits until this node is in a cluster.
    pub(crate) async fn wait_running(&self) -> Running {
        let mut phase = self.phase.subscribe();
        loop {
            if let Phase::Running(running) = &*phase.borrow_and_update() {
                return running.clone();
            }
            // The sender lives in this very struct.
            if phase.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// What this node has to say of itself as a member.
    pub(crate) fn offer(&self) -> NodeOffer {
        let peers = self.peer_addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let listen = self.config.listen();
        // While nothing is listened on, what is to be.
        let heard = self.net.families().unwrap_or_else(|| IpFamilies::heard_at(listen.ip()));
        NodeOffer {
            witness: self.config.role == NodeRole::Witness,
            capacity: self.capacity,
            addresses: addresses::offered(&self.config.own_addresses(), (listen, heard), peers),
            relay_url: self.net.home_relay(),
        }
    }

    /// What this node says of itself to the node that asks, if one does.
    pub(crate) async fn identity(&self, asker: Option<Identity>) -> Identity {
        let phase = self.phase.borrow().clone();
        let phase = match phase {
            Phase::Forming { promise, .. } => IdentityPhase::Empty { promise },
            // Nobody asks: it has no peers any more.
            Phase::Removed { .. } => IdentityPhase::Empty { promise: None },
            Phase::Running(running) => {
                let look = move |view: &super::handle::View<'_>| {
                    phase_of(view.state, (view.raft.id, view.raft.applied), asker.as_ref())
                };
                let looked = running.consensus.view(look).await;
                // The agent is behind or on its way out; what it was born from is still true.
                looked.unwrap_or_else(|_| IdentityPhase::Formed {
                    applied: 1,
                    members: Vec::new(),
                    you_were_removed: false,
                    cluster_id: running.cluster_id,
                    genesis: running.genesis.clone(),
                    raft_id: None,
                    your_raft_id: None,
                    you_left: false,
                })
            }
        };
        let offer = self.offer();
        Identity {
            witness: offer.witness,
            name: self.name().clone(),
            endpoint_id: self.endpoint_id,
            store_id: self.store_id,
            addresses: offer.addresses,
            relay_url: offer.relay_url,
            capacity: Some(offer.capacity),
            phase,
        }
    }

    /// Notes what a node reports, as the leader does, with its age when it arrived.
    pub(crate) fn note_report(&self, aged: AgedReport) {
        let now = Instant::now();
        let seen = now.checked_sub(Duration::from_millis(aged.age_ms)).unwrap_or(now);
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.insert(aged.report.node.clone(), (seen, aged.report));
    }

    /// What this node reports of its own VMs, with the age of its look at them.
    pub(crate) fn own_aged_report(&self) -> AgedReport {
        let own = self.own_report.borrow();
        aged(own.0, &own.1)
    }

    /// The reports noted here, with their age.
    pub(crate) fn noted_reports(&self) -> Vec<AgedReport> {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.values().map(|(at, report)| aged(*at, report)).collect()
    }

    /// Sets whom the network lets in and keeps links with as a member: the declared nodes and these, and whom
    /// it tells that they were removed, with the raft id they had. Where a declared node is found of which
    /// nothing else is known, its word is still to come: it may be at this node's own relay.
    pub(crate) fn set_peers(&self, members: Vec<Contact>, removed: BTreeMap<EndpointId, String>) {
        let known: BTreeSet<EndpointId> = members.iter().map(|member| member.endpoint_id).collect();
        let declared = self.declared.iter().map(|member| PeerConfig {
            endpoint_id: member.endpoint_id,
            addresses: member.addresses.clone(),
            relay_url: self.net.home_relay().filter(|_| !known.contains(&member.endpoint_id)),
        });
        let members = members.into_iter().map(|member| PeerConfig {
            endpoint_id: member.endpoint_id,
            addresses: member.addresses,
            relay_url: member.relay_url,
        });
        let peers: Vec<PeerConfig> = declared.chain(members).collect();
        let others = peers.iter().filter(|peer| peer.endpoint_id != self.endpoint_id);
        let addresses = others.flat_map(|peer| peer.addresses.clone()).collect();
        *self.peer_addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
        self.net.set_peers(peers, removed);
    }

    /// The same without a cluster: beside the declared nodes those that the ticket names, and those of whom
    /// others told.
    pub(crate) fn let_in(&self, told: &[Contact]) {
        let peers = {
            let mut known = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if !told.is_empty() {
                *known = told.to_vec();
            }
            known.iter().cloned().chain(self.tickets.contacts()).collect()
        };
        self.set_peers(peers, BTreeMap::new());
    }

    /// Whom a node without a cluster asks who they are.
    pub(crate) fn asked_while_forming(&self) -> Vec<EndpointId> {
        let declared = self.declared.iter().map(|member| member.endpoint_id);
        let known = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let others = known.into_iter().chain(self.tickets.contacts()).map(|contact| contact.endpoint_id);
        let all: BTreeSet<EndpointId> = declared.chain(others).collect();
        all.into_iter().filter(|id| *id != self.endpoint_id).collect()
    }
}

fn aged(at: Instant, report: &NodeReport) -> AgedReport {
    let age_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
    AgedReport { report: report.clone(), age_ms }
}
