//! Whether the machine is on its way down.

use zbus::ObjectPath;

use crate::bus::{BusError, call};
use crate::manager::UnitManager;
use crate::proxy::UnitProperties;

/// systemd's own object.
const MANAGER: &str = "/org/freedesktop/systemd1";

impl UnitManager {
    /// Whether systemd stops all units because the machine shuts down or boots again.
    ///
    /// # Errors
    /// The bus is gone, or systemd does not answer.
    pub async fn is_shutting_down(&self) -> Result<bool, BusError> {
        let link = self.link("SystemState").await?;
        let state = call("SystemState", async {
            let manager =
                UnitProperties::of(&link.connection, ObjectPath::from_static_str_unchecked(MANAGER));
            manager.await?.manager::<String>("SystemState").await
        });
        Ok(state.await? == "stopping")
    }
}
