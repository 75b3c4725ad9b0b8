//! A machine that shuts down stops its VMs beside the agent. Those that may be failed over need its lease for
//! as long as their guests take, or they end as by a power cut: so the agent goes on until they have stopped.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::unit_dirs;

/// Longest wait: a graceful stop and some time more. It is less than the `TimeoutStopSec=` of the agent.
const LONGEST: Duration = Duration::from_secs(60);
/// Pause before they are looked at again.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until no VM's unit is left here, or nobody renews the lease any more.
pub(crate) async fn await_vms(has_host_ended: impl Fn() -> bool) {
    let until = Instant::now() + LONGEST;
    let mut told = false;
    loop {
        let left = unit_dirs::names();
        if left.is_empty() || has_host_ended() {
            return;
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!("the machine shuts down; waiting for its VMs to stop: {}", left.join(", "));
        }
        if Instant::now() >= until {
            return tracing::warn!("VMs that have not stopped in time: {}", left.join(", "));
        }
        sleep(PAUSE).await;
    }
}
