//! A systemd for tests: one VM unit behind systemd's D-Bus interfaces, on one end of a socket pair.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc};
use zbus::connection::Builder;
use zbus::{Guid, ObjectPath, OwnedObjectPath, OwnedVariant};

use crate::job::JOBS_QUEUED_MAX;
use crate::link::Link;
use crate::proxy::{ManagerProxy, UnitRow};

/// What the unit's properties say.
#[derive(Debug, Clone)]
pub(crate) struct FakeUnit {
    pub(crate) active: &'static str,
    /// Type of the pending job.
    pub(crate) job: Option<&'static str>,
    pub(crate) result: &'static str,
    /// Exit status of the main process.
    pub(crate) status: i32,
    pub(crate) status_text: &'static str,
    pub(crate) freezer: &'static str,
    /// Of the manager: whether those of units work, the time of the hardware's and when that was fed last.
    pub(crate) watchdogs: (bool, u64, u64),
    /// systemd re-executes itself: the bus answers in its place where a failed state is to be reset.
    pub(crate) is_away: bool,
}

impl Default for FakeUnit {
    fn default() -> Self {
        Self {
            active: "inactive",
            job: None,
            result: "success",
            status: 0,
            status_text: "",
            freezer: "running",
            watchdogs: (true, 0, 0),
            is_away: false,
        }
    }
}

/// The names of the calls in their order, and after `SetUnitProperties` the description that it sets.
pub(crate) type Calls = mpsc::UnboundedReceiver<String>;

const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit/web";

/// Path of the job that every call queues.
pub(crate) fn job() -> OwnedObjectPath {
    path("/org/freedesktop/systemd1/job/7")
}

fn path(text: &'static str) -> OwnedObjectPath {
    ObjectPath::try_from(text).expect("path").into()
}

/// A link to a systemd that has this unit.
pub(crate) async fn systemd(unit: FakeUnit) -> (Arc<Link>, Calls) {
    let (calls, heard) = mpsc::unbounded_channel();
    let (ours, theirs) = UnixStream::pair().expect("pair");
    let manager = FakeManager { unit: unit.clone(), calls };
    let server = Builder::unix_stream(theirs)
        .server(Guid::generate())
        .p2p()
        .serve_at("/org/freedesktop/systemd1", manager)
        .serve_at(UNIT_PATH, FakeService { unit: unit.clone() })
        .serve_at(UNIT_PATH, FakeUnitProperties { unit })
        .build();
    let client = Builder::unix_stream(ours).p2p().build();
    let (server, connection) = tokio::try_join!(server, client).expect("connected");
    // The server works as long as it is held.
    tokio::spawn(async move {
        let _server = server;
        std::future::pending::<()>().await;
    });
    let manager = ManagerProxy::builder(&connection).build().await.expect("proxy");
    let (jobs, _) = broadcast::channel(JOBS_QUEUED_MAX);
    (Arc::new(Link { connection, manager, jobs }), heard)
}

/// Waits for a call with this name. Returns the calls that came before it.
pub(crate) async fn until(calls: &mut Calls, name: &str) -> Vec<String> {
    let mut before = Vec::new();
    loop {
        let call = calls.recv().await.expect("calls");
        if call == name {
            return before;
        }
        before.push(call);
    }
}

struct FakeManager {
    unit: FakeUnit,
    calls: mpsc::UnboundedSender<String>,
}

impl FakeManager {
    fn note(&self, call: impl Into<String>) {
        // A test that has seen enough no longer listens.
        let _ = self.calls.send(call.into());
    }
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl FakeManager {
    fn set_unit_properties(&self, _name: &str, _runtime: bool, properties: Vec<(String, OwnedVariant)>) {
        self.note("SetUnitProperties");
        for (_, value) in properties.into_iter().filter(|(name, _)| name == "Description") {
            self.note(String::try_from(value).expect("a text"));
        }
    }

    fn start_unit(&self, _name: &str, _mode: &str) -> OwnedObjectPath {
        self.note("StartUnit");
        job()
    }

    fn reset_failed_unit(&self, _name: &str) -> zbus::fdo::Result<()> {
        self.note("ResetFailedUnit");
        match self.unit.is_away {
            true => Err(zbus::fdo::Error::NoReply("systemd is away".to_owned())),
            false => Ok(()),
        }
    }

    #[zbus(property)]
    fn service_watchdogs(&self) -> bool {
        self.unit.watchdogs.0
    }

    #[zbus(property, name = "RuntimeWatchdogUSec")]
    fn runtime_watchdog_usec(&self) -> u64 {
        self.unit.watchdogs.1
    }

    #[zbus(property)]
    fn watchdog_last_ping_timestamp_monotonic(&self) -> u64 {
        self.unit.watchdogs.2
    }

    fn get_unit(&self, _name: &str) -> OwnedObjectPath {
        path(UNIT_PATH)
    }

    fn list_units_by_patterns(&self, _states: Vec<String>, patterns: Vec<String>) -> Vec<UnitRow> {
        self.note("ListUnitsByPatterns");
        let text = str::to_owned;
        let (id, job_type) = self.unit.job.map_or((0, ""), |job| (7, job));
        let name = patterns.first().map(|pattern| pattern.replace('*', "web")).unwrap_or_default();
        let active = text(self.unit.active);
        let row = (name, text(""), text("loaded"), active, text(""), text(""), path(UNIT_PATH));
        let (name, description, load, active, sub, followed, unit) = row;
        vec![(name, description, load, active, sub, followed, unit, id, text(job_type), job())]
    }
}

struct FakeUnitProperties {
    unit: FakeUnit,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Unit")]
impl FakeUnitProperties {
    #[zbus(property)]
    fn active_state(&self) -> &str {
        self.unit.active
    }

    #[zbus(property)]
    fn freezer_state(&self) -> &str {
        self.unit.freezer
    }

    #[zbus(property)]
    fn state_change_timestamp(&self) -> u64 {
        0
    }

    #[zbus(property, name = "InvocationID")]
    fn invocation_id(&self) -> Vec<u8> {
        vec![7; 16]
    }
}

struct FakeService {
    unit: FakeUnit,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Service")]
impl FakeService {
    #[zbus(property)]
    fn result(&self) -> &str {
        self.unit.result
    }

    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        7
    }

    #[zbus(property)]
    fn exec_main_code(&self) -> i32 {
        1
    }

    #[zbus(property)]
    fn exec_main_status(&self) -> i32 {
        self.unit.status
    }

    #[zbus(property)]
    fn status_text(&self) -> &str {
        self.unit.status_text
    }
}
