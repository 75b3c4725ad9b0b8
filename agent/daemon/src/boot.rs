//! Start and stop, in order.
//!
//! Start: key, store, network (which may have nothing to listen on yet), socket (from here on commands are
//! answered), cluster, tasks. Stop: API, leadership handed over, network, tasks, consensus with its store.
//! VMs are units of their own and go on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use blixard_model::ClusterId;
use blixard_model::api::RetryKind;
use blixard_net::{Net, NetConfig, NodeKey};
use blixard_node::NodeError;
use blixard_store::{DirDisk, Store};
use blixard_systemd::SystemdVms;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::context::{Agent, AgentParts, Phase};
use super::owner::OwnerTask;
use super::{
    announce, api, birth, formation, joining, random, reconcile, register, router, space, supervise, was_in,
};
use crate::keygen;

/// How long handing the leadership over may take when the agent stops.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the consensus task may take to end once nobody asks it any more.
const OWNER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long another task's end waits for the consensus task's, which may be its cause.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs until SIGTERM or SIGINT, or until something fails that must not be survived.
///
/// # Errors
/// What could not be started, or what failed.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut signals = signals()?;
    was_in::check(&config.data_dir, was_in::record().as_deref())?;
    space::check(&config.data_dir)?;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let key = keygen::load_or_make(&config, credentials.as_deref().map(Path::new))?;
    config.check_own_id(key.endpoint_id()).map_err(anyhow::Error::msg)?;
    let disk = DirDisk::new(&config.data_dir);
    let store = Store::open(&disk, key.endpoint_id(), &config.cluster_name, random::store_id())?;
    let (agent, incoming) = assemble(config, key, &store).await?;
    let listener = api::listen(&agent.config.socket).await?;
    // A node of a cluster is that before anybody can ask it who it is.
    let mut store = Some(store);
    let removed = store.as_ref().filter(|store| store.is_removed()).and_then(Store::cluster);
    let removed = removed.map(|marker| marker.cluster_id);
    let resumed = store.take_if(|store| store.cluster().is_some() && !store.is_removed());
    let resumed = resumed.map(|store| birth::resume(&agent, store)).transpose()?;
    if resumed.is_some() || removed.is_some() {
        // A crash may have come between the bound store and this.
        agent.tickets.close(&agent.config.data_dir);
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(router_task(Arc::clone(&agent), incoming));
    tasks.spawn(api_task(Arc::clone(&agent), listener, stop.clone()));
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
    if let Some(cluster_id) = removed {
        return rest(&agent, cluster_id, tasks, (signals, stop)).await;
    }
    let owner = tokio::select! {
        owner = become_member(&agent, resumed, store) => owner?,
        ended = tasks.join_next() => anyhow::bail!("a task ended unexpectedly: {}", words(ended)),
        () = signals.asked() => return shut_down(&agent, None, [tasks], stop).await,
    };
    let mut member_tasks = JoinSet::new();
    spawn_tasks(&agent, &mut member_tasks);
    let mut owner = tokio::spawn(owner.run());
    let ended = tokio::select! {
        ended = &mut owner => ended,
        ended = member_tasks.join_next() => last_word_of(&mut owner, ended).await?,
        ended = tasks.join_next() => last_word_of(&mut owner, ended).await?,
        () = signals.asked() => return shut_down(&agent, Some(owner), [tasks, member_tasks], stop).await,
    };
    let removed = matches!(&ended, Ok(Err(NodeError::Removed { .. })));
    let Some(running) = agent.running().filter(|_| removed) else { return Err(last_words(ended)) };
    member_tasks.shutdown().await;
    rest(&agent, running.cluster_id, tasks, (signals, stop)).await
}

/// Who watches the consensus task ends with it, and may be noticed first: its own words say why.
async fn last_word_of(
    owner: &mut tokio::task::JoinHandle<OwnerEnd>,
    ended: Option<Result<Ended, tokio::task::JoinError>>,
) -> anyhow::Result<Result<OwnerEnd, tokio::task::JoinError>> {
    let end = tokio::time::timeout(LAST_WORDS_TIMEOUT, owner).await;
    end.map_err(|_| anyhow::anyhow!("a task ended unexpectedly: {}", words(ended)))
}

/// A node that was removed from its cluster says so to whoever asks, and does nothing else.
async fn rest(
    agent: &Arc<Agent>,
    cluster_id: ClusterId,
    mut tasks: JoinSet<Ended>,
    (mut signals, stop): (Signals, CancellationToken),
) -> anyhow::Result<()> {
    tracing::error!(
        CLUSTER = %cluster_id,
        "this node was removed from cluster {cluster_id}; `blixard status` says what to do to use it again"
    );
    supervise::status("Removed from its cluster");
    agent.phase.send_replace(Phase::Removed { cluster_id });
    agent.net.set_peers(Vec::new(), std::collections::BTreeMap::new());
    agent.net.serve_joins(None);
    tokio::select! {
        ended = tasks.join_next() => anyhow::bail!("a task ended unexpectedly: {}", words(ended)),
        () = supervise::feed_for_ever() => {}
        () = signals.asked() => {}
    }
    shut_down(agent, None, [tasks], stop).await
}

async fn assemble(
    config: Config,
    key: NodeKey,
    store: &Store,
) -> anyhow::Result<(Arc<Agent>, tokio::sync::mpsc::Receiver<blixard_net::Incoming>)> {
    let capacity = config.capacity().context("what this machine offers")?;
    let endpoint_id = key.endpoint_id();
    let (net, incoming) = Net::start(network(&config, key)?)?;
    let promise = store.promise().cloned();
    let alone = config.members.is_empty() && store.cluster().is_none();
    let was_in = if alone { was_in::words(&config.data_dir).context("the data directory")? } else { None };
    let parts =
        AgentParts { was_in, config, endpoint_id, store_id: store.store_id(), capacity, net, promise };
    let agent = Arc::new(Agent::new(parts));
    agent.let_in(&[]);
    Ok((agent, incoming))
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

/// The cluster that was resumed, or the one that is found for an empty store by asking around.
async fn become_member(
    agent: &Agent,
    resumed: Option<OwnerTask>,
    store: Option<Store>,
) -> anyhow::Result<OwnerTask> {
    let mut store = match (resumed, store) {
        (Some(owner), _) => return Ok(owner),
        (None, Some(store)) => store,
        (None, None) => anyhow::bail!("there is no store"),
    };
    let birth = tokio::select! {
        birth = formation::form(agent, &mut store) => birth?,
        birth = joining::join(agent) => birth,
    };
    // Whichever of the two it was: nobody asks any more.
    agent.retries.done(RetryKind::Form, None);
    tokio::task::block_in_place(|| birth::bind(agent, &mut store, birth))?;
    agent.tickets.close(&agent.config.data_dir);
    tokio::task::block_in_place(|| birth::resume(agent, store))
}

type Ended = &'static str;

/// How the consensus task ends.
type OwnerEnd = Result<(), blixard_node::NodeError<blixard_store::WriteError>>;

/// Why the consensus task ended unasked. No leadership to hand over, no store to close: what is on disk is
/// what counts.
fn last_words(ended: Result<OwnerEnd, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("the consensus task ended"),
        Ok(Err(error)) => anyhow::Error::new(error).context("the consensus task failed"),
        Err(error) => anyhow::Error::new(error).context("the consensus task panicked"),
    }
}

fn spawn_tasks(agent: &Arc<Agent>, tasks: &mut JoinSet<Ended>) {
    let task = |agent: &Arc<Agent>| Arc::clone(agent);
    let (peers, reports, identities, registers, lines, vms) =
        (task(agent), task(agent), task(agent), task(agent), task(agent), task(agent));
    let (joins, vouches) = (task(agent), task(agent));
    tasks.spawn(async move {
        announce::serve_joins(joins).await;
        "joins"
    });
    tasks.spawn(async move {
        announce::vouch(vouches).await;
        "vouching"
    });
    tasks.spawn(async move {
        announce::keep_peers(peers).await;
        "peers"
    });
    tasks.spawn(async move {
        announce::report(reports).await;
        "reports"
    });
    tasks.spawn(async move {
        announce::identify(identities).await;
        "identities"
    });
    tasks.spawn(async move {
        register::register(registers).await;
        "registration"
    });
    tasks.spawn(async move {
        announce::tell_status(lines).await;
        "status line"
    });
    tasks.spawn(async move {
        reconcile::run(vms, Arc::new(SystemdVms::default())).await;
        "reconciler"
    });
}

async fn router_task(
    agent: Arc<Agent>,
    incoming: tokio::sync::mpsc::Receiver<blixard_net::Incoming>,
) -> Ended {
    router::route(agent, incoming).await;
    "network"
}

async fn api_task(agent: Arc<Agent>, listener: UnixListener, stop: CancellationToken) -> Ended {
    if let Err(error) = api::serve(agent, listener, stop).await {
        tracing::error!("the local socket failed: {error}");
    }
    "local socket"
}

fn words(ended: Option<Result<Ended, tokio::task::JoinError>>) -> String {
    match ended {
        Some(Ok(name)) => name.to_owned(),
        Some(Err(error)) => error.to_string(),
        None => "no task".to_owned(),
    }
}

async fn shut_down(
    agent: &Arc<Agent>,
    owner: Option<tokio::task::JoinHandle<OwnerEnd>>,
    tasks: impl IntoIterator<Item = JoinSet<Ended>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    supervise::stopping();
    tracing::info!("stopping; VMs go on");
    stop.cancel();
    if let Some(running) = agent.running() {
        running.consensus.transfer_leadership(TRANSFER_TIMEOUT).await;
    }
    agent.net.clone().close().await;
    for mut tasks in tasks {
        tasks.shutdown().await;
    }
    if let Some(mut owner) = owner {
        let ended = async {
            if let Some(running) = agent.running() {
                running.consensus.stop().await;
            }
            // How it ended is told by who waits for it.
            let _end = (&mut owner).await.is_err();
        };
        if tokio::time::timeout(OWNER_TIMEOUT, ended).await.is_err() {
            tracing::warn!("the consensus task did not end in time");
            owner.abort();
        }
    }
    if let Err(error) = std::fs::remove_file(&agent.config.socket) {
        tracing::debug!(%error, "the socket was not removed");
    }
    tracing::info!("stopped");
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
