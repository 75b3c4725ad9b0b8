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
use tokio::time::Instant;
use zbus::{OwnedObjectPath, Variant};

use crate::bus::{BusError, call, call_authorized, is_conflict, is_lost, is_no_such_unit};
use crate::job::{JobUnknown, JobWatch};
use crate::link::{self, CALL_DEADLINE, Link};
use crate::look::{is_under_way, read_unit, settled_exit};
use crate::unit::{
    ActiveState, UNIT_PATTERN, UnitExit, UnitLimits, VmUnit, description, forget_unit_name, unit_name,
    vm_name,
};

/// Longest start, in seconds: the unit's `TimeoutStartSec=` (60) and some.
pub const START_DEADLINE: Duration = Duration::from_secs(75);

/// Longest stop, in seconds: the unit's `TimeoutStopSec=` (40) for ExecStop, again for SIGTERM, and some.
pub const STOP_DEADLINE: Duration = Duration::from_secs(100);

/// Longest removal of a deleted VM's limits, in seconds: the helper unit's `TimeoutStartSec=` (10) and some.
const FORGET_DEADLINE: Duration = Duration::from_secs(15);

/// Pause before a unit is looked at again.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Units whose properties are asked for at the same time.
const LIST_CONCURRENCY: usize = 8;

/// Where the bus and the orders are; the default is the real machine.
#[derive(Debug, Clone)]
pub struct ManagerOptions {
    /// D-Bus address, `None` for the system bus.
    pub bus_address: Option<String>,
    /// Where orders are written: what the unit's `LoadCredential=` names.
    pub order_dir: PathBuf,
}

impl Default for ManagerOptions {
    fn default() -> Self {
        Self { bus_address: None, order_dir: ORDER_DIR.into() }
    }
}

/// A VM was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The order could not be written.
    #[error("launch order")]
    Order(#[from] OrderError),
    /// systemd could not be asked, or refused.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The unit is being stopped: start it again once it is.
    #[error("the unit is being stopped")]
    Busy(#[source] BusError),
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

/// What is left of a deleted VM could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The order could not be removed.
    #[error("launch order")]
    Order(#[from] OrderError),
    /// systemd could not be asked, or refused to start the helper unit.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The helper unit failed.
    #[error("the job of {unit} ended as {result:?} (see `journalctl --unit={unit}`)")]
    Failed {
        /// The helper unit.
        unit: String,
        /// The job's result.
        result: String,
    },
    /// The helper unit took too long.
    #[error("{unit} did not end within {} s", FORGET_DEADLINE.as_secs())]
    Timeout {
        /// The helper unit.
        unit: String,
    },
}

/// Where a start stands.
enum StartFound {
    /// The hypervisor says running.
    Running,
    /// A job is under way, and will be heard to end.
    Starting(JobWatch, OwnedObjectPath),
    /// It is starting and no job says so: look again.
    Between,
    /// It ended, or never ran.
    Ended { result: String, exit: UnitExit, invocation: Option<String> },
}

/// What a look at a unit says of its start.
#[derive(Debug, PartialEq, Eq)]
enum StartStanding {
    JobPending,
    Running,
    Between,
    /// With the result that its job must have had.
    Ended(&'static str),
}

fn standing(active: ActiveState, job_type: Option<&str>) -> StartStanding {
    match (active, job_type) {
        (_, Some("stop")) => StartStanding::Ended("canceled"),
        (_, Some(_)) => StartStanding::JobPending,
        (ActiveState::Active, None) => StartStanding::Running,
        (ActiveState::Activating | ActiveState::Other, None) => StartStanding::Between,
        (ActiveState::Deactivating | ActiveState::Inactive | ActiveState::Failed, None) => {
            StartStanding::Ended("failed")
        }
    }
}

/// Does it again as long as the bus was lost and the deadline has not passed.
async fn through_loss<T, E, F>(deadline: Instant, mut attempt: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: MaybeBus,
{
    loop {
        match attempt().await {
            Err(error) if error.bus().is_some_and(is_lost) && Instant::now() < deadline => {
                // The connection's keeper may not have noticed yet.
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            other => return other,
        }
    }
}

/// An error that may be the bus's.
trait MaybeBus {
    fn bus(&self) -> Option<&BusError>;
}

impl MaybeBus for BusError {
    fn bus(&self) -> Option<&BusError> {
        Some(self)
    }
}

impl MaybeBus for StartError {
    fn bus(&self) -> Option<&BusError> {
        if let Self::Bus(error) = self { Some(error) } else { None }
    }
}

fn time_left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

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
        Self::connect_with(ManagerOptions::default()).await
    }

    /// Connects to another bus or with another directory of orders.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_with(options: ManagerOptions) -> Result<Self, BusError> {
        let address = options.bus_address;
        let (first, signals) =
            link::open(address.as_deref()).await.map_err(|error| BusError::Connect(Box::new(error)))?;
        let (sender, link) = watch::channel(Some(first));
        let changed = Arc::new(Notify::new());
        let keeper = tokio::spawn(link::keep(address, signals, sender, Arc::clone(&changed)));
        let orders = OrderDir::new(options.order_dir);
        Ok(Self { inner: Arc::new(Inner { orders, link, changed, keeper }) })
    }

    /// Resolves when a VM unit may have changed, or the bus was lost or found: a hint to list again, the list
    /// is the truth. For one waiting task: a change between two waits is kept, and wakes one of several.
    pub async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    /// Writes the order, sets every limit and the order that the unit shows, starts the unit and waits
    /// until its hypervisor says running (at most [`START_DEADLINE`]). A unit that already runs stays as it
    /// is, but for the limits. A bus that is lost meanwhile, or a systemd that executes itself anew, is
    /// waited for: the unit's job goes on without them.
    ///
    /// # Errors
    /// Why not, with the exit of the unit where it ran.
    pub async fn start(&self, order: &LaunchOrder) -> Result<(), StartError> {
        self.inner.orders.write(order)?;
        let unit = unit_name(&order.vm.name);
        let deadline = Instant::now() + START_DEADLINE;
        let mut found = through_loss(deadline, || self.queue_start(order, &unit)).await?;
        loop {
            found = match found {
                StartFound::Running => return Ok(()),
                StartFound::Ended { result, exit, invocation } => {
                    return Err(StartError::Failed { result, exit, invocation });
                }
                StartFound::Starting(watch, job) => match watch.result_of(&job, time_left(deadline)).await {
                    Ok(result) if result == "done" => StartFound::Running,
                    Ok(result) => through_loss(deadline, || self.find_ended(&unit, &result)).await?,
                    Err(JobUnknown::Timeout) => return Err(StartError::Timeout),
                    Err(JobUnknown::Lost) => through_loss(deadline, || self.find(&unit)).await?,
                },
                StartFound::Between if Instant::now() >= deadline => return Err(StartError::Timeout),
                StartFound::Between => {
                    tokio::time::sleep(LOOK_PAUSE).await;
                    through_loss(deadline, || self.find(&unit)).await?
                }
            };
        }
    }

    /// Sets the limits and queues the start.
    async fn queue_start(&self, order: &LaunchOrder, unit: &str) -> Result<StartFound, StartError> {
        let link = self.link("StartUnit").await?;
        let limits = UnitLimits::of(&order.vm);
        let mut properties = vec![
            ("MemoryMax", Variant::from(limits.memory_max_bytes)),
            ("CPUQuotaPerSecUSec", Variant::from(limits.cpu_usec_per_sec)),
            ("TasksMax", Variant::from(limits.tasks_max)),
        ];
        // A run goes on by the order it was started with, whatever is written meanwhile. The order was
        // written before this look, so a start that comes after it obeys the one described here.
        if !is_under_way(&link, unit).await? {
            let text = description(&order.vm.name, order.id());
            properties.push(("Description", Variant::from(text)));
        }
        // Runtime only: the file it writes is gone with the machine's next boot, and set anew with each
        // start.
        let setting = link.manager.set_unit_properties(unit, true, &properties);
        call_authorized(&link, "SetUnitProperties", setting).await?;
        let watch = JobWatch::new(&link.jobs);
        match call_authorized(&link, "StartUnit", link.manager.start_unit(unit, "fail")).await {
            Ok(job) => Ok(StartFound::Starting(watch, job)),
            Err(error) if is_conflict(&error) => Err(StartError::Busy(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks where a start stands whose end was not heard.
    async fn find(&self, unit: &str) -> Result<StartFound, StartError> {
        let link = self.link("ListUnitsByPatterns").await?;
        // Made before the look: the job may end right after it.
        let watch = JobWatch::new(&link.jobs);
        let rows = call("ListUnitsByPatterns", link.manager.list_units_by_patterns(&[], &[unit])).await?;
        let Some(row) = rows.into_iter().find(|row| row.0 == unit) else {
            return self.find_ended(unit, "failed").await;
        };
        let (_, _, _, active, _, _, _, job_id, job_type, job_path) = row;
        let job_type = (job_id != 0).then_some(job_type);
        match standing(ActiveState::parse(&active), job_type.as_deref()) {
            StartStanding::JobPending => Ok(StartFound::Starting(watch, job_path)),
            StartStanding::Running => Ok(StartFound::Running),
            StartStanding::Between => Ok(StartFound::Between),
            StartStanding::Ended(result) => self.find_ended(unit, result).await,
        }
    }

    async fn find_ended(&self, unit: &str, result: &str) -> Result<StartFound, StartError> {
        let link = self.link("GetUnit").await?;
        let (exit, invocation) = settled_exit(&link, unit).await?;
        Ok(StartFound::Ended { result: result.to_owned(), exit, invocation })
    }

    /// Stops the unit gracefully (its ExecStop asks the guest first) and waits until it has ended, at most
    /// [`STOP_DEADLINE`]. A unit that does not run is success. A bus that is lost meanwhile is waited for,
    /// and the stop asked for again, which changes nothing for a unit that already stops.
    ///
    /// # Errors
    /// It may still run.
    pub async fn stop(&self, name: &VmName) -> Result<(), StopError> {
        let unit = unit_name(name);
        let deadline = Instant::now() + STOP_DEADLINE;
        loop {
            let Some((watch, job)) = through_loss(deadline, || self.queue_stop(&unit)).await? else {
                return Ok(());
            };
            match watch.result_of(&job, time_left(deadline)).await {
                Ok(result) if result == "done" => return Ok(()),
                Ok(result) => return Err(StopError::Failed { result }),
                Err(JobUnknown::Timeout) => return Err(StopError::Timeout),
                Err(JobUnknown::Lost) => {}
            }
        }
    }

    /// Queues the stop; `None` when there is nothing to stop.
    async fn queue_stop(&self, unit: &str) -> Result<Option<(JobWatch, OwnedObjectPath)>, BusError> {
        let link = self.link("StopUnit").await?;
        let watch = JobWatch::new(&link.jobs);
        match call_authorized(&link, "StopUnit", link.manager.stop_unit(unit, "replace")).await {
            Ok(job) => Ok(Some((watch, job))),
            Err(error) if is_no_such_unit(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets how a unit failed, so that it is no longer listed. A unit that is not there is success.
    ///
    /// # Errors
    /// systemd could not be asked, or refused.
    pub async fn reset_failed(&self, name: &VmName) -> Result<(), ResetError> {
        let link = self.link("ResetFailedUnit").await?;
        let unit = unit_name(name);
        let resetting = link.manager.reset_failed_unit(&unit);
        match call_authorized(&link, "ResetFailedUnit", resetting).await {
            Err(error) if !is_no_such_unit(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Removes what is left of a deleted VM: its order, and the limits that systemd keeps for its unit. Its
    /// unit must be gone. What is not there is success.
    ///
    /// # Errors
    /// The file system, systemd or the helper unit refused: what is left harms nothing.
    pub async fn forget(&self, name: &VmName) -> Result<(), ForgetError> {
        self.inner.orders.remove(name)?;
        let link = self.link("StartUnit").await?;
        let unit = forget_unit_name(name);
        let watch = JobWatch::new(&link.jobs);
        let starting = link.manager.start_unit(&unit, "replace");
        let job = call_authorized(&link, "StartUnit", starting).await?;
        // Waited for: a VM of the same name that starts next sets its limits anew.
        match watch.result_of(&job, FORGET_DEADLINE).await {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => Err(ForgetError::Failed { unit, result }),
            Err(JobUnknown::Timeout) => Err(ForgetError::Timeout { unit }),
            Err(JobUnknown::Lost) => Err(BusError::Lost { call: "StartUnit" }.into()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, FakeUnit};
    use crate::job::JobSignal;
    use crate::unit::order_of;
    use blixard_model::OrderId;

    #[tokio::test]
    async fn without_a_bus_the_error_says_what_to_look_at() {
        let dir = tempfile::tempdir().expect("tempdir");
        let address = format!("unix:path={}", dir.path().join("no-bus").display());
        let options = ManagerOptions { bus_address: Some(address), order_dir: dir.path().into() };
        let error = UnitManager::connect_with(options).await.expect_err("there is no bus");
        assert!(error.to_string().contains("systemctl status dbus"), "{error}");
    }

    #[test]
    fn a_mount_that_is_missing_is_what_to_look_at_and_not_an_empty_reason() {
        let line = failed_start("dependency", &UnitExit::default());
        assert!(line.contains("file systems of vms.disk_dirs mounted"), "{line}");
    }

    #[test]
    fn a_look_says_where_a_start_stands() {
        use ActiveState::{Activating, Active, Deactivating, Failed, Inactive};
        let cases = [
            (Activating, Some("start"), StartStanding::JobPending),
            (Inactive, Some("start"), StartStanding::JobPending),
            (Active, None, StartStanding::Running),
            (Activating, None, StartStanding::Between),
            (Failed, None, StartStanding::Ended("failed")),
            (Inactive, None, StartStanding::Ended("failed")),
            (Deactivating, None, StartStanding::Ended("failed")),
            // Somebody wants it stopped: the end of that job must not be taken for a start.
            (Deactivating, Some("stop"), StartStanding::Ended("canceled")),
            (Active, Some("stop"), StartStanding::Ended("canceled")),
        ];
        for (active, job, wanted) in cases {
            assert_eq!(standing(active, job), wanted, "{active:?} {job:?}");
        }
    }

    /// A manager without a bus, on a link that the test holds.
    fn manager(dir: &tempfile::TempDir, link: Arc<Link>) -> (UnitManager, watch::Sender<Option<Arc<Link>>>) {
        let (sender, link) = watch::channel(Some(link));
        let keeper = tokio::spawn(std::future::pending());
        let inner = Inner { orders: OrderDir::new(dir.path()), link, changed: Arc::default(), keeper };
        (UnitManager { inner: Arc::new(inner) }, sender)
    }

    fn order() -> LaunchOrder {
        serde_json::from_str(include_str!("../../launcher/tests/fixtures/0.1.0/order.json")).expect("order")
    }

    /// Starts a VM, lets systemd execute itself anew while the start is awaited, and hands the new systemd's
    /// link and state to `after`, once the manager has looked at the unit again.
    async fn start_through_a_reexec(unit: FakeUnit, after: impl FnOnce(&Link)) -> Result<(), StartError> {
        let dir = tempfile::tempdir().expect("tempdir");
        let (old, mut old_calls) = fake::systemd(FakeUnit::default()).await;
        let (new, mut new_calls) = fake::systemd(unit).await;
        let (manager, link) = manager(&dir, Arc::clone(&old));
        let start = tokio::spawn(async move { manager.start(&order()).await });
        fake::until(&mut old_calls, "StartUnit").await;
        link.send_replace(Some(Arc::clone(&new)));
        old.jobs.send(JobSignal::Lost).expect("awaited");
        fake::until(&mut new_calls, "ListUnitsByPatterns").await;
        after(&new);
        start.await.expect("no panic")
    }

    #[tokio::test]
    async fn a_start_goes_on_waiting_when_systemd_executes_itself_anew() {
        let unit = FakeUnit { active: "activating", job: Some("start"), ..FakeUnit::default() };
        let done = |link: &Link| {
            let signal = JobSignal::Done { path: fake::job(), result: "done".into() };
            link.jobs.send(signal).expect("awaited");
        };
        start_through_a_reexec(unit, done).await.expect("started");
    }

    #[tokio::test]
    async fn a_start_that_ended_while_nobody_listened_is_told_by_the_unit() {
        let active = FakeUnit { active: "active", job: None, ..FakeUnit::default() };
        start_through_a_reexec(active, |_| {}).await.expect("started");
        let failed = FakeUnit { active: "failed", job: None, result: "exit-code", status: 3 };
        let error = start_through_a_reexec(failed, |_| {}).await.expect_err("failed");
        assert_eq!(error.to_string(), "exited 3");
    }

    #[tokio::test]
    async fn a_start_describes_its_order_and_never_relabels_a_run() {
        for (active, described) in [("inactive", true), ("failed", true), ("active", false)] {
            let dir = tempfile::tempdir().expect("tempdir");
            let (link, mut calls) = fake::systemd(FakeUnit { active, ..FakeUnit::default() }).await;
            let (manager, _sender) = manager(&dir, link);
            let start = tokio::spawn(async move { manager.start(&order()).await });
            let before = fake::until(&mut calls, "StartUnit").await;
            let shown = before.iter().filter_map(|call| order_of(call)).collect::<Vec<_>>();
            assert_eq!(
                shown,
                if described { vec![OrderId { generation: 7, revision: 0 }] } else { vec![] },
                "{active}: {before:?}"
            );
            start.abort();
        }
    }

    #[tokio::test]
    async fn what_is_left_of_a_deleted_vm_is_removed_by_its_helper_unit() {
        let name = order().vm.name;
        for (result, ends_well) in [("done", true), ("failed", false)] {
            let dir = tempfile::tempdir().expect("tempdir");
            let (link, mut calls) = fake::systemd(FakeUnit::default()).await;
            let (manager, _sender) = manager(&dir, Arc::clone(&link));
            manager.inner.orders.write(&order()).expect("order");
            let (forgetting, forgotten) = (manager.clone(), name.clone());
            let forget = tokio::spawn(async move { forgetting.forget(&forgotten).await });
            fake::until(&mut calls, "StartUnit").await;
            let signal = JobSignal::Done { path: fake::job(), result: result.into() };
            link.jobs.send(signal).expect("awaited");
            assert_eq!(forget.await.expect("no panic").is_ok(), ends_well);
            assert_eq!(manager.inner.orders.read(&name).expect("read"), None);
        }
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
