//! What an operator stops on this node beside the cluster, and what the node shows of its VMs: with or
//! without a leader.

use std::collections::BTreeSet;

use blixard_core::VmRecord;
use blixard_core::ports::ObservedUnit;
use blixard_model::report::NodeReport;
use blixard_model::{StopNote, VmName};

use super::MemberHost;
use crate::host::effect::{Answer, Effect, StopRefusal};
use crate::host::input::WaiterId;
use crate::host::moment::Moment;

/// This machine's VMs as they were last seen, and what is known of them beside.
#[derive(Debug)]
pub struct LocalVms<'a> {
    /// Those that the log places here, as far as it is applied.
    pub placed: Vec<&'a VmRecord>,
    /// Their units, and those of others.
    pub units: &'a [ObservedUnit],
    /// What was stopped by hand and the log does not know.
    pub stopped: &'a [StopNote],
    /// What the leader is told.
    pub report: &'a NodeReport,
    /// How old the look at the units is, in milliseconds.
    pub age_ms: u64,
}

impl MemberHost {
    /// This machine's VMs, for which no quorum is needed.
    pub fn local_vms(&self, now: Moment) -> LocalVms<'_> {
        LocalVms {
            placed: self.replica.state().placed_on(&self.own.node.name).collect(),
            units: self.vms.units(),
            stopped: self.vms.stopped_by_hand(),
            report: self.reports.own_report(),
            age_ms: self.reports.own(now.boot_ms).age_ms,
        }
    }

    /// Keeps that the VM is stopped by hand, whichever placement of it the log wants here or runs here.
    pub(super) fn stop_here(&mut self, now: Moment, waiter: WaiterId, name: VmName) {
        let placed = self.replica.state().vms.get(&name).map(|vm| &vm.placement);
        let placed = placed.filter(|place| place.node == self.own.node.name).map(|place| place.generation);
        let running = self.vms.runs_as(&name).map(|order| match order {
            Some(order) => order.generation,
            None => placed.unwrap_or(0),
        });
        let generations: BTreeSet<u64> = placed.into_iter().chain(running).collect();
        if generations.is_empty() {
            return self.answer(waiter, Answer::StopTaken(Err(StopRefusal::NotHere(name))));
        }
        let note = |generation| StopNote { name: name.clone(), generation, at_unix_ms: now.wall_ms };
        let notes = generations.into_iter().map(note).collect();
        self.out.push(Effect::KeepStop { waiter, notes });
    }

    pub(super) fn handle_stop_kept(
        &mut self,
        now: Moment,
        waiter: WaiterId,
        (notes, failure): (Vec<StopNote>, Option<String>),
    ) {
        let taken = match (failure, notes.first().map(|note| note.name.clone())) {
            (Some(why), Some(vm)) => Err(StopRefusal::NotKept { vm, why }),
            _ => {
                self.vms.note_stopped_by_hand(now.boot_ms, notes);
                Ok(())
            }
        };
        self.answer(waiter, Answer::StopTaken(taken));
    }
}
