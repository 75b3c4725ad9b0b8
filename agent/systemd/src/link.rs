//! The connection to the system bus, kept by one task.
//!
//! ```text
//!   connect -> match, subscribe -> live: forward signals -> lost -> pause (0.1 s doubling to 5 s) -> connect
//! ```
//!
//! The task only forwards signals. It makes no call while the connection is live, so a slow answer never
//! keeps signals from being read, and a full queue of signals never delays an answer. Callers make their
//! calls themselves, on the link that they were given.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, SelectAll, StreamExt, select_all};
use tokio::sync::{Notify, broadcast, watch};
use zbus::message::Type;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath};

use crate::job::{JOBS_QUEUED_MAX, JobSignal};
use crate::proxy::ManagerProxy;

/// Longest wait for the answer to one call. It is long enough for a `daemon-reload` of a large machine.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(15);

const SIGNALS_QUEUED_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// Prefix of the object paths of VM units: `_2d` stands for '-', `_40` for '@'.
const VM_UNIT_PATHS: &str = "/org/freedesktop/systemd1/unit/blixard_2dvm_40";

/// One live connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) manager: ManagerProxy<'static>,
    /// Sends the ends of jobs of VM units, and at last that the link was lost.
    pub(crate) jobs: broadcast::Sender<JobSignal>,
}

/// The signals of one link.
pub(crate) type BusSignals = SelectAll<BoxStream<'static, zbus::Result<Message>>>;

/// Connects to the bus at `address` (`None` means the system bus), subscribes to systemd's signals and
/// listens to them.
pub(crate) async fn open(address: Option<&str>) -> zbus::Result<(Arc<Link>, BusSignals)> {
    let connecting = async {
        let builder = match address {
            Some(address) => zbus::connection::Builder::address(address),
            None => zbus::connection::Builder::system(),
        };
        let connection = builder.method_timeout(CALL_DEADLINE).build().await?;
        let manager = ManagerProxy::builder(&connection)
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await?;
        let signals = listen(&connection).await?;
        manager.subscribe().await?;
        let (jobs, _) = broadcast::channel(JOBS_QUEUED_MAX);
        Ok((Arc::new(Link { connection, manager, jobs }), signals))
    };
    tokio::time::timeout(CALL_DEADLINE, connecting)
        .await
        .unwrap_or_else(|_| Err(zbus::Error::InputOutput(Arc::new(std::io::ErrorKind::TimedOut.into()))))
}

async fn listen(connection: &Connection) -> zbus::Result<BusSignals> {
    let signal = || MatchRule::builder().msg_type(Type::Signal);
    let rules = [
        // JobRemoved, UnitNew, UnitRemoved, Reloading.
        signal().sender(SYSTEMD).interface(MANAGER).build()?,
        signal()
            .sender(SYSTEMD)
            .interface("org.freedesktop.DBus.Properties")
            .member("PropertiesChanged")
            .arg(0, "org.freedesktop.systemd1.Unit")
            .build()?,
        // A systemd that re-executes itself gets another unique name on the bus and forgets its subscribers.
        signal()
            .sender("org.freedesktop.DBus")
            .interface("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .arg(0, SYSTEMD)
            .build()?,
    ];
    let mut streams: Vec<BoxStream<'static, zbus::Result<Message>>> = Vec::new();
    for rule in rules {
        streams
            .push(MessageStream::for_match_rule(rule, connection, Some(SIGNALS_QUEUED_MAX)).await?.boxed());
    }
    Ok(select_all(streams))
}

/// Keeps a link alive for ever, beginning with one that is open. Publishes the live link, or `None` while
/// there is none.
pub(crate) async fn keep(
    address: Option<String>,
    first: BusSignals,
    link: watch::Sender<Option<Arc<Link>>>,
    changed: Arc<Notify>,
) {
    let mut signals = first;
    loop {
        let live = link.borrow().clone();
        if let Some(live) = live {
            let reason = forward(signals, &live.jobs, &changed).await;
            link.send_replace(None);
            // An error means that nobody waits, here and below.
            let _ = live.jobs.send(JobSignal::Lost);
            changed.notify_one();
            tracing::warn!("lost systemd on the system bus, connecting again: {reason}");
        }
        signals = reopen(address.as_deref(), &link).await;
        tracing::info!("systemd answers on the system bus again");
        changed.notify_one();
    }
}

async fn reopen(address: Option<&str>, link: &watch::Sender<Option<Arc<Link>>>) -> BusSignals {
    let mut pause = PAUSE_MIN;
    loop {
        tokio::time::sleep(pause).await;
        match open(address).await {
            Ok((live, signals)) => {
                link.send_replace(Some(live));
                return signals;
            }
            Err(error) => tracing::debug!(%error, "the system bus or systemd does not answer yet"),
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Forwards signals until the link is lost. Returns why it was lost.
async fn forward(
    mut signals: BusSignals,
    jobs: &broadcast::Sender<JobSignal>,
    changed: &Notify,
) -> &'static str {
    while let Some(signal) = signals.next().await {
        let Ok(signal) = signal else { return "the connection was closed" };
        let header = signal.header();
        match header.member().map(|member| member.as_str()) {
            Some("NameOwnerChanged") => return "systemd took its bus name anew",
            Some("JobRemoved") => {
                if let Ok((_, path, unit, result)) =
                    signal.body().deserialize::<(u32, OwnedObjectPath, String, String)>()
                    && crate::unit::is_awaited(&unit)
                {
                    let _ = jobs.send(JobSignal::Done { path, result });
                    changed.notify_one();
                }
            }
            Some("PropertiesChanged")
                if header.path().is_some_and(|path| path.as_str().starts_with(VM_UNIT_PATHS)) =>
            {
                changed.notify_one();
            }
            Some("UnitRemoved") => {
                if let Ok((unit, _)) = signal.body().deserialize::<(String, OwnedObjectPath)>()
                    && crate::unit::vm_name(&unit).is_some()
                {
                    changed.notify_one();
                }
            }
            // UnitNew also comes when a unit is only looked at, by this agent too. As a hint, it would lead
            // to another look and so to another UnitNew.
            _ => {}
        }
    }
    "the stream of signals ended"
}
