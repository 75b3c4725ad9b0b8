//! What systemd says of its watchdogs, and of the unit that is the last resort where SIGKILL does not help.

use blixard_core::fences::SystemdWatchdogs;
use zbus::ObjectPath;

use crate::bus::{BusError, call, is_no_such_unit};
use crate::link::Link;
use crate::manager::UnitManager;
use crate::proxy::UnitProperties;

/// The unit that restarts the machine where SIGKILL does not end a VM.
pub const LAST_RESORT_UNIT: &str = "blixard-last-resort.service";

const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
/// systemd's "never".
const NEVER_US: u64 = u64::MAX;

impl UnitManager {
    /// What systemd says of its watchdogs.
    ///
    /// # Errors
    /// systemd could not be reached.
    pub async fn watchdogs(&self) -> Result<SystemdWatchdogs, BusError> {
        read(&*self.link("Properties").await?).await
    }

    /// Whether the unit of the last resort runs.
    ///
    /// # Errors
    /// systemd could not be reached.
    pub async fn last_resort_runs(&self) -> Result<bool, BusError> {
        last_resort_runs(&*self.link("GetUnit").await?).await
    }
}

/// Asks the manager. A systemd that knows no fed watchdogs (before 252) says nothing of its hardware's.
async fn read(link: &Link) -> Result<SystemdWatchdogs, BusError> {
    let path = ObjectPath::from_static_str_unchecked(MANAGER_PATH);
    let properties = call("Properties", UnitProperties::of(&link.connection, path)).await?;
    let of_units = call("ServiceWatchdogs", properties.manager::<bool>("ServiceWatchdogs")).await?;
    let hardware_us = call("RuntimeWatchdogUSec", properties.manager::<u64>("RuntimeWatchdogUSec")).await?;
    let fed = properties.manager::<u64>("WatchdogLastPingTimestampMonotonic");
    let fed_us = match call("WatchdogLastPingTimestampMonotonic", fed).await {
        Ok(fed_us) => fed_us,
        Err(error @ (BusError::Lost { .. } | BusError::Timeout { .. })) => return Err(error),
        Err(_) => 0,
    };
    Ok(SystemdWatchdogs { of_units, hardware_us, hardware_fed: fed_us != 0 && fed_us != NEVER_US })
}

async fn last_resort_runs(link: &Link) -> Result<bool, BusError> {
    let path = match call("GetUnit", link.manager.get_unit(LAST_RESORT_UNIT)).await {
        Ok(path) => path,
        Err(error) if is_no_such_unit(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let properties = call("Properties", UnitProperties::of(&link.connection, path.into_inner())).await?;
    let active = call("ActiveState", properties.unit::<String>("ActiveState")).await?;
    Ok(active == "active")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, FakeUnit};

    #[tokio::test]
    async fn the_manager_is_asked_for_its_watchdogs_and_the_unit_for_its_state() {
        for (watchdogs, of_units, hardware_fed) in [
            ((true, 0, NEVER_US), true, false),
            ((false, 60_000_000, 0), false, false),
            ((true, 60_000_000, 77), true, true),
        ] {
            for active in ["active", "failed"] {
                let unit = FakeUnit { watchdogs, active, ..FakeUnit::default() };
                let (link, _calls) = fake::systemd(unit).await;
                let wanted = SystemdWatchdogs { of_units, hardware_us: watchdogs.1, hardware_fed };
                assert_eq!(read(&link).await.expect("answered"), wanted);
                assert_eq!(last_resort_runs(&link).await.expect("answered"), active == "active");
            }
        }
    }
}
