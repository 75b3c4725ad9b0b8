//! The agent's handle on VM units: start, stop, list.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use blixard_launcher::order::{ORDER_DIR, OrderDir, OrderError};
use blixard_model::VmName;
use blixard_model::order::LaunchOrder;
use futures_util::stream::{StreamExt, TryStreamExt};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use zbus::Variant;
use zbus::fdo::Error as Fdo;

use crate::job::{JobUnknown, JobWatch};
use crate::link::{self, CALL_DEADLINE, Link};
use crate::proxy::{UnitProperties, UnitRow};
use crate::unit::{ActiveState, Limits, UNIT_PATTERN, UnitExit, VmUnit, unit_name, vm_name};

/// Longest start, in seconds: the unit's `TimeoutStartSec=` (60) and some.
pub const START_DEADLINE: Duration = Duration::from_secs(75);

/// Longest stop, in seconds: the unit's `TimeoutStopSec=` (40) for ExecStop, again for SIGTERM, and some.
pub const STOP_DEADLINE: Duration = Duration::from_secs(100);

/// How long a unit that did not start may take to end, in seconds, before its exit is read as it then is.
const SETTLE_DEADLINE: Duration = Duration::from_secs(5);
const SETTLE_STEP: Duration = Duration::from_millis(50);

/// Units whose properties are asked for at the same time.
const LIST_CONCURRENCY: usize = 8;

/// Where the bus and the orders are; the default is the real machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// D-Bus address, `None` for the system bus.
    pub bus_address: Option<String>,
    /// Where orders are written: what the unit's `LoadCredential=` names.
    pub order_dir: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { bus_address: None, order_dir: ORDER_DIR.into() }
    }
}

/// A call to systemd that brought no answer, or a refusal.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no system bus, or no systemd on it.
    #[error("systemd does not answer on the system bus (is dbus running? systemctl status dbus): {0}")]
    Connect(#[source] Box<zbus::Error>),
    /// The bus was lost and is not back yet, or was lost during the call: whether it took effect is unknown.
    #[error("{call}: the system bus was lost")]
    Lost {
        /// The D-Bus method.
        call: &'static str,
    },
    /// No answer in time: whether the call took effect is unknown.
    #[error("{call}: systemd did not answer within {} s", CALL_DEADLINE.as_secs())]
    Timeout {
        /// The D-Bus method.
        call: &'static str,
    },
    /// polkit said no.
    #[error("{call}: not permitted (is polkit's rule 50-blixard.rules installed, and polkitd?): {detail}")]
    Denied {
        /// The D-Bus method.
        call: &'static str,
        /// systemd's words.
        detail: String,
    },
    /// systemd refused.
    #[error("{call}: {source}")]
    Call {
        /// The D-Bus method.
        call: &'static str,
        /// systemd's name for the error and its words.
        #[source]
        source: Box<zbus::Error>,
    },
}

/// A VM was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The order could not be written.
    #[error("launch order: {0}")]
    Order(#[from] OrderError),
    /// systemd could not be asked, or refused.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The unit is being stopped: start it again once it is.
    #[error("the unit is being stopped: {0}")]
    Busy(String),
    /// It was started and ended, or never said running. Displayed as its exit: `exited 1`.
    #[error("{}", failed_start(result, exit))]
    Failed {
        /// The job's result: `failed`, `canceled` (a stop came in between), `timeout`, `dependency`.
        result: String,
        /// How the unit ended.
        exit: UnitExit,
        /// `InvocationID` of that run, for the journal.
        invocation: Option<String>,
    },
    /// The job did not end in time: the unit may still start.
    #[error("not started after {} s", START_DEADLINE.as_secs())]
    Timeout,
}

fn failed_start(result: &str, exit: &UnitExit) -> String {
    match result {
        "canceled" => "a stop came before it ran".to_owned(),
        // The template requires the mounts that the disks' directories lie on; the unit itself has no result.
        "dependency" => {
            "a unit that it needs did not start: are the file systems of vms.disk_dirs mounted?".to_owned()
        }
        _ => exit.to_string(),
    }
}

/// A VM was not stopped, or not certainly.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// systemd could not be asked, or refused.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The job ended otherwise than done.
    #[error("systemd's stop job ended as {result:?}")]
    Failed {
        /// The job's result.
        result: String,
    },
    /// The job did not end in time: the unit may still stop.
    #[error("not stopped after {} s", STOP_DEADLINE.as_secs())]
    Timeout,
}

/// The units could not be listed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ListError(#[from] BusError);

/// A unit's failure could not be forgotten.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ResetError(#[from] BusError);

/// A handle on the VM units of this machine; cheap to clone. Reconnects by itself after a lost bus; every
/// call has a deadline. Dropping the last clone ends the connection, and no VM.
#[derive(Debug, Clone)]
pub struct UnitManager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    orders: OrderDir,
    link: watch::Receiver<Option<Arc<Link>>>,
    changed: Arc<Notify>,
    keeper: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl UnitManager {
    /// Connects to the system bus; orders go where the shipped unit reads them.
    ///
    /// # Errors
    /// No bus, or no systemd on it, within a deadline. Nothing goes on trying then.
    pub async fn connect() -> Result<Self, BusError> {
        Self::connect_with(Options::default()).await
    }

    /// Connects to another bus or with another directory of orders.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_with(options: Options) -> Result<Self, BusError> {
        let address = options.bus_address;
        let (first, signals) =
            link::open(address.as_deref()).await.map_err(|error| BusError::Connect(Box::new(error)))?;
        let (sender, link) = watch::channel(Some(first));
        let changed = Arc::new(Notify::new());
        let keeper = tokio::spawn(link::keep(address, signals, sender, Arc::clone(&changed)));
        let orders = OrderDir::new(options.order_dir);
        Ok(Self { inner: Arc::new(Inner { orders, link, changed, keeper }) })
    }

    /// The launch orders, to read one or to remove that of a deleted VM.
    pub fn orders(&self) -> &OrderDir {
        &self.inner.orders
    }

    /// Resolves when a VM unit may have changed, or the bus was lost or found: a hint to list again, the list
    /// is the truth. For one waiting task: a change between two waits is kept, and wakes one of several.
    pub async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    /// Writes the order, sets every limit, starts the unit and waits until its hypervisor says running (at
    /// most [`START_DEADLINE`]). A unit that already runs stays as it is, but for the limits.
    ///
    /// # Errors
    /// Why not, with the exit of the unit where it ran.
    pub async fn start(&self, order: &LaunchOrder) -> Result<(), StartError> {
        self.inner.orders.write(order)?;
        let link = self.link("StartUnit").await?;
        let unit = unit_name(&order.vm.name);
        let limits = Limits::of(&order.vm);
        let properties = [
            ("MemoryMax", Variant::from(limits.memory_max_bytes)),
            ("CPUQuotaPerSecUSec", Variant::from(limits.cpu_usec_per_sec)),
            ("TasksMax", Variant::from(limits.tasks_max)),
        ];
        // Runtime only: the file it writes is gone with the machine's next boot, and set anew with each
        // start.
        let setting = link.manager.set_unit_properties(&unit, true, &properties);
        call("SetUnitProperties", setting).await?;
        let watch = JobWatch::new(&link.jobs);
        let job = match call("StartUnit", link.manager.start_unit(&unit, "fail")).await {
            Ok(job) => job,
            Err(error) if is_conflict(&error) => return Err(StartError::Busy(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        match watch.result_of(&job, START_DEADLINE).await {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => {
                let (exit, invocation) = settled_exit(&link, &unit).await?;
                Err(StartError::Failed { result, exit, invocation })
            }
            Err(JobUnknown::Timeout) => Err(StartError::Timeout),
            Err(JobUnknown::Lost) => Err(BusError::Lost { call: "StartUnit" }.into()),
        }
    }

    /// Stops the unit gracefully (its ExecStop asks the guest first) and waits until it has ended, at most
    /// [`STOP_DEADLINE`]. A unit that does not run is success.
    ///
    /// # Errors
    /// It may still run.
    pub async fn stop(&self, name: &VmName) -> Result<(), StopError> {
        let link = self.link("StopUnit").await?;
        let watch = JobWatch::new(&link.jobs);
        let job = match call("StopUnit", link.manager.stop_unit(&unit_name(name), "replace")).await {
            Ok(job) => job,
            Err(error) if is_no_such_unit(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match watch.result_of(&job, STOP_DEADLINE).await {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => Err(StopError::Failed { result }),
            Err(JobUnknown::Timeout) => Err(StopError::Timeout),
            Err(JobUnknown::Lost) => Err(BusError::Lost { call: "StopUnit" }.into()),
        }
    }

    /// Forgets how a unit failed, so that it is no longer listed. A unit that is not there is success.
    ///
    /// # Errors
    /// systemd could not be asked, or refused.
    pub async fn reset_failed(&self, name: &VmName) -> Result<(), ResetError> {
        let link = self.link("ResetFailedUnit").await?;
        match call("ResetFailedUnit", link.manager.reset_failed_unit(&unit_name(name))).await {
            Err(error) if !is_no_such_unit(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Every VM unit that systemd knows, by name. One that ended well and one that never ran are not among
    /// them.
    ///
    /// # Errors
    /// systemd could not be asked: what was listed before is then all that is known.
    pub async fn list(&self) -> Result<Vec<VmUnit>, ListError> {
        let link = self.link("ListUnitsByPatterns").await?;
        let rows =
            call("ListUnitsByPatterns", link.manager.list_units_by_patterns(&[], &[UNIT_PATTERN])).await?;
        let named = rows.into_iter().filter_map(|row| Some((vm_name(&row.0)?, row)));
        let reads = named.map(|(name, row)| read_unit(&link, name, row));
        let units: Vec<Option<VmUnit>> =
            futures_util::stream::iter(reads).buffer_unordered(LIST_CONCURRENCY).try_collect().await?;
        let mut units: Vec<VmUnit> = units.into_iter().flatten().collect();
        units.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(units)
    }

    /// The live link, waiting for it at most [`CALL_DEADLINE`].
    async fn link(&self, wanted_for: &'static str) -> Result<Arc<Link>, BusError> {
        let mut link = self.inner.link.clone();
        let live = tokio::time::timeout(CALL_DEADLINE, link.wait_for(Option::is_some)).await;
        let lost = BusError::Lost { call: wanted_for };
        match live {
            Ok(Ok(live)) => live.clone().ok_or(lost),
            _ => Err(lost),
        }
    }
}

/// Makes one call, with its deadline and its error in words.
async fn call<T>(name: &'static str, making: impl Future<Output = zbus::Result<T>>) -> Result<T, BusError> {
    // The connection has the same deadline for an answer; this one also holds while the call is being sent.
    match tokio::time::timeout(CALL_DEADLINE, making).await {
        Ok(answer) => answer.map_err(|error| in_words(name, error)),
        Err(_) => Err(BusError::Timeout { call: name }),
    }
}

fn in_words(call: &'static str, error: zbus::Error) -> BusError {
    match error {
        zbus::Error::InputOutput(io) if io.kind() == std::io::ErrorKind::TimedOut => {
            BusError::Timeout { call }
        }
        zbus::Error::InputOutput(_) => BusError::Lost { call },
        zbus::Error::FDO(fdo) => match *fdo {
            Fdo::AccessDenied(detail) | Fdo::InteractiveAuthorizationRequired(detail) => {
                BusError::Denied { call, detail }
            }
            // What the bus itself says while systemd is away from it.
            Fdo::NoReply(_) | Fdo::Disconnected(_) | Fdo::NameHasNoOwner(_) => BusError::Lost { call },
            other => BusError::Call { call, source: Box::new(zbus::Error::FDO(Box::new(other))) },
        },
        other => BusError::Call { call, source: Box::new(other) },
    }
}

/// Whether systemd answered with this error of its own.
fn is_error(error: &BusError, name: &str) -> bool {
    let BusError::Call { source, .. } = error else { return false };
    matches!(&**source, zbus::Error::MethodError(got, _, _) if got.as_str() == name)
}

fn is_no_such_unit(error: &BusError) -> bool {
    is_error(error, "org.freedesktop.systemd1.NoSuchUnit")
}

/// Mode "fail" met a stop that is queued or under way.
fn is_conflict(error: &BusError) -> bool {
    is_error(error, "org.freedesktop.systemd1.TransactionIsDestructive")
        || is_error(error, "org.freedesktop.systemd1.TransactionJobsConflicting")
}

/// Whether the unit was unloaded between the list and the look at it.
fn is_gone(error: &BusError) -> bool {
    let BusError::Call { source, .. } = error else { return false };
    is_no_such_unit(error)
        || matches!(&**source, zbus::Error::FDO(fdo) if matches!(**fdo, Fdo::UnknownObject(_)))
}

async fn read_unit(link: &Link, name: VmName, row: UnitRow) -> Result<Option<VmUnit>, BusError> {
    let (_, _, _, active, sub, _, path, job_id, job_type, _) = row;
    let reading = async {
        let unit = UnitProperties::of(&link.connection, path.into_inner()).await?;
        tokio::try_join!(
            unit.service::<u32>("MainPID"),
            read_exit(&unit),
            unit.unit::<Vec<u8>>("InvocationID"),
            unit.unit::<u64>("StateChangeTimestamp"),
        )
    };
    match call("Get", reading).await {
        Ok((main_pid, exit, invocation, changed_us)) => Ok(Some(VmUnit {
            name,
            active: ActiveState::parse(&active),
            sub,
            main_pid: (main_pid != 0).then_some(main_pid),
            exit,
            invocation: hex(&invocation),
            changed_unix_us: (changed_us != 0).then_some(changed_us),
            job: (job_id != 0).then_some(job_type),
        })),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn read_exit(unit: &UnitProperties<'_>) -> zbus::Result<UnitExit> {
    let (result, main_code, main_status) = tokio::try_join!(
        unit.service::<String>("Result"),
        unit.service::<i32>("ExecMainCode"),
        unit.service::<i32>("ExecMainStatus"),
    )?;
    Ok(UnitExit { result, main_code, main_status })
}

/// How a unit that did not start has ended, and its invocation. The job may end before the unit has: waits
/// for that.
async fn settled_exit(link: &Link, name: &str) -> Result<(UnitExit, Option<String>), BusError> {
    let path = match call("GetUnit", link.manager.get_unit(name)).await {
        Ok(path) => path,
        Err(error) if is_gone(&error) => return Ok((UnitExit::default(), None)),
        Err(error) => return Err(error),
    };
    let settled = tokio::time::Instant::now() + SETTLE_DEADLINE;
    let reading = async {
        let unit = UnitProperties::of(&link.connection, path.into_inner()).await?;
        loop {
            let active: String = unit.unit("ActiveState").await?;
            let moving =
                matches!(ActiveState::parse(&active), ActiveState::Activating | ActiveState::Deactivating);
            if !moving || tokio::time::Instant::now() >= settled {
                break;
            }
            tokio::time::sleep(SETTLE_STEP).await;
        }
        tokio::try_join!(read_exit(&unit), unit.unit::<Vec<u8>>("InvocationID"))
    };
    match call("Get", reading).await {
        Ok((exit, invocation)) => Ok((exit, hex(&invocation))),
        Err(error) if is_gone(&error) => Ok((UnitExit::default(), None)),
        Err(error) => Err(error),
    }
}

fn hex(bytes: &[u8]) -> Option<String> {
    use std::fmt::Write;
    let mut text = String::new();
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_bus_the_error_says_what_to_look_at() {
        let dir = tempfile::tempdir().expect("tempdir");
        let address = format!("unix:path={}", dir.path().join("no-bus").display());
        let options = Options { bus_address: Some(address), order_dir: dir.path().into() };
        let error = UnitManager::connect_with(options).await.expect_err("there is no bus");
        assert!(error.to_string().contains("systemctl status dbus"), "{error}");
    }

    #[test]
    fn a_mount_that_is_missing_is_what_to_look_at_and_not_an_empty_reason() {
        let line = failed_start("dependency", &UnitExit::default());
        assert!(line.contains("file systems of vms.disk_dirs mounted"), "{line}");
    }

    #[test]
    fn a_refusal_by_polkit_names_the_rule() {
        let fdo = Fdo::InteractiveAuthorizationRequired("Interactive authentication required.".into());
        let error = in_words("StartUnit", zbus::Error::FDO(Box::new(fdo)));
        assert!(matches!(error, BusError::Denied { .. }));
        assert!(error.to_string().contains("50-blixard.rules"), "{error}");
    }

    #[test]
    fn futures_can_move_between_threads() {
        fn is_send<T: Send>(_: &T) {}
        fn all(runtime: &UnitManager, order: &LaunchOrder, name: &VmName) {
            is_send(&runtime.start(order));
            is_send(&runtime.stop(name));
            is_send(&runtime.list());
            is_send(&runtime.reset_failed(name));
            is_send(&runtime.changed());
        }
        let _ = all;
    }
}
