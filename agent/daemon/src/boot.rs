//! Start and stop, in order.
//!
//! Start: key, store, network (which may have nothing to listen on yet), socket (from here on commands are
//! answered), the host and the tasks around it. Stop: API, leadership handed over, network, tasks, the host
//! with its store. VMs are units of their own and go on.

use blixard_model::{ClusterVersion, LeaseTerms, NodeFacts};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use blixard_consensus::{Limits, TICK_MS};
use blixard_net::{Net, NetConfig, NodeKey};
use blixard_node::host::disk::Kept;
use blixard_node::host::{Found, Host, HostConfig};
use blixard_store::{DirDisk, Store};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::context::{Agent, PeerWhereabouts, offer};
use super::metrics::Metrics;
use super::shell::{HostHandle, HostStanding, HostTask, INBOX_MAX, ShellError};
use super::{
    api, clock, hold, incoming, keygen, leases, missing_data, offer, random, shutting_down, space,
    status_line, supervise, tickets,
};

/// How long handing the leadership over may take when the agent stops.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the host task may take to end once nobody asks it any more.
const HOST_TIMEOUT: Duration = Duration::from_secs(3);
/// Tasks that watch the host task end with it and may be noticed first: its own error is waited for so long.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(500);

/// How the host task ends.
type HostEnded = Result<Result<(), ShellError>, JoinError>;
/// The name of a task that ended.
type Ended = &'static str;

/// Runs until SIGTERM or SIGINT, or until something fails that must not be survived.
///
/// # Errors
/// What could not be started, or what failed.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut signals = signals()?;
    missing_data::check(&config.data_dir, missing_data::record().as_deref())?;
    space::check(&config.data_dir)?;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let key = keygen::load_or_make(&config, credentials.as_deref().map(Path::new))?;
    config.check_own_id(key.endpoint_id()).map_err(anyhow::Error::msg)?;
    let disk = DirDisk::new(&config.data_dir);
    let store = Store::open(&disk, key.endpoint_id(), &config.cluster_name, random::store_id())?;
    let (agent, task, received) = assemble(config, key, store)?;
    let listener = api::listen(&agent.config.socket).await?;
    // A node of a cluster is that before anybody can ask it who it is.
    let mut host = tokio::spawn(task.run());
    let mut tasks = JoinSet::new();
    spawn_tasks(&agent, &mut tasks, received, (listener, stop.clone()));
    supervise::ready();
    tracing::info!(
        NODE = %agent.name(),
        endpoint_id = %agent.endpoint_id,
        store_id = %agent.store_id,
        listen = %agent.config.listen(),
        version = env!("CARGO_PKG_VERSION"),
        "agent of {} serves on {}",
        agent.name(),
        agent.config.socket.display()
    );
    let ended = tokio::select! {
        ended = &mut host => ended,
        ended = tasks.join_next() => last_word_of(&mut host, ended).await?,
        () = signals.asked() => return shut_down(&agent, host, tasks, stop).await,
    };
    Err(last_words(ended))
}

/// The error of the host task, if it has ended; else what ended instead.
async fn last_word_of(
    host: &mut JoinHandle<Result<(), ShellError>>,
    ended: Option<Result<Ended, JoinError>>,
) -> anyhow::Result<HostEnded> {
    let end = tokio::time::timeout(LAST_WORDS_TIMEOUT, host).await;
    end.map_err(|_| anyhow::anyhow!("a task ended unexpectedly: {}", words(ended)))
}

/// The agent, its host's task, and what the network brings.
type Assembled = (Arc<Agent>, HostTask, mpsc::Receiver<blixard_net::Incoming>);

fn assemble(config: Config, key: NodeKey, store: Store) -> anyhow::Result<Assembled> {
    let capacity = config.capacity().context("what this machine offers")?;
    let (endpoint_id, store_id) = (key.endpoint_id(), store.store_id());
    let kept = Kept::load(&store)?;
    let alone = config.members.is_empty() && kept.is_none();
    let was_in =
        if alone { missing_data::words(&config.data_dir).context("the data directory")? } else { None };
    if let Some(kept) = &kept {
        missing_data::keep(&config.data_dir, missing_data::record().as_deref(), kept.marker.cluster_id);
    }
    let (net, received) = Net::start(network(&config, key)?)?;
    let host = HostConfig {
        node: NodeFacts {
            name: config.node_name.clone(),
            endpoint_id,
            store_id,
            offer: offer(&config, capacity, &net, Vec::new()),
        },
        cluster_name: config.cluster_name.clone(),
        declared: config.declared(),
        joins: config.joins() || was_in.is_some(),
        needs: was_in,
        ticket: tickets::read(&config),
        written: config.own_addresses(),
        voter_lost_ticks: u64::from(config.voter_lost_after_s) * 1_000 / TICK_MS,
        supports: ClusterVersion::NEWEST,
        lease_terms: LeaseTerms::DEFAULT,
        lease: leases::found(),
        limits: Limits::default(),
        incarnation: random::u64(),
    };
    let found = Found { promise: store.promise().cloned(), kept, removed: store.is_removed() };
    let boot_id = clock::boot_id().context("the kernel does not name this boot")?;
    let host = Host::new(host, found, clock::moment(boot_id))?;
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let standing = watch::Sender::new(HostStanding::of(&host));
    let metrics = Metrics::default();
    let handle = HostHandle::new(sender, standing.subscribe(), metrics.inbox_dropped.clone());
    let (peers, shuts_down) = (PeerWhereabouts::default(), AtomicBool::new(false));
    let agent = Arc::new(Agent {
        config,
        endpoint_id,
        store_id,
        capacity,
        net,
        metrics,
        host: handle,
        peers,
        shuts_down,
    });
    let task = HostTask { agent: Arc::clone(&agent), host, store, boot_id, inbox, standing };
    Ok((agent, task, received))
}

fn network(config: &Config, key: NodeKey) -> anyhow::Result<NetConfig> {
    let relays = config.relays().context("net.relay_urls")?;
    for url in relays.without_tls() {
        tracing::warn!(
            "the relay {url} is without TLS: whoever is on the way sees which nodes talk to each other, and \
             can cut them off"
        );
    }
    let cluster_name = config.cluster_name.clone();
    Ok(NetConfig { key, bind: config.listen(), cluster_name, relays, relay_ca: config.relay_ca()? })
}

fn spawn_tasks(
    agent: &Arc<Agent>,
    tasks: &mut JoinSet<Ended>,
    received: mpsc::Receiver<blixard_net::Incoming>,
    (listener, stop): (UnixListener, CancellationToken),
) {
    let routed = Arc::clone(agent);
    tasks.spawn(async move {
        incoming::route(routed, received).await;
        "network"
    });
    let served = Arc::clone(agent);
    tasks.spawn(async move {
        if let Err(error) = api::serve(served, listener, stop).await {
            tracing::error!("the local socket failed: {error}");
        }
        "local socket"
    });
    let watched = Arc::clone(agent);
    tasks.spawn(async move {
        offer::watch(watched).await;
        "addresses"
    });
    let told = Arc::clone(agent);
    tasks.spawn(async move {
        status_line::keep(told).await;
        "status line"
    });
}

/// Why the host task ended unasked. No leadership to hand over, no store to close: what is on disk is what
/// counts.
fn last_words(ended: HostEnded) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("the host task ended"),
        Ok(Err(error)) => anyhow::Error::new(error).context("the host task failed"),
        Err(error) => anyhow::Error::new(error).context("the host task panicked"),
    }
}

fn words(ended: Option<Result<Ended, JoinError>>) -> String {
    match ended {
        Some(Ok(name)) => name.to_owned(),
        Some(Err(error)) => error.to_string(),
        None => "no task".to_owned(),
    }
}

async fn shut_down(
    agent: &Arc<Agent>,
    mut host: JoinHandle<Result<(), ShellError>>,
    mut tasks: JoinSet<Ended>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    supervise::stopping();
    // Asked once: while VMs stop, the bus may go.
    let shuts_down = hold::machine_shuts_down().await;
    if shuts_down == Some(true) {
        agent.shuts_down.store(true, Ordering::Relaxed);
        shutting_down::await_vms(|| host.is_finished()).await;
    } else {
        tracing::info!("stopping; VMs go on");
    }
    let vms_wait = hold::take(agent, shuts_down).await;
    stop.cancel();
    agent.host.hand_over(TRANSFER_TIMEOUT).await;
    agent.net.clone().close().await;
    tasks.shutdown().await;
    let ended = async {
        agent.host.stop().await;
        // How it ended is told by whoever waits for it.
        let _end = (&mut host).await.is_err();
    };
    if tokio::time::timeout(HOST_TIMEOUT, ended).await.is_err() {
        tracing::warn!("the host task did not end in time");
        host.abort();
    }
    if let Err(error) = std::fs::remove_file(&agent.config.socket) {
        tracing::debug!(%error, "the socket was not removed");
    }
    tracing::info!("stopped");
    if vms_wait {
        hold::last_word();
    }
    Ok(())
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

fn signals() -> anyhow::Result<Signals> {
    Ok(Signals {
        terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
        interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
    })
}

impl Signals {
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
