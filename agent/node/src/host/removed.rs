//! A host that an operator removed from its cluster: it says so to whoever looks, and stops the VMs that
//! still run here, because they belong to nobody or to another machine by now. It does nothing else.

use std::collections::{BTreeMap, BTreeSet};

use blixard_core::ports::ObservedUnit;
use blixard_core::reconciler::Action;
use blixard_model::report::ObservedState;
use blixard_model::wire::{JoinResponse, PeerResponse};
use blixard_model::{ClusterId, VmName, mutant};

use super::effect::{Answer, Effect, HoldEnd, JoinRefusal, StopRefusal};
use super::input::{Input, Want};
use crate::notice::Notice;
use crate::submission::SubmitError;

/// What such a host says.
const REMOVED: &str =
    "this node was removed from its cluster; `blixard status` says what to do to use it again";

/// The units are listed once in so many ticks.
const LIST_TICKS: u64 = 20;
/// Most stops that are under way at once.
const STOPS_MAX: usize = 8;

/// A host that was removed.
#[derive(Debug)]
pub struct Removed {
    cluster_id: ClusterId,
    ticks: u64,
    /// The VMs that are being stopped.
    stopping: BTreeSet<VmName>,
    out: Vec<Effect>,
}

impl Removed {
    pub(super) fn new(cluster_id: ClusterId) -> Self {
        let out = vec![
            Effect::Notice(Notice::Removed { cluster_id }),
            Effect::Peers { contacts: Vec::new(), listed: false, removed: BTreeMap::new() },
            Effect::ServeJoins(None),
            Effect::ForgetTicket(None),
        ];
        Self { cluster_id, ticks: 0, stopping: BTreeSet::new(), out }
    }

    /// The cluster that it was in.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn handle(&mut self, input: Input) {
        let effect = match input {
            Input::PeerAsked { call, .. } => {
                let response = PeerResponse::Declined { why: REMOVED.to_owned() };
                Effect::AnswerPeer { call, response: Box::new(response) }
            }
            Input::JoinAsked { call, .. } => {
                let response = JoinResponse::Later { why: REMOVED.to_owned(), known_as: None };
                Effect::AnswerJoin { call, response: Box::new(response) }
            }
            Input::Tick => return self.tick(),
            Input::Units { listed: Ok(units), .. } => return self.stop_all(&units),
            Input::ActionDone { action, .. } => {
                // What failed is tried again after the next look.
                self.stopping.remove(action.vm());
                return;
            }
            Input::Wanted { waiter, want, .. } => Effect::Answer { waiter, answer: self.answer(&want) },
            Input::StopKept { waiter, .. } => {
                Effect::Answer { waiter, answer: Answer::StopTaken(Err(StopRefusal::NoMember)) }
            }
            _ => return,
        };
        self.out.push(effect);
    }

    fn tick(&mut self) {
        if self.ticks.is_multiple_of(LIST_TICKS) && !mutant::lives("removed-node-runs-on") {
            self.out.push(Effect::ListUnits { look: self.ticks / LIST_TICKS });
        }
        self.ticks += 1;
    }

    fn stop_all(&mut self, units: &[ObservedUnit]) {
        for unit in units {
            let runs = !matches!(unit.state, ObservedState::Stopped | ObservedState::Failed);
            if runs && self.stopping.len() < STOPS_MAX && self.stopping.insert(unit.name.clone()) {
                let action = Action::Stop(unit.name.clone());
                self.out.push(Effect::Act { action, vm: None, lease: None });
            }
        }
    }

    fn answer(&self, want: &Want) -> Answer {
        let unavailable = || SubmitError::Unavailable(REMOVED.to_owned());
        match want {
            Want::Change(_) | Want::RemoveNode(_) => Answer::Changed(Err(unavailable())),
            Want::Read => Answer::Readable(Err(unavailable())),
            Want::Reports => Answer::Reports(Vec::new()),
            Want::Progress => Answer::Progress(None),
            Want::HandOver => Answer::HandedOver(false),
            Want::Hold { .. } => Answer::Held(HoldEnd::NotNeeded),
            Want::StopHere(_) => Answer::StopTaken(Err(StopRefusal::NoMember)),
            Want::Join { .. } => {
                Answer::TicketTaken(Err(JoinRefusal::InAnotherCluster { cluster_id: self.cluster_id }))
            }
        }
    }
}
