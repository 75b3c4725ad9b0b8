//! The parts of systemd's D-Bus interfaces that are used here.

use zbus::{ObjectPath, OwnedObjectPath, OwnedVariant, Variant};

/// One row of `ListUnitsByPatterns`: name, description, load state, active state, sub state, followed unit,
/// object path, job id (0: none), job type, job path.
pub(crate) type UnitRow =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(crate) trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn set_unit_properties(
        &self,
        name: &str,
        runtime: bool,
        properties: &[(&str, Variant<'_>)],
    ) -> zbus::Result<()>;
    fn list_units_by_patterns(&self, states: &[&str], patterns: &[&str]) -> zbus::Result<Vec<UnitRow>>;
}

#[zbus::proxy(interface = "org.freedesktop.DBus.Properties", default_service = "org.freedesktop.systemd1")]
pub(crate) trait Properties {
    fn get(&self, interface: &str, name: &str) -> zbus::Result<OwnedVariant>;
}

/// Reads single properties of one unit, or of systemd itself. They are not cached, because a cached value
/// could be out of date.
pub(crate) struct UnitProperties<'a>(PropertiesProxy<'a>);

impl<'a> UnitProperties<'a> {
    pub(crate) async fn of(connection: &zbus::Connection, path: ObjectPath<'a>) -> zbus::Result<Self> {
        let builder = PropertiesProxy::builder(connection).path(path);
        Ok(Self(builder.cache_properties(zbus::proxy::CacheProperties::No).build().await?))
    }

    pub(crate) async fn unit<T>(&self, name: &str) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        self.read("org.freedesktop.systemd1.Unit", name).await
    }

    pub(crate) async fn service<T>(&self, name: &str) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        self.read("org.freedesktop.systemd1.Service", name).await
    }

    pub(crate) async fn manager<T>(&self, name: &str) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        self.read("org.freedesktop.systemd1.Manager", name).await
    }

    async fn read<T>(&self, interface: &str, name: &str) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        T::try_from(self.0.get(interface, name).await?).map_err(Into::into)
    }
}
