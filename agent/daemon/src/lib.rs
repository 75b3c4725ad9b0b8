//! The agent: composition root and tasks, and what is done to the key and the store of a stopped one. Wiring,
//! no decisions: those are `blixard-node`'s (the host) and `blixard-core`'s.
//!
//! ```text
//!   operator ─▶ api ─▶ shell ──Input──▶ Host ──Effect──▶ shell ─▶ network, disk, systemd over D-Bus
//!                        ▲                                  │
//!   other nodes ─▶ incoming                                 └──── what came of it: the next Input
//! ```

mod addresses;
mod api;
mod boot;
mod clock;
mod codec;
mod config;
mod context;
mod cover;
mod disk_fault;
#[cfg(test)]
mod fuzz;
mod hold;
mod incoming;
mod keygen;
mod leases;
mod local;
mod local_view;
mod logs;
mod metrics;
mod missing_data;
mod offer;
mod offline;
mod random;
mod retries;
mod scrape;
mod shell;
mod shutting_down;
mod space;
mod status_line;
mod stop_notes;
mod supervise;
mod telemetry;
#[cfg(test)]
mod testing;
mod tickets;
mod unit_dirs;
mod views;

use std::path::Path;

use blixard_model::words::with_causes;
use config::Config;

pub use blixard_node::decode_backup;
pub use disk_fault::{EXIT_DISK_FAILED, EXIT_DISK_FULL, EXIT_STORE_LOST, exit_code};
pub use keygen::keygen;
pub use local::{local_list, local_stop};
pub use offline::{OfflineError, StoppedNode, recover, restore};

/// Whether the configuration in `file` wants the machine restarted where SIGKILL does not end a VM.
///
/// # Errors
/// It cannot be read or is not valid.
pub fn wants_last_resort(file: &Path) -> anyhow::Result<bool> {
    Ok(Config::load(file)?.last_resort == config::LastResortChoice::Reboot)
}

/// Says, for whoever reads the journal to its end, what becomes of the VMs of an agent that had to end.
pub fn last_word() {
    hold::last_word();
}

/// Runs the agent with the configuration in `file` until it is told to stop, or only checks that file.
///
/// # Errors
/// The agent cannot start, or had to end; the chain of causes says why.
pub fn run(file: &Path, check_only: bool) -> anyhow::Result<()> {
    let config = Config::load(file)?;
    if check_only {
        if let Some(problem) = config.unlisted() {
            anyhow::bail!("{}: {problem}", file.display());
        }
        if let Some(warning) = config.port_warning() {
            eprintln!("{}: warning: {warning}", file.display());
        }
        println!("{}: valid", file.display());
        return Ok(());
    }
    telemetry::init();
    if let Some(warning) = config.port_warning() {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    let data_dir = config.data_dir.clone();
    let ended = runtime.block_on(boot::run(config)).map_err(|error| disk_fault::explain(error, &data_dir));
    if let Err(error) = &ended {
        tracing::error!("the agent ends: {}", with_causes(error.as_ref()));
    }
    ended
}
