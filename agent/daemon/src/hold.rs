//! What becomes of the VMs here while the agent is away: an agent that is stopped announces a long lease.

use std::time::Duration;

use blixard_launcher::OrderDir;
use blixard_model::{LeaseFile, VmName};
use blixard_node::host::HoldEnd;
use blixard_systemd::UnitManager;
use tokio::time::timeout;

use super::context::Agent;
use super::{clock, leases};

/// How long the log and the supervisors may take to learn of it.
const TAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long systemd may take to say whether the machine shuts down.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// What becomes of the VMs here that need a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HoldPlan {
    /// They end with the machine: nobody is to wait for them.
    End,
    /// They end with the lease.
    EndWithLease,
    /// They run on for so long, if the log takes it.
    RunOn(Duration),
}

/// The agent was told to stop. Unless the machine shuts down, as [`machine_shuts_down`] said, which ends its
/// VMs as well, those that may be failed over run on for as long as the configuration says. Whether there may
/// be any: then [`last_word`] says what becomes of them.
pub(crate) async fn take(agent: &Agent, shuts_down: Option<bool>) -> bool {
    let length = match plan(shuts_down, Duration::from_secs(agent.config.hold_s.into())) {
        HoldPlan::End => return false,
        HoldPlan::EndWithLease => return true,
        HoldPlan::RunOn(length) => length,
    };
    let end = agent.host.hold(length, TAKE_TIMEOUT).await;
    if end == HoldEnd::NotTaken {
        tracing::warn!("no quorum has taken it in time that VMs run on here");
    }
    end != HoldEnd::NotNeeded
}

/// Whether the machine shuts down, by systemd's word. None: it gave none in time.
pub(crate) async fn machine_shuts_down() -> Option<bool> {
    let asked = async { UnitManager::connect().await?.is_shutting_down().await };
    timeout(ASK_TIMEOUT, asked).await.ok().and_then(Result::ok)
}

/// `shuts_down` is systemd's word, if it gave one in time. Without one the machine may go on, as where the
/// bus is restarted together with the agent: a hold that was not needed costs the others a wait, one that is
/// missing ends VMs. Nothing else tells it for sure: systemd keeps the state of its units to itself, and
/// what lies under /run is about shutdowns that were planned, or comes after the agent was told to stop.
fn plan(shuts_down: Option<bool>, length: Duration) -> HoldPlan {
    match shuts_down {
        Some(true) => HoldPlan::End,
        Some(false) | None if length.is_zero() => HoldPlan::EndWithLease,
        Some(false) | None => HoldPlan::RunOn(length),
    }
}

/// Says what becomes of the VMs here that may be failed over, now that the agent ends.
pub(crate) fn last_word() {
    let orders = OrderDir::default();
    // By the order that it was started with. One that cannot be read is no reason to keep silent.
    let needs_lease =
        |vm: &VmName| orders.read(vm).map_or(true, |order| order.is_some_and(|order| order.lease.is_some()));
    let left_s = leases::read().and_then(|file| left_s(&file, needs_lease, clock::boottime_ms()));
    if let Some(left_s) = left_s {
        tracing::warn!(
            "VMs here that may be failed over end in {left_s} s, unless blixard is back before that"
        );
    }
}

/// In how many seconds the VMs end that need a lease; none where there is none, or nothing ends them. The
/// file lists those that are kept on their node as well.
fn left_s(file: &LeaseFile, needs_lease: impl Fn(&VmName) -> bool, now_ms: u64) -> Option<u64> {
    let until_ms = file.until_ms.filter(|_| file.vms.keys().any(needs_lease))?;
    Some(until_ms.saturating_sub(now_ms) / 1_000)
}

#[cfg(test)]
mod tests {
    use blixard_model::{BootId, ClusterId};

    use super::*;

    #[test]
    fn vms_run_on_unless_systemd_says_that_the_machine_shuts_down() {
        let (two_minutes, none) = (Duration::from_secs(120), Duration::ZERO);
        let cases = [
            (Some(false), two_minutes, HoldPlan::RunOn(two_minutes)),
            // The bus is gone, or systemd is slow.
            (None, two_minutes, HoldPlan::RunOn(two_minutes)),
            (Some(true), two_minutes, HoldPlan::End),
            (Some(true), none, HoldPlan::End),
            (Some(false), none, HoldPlan::EndWithLease),
            (None, none, HoldPlan::EndWithLease),
        ];
        for (said, length, wanted) in cases {
            assert_eq!(plan(said, length), wanted, "{said:?} {length:?}");
        }
    }

    #[test]
    fn the_last_word_is_about_vms_that_need_a_lease() {
        let name = |text: &str| text.parse::<VmName>().expect("a name");
        let file = |vms: &[&str], until_ms| LeaseFile {
            boot_id: BootId::from_bytes([1; 16]),
            cluster_id: ClusterId::from_bytes([2; 16]),
            until_ms,
            grant: None,
            enforces: None,
            vms: vms.iter().map(|vm| (name(vm), 7)).collect(),
        };
        let needs = |vm: &VmName| *vm == name("moves");
        let at_10_s = |file: &LeaseFile| left_s(file, needs, 10_000);
        assert_eq!(at_10_s(&file(&["kept", "moves"], Some(19_900))), Some(9));
        assert_eq!(at_10_s(&file(&["moves"], Some(9_000))), Some(0));
        assert_eq!(at_10_s(&file(&["kept"], Some(19_900))), None, "it goes on without a lease");
        assert_eq!(at_10_s(&file(&[], Some(19_900))), None);
        assert_eq!(at_10_s(&file(&["moves"], None)), None, "no lease is needed now");
    }
}
