//! The agent's handle to VM units: starts, stops and lists them.

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

/// Longest start: the unit's `TimeoutStartSec=` (60 s) and some time more.
pub const START_DEADLINE: Duration = Duration::from_secs(75);

/// Longest stop: the unit's `TimeoutStopSec=` (40 s) for ExecStop, the same again after SIGTERM, and some
/// time more.
pub const STOP_DEADLINE: Duration = Duration::from_secs(100);

/// Longest removal of a deleted VM's limits: the helper unit's `TimeoutStartSec=` (10 s) and some time more.
const FORGET_DEADLINE: Duration = Duration::from_secs(15);

/// Longest reset of a failed state, through a systemd that re-executes itself.
const RESET_DEADLINE: Duration = Duration::from_secs(15);

/// Pause before a unit is looked at again.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Units whose properties are read at the same time.
const LIST_CONCURRENCY: usize = 8;

/// Where the bus and the launch orders are. The default is that of a real machine.
#[derive(Debug, Clone)]
pub struct ManagerOptions {
    /// D-Bus address; `None` means the system bus.
    pub bus_address: Option<String>,
    /// Directory to which orders are written; it must be the one that the unit's `LoadCredential=` names.
    pub order_dir: PathBuf,
}

impl Default for ManagerOptions {
    fn default() -> Self {
        Self { bus_address: None, order_dir: ORDER_DIR.into() }
    }
}

/// Why a VM was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The order could not be written.
    #[error("launch order")]
    Order(#[from] OrderError),
    /// systemd could not be reached, or refused.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The unit is being stopped. It can be started again once it has stopped.
    #[error("the unit is being stopped")]
    Busy(#[source] BusError),
    /// The unit was started and ended, or its hypervisor never reported that the VM runs. Displayed as the
    /// reason, for example `exited 1`.
    #[error("{}", failed_start(result, exit))]
    Failed {
        /// The job's result: `failed`, `canceled` (a stop came in between), `timeout`, `dependency`.
        result: String,
        /// How the unit ended.
        exit: UnitExit,
        /// `InvocationID` of that run, by which the journal finds its lines.
        invocation: Option<String>,
    },
    /// The job did not end in time. The unit may still start.
    #[error("not started after {} s", START_DEADLINE.as_secs())]
    Timeout,
}

fn failed_start(result: &str, exit: &UnitExit) -> String {
    match result {
        "canceled" => "a stop came before it ran".to_owned(),
        // The template requires the mounts on which the disks' directories lie. The unit itself has no result
        // then.
        "dependency" => {
            "a unit that it needs did not start: are the file systems of vms.disk_dirs mounted?".to_owned()
        }
        _ => exit.to_string(),
    }
}

/// Why a VM was not stopped, or is not known to be stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// systemd could not be reached, or refused.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The stop job ended with another result than `done`.
    #[error("systemd's stop job ended as {result:?}")]
    Failed {
        /// The job's result.
        result: String,
    },
    /// The job did not end in time. The unit may still stop.
    #[error("not stopped after {} s", STOP_DEADLINE.as_secs())]
    Timeout,
}

/// Why the units could not be listed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ListError(#[from] BusError);

/// Why a unit's failed state could not be reset.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ResetError(#[from] BusError);

/// Why the rest of a deleted VM could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The order could not be removed.
    #[error("launch order")]
    Order(#[from] OrderError),
    /// systemd could not be reached, or refused to start the helper unit.
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
    /// The helper unit did not end in time.
    #[error("{unit} did not end within {} s", FORGET_DEADLINE.as_secs())]
    Timeout {
        /// The helper unit.
        unit: String,
    },
}

/// What was found out about a start.
enum StartFound {
    /// The hypervisor reports that the VM runs.
    Running,
    /// A job is under way, and its end will be seen.
    Starting(JobWatch, OwnedObjectPath),
    /// The unit is starting, but there is no job for it: it has to be looked at again.
    Between,
    /// The unit ended, or never ran.
    Ended { result: String, exit: UnitExit, invocation: Option<String> },
}

/// What the list of units says about a start.
#[derive(Debug, PartialEq, Eq)]
enum StartStanding {
    JobPending,
    Running,
    Between,
    /// The unit has ended; holds the result that its job must have had.
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

/// Calls `attempt` again as long as it fails because the bus was lost, and the deadline has not passed.
async fn through_loss<T, E, F>(deadline: Instant, mut attempt: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: MaybeBus,
{
    loop {
        match attempt().await {
            Err(error) if error.bus().is_some_and(is_lost) && Instant::now() < deadline => {
                // The task that keeps the connection may not have noticed the loss yet.
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            other => return other,
        }
    }
}

/// An error that may come from the bus.
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

/// A handle to the VM units of this machine; cheap to clone. It reconnects by itself after the bus was lost,
/// and every call has a deadline. Dropping the last clone ends the connection, but no VM.
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
    /// Connects to the system bus. Orders are written to the directory from which the shipped unit reads
    /// them.
    ///
    /// # Errors
    /// There is no bus, or no systemd on it, within the deadline. In this case nothing tries again.
    pub async fn connect() -> Result<Self, BusError> {
        Self::connect_with(ManagerOptions::default()).await
    }

    /// Connects to another bus, or uses another directory for orders.
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

    /// Resolves when a VM unit may have changed, or the bus was lost or found again. This is only a hint to
    /// list the units again. It is for one waiting task: a change between two waits is kept, but wakes only
    /// one of several tasks.
    pub async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    /// Writes the order, sets the limits and the order that the unit's description shows, starts the unit,
    /// and waits until its hypervisor reports that the VM runs (at most [`START_DEADLINE`]). Of a unit that
    /// already runs, only the limits change. If the bus is lost meanwhile, or systemd re-executes itself,
    /// this waits until it is back, because the unit's job goes on without it.
    ///
    /// # Errors
    /// [`StartError`]: why the VM was not started, with the exit of the unit if it ran.
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
        // A run goes on with the order that it was started with, whatever is written meanwhile. The order was
        // written before this look at the unit, so a start that comes after it uses the order that is
        // described here.
        if !is_under_way(&link, unit).await? {
            let text = description(&order.vm.name, order.id());
            properties.push(("Description", Variant::from(text)));
        }
        // For this boot only: the file that systemd writes for it is gone with the next boot of the machine,
        // and the limits are set again at each start.
        let setting = link.manager.set_unit_properties(unit, true, &properties);
        call_authorized(&link, "SetUnitProperties", setting).await?;
        let watch = JobWatch::new(&link.jobs);
        match call_authorized(&link, "StartUnit", link.manager.start_unit(unit, "fail")).await {
            Ok(job) => Ok(StartFound::Starting(watch, job)),
            Err(error) if is_conflict(&error) => Err(StartError::Busy(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds out about a start whose end was not seen.
    async fn find(&self, unit: &str) -> Result<StartFound, StartError> {
        let link = self.link("ListUnitsByPatterns").await?;
        // Created before the unit is looked at, because the job may end right after that.
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

    /// Stops the unit gracefully (its supervisor asks the guest first) and waits until it has ended, at most
    /// [`STOP_DEADLINE`]. It is a success if the unit does not run. If the bus is lost meanwhile, this waits
    /// until it is back and queues the stop again, which changes nothing for a unit that is already being
    /// stopped.
    ///
    /// # Errors
    /// [`StopError`]: the unit may still run.
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

    /// Queues the stop; `None` when there is no such unit.
    async fn queue_stop(&self, unit: &str) -> Result<Option<(JobWatch, OwnedObjectPath)>, BusError> {
        let link = self.link("StopUnit").await?;
        let watch = JobWatch::new(&link.jobs);
        match call_authorized(&link, "StopUnit", link.manager.stop_unit(unit, "replace")).await {
            Ok(job) => Ok(Some((watch, job))),
            Err(error) if is_no_such_unit(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Resets the failed state of a unit, so that the unit is no longer listed. It is a success if there is
    /// no such unit. If the bus is lost meanwhile, this waits until it is back.
    ///
    /// # Errors
    /// systemd could not be reached, or refused.
    pub async fn reset_failed(&self, name: &VmName) -> Result<(), ResetError> {
        let unit = unit_name(name);
        let deadline = Instant::now() + RESET_DEADLINE;
        Ok(through_loss(deadline, || self.reset(&unit)).await?)
    }

    async fn reset(&self, unit: &str) -> Result<(), BusError> {
        let link = self.link("ResetFailedUnit").await?;
        let resetting = link.manager.reset_failed_unit(unit);
        match call_authorized(&link, "ResetFailedUnit", resetting).await {
            Err(error) if !is_no_such_unit(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes what is left of a deleted VM: its order, and the limits that systemd keeps for its unit. The
    /// unit must be gone. It is a success if nothing is left. If the bus is lost meanwhile, this waits until
    /// it is back and starts the helper unit again, which finds less or nothing to remove then.
    ///
    /// # Errors
    /// The file system, systemd or the helper unit refused. What is left does no harm.
    pub async fn forget(&self, name: &VmName) -> Result<(), ForgetError> {
        self.inner.orders.remove(name)?;
        let unit = forget_unit_name(name);
        let deadline = Instant::now() + FORGET_DEADLINE;
        loop {
            let (watch, job) = through_loss(deadline, || self.queue_forget(&unit)).await?;
            // Waits for the end, because a VM of the same name that is started next sets its limits again.
            match watch.result_of(&job, time_left(deadline)).await {
                Ok(result) if result == "done" => return Ok(()),
                Ok(result) => return Err(ForgetError::Failed { unit, result }),
                Err(JobUnknown::Timeout) => return Err(ForgetError::Timeout { unit }),
                Err(JobUnknown::Lost) => {}
            }
        }
    }

    async fn queue_forget(&self, unit: &str) -> Result<(JobWatch, OwnedObjectPath), BusError> {
        let link = self.link("StartUnit").await?;
        let watch = JobWatch::new(&link.jobs);
        let job = call_authorized(&link, "StartUnit", link.manager.start_unit(unit, "replace")).await?;
        Ok((watch, job))
    }

    /// Every VM unit that systemd has loaded, by name. A unit that ended well or never ran is not among them.
    ///
    /// # Errors
    /// systemd could not be reached. Then no more is known than what was listed before.
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

    /// The live link; waits for it at most [`CALL_DEADLINE`].
    pub(crate) async fn link(&self, wanted_for: &'static str) -> Result<Arc<Link>, BusError> {
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
impl UnitManager {
    /// One with this link for ever, and what tells it of changes.
    pub(crate) fn on(link: Arc<Link>) -> (Self, Arc<Notify>) {
        let (sender, link) = watch::channel(Some(link));
        let changed = Arc::new(Notify::new());
        let keeper = tokio::spawn(async move {
            let _held = sender;
            std::future::pending().await
        });
        let inner = Inner { orders: OrderDir::new("/"), link, changed: Arc::clone(&changed), keeper };
        (Self { inner: Arc::new(inner) }, changed)
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
    fn a_start_that_lacks_a_mount_names_the_disk_directories() {
        let line = failed_start("dependency", &UnitExit::default());
        assert!(line.contains("file systems of vms.disk_dirs mounted"), "{line}");
    }

    #[test]
    fn the_list_of_units_tells_how_far_a_start_is() {
        use ActiveState::{Activating, Active, Deactivating, Failed, Inactive};
        let cases = [
            (Activating, Some("start"), StartStanding::JobPending),
            (Inactive, Some("start"), StartStanding::JobPending),
            (Active, None, StartStanding::Running),
            (Activating, None, StartStanding::Between),
            (Failed, None, StartStanding::Ended("failed")),
            (Inactive, None, StartStanding::Ended("failed")),
            (Deactivating, None, StartStanding::Ended("failed")),
            // A stop is queued or under way: the end of that job must not be taken for the end of a start.
            (Deactivating, Some("stop"), StartStanding::Ended("canceled")),
            (Active, Some("stop"), StartStanding::Ended("canceled")),
        ];
        for (active, job, wanted) in cases {
            assert_eq!(standing(active, job), wanted, "{active:?} {job:?}");
        }
    }

    /// A manager without a bus, whose link the test controls.
    fn manager(dir: &tempfile::TempDir, link: Arc<Link>) -> (UnitManager, watch::Sender<Option<Arc<Link>>>) {
        let (sender, link) = watch::channel(Some(link));
        let keeper = tokio::spawn(std::future::pending());
        let inner = Inner { orders: OrderDir::new(dir.path()), link, changed: Arc::default(), keeper };
        (UnitManager { inner: Arc::new(inner) }, sender)
    }

    fn order() -> LaunchOrder {
        serde_json::from_str(include_str!("../../launcher/tests/fixtures/0.1.0/order.json")).expect("order")
    }

    /// Starts a VM and lets systemd re-execute itself while the start is waited for. Once the manager has
    /// looked at the unit again, calls `after` with the link to the new systemd.
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
    async fn a_start_goes_on_waiting_when_systemd_reexecutes_itself() {
        let unit = FakeUnit { active: "activating", job: Some("start"), ..FakeUnit::default() };
        let done = |link: &Link| {
            let signal = JobSignal::Done { path: fake::job(), result: "done".into() };
            link.jobs.send(signal).expect("awaited");
        };
        start_through_a_reexec(unit, done).await.expect("started");
    }

    #[tokio::test]
    async fn a_start_that_ended_unseen_is_read_from_the_unit() {
        let active = FakeUnit { active: "active", job: None, ..FakeUnit::default() };
        start_through_a_reexec(active, |_| {}).await.expect("started");
        let failed = FakeUnit { active: "failed", result: "exit-code", status: 3, ..FakeUnit::default() };
        let error = start_through_a_reexec(failed.clone(), |_| {}).await.expect_err("failed");
        assert_eq!(error.to_string(), "exited 3");
        let told = FakeUnit { status_text: "ended: kernel \"/k\": is not a file", ..failed };
        let error = start_through_a_reexec(told, |_| {}).await.expect_err("failed");
        assert_eq!(error.to_string(), "kernel \"/k\": is not a file");
    }

    #[tokio::test]
    async fn a_start_sets_the_description_unless_the_unit_already_runs() {
        for (active, described) in [("inactive", true), ("failed", true), ("active", false)] {
            let dir = tempfile::tempdir().expect("tempdir");
            let (link, mut calls) = fake::systemd(FakeUnit { active, ..FakeUnit::default() }).await;
            let (manager, _sender) = manager(&dir, link);
            let start = tokio::spawn(async move { manager.start(&order()).await });
            let before = fake::until(&mut calls, "StartUnit").await;
            let shown = before.iter().filter_map(|call| order_of(call)).collect::<Vec<_>>();
            assert_eq!(
                shown,
                if described { vec![OrderId::new(7, 0)] } else { vec![] },
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

    #[tokio::test]
    async fn what_is_left_is_removed_also_when_systemd_reexecutes_itself() {
        let name = order().vm.name;
        let dir = tempfile::tempdir().expect("tempdir");
        let (old, mut old_calls) = fake::systemd(FakeUnit::default()).await;
        let (new, mut new_calls) = fake::systemd(FakeUnit::default()).await;
        let (manager, link) = manager(&dir, Arc::clone(&old));
        let forget = tokio::spawn(async move { manager.forget(&name).await });
        fake::until(&mut old_calls, "StartUnit").await;
        link.send_replace(Some(Arc::clone(&new)));
        old.jobs.send(JobSignal::Lost).expect("awaited");
        fake::until(&mut new_calls, "StartUnit").await;
        new.jobs.send(JobSignal::Done { path: fake::job(), result: "done".into() }).expect("awaited");
        forget.await.expect("no panic").expect("removed");
    }

    #[tokio::test]
    async fn a_failed_state_is_reset_also_when_systemd_reexecutes_itself() {
        let name = order().vm.name;
        let dir = tempfile::tempdir().expect("tempdir");
        let (old, mut old_calls) = fake::systemd(FakeUnit { is_away: true, ..FakeUnit::default() }).await;
        let (new, mut new_calls) = fake::systemd(FakeUnit::default()).await;
        let (manager, link) = manager(&dir, old);
        let reset = tokio::spawn(async move { manager.reset_failed(&name).await });
        fake::until(&mut old_calls, "ResetFailedUnit").await;
        link.send_replace(Some(new));
        fake::until(&mut new_calls, "ResetFailedUnit").await;
        reset.await.expect("no panic").expect("reset");
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
