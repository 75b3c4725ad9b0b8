//! A host that an operator removed from its cluster: it says so to whoever looks, and does nothing else.

use std::collections::BTreeMap;

use blixard_model::ClusterId;
use blixard_model::wire::{JoinResponse, PeerResponse};

use super::effect::{Answer, Effect, JoinRefusal};
use super::input::{Input, Want};
use crate::notice::Notice;
use crate::submission::SubmitError;

/// What such a host says.
const REMOVED: &str =
    "this node was removed from its cluster; `blixard status` says what to do to use it again";

/// A host that was removed.
#[derive(Debug)]
pub struct Removed {
    cluster_id: ClusterId,
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
        Self { cluster_id, out }
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
            Input::Wanted { waiter, want, .. } => Effect::Answer { waiter, answer: self.answer(&want) },
            _ => return,
        };
        self.out.push(effect);
    }

    fn answer(&self, want: &Want) -> Answer {
        let unavailable = || SubmitError::Unavailable(REMOVED.to_owned());
        match want {
            Want::Change(_) | Want::RemoveNode(_) => Answer::Changed(Err(unavailable())),
            Want::Read => Answer::Readable(Err(unavailable())),
            Want::Reports => Answer::Reports(Vec::new()),
            Want::Progress => Answer::Progress(None),
            Want::HandOver => Answer::HandedOver(false),
            Want::Join { .. } => {
                Answer::TicketTaken(Err(JoinRefusal::InAnotherCluster { cluster_id: self.cluster_id }))
            }
        }
    }
}
