//! A machine that shuts down stops its VMs beside the agent. Those that may be failed over need its lease for
//! as long as their guests take, or they end as by a power cut: so the agent goes on until they have stopped.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// A unit's runtime directory is there for as long as the unit is.
const UNITS_DIR: &str = "/run/blixard-vm";
/// Longest wait: a graceful stop and some time more. It is less than the `TimeoutStopSec=` of the agent.
const LONGEST: Duration = Duration::from_secs(60);
/// Pause before they are looked at again.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until no VM's unit is left here.
pub(crate) async fn await_vms() {
    let until = Instant::now() + LONGEST;
    let mut told = false;
    loop {
        let left = units_in(Path::new(UNITS_DIR)).unwrap_or_default();
        if left.is_empty() {
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

/// The VMs that have a unit with a process, by name.
fn units_in(dir: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = entries.collect::<io::Result<Vec<String>>>()?;
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vms_are_there_for_as_long_as_their_runtime_directories() {
        let dir = tempfile::tempdir().expect("a directory");
        let units = dir.path().join("blixard-vm");
        assert_eq!(units_in(&units).ok(), None, "no VM has run since the machine booted");
        for name in ["web", "db"] {
            fs::create_dir_all(units.join(name)).expect("made");
        }
        assert_eq!(units_in(&units).expect("read"), ["db", "web"]);
        fs::remove_dir(units.join("web")).expect("removed");
        assert_eq!(units_in(&units).expect("read"), ["db"]);
    }
}
