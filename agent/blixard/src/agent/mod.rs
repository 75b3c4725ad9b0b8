//! The agent: composition root and tasks. Wiring, no decisions (those are `blixard-core`'s).
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
pub(crate) mod clock;
pub(crate) mod config;
mod context;
pub(crate) mod disk_fault;
mod formation;
#[cfg(test)]
mod fuzz;
mod handle;
mod joining;
mod logs;
mod metrics;
mod owner;
mod peer_call;
pub(crate) mod random;
mod reconcile;
mod register;
mod retries;
mod router;
mod runtime;
mod scrape;
mod space;
mod submit;
mod supervise;
mod telemetry;
#[cfg(test)]
mod testing;
mod views;
mod was_in;

use blixard_model::VmName;
use blixard_systemd::launcher;

use crate::cli::AgentArgs;
use config::Config;

/// Runs the agent until it is told to stop.
///
/// # Errors
/// It can not start, or had to end; the chain says why.
pub(crate) fn run(args: AgentArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    if args.check_config {
        if let Some(problem) = config.unlisted() {
            anyhow::bail!("{}: {problem}", args.config.display());
        }
        println!("{}: valid", args.config.display());
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

/// Becomes the hypervisor of `name`.
pub(crate) fn vm_exec(name: &VmName) -> anyhow::Result<()> {
    match launcher::vm_exec(name.as_str())? {}
}

/// Returns once the hypervisor of `name` says running.
pub(crate) fn vm_wait(name: &VmName) -> anyhow::Result<()> {
    Ok(launcher::vm_wait(name.as_str())?)
}

/// Stops the hypervisor of `name`.
pub(crate) fn vm_stop(name: &VmName) -> anyhow::Result<()> {
    Ok(launcher::vm_stop(name.as_str())?)
}
