//! The agent: composition root and tasks, and what is done to the key and the store of a stopped one. Wiring,
//! no decisions (those are `blixard-core`'s).
//!
//! ```text
//!   operator ─▶ api ─▶ submit ─▶ (leader's) owner ─▶ log ─▶ ClusterState on every node
//!                                                                │
//!            leader's reports ◀─ announce ◀─ reconcile ◀─────────┘
//!                                                │ ▲
//!                                          systemd over D-Bus
//! ```

mod addresses;
mod announce;
mod api;
mod birth;
mod boot;
mod clock;
mod config;
mod context;
mod disk_fault;
mod formation;
#[cfg(test)]
mod fuzz;
mod handle;
mod joining;
mod keygen;
mod logs;
mod metrics;
mod offline;
mod owner;
mod peer_call;
mod random;
mod reconcile;
mod register;
mod retries;
mod router;
mod scrape;
mod space;
mod submit;
mod supervise;
mod telemetry;
#[cfg(test)]
mod testing;
mod views;
mod was_in;

use std::path::Path;

use config::Config;

pub use blixard_node::decode_backup;
pub use disk_fault::{EXIT_DISK_FAILED, EXIT_DISK_FULL, EXIT_STORE_LOST, exit_code};
pub use keygen::keygen;
pub use offline::{OfflineError, StoppedNode, recover, restore};

/// Runs the agent with the configuration in `file` until it is told to stop, or only checks that file.
///
/// # Errors
/// It can not start, or had to end; the chain says why.
pub fn run(file: &Path, check_only: bool) -> anyhow::Result<()> {
    let config = Config::load(file)?;
    if check_only {
        if let Some(problem) = config.unlisted() {
            anyhow::bail!("{}: {problem}", file.display());
        }
        println!("{}: valid", file.display());
        return Ok(());
    }
    telemetry::init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    let data_dir = config.data_dir.clone();
    let ended = runtime.block_on(boot::run(config)).map_err(|error| disk_fault::explain(error, &data_dir));
    if let Err(error) = &ended {
        tracing::error!("the agent ends: {error:#}");
    }
    ended
}
