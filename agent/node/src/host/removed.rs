//! A host that an operator removed from its cluster: it says so to whoever looks, and stops the VMs that
//! still run here, because they belong to nobody or to another machine by now. It does nothing else.
//!
//! To the reconciler it is a node on which nothing is placed.

use std::collections::BTreeMap;

use blixard_core::ports::ObservedUnit;
use blixard_core::reconciler::{Action, Ongoing, UnitsView};
use blixard_model::wire::{JoinResponse, PeerResponse};
use blixard_model::{ClusterId, mutant};

use super::effect::{Answer, Effect, HoldEnd, JoinRefusal, StopRefusal};
use super::input::{Input, Want};
use super::moment::Moment;
use crate::notice::Notice;
use crate::submission::SubmitError;

/// What such a host says.
const REMOVED: &str =
    "this node was removed from its cluster; `blixard status` says what to do to use it again";

/// The units are listed once in so many ticks.
const LIST_TICKS: u64 = 20;

/// A host that was removed.
#[derive(Debug)]
pub struct Removed {
    cluster_id: ClusterId,
    ticks: u64,
    /// The stops that are under way, and those that failed.
    ongoing: Ongoing,
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
        Self { cluster_id, ticks: 0, ongoing: Ongoing::default(), out }
    }

    /// The cluster that it was in.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn handle(&mut self, now: Moment, input: Input) {
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
            Input::Units { listed: Ok(units), look, .. } => return self.stop_all(now, &units, look),
            Input::ActionDone { action, failure } => return self.action_done(now, action, failure),
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
            self.out.push(Effect::ListUnits { look: self.ongoing.note_asked() });
        }
        self.ticks += 1;
    }

    fn stop_all(&mut self, now: Moment, units: &[ObservedUnit], look: u64) {
        let view = UnitsView {
            placed: &[],
            units,
            unknown: &[],
            look,
            lease: None,
            stopped: &[],
            up_to_date: true,
            now_ms: now.boot_ms,
            wall_ms: now.wall_ms,
        };
        let act = |action| Effect::Act { action, vm: None, lease: None };
        self.out.extend(self.ongoing.begin(&view).into_iter().map(act));
    }

    /// What failed is tried again after a pause, and told when its reason is another than the time before.
    fn action_done(&mut self, now: Moment, action: Action, failure: Option<String>) {
        let is_new = self.ongoing.note_done(&action, failure.as_deref(), now.boot_ms);
        if let (Some(why), Action::Stop(_), true) = (failure, &action, is_new) {
            self.out.push(Effect::Notice(Notice::ActionFailed { action, why }));
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
