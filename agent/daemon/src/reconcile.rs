//! The node's reconciler: looks at the log and at systemd, lets `blixard-core` decide, and does it.
//!
//! Signals and changes of the log only wake it; what it believes is the list of units, taken anew each time
//! and at least every few seconds. One action per VM is under way at a time.

use std::sync::Arc;
use std::time::Duration;

use blixard_core::VmRecord;
use blixard_core::ports::ObservedUnit;
use blixard_core::reconciler::{Action, NodeView, Ongoing};
use blixard_model::order::LaunchOrder;
use blixard_model::report::NodeReport;
use blixard_model::words::with_causes;
use blixard_model::{Command, Desired, Request, VmName};
use blixard_systemd::VmRuntime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::clock::boottime_ms;
use super::context::{Agent, Running};
use super::random;
use super::submit::submit;

/// The list of units is taken at least this often ...
const PERIOD: Duration = Duration::from_secs(2);
/// ... and at most this often: a busy log must not become a busy service manager.
const TURN_PERIOD_MIN: Duration = Duration::from_millis(50);
/// How many of a failed VM's last console lines go into its reason.
const CONSOLE_LINES: u32 = 5;
/// How long telling the cluster that a unit is gone may take.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of an action.
struct Done {
    action: Action,
    /// Why a start failed, with the last console lines.
    failure: Option<String>,
}

struct Reconciler<R> {
    agent: Arc<Agent>,
    running: Running,
    runtime: Arc<R>,
    ongoing: Ongoing,
    actions: JoinSet<Done>,
    up_to_date: bool,
    units: Vec<ObservedUnit>,
}

/// Runs until it is dropped; VMs go on without it.
pub(crate) async fn run<R: VmRuntime>(agent: Arc<Agent>, runtime: Arc<R>) {
    let running = agent.wait_running().await;
    let mut reconciler = Reconciler {
        agent,
        running,
        runtime,
        ongoing: Ongoing::default(),
        actions: JoinSet::new(),
        up_to_date: false,
        units: Vec::new(),
    };
    let mut summary = reconciler.running.consensus.summary();
    let consensus = reconciler.running.consensus.clone();
    let mut barrier = Box::pin(async move {
        // Raft asks again by itself; false means that too many wait.
        while !consensus.read_barrier().await {
            sleep(PERIOD).await;
        }
    });
    loop {
        let turn_ends = Instant::now() + TURN_PERIOD_MIN;
        reconciler.turn().await;
        sleep_until(turn_ends).await;
        tokio::select! {
            changed = summary.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = &mut barrier, if !reconciler.up_to_date => reconciler.up_to_date = true,
            Some(done) = reconciler.actions.join_next() => reconciler.handle_done(done),
            _ = timeout(PERIOD, reconciler.runtime.changed()) => {}
        }
    }
}

impl<R: VmRuntime> Reconciler<R> {
    async fn turn(&mut self) {
        let (node, endpoint_id) = (self.agent.name().clone(), self.agent.endpoint_id);
        let look = self.running.consensus.view(move |view| {
            // Placements are by name: they are this node's only if the log gives the name to its key.
            let ours = view.state.member_by_endpoint(endpoint_id).is_some_and(|member| member.name == node);
            (view.state.placed_on(&node).cloned().collect::<Vec<VmRecord>>(), ours)
        });
        let Ok((placed, ours)) = look.await else { return };
        let placed: Vec<&VmRecord> = placed.iter().collect();
        let listed_at = Instant::now();
        let problem = match self.runtime.list().await {
            Ok(units) => {
                self.units = units;
                None
            }
            Err(error) => Some(format!("systemd can not be asked: {}", with_causes(&error))),
        };
        let units = self.units.clone();
        let up_to_date = self.up_to_date && ours && problem.is_none();
        let view = NodeView { placed: &placed, units: &units, up_to_date, now_ms: boottime_ms() };
        if problem.is_none() {
            self.note_ends(&view).await;
        }
        for action in self.ongoing.begin(&view) {
            self.begin(action, &placed);
        }
        let report = NodeReport { node: self.agent.name().clone(), vms: self.ongoing.report(&view), problem };
        // Only what changed is worth a message of its own; the age is kept true in any case.
        self.agent.own_report.send_if_modified(|before| {
            let changed = before.1 != report;
            *before = (listed_at, report);
            changed
        });
    }

    /// VMs that ended though they should run.
    async fn note_ends(&mut self, view: &NodeView<'_>) {
        for (name, ended) in self.ongoing.unexpected_ends(view) {
            let how = ended.unwrap_or_else(|| "ended by itself".to_owned());
            let reason = with_console(self.runtime.as_ref(), &name, how).await;
            tracing::warn!(VM = %name, "VM {name} ended, though it should run: {reason}");
            self.ongoing.note_end(&name, &reason, view.now_ms);
        }
    }

    fn begin(&mut self, action: Action, placed: &[&VmRecord]) {
        let record = placed.iter().find(|vm| vm.spec.name == *action.vm()).map(|vm| (*vm).clone());
        let (agent, runtime) = (Arc::clone(&self.agent), Arc::clone(&self.runtime));
        self.actions.spawn(async move {
            let failure = perform(&agent, runtime.as_ref(), &action, record).await;
            Done { action, failure }
        });
    }

    fn handle_done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done { action, failure }) => {
                self.ongoing.note_done(&action, failure.as_deref(), boottime_ms());
            }
            // A bug in one action must not take the others' supervision down.
            Err(error) => {
                tracing::error!("an action ended unexpectedly: {error}");
                self.ongoing.forget_actions();
            }
        }
    }
}

async fn with_console<R: VmRuntime>(runtime: &R, name: &VmName, how: String) -> String {
    let lines = runtime.console(name, CONSOLE_LINES).await;
    if lines.is_empty() { how } else { format!("{how}: {}", lines.join(" | ")) }
}

/// Does one action; a failed start gives its reason, everything else is simply tried again.
async fn perform<R: VmRuntime>(
    agent: &Agent,
    runtime: &R,
    action: &Action,
    record: Option<VmRecord>,
) -> Option<String> {
    match (action, record) {
        (Action::Start(name), Some(vm)) => {
            let order = LaunchOrder {
                vm: vm.spec,
                accel: agent.config.vms.accel,
                qemu: agent.config.vms.qemu.clone(),
                disk_dirs: agent.config.disk_dirs(),
                generation: vm.placement.generation,
            };
            let begun = Instant::now();
            match runtime.start(&order).await {
                Ok(()) => {
                    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                    let generation = order.generation;
                    tracing::info!(VM = %name, generation, "VM {name} runs after {ms} ms");
                    None
                }
                Err(error) => {
                    let reason = with_console(runtime, name, with_causes(&error)).await;
                    tracing::warn!(VM = %name, "VM {name} not started: {reason}");
                    Some(reason)
                }
            }
        }
        (Action::Stop(name), record) => {
            stop(runtime, name, record).await;
            None
        }
        (Action::ResetFailed(name), _) => {
            if let Err(error) = runtime.reset_failed(name).await {
                tracing::debug!(VM = %name, "failure of {name} not forgotten: {}", with_causes(&error));
            }
            None
        }
        (Action::ConfirmGone(name), Some(vm)) => {
            let command = Command::ConfirmGone {
                name: name.clone(),
                node: vm.placement.node,
                generation: vm.placement.generation,
            };
            let request = Request { id: random::request_id(), command };
            match submit(agent, request, Instant::now() + CONFIRM_TIMEOUT).await {
                Ok(_) => {
                    tracing::info!(VM = %name, "VM {name} deleted: its unit is gone");
                    if let Err(error) = runtime.forget(name).await {
                        let why = with_causes(&error);
                        tracing::warn!(VM = %name, "what is left of {name} was not removed: {why}");
                    }
                }
                Err(error) => tracing::debug!(VM = %name, %error, "not confirmed yet"),
            }
            None
        }
        (Action::Start(_) | Action::ConfirmGone(_), None) => None,
    }
}

async fn stop<R: VmRuntime>(runtime: &R, name: &VmName, record: Option<VmRecord>) {
    // A VM that shall run is stopped for one reason only.
    let wanted = record.filter(|vm| vm.desired == Desired::Running).map(|vm| vm.placement.generation);
    match (runtime.stop(name).await, wanted) {
        (Ok(()), None) => tracing::info!(VM = %name, "VM {name} stopped"),
        (Ok(()), Some(generation)) => tracing::info!(
            VM = %name, generation,
            "VM {name} stopped: it ran by the order of an earlier placement, and is started as generation \
             {generation} wants it"
        ),
        (Err(error), _) => {
            tracing::warn!(VM = %name, "VM {name} not stopped: {}", with_causes(&error));
        }
    }
}
