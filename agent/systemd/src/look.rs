//! Reads one unit: its state, and how it ended.

use std::time::Duration;

use blixard_model::VmName;
use tokio::time::Instant;

use crate::bus::{BusError, call, is_gone};
use crate::link::Link;
use crate::proxy::{UnitProperties, UnitRow};
use crate::unit::{ActiveState, UnitExit, VmUnit, is_frozen, order_of};

/// How long to wait until a unit that did not start has ended. After that, its exit is read as it is.
const SETTLE_DEADLINE: Duration = Duration::from_secs(5);
const SETTLE_STEP: Duration = Duration::from_millis(50);

/// Whether the unit runs, is being started or is being stopped.
pub(crate) async fn is_under_way(link: &Link, unit: &str) -> Result<bool, BusError> {
    let rows = call("ListUnitsByPatterns", link.manager.list_units_by_patterns(&[], &[unit])).await?;
    let idle =
        |row: &UnitRow| matches!(ActiveState::parse(&row.3), ActiveState::Inactive | ActiveState::Failed);
    Ok(rows.iter().any(|row| row.0 == unit && !idle(row)))
}

pub(crate) async fn read_unit(link: &Link, name: VmName, row: UnitRow) -> Result<Option<VmUnit>, BusError> {
    let (_, description, _, active, sub, _, path, job_id, job_type, _) = row;
    let reading = async {
        let unit = UnitProperties::of(&link.connection, path.into_inner()).await?;
        tokio::try_join!(
            unit.service::<u32>("MainPID"),
            read_exit(&unit),
            unit.unit::<Vec<u8>>("InvocationID"),
            unit.unit::<u64>("StateChangeTimestamp"),
            unit.unit::<String>("FreezerState"),
        )
    };
    match call("Get", reading).await {
        Ok((main_pid, exit, invocation, changed_us, freezer)) => Ok(Some(VmUnit {
            name,
            active: ActiveState::parse(&active),
            sub,
            order: order_of(&description),
            main_pid: (main_pid != 0).then_some(main_pid),
            exit,
            invocation: hex(&invocation),
            changed_unix_us: (changed_us != 0).then_some(changed_us),
            job: (job_id != 0).then_some(job_type),
            is_frozen: is_frozen(&freezer),
        })),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn read_exit(unit: &UnitProperties<'_>) -> zbus::Result<UnitExit> {
    let (result, main_code, main_status, status) = tokio::try_join!(
        unit.service::<String>("Result"),
        unit.service::<i32>("ExecMainCode"),
        unit.service::<i32>("ExecMainStatus"),
        unit.service::<String>("StatusText"),
    )?;
    Ok(UnitExit { result, main_code, main_status, status: status.parse().ok() })
}

/// How a unit that did not start has ended, and its invocation id. The job may end before the unit does, so
/// this waits for the end of the unit.
pub(crate) async fn settled_exit(link: &Link, name: &str) -> Result<(UnitExit, Option<String>), BusError> {
    let path = match call("GetUnit", link.manager.get_unit(name)).await {
        Ok(path) => path,
        Err(error) if is_gone(&error) => return Ok((UnitExit::default(), None)),
        Err(error) => return Err(error),
    };
    let settled = Instant::now() + SETTLE_DEADLINE;
    let reading = async {
        let unit = UnitProperties::of(&link.connection, path.into_inner()).await?;
        loop {
            let active: String = unit.unit("ActiveState").await?;
            let moving =
                matches!(ActiveState::parse(&active), ActiveState::Activating | ActiveState::Deactivating);
            if !moving || Instant::now() >= settled {
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
