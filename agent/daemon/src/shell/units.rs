//! Carries out what the host wants of systemd, beside the host task: systemd may take long.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use blixard_core::VmRecord;
use blixard_core::reconciler::Action;
use blixard_model::order::LaunchOrder;
use blixard_model::words::with_causes;
use blixard_model::{ClusterId, Desired, OrderId, VmName};
use blixard_node::host::Input;
use blixard_systemd::{SystemdVms, VmRuntime as _};

use super::super::context::Agent;
use super::super::stop_notes;
use super::Shell;
use super::handle::millis;

impl Shell {
    /// Passes on systemd's word that units may have changed.
    pub(super) fn watch_units(&self) {
        let (units, host) = (Arc::clone(&self.units), self.agent.host.clone());
        self.tasks.spawn(async move {
            loop {
                units.changed().await;
                if !host.input(Input::UnitsChanged).await {
                    return;
                }
            }
        });
    }

    pub(super) fn list_units(&self, look: u64) {
        let data_dir = self.agent.config.data_dir.clone();
        let (units, agent) = (Arc::clone(&self.units), Arc::clone(&self.agent));
        let host = self.agent.host.clone();
        self.tasks.spawn(async move {
            let mut listed = units.list().await.map_err(|error| with_causes(&error));
            // Units end beside the agent, and systemd starts none any more: nothing is to be done to them,
            // and others place nothing here.
            if agent.shuts_down.load(Ordering::Relaxed) {
                listed = Err("the machine shuts down".to_owned());
            }
            // After the units: a command that stops one without this agent leaves its note first.
            let found = tokio::task::block_in_place(|| stop_notes::found(&data_dir));
            let (listed, stopped) = match found {
                Ok(stopped) => (listed, stopped),
                // Nothing is started that somebody may have stopped.
                Err(error) => {
                    let why = format!("what was stopped by hand cannot be read: {error}");
                    (listed.and(Err(why)), Vec::new())
                }
            };
            host.input(Input::Units { look, listed, stopped }).await;
        });
    }

    pub(super) fn fetch_console(&self, vm: VmName, lines: u32) {
        let (units, host) = (Arc::clone(&self.units), self.agent.host.clone());
        self.tasks.spawn(async move {
            let lines = units.console(&vm, lines).await;
            host.input(Input::Console { vm, lines }).await;
        });
    }

    /// The action of which this is the end is over when it is done.
    pub(super) fn forget_order(&self, vm: VmName) {
        let (units, host) = (Arc::clone(&self.units), self.agent.host.clone());
        self.tasks.spawn(async move {
            if let Err(error) = units.forget(&vm).await {
                let why = with_causes(&error);
                tracing::warn!(VM = %vm, "what is left of {vm} was not removed: {why}");
            }
            host.input(Input::ActionDone { action: Action::ConfirmGone(vm), failure: None }).await;
        });
    }

    /// An action that ends unexpectedly has ended all the same: the host hears of it in any case.
    pub(super) fn act(&self, action: Action, vm: Option<Box<VmRecord>>, lease: Option<ClusterId>) {
        let (agent, units) = (Arc::clone(&self.agent), Arc::clone(&self.units));
        let doing = {
            let action = action.clone();
            let agent = Arc::clone(&agent);
            self.tasks.spawn(async move { perform((&agent, &units), &action, vm, lease).await })
        };
        self.tasks.spawn(async move {
            let failure = doing.await.unwrap_or_else(|error| {
                tracing::error!("an action ended unexpectedly: {error}");
                Some("the agent could not do it: see its journal".to_owned())
            });
            agent.host.input(Input::ActionDone { action, failure }).await;
        });
    }
}

/// Does one action. What comes back is why it failed: the host tells of it.
async fn perform(
    (agent, units): (&Agent, &SystemdVms),
    action: &Action,
    vm: Option<Box<VmRecord>>,
    lease: Option<ClusterId>,
) -> Option<String> {
    match (action, vm) {
        (Action::Start(name), Some(vm)) => start((agent, units), name, *vm, lease).await,
        (Action::Stop(name), vm) => stop(units, name, vm.as_deref()).await,
        (Action::ResetFailed(name), _) => {
            units.reset_failed(name).await.err().map(|error| with_causes(&error))
        }
        (Action::Start(_) | Action::ConfirmGone(_) | Action::ConfirmSpec(_), _)
        | (Action::ConfirmStop(..), _) => None,
    }
}

async fn start(
    (agent, units): (&Agent, &SystemdVms),
    name: &VmName,
    vm: VmRecord,
    lease: Option<ClusterId>,
) -> Option<String> {
    let OrderId { generation, revision, lineage } = vm.order_id();
    let order = LaunchOrder {
        vm: vm.spec,
        accel: agent.config.vms.accel,
        qemu: agent.config.vms.qemu.clone(),
        disk_dirs: agent.config.disk_dirs(),
        shared_dirs: agent.config.shared_dirs(),
        generation,
        revision,
        lineage,
        lease,
    };
    let begun = Instant::now();
    match units.start(&order).await {
        Ok(()) => {
            let ms = millis(begun.elapsed());
            tracing::info!(VM = %name, generation, revision, "VM {name} runs after {ms} ms");
            None
        }
        Err(error) => Some(with_causes(&error)),
    }
}

async fn stop(units: &SystemdVms, name: &VmName, vm: Option<&VmRecord>) -> Option<String> {
    if let Err(error) = units.stop(name).await {
        return Some(with_causes(&error));
    }
    // A VM that shall run is stopped for one reason only.
    let wanted = vm.filter(|vm| vm.desired == Desired::Running).map(VmRecord::order_id);
    match wanted {
        None => tracing::info!(VM = %name, "VM {name} stopped"),
        Some(order) => tracing::info!(
            VM = %name, generation = order.generation, revision = order.revision,
            "VM {name} stopped: it ran by another order than the one that is wanted, and is started as \
             {order} wants it"
        ),
    }
    None
}
