//! What becomes of the VMs here while the agent is away: an agent that is stopped announces a long lease.

use std::time::Duration;

use blixard_node::host::HoldEnd;
use blixard_systemd::UnitManager;
use tokio::time::timeout;

use super::context::Agent;
use super::{clock, leases};

/// How long the log and the supervisors may take to learn of it.
const TAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long systemd may take to say whether the machine shuts down.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// The agent was told to stop. Unless the machine shuts down, which ends its VMs as well, those that may be
/// failed over run on for as long as the configuration says. Whether there are any: then [`last_word`] says
/// what becomes of them.
pub(crate) async fn take(agent: &Agent) -> bool {
    let length = Duration::from_secs(agent.config.hold_s.into());
    if shuts_down().await {
        return false;
    }
    if length.is_zero() {
        return true;
    }
    let end = agent.host.hold(length, TAKE_TIMEOUT).await;
    if end == HoldEnd::NotTaken {
        tracing::warn!("no quorum has taken it in time that VMs run on here");
    }
    end != HoldEnd::NotNeeded
}

/// A bus that is gone is taken for a machine that shuts down: nobody waits then for VMs that end.
pub(crate) async fn shuts_down() -> bool {
    let asked = async { UnitManager::connect().await?.is_shutting_down().await };
    timeout(ASK_TIMEOUT, asked).await.is_ok_and(|state| state.unwrap_or(true))
}

/// Says what becomes of the VMs here that may be failed over, now that the agent ends.
pub(crate) fn last_word() {
    let Some(file) = leases::read().filter(|file| !file.vms.is_empty()) else { return };
    let Some(until_ms) = file.until_ms else { return };
    let left_s = until_ms.saturating_sub(clock::boottime_ms()) / 1_000;
    tracing::warn!("VMs here that may be failed over end in {left_s} s, unless blixard is back before that");
}
