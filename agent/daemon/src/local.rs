//! What the command line does with this machine's VMs when its agent does not answer: it asks systemd itself,
//! and leaves for the agent what it has to know.

use std::collections::BTreeSet;
use std::path::Path;

use blixard_core::ports::ObservedUnit;
use blixard_launcher::OrderDir;
use blixard_model::api::ErrorKind;
use blixard_model::local::{LocalListing, LocalSource, LocalStop};
use blixard_model::words::with_causes;
use blixard_model::{StopNote, VmName};
use blixard_systemd::{SystemdVms, VmRuntime};

use super::config::Config;
use super::offline::OfflineError;
use super::{clock, local_view, stop_notes};

/// The VM units of this machine. `config` is its configuration, which says where it is kept what was stopped
/// by hand.
///
/// # Errors
/// systemd does not answer.
pub async fn local_list(config: &Path) -> Result<LocalListing, OfflineError> {
    list(&SystemdVms::default(), config).await
}

/// Stops a VM and keeps that it was stopped by hand, so that the agent does not start it again.
///
/// # Errors
/// Nothing was changed, or it is said that this is not known.
pub async fn local_stop(config: &Path, name: &VmName) -> Result<LocalStop, OfflineError> {
    stop((&SystemdVms::default(), &OrderDir::default()), config, name).await
}

async fn list(systemd: &impl VmRuntime, config: &Path) -> Result<LocalListing, OfflineError> {
    let units = units(systemd).await?;
    let found = Config::load(config).map_err(|error| with_causes(&error));
    let found = found.and_then(|config| {
        stop_notes::found(&config.data_dir).map_err(|error| format!("{}: {error}", config.data_dir.display()))
    });
    let (stopped, problem) = match found {
        Ok(stopped) => (stopped, None),
        Err(why) => (Vec::new(), Some(format!("what was stopped by hand cannot be read: {why}"))),
    };
    Ok(local_view::by_systemd(&units, &stopped, problem))
}

async fn units(systemd: &impl VmRuntime) -> Result<Vec<ObservedUnit>, OfflineError> {
    systemd.list().await.map_err(|error| OfflineError {
        kind: ErrorKind::Unavailable,
        cause: with_causes(&error),
        way_out: String::new(),
    })
}

async fn stop(
    (systemd, orders): (&impl VmRuntime, &OrderDir),
    config: &Path,
    name: &VmName,
) -> Result<LocalStop, OfflineError> {
    let by_hand = format!("`systemctl stop blixard-vm@{name}` stops it until the agent runs again");
    let unit = units(systemd).await?.into_iter().find(|unit| unit.name == *name);
    // What is not readable here is not needed when the unit shows its order.
    let order = orders.read(name).ok().flatten();
    let may_start_elsewhere = order.as_ref().is_some_and(|order| order.lease.is_some());
    let order = order.map(|order| order.generation);
    let shown = unit.and_then(|unit| unit.order).map(|order| order.generation);
    let generations: BTreeSet<u64> = shown.into_iter().chain(order).collect();
    if generations.is_empty() {
        let cause = format!("no VM named {name} has run on this machine since it was booted");
        return Err(OfflineError::refused(cause, "`blixard local list` shows those there are"));
    }
    let config =
        Config::load(config).map_err(|error| OfflineError::refused(with_causes(&error), &by_hand))?;
    let at_unix_ms = clock::wall_ms();
    let note = |generation| StopNote { name: name.clone(), generation, at_unix_ms };
    let notes: Vec<StopNote> = generations.into_iter().map(note).collect();
    // First, so that no agent that starts meanwhile takes the end for a failure.
    stop_notes::keep(&config.data_dir, &notes).map_err(|error| {
        let cause = format!(
            "that {name} is stopped by hand cannot be kept in {}: {error}",
            config.data_dir.display()
        );
        OfflineError::refused(cause, format!("root may do it; {by_hand}"))
    })?;
    systemd.stop(name).await.map_err(|error| OfflineError {
        kind: ErrorKind::Unknown,
        cause: format!("{name} may still run: {}", with_causes(&error)),
        way_out: "the agent stops it once it runs".to_owned(),
    })?;
    Ok(LocalStop { name: name.clone(), source: LocalSource::Systemd, may_start_elsewhere })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use blixard_model::order::LaunchOrder;
    use blixard_model::report::ObservedState;
    use blixard_model::{OrderId, VmName};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("systemd is away")]
    struct Away;

    /// A service manager with these units.
    #[derive(Default)]
    struct Units {
        units: Vec<ObservedUnit>,
        is_away: bool,
        stopped: Mutex<Vec<VmName>>,
    }

    impl VmRuntime for Units {
        type Error = Away;
        async fn start(&self, _: &LaunchOrder) -> Result<(), Away> {
            Err(Away)
        }
        async fn stop(&self, name: &VmName) -> Result<(), Away> {
            self.stopped.lock().expect("whole").push(name.clone());
            Ok(())
        }
        async fn reset_failed(&self, _: &VmName) -> Result<(), Away> {
            Err(Away)
        }
        async fn forget(&self, _: &VmName) -> Result<(), Away> {
            Err(Away)
        }
        async fn list(&self) -> Result<Vec<ObservedUnit>, Away> {
            if self.is_away { Err(Away) } else { Ok(self.units.clone()) }
        }
        async fn console(&self, _: &VmName, _: u32) -> Vec<String> {
            Vec::new()
        }
        async fn changed(&self) {
            std::future::pending().await
        }
    }

    fn web() -> VmName {
        "web".parse().expect("a name")
    }

    fn running() -> Units {
        let order = Some(OrderId::new(7, 2));
        let (state, main_pid) = (ObservedState::Running, Some(7));
        let unit = ObservedUnit { name: web(), state, order, main_pid, status: None, ended: None };
        Units { units: vec![unit], ..Units::default() }
    }

    fn config(dir: &Path) -> std::path::PathBuf {
        let (path, data_dir) = (dir.join("config.toml"), dir.join("data"));
        std::fs::write(&path, format!("node_name = \"n1\"\ndata_dir = {data_dir:?}\n")).expect("written");
        path
    }

    #[tokio::test]
    async fn a_stop_is_kept_before_it_is_done_and_the_list_says_so() {
        let dir = tempfile::tempdir().expect("dir");
        let (config, data_dir) = (config(dir.path()), dir.path().join("data"));
        std::fs::create_dir(&data_dir).expect("made");
        let (systemd, orders) = (running(), OrderDir::new(dir.path().join("vms")));
        let name = web();
        let done = stop((&systemd, &orders), &config, &name).await.expect("stopped");
        assert!(!done.may_start_elsewhere, "nothing says that it needs a lease");
        assert_eq!((done.source, systemd.stopped.lock().expect("whole").len()), (LocalSource::Systemd, 1));
        let kept = stop_notes::found(&data_dir).expect("read");
        assert_eq!(kept.iter().map(|note| note.generation).collect::<Vec<_>>(), [7]);
        let listing = list(&Units::default(), &config).await.expect("listed");
        let shown: Vec<_> = listing.items.iter().map(|vm| (vm.state, vm.stopped_by_hand)).collect();
        assert_eq!(shown, [(ObservedState::Stopped, true)]);
        assert_eq!(listing.problem, None);
    }

    #[tokio::test]
    async fn a_vm_whose_order_needs_a_lease_may_be_started_elsewhere() {
        let dir = tempfile::tempdir().expect("dir");
        let (config, orders) = (config(dir.path()), OrderDir::new(dir.path().join("vms")));
        std::fs::create_dir(dir.path().join("data")).expect("made");
        std::fs::create_dir(dir.path().join("vms")).expect("made");
        let order = include_str!("../../launcher/tests/fixtures/0.1.0/order.json");
        let mut order: LaunchOrder = serde_json::from_str(order).expect("an order");
        (order.vm.name, order.lease) = (web(), Some(blixard_model::ClusterId::from_bytes([1; 16])));
        orders.write(&order).expect("written");
        let name = web();
        let done = stop((&running(), &orders), &config, &name).await.expect("stopped");
        assert!(done.may_start_elsewhere);
    }

    #[tokio::test]
    async fn what_cannot_be_kept_is_not_stopped() {
        let dir = tempfile::tempdir().expect("dir");
        let config = config(dir.path());
        let (systemd, orders) = (running(), OrderDir::new(dir.path().join("vms")));
        let name = web();
        // There is no data directory: its file system is not mounted, for one.
        let error = stop((&systemd, &orders), &config, &name).await.expect_err("not kept");
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(
            error.cause.contains("cannot be kept in") && error.way_out.contains("systemctl stop"),
            "{error:?}"
        );
        let unreadable = dir.path().join("none.toml");
        stop((&systemd, &orders), &unreadable, &name).await.expect_err("no configuration");
        assert!(systemd.stopped.lock().expect("whole").is_empty());
        let listing = list(&systemd, &unreadable).await.expect("the units are there all the same");
        assert!(listing.problem.is_some_and(|why| why.contains("none.toml")));
    }

    #[tokio::test]
    async fn a_vm_that_never_ran_here_is_refused_and_a_silent_systemd_is_said() {
        let dir = tempfile::tempdir().expect("dir");
        let config = config(dir.path());
        let orders = OrderDir::new(dir.path().join("vms"));
        let name: VmName = "db".parse().expect("a name");
        let error = stop((&running(), &orders), &config, &name).await.expect_err("no such VM");
        assert!(error.kind == ErrorKind::Refused && error.cause.contains("no VM named db"), "{error:?}");
        let away = Units { is_away: true, ..Units::default() };
        let error = list(&away, &config).await.expect_err("away");
        assert_eq!((error.kind, error.cause.as_str()), (ErrorKind::Unavailable, "systemd is away"));
    }
}
