//! What a node can count on to end its VMs that need a lease, made of what it sees.

use blixard_model::LeaseTerms;
use blixard_model::fences::{FenceState, Fences};

/// What systemd's manager says of its watchdogs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemdWatchdogs {
    /// It ends units whose watchdog was not fed. `systemctl service-watchdogs no` switches that off.
    pub of_units: bool,
    /// After how many microseconds without a sign of systemd the hardware restarts the machine; 0: never,
    /// `u64::MAX`: after a time that the device has.
    pub hardware_us: u64,
    /// systemd has fed a hardware watchdog since it started: there is one.
    pub hardware_fed: bool,
}

/// systemd's word for a time that is left to the device.
const DEVICE_US: u64 = u64::MAX;

/// The unit that restarts the machine where SIGKILL does not end a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastResortUnit {
    /// The configuration wants none.
    Unwanted,
    /// It runs.
    Runs,
    /// It does not run.
    Down,
}

/// What a node sees of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceFacts {
    /// Why the agent cannot let the supervisors know of the lease, if it cannot.
    pub lease_problem: Option<String>,
    /// What systemd says, or why it says nothing.
    pub watchdogs: Result<SystemdWatchdogs, String>,
    /// What is seen of the last resort, or why nothing is.
    pub last_resort: Result<LastResortUnit, String>,
    /// The terms of the cluster's leases.
    pub terms: LeaseTerms,
}

/// What a node can count on.
pub fn fences_of(facts: FenceFacts) -> Fences {
    let unknown = |why: &String| FenceState::Unknown { why: format!("systemd cannot be asked: {why}") };
    let systemd_watchdog = match &facts.watchdogs {
        Err(why) => unknown(why),
        Ok(watchdogs) if watchdogs.of_units => FenceState::Works,
        Ok(_) => FenceState::off("switched off: `systemctl service-watchdogs yes` switches it on"),
    };
    let hardware_watchdog = match &facts.watchdogs {
        Err(why) => unknown(why),
        Ok(watchdogs) => hardware(watchdogs, facts.terms.hardware_watchdog_s_max()),
    };
    let last_resort = match &facts.last_resort {
        Err(why) => unknown(why),
        Ok(LastResortUnit::Runs) => FenceState::Works,
        Ok(LastResortUnit::Unwanted) => FenceState::off("last_resort is \"none\""),
        Ok(LastResortUnit::Down) => FenceState::off("blixard-last-resort.service does not run: start it"),
    };
    let supervisor = match facts.lease_problem {
        None => FenceState::Works,
        Some(why) => FenceState::Off { why },
    };
    let mut fences = Fences { supervisor, systemd_watchdog, last_resort, hardware_watchdog };
    fences.cut();
    fences
}

/// Whether the hardware restarts a machine that hangs within so many seconds.
fn hardware(watchdogs: &SystemdWatchdogs, s_max: u64) -> FenceState {
    // The hardware counts whole seconds, and is told no fewer.
    let after_s = watchdogs.hardware_us.div_ceil(1_000_000);
    match watchdogs.hardware_us {
        0 => FenceState::off("RuntimeWatchdogSec= of systemd-system.conf is not set"),
        _ if !watchdogs.hardware_fed => {
            FenceState::off("RuntimeWatchdogSec= is set, and systemd has found no watchdog device")
        }
        DEVICE_US => FenceState::off(format!(
            "RuntimeWatchdogSec= leaves the time to the device: write one of at most {s_max} s"
        )),
        _ if after_s > s_max => FenceState::off(format!(
            "RuntimeWatchdogSec= is {after_s} s, longer than the {s_max} s from the end of a lease until its \
             VMs may run elsewhere"
        )),
        _ => FenceState::Works,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(of_units: bool, hardware_us: u64, hardware_fed: bool) -> FenceFacts {
        FenceFacts {
            lease_problem: None,
            watchdogs: Ok(SystemdWatchdogs { of_units, hardware_us, hardware_fed }),
            last_resort: Ok(LastResortUnit::Unwanted),
            terms: LeaseTerms::DEFAULT,
        }
    }

    fn words(facts: FenceFacts) -> [String; 4] {
        fences_of(facts).each().map(|(_, state)| state.why_not().unwrap_or("works").to_owned())
    }

    #[test]
    fn what_does_its_part_is_told_from_what_is_switched_off_or_missing() {
        let none = "last_resort is \"none\"";
        let unset = "RuntimeWatchdogSec= of systemd-system.conf is not set";
        assert_eq!(words(facts(true, 0, false)), ["works", "works", none, unset]);
        let [_, watchdog, _, hardware] = words(facts(false, 6_000_000, true));
        assert_eq!(hardware, "works");
        assert!(watchdog.contains("systemctl service-watchdogs yes"), "{watchdog}");
        let [_, _, _, hardware] = words(facts(true, 60_000_000, false));
        assert!(hardware.contains("no watchdog device"), "{hardware}");
        for (unit, word) in [(LastResortUnit::Runs, "works"), (LastResortUnit::Down, "does not run")] {
            let [_, _, last, _] = words(FenceFacts { last_resort: Ok(unit), ..facts(true, 0, false) });
            assert!(last.contains(word), "{last}");
        }
        let removed = Some("/run/x was removed".to_owned());
        let [supervisor, ..] = words(FenceFacts { lease_problem: removed, ..facts(true, 0, false) });
        assert_eq!(supervisor, "/run/x was removed");
    }

    #[test]
    fn a_hardware_watchdog_that_comes_after_the_start_elsewhere_does_not_do_its_part() {
        let hardware = |us: u64, terms: LeaseTerms| {
            let [.., hardware] = words(FenceFacts { terms, ..facts(true, us, true) });
            hardware
        };
        let usual = LeaseTerms::DEFAULT;
        assert_eq!(hardware(6_000_000, usual), "works");
        let longer = "longer than the 6 s from the end of a lease until its VMs may run elsewhere";
        assert_eq!(hardware(6_000_001, usual), format!("RuntimeWatchdogSec= is 7 s, {longer}"), "rounded up");
        assert_eq!(hardware(60_000_000, usual), format!("RuntimeWatchdogSec= is 60 s, {longer}"));
        assert_eq!(hardware(60_000_000, LeaseTerms { stop_ms: 60_000, ..usual }), "works");
        let device = "RuntimeWatchdogSec= leaves the time to the device: write one of at most 6 s";
        assert_eq!(hardware(u64::MAX, usual), device);
    }

    #[test]
    fn what_nobody_says_counts_as_unknown() {
        let why = || "no bus".to_owned();
        let (watchdogs, last_resort) = (Err(why()), Err(why()));
        let facts = FenceFacts { lease_problem: None, watchdogs, last_resort, terms: LeaseTerms::DEFAULT };
        let fences = fences_of(facts);
        let unknown =
            |state: &FenceState| matches!(state, FenceState::Unknown { why } if why.contains("no bus"));
        assert!(fences.supervisor.works());
        assert!(
            [&fences.systemd_watchdog, &fences.last_resort, &fences.hardware_watchdog]
                .into_iter()
                .all(unknown)
        );
    }
}
