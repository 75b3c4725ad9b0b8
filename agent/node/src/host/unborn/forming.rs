//! Rounds of questions: everybody is asked who they are, and what came back is looked at once all have
//! answered, or did not in time. An answer of an earlier round is none: it may be of a store that is gone.

use std::collections::BTreeSet;

use blixard_model::formation::Genesis;
use blixard_model::wire::PeerRequest;
use blixard_model::{EndpointId, mutant};

use super::{Unborn, UnbornCall, Writing};
use crate::forming::{Configured, Formed, decide, told_members};
use crate::host::disk::Write;
use crate::host::effect::Effect;
use crate::host::moment::Moment;
use crate::notice::Notice;

/// How long an answer may take, in milliseconds.
const ANSWER_MS: u64 = 2_000;

impl Unborn {
    /// Whom this node asks: the listed nodes, the members that its ticket names, those of whom others told.
    /// Without a link nobody can be asked.
    fn whom(&self) -> BTreeSet<EndpointId> {
        let listed = self.wanted.declared.iter().map(|member| member.endpoint_id);
        let named = self.told.iter().chain(self.ticket.contacts()).map(|contact| contact.endpoint_id);
        let all =
            listed.chain(named).filter(|id| *id != self.own.node.endpoint_id && self.linked.contains(id));
        all.collect()
    }

    /// Begins the next round, if it is due.
    pub(super) fn begin_round(&mut self, now: Moment) {
        let is_due = self.pace.due_ms().is_some_and(|due| due <= now.boot_ms);
        if !is_due || self.writing.is_some() {
            return;
        }
        self.pace.begin();
        self.answers.clear();
        self.out.push(Effect::Notice(Notice::AsksAround));
        let me = self.identity();
        for to in self.whom() {
            let request = PeerRequest::Identify { me: me.clone() };
            let (_, effect) = self.calls.ask((UnbornCall::Identify, to), request, now.boot_ms, ANSWER_MS);
            self.out.push(effect);
        }
        self.look_at_answers(now);
    }

    /// Takes the next step, once everybody who was asked in this round has answered, or did not in time.
    pub(super) fn look_at_answers(&mut self, now: Moment) {
        let asks = self.pace.due_ms().is_none();
        let awaited = self.calls.iter().any(|(purpose, _)| *purpose == UnbornCall::Identify);
        if !asks || awaited || self.writing.is_some() {
            return;
        }
        let told = told_members(&self.answers);
        if !told.is_empty() && told != self.told {
            self.told = told;
            self.tell_peers();
        }
        let me = self.identity();
        let configured = Configured {
            cluster_name: &self.wanted.cluster_name,
            declared: &self.wanted.declared,
            joins: self.wanted.joins,
        };
        match decide(&me, configured, &self.answers) {
            // The others hear of it, and the round ends, once it is durable.
            Formed::Promised(genesis) => {
                self.out.push(Effect::Write(Write::Promise(Box::new(genesis.clone()))));
                if mutant::lives("promise-told-early") {
                    self.promise = Some(genesis.clone());
                }
                self.writing = Some(Writing::Promise(genesis));
            }
            formed @ Formed::Waiting(_) => self.end_round(now, formed),
            Formed::Born(birth) => self.be_born(now, birth),
        }
    }

    /// The promise is durable.
    pub(super) fn promised(&mut self, now: Moment, genesis: Genesis) {
        self.out.push(Effect::Notice(Notice::Promised(Box::new(genesis.clone()))));
        self.promise = Some(genesis.clone());
        self.end_round(now, Formed::Promised(genesis));
    }

    fn end_round(&mut self, now: Moment, formed: Formed) {
        self.pace.end(now.boot_ms, &self.answers, &formed);
        let waiting_for = match formed {
            Formed::Waiting(reasons) => {
                self.failing_since_ms.get_or_insert(now.boot_ms);
                let removed = self.removed_words().map(|words| vec![words]);
                if self.wanted.joins { vec![self.ticket_words()] } else { removed.unwrap_or(reasons) }
            }
            Formed::Promised(_) | Formed::Born(_) => {
                self.failing_since_ms = None;
                vec!["the others' agreement".to_owned()]
            }
        };
        self.out.push(Effect::Notice(Notice::NotFormed(waiting_for.clone())));
        self.set_waiting_for(waiting_for);
    }

    /// What this node waits for is told when it changes.
    pub(super) fn set_waiting_for(&mut self, waiting_for: Vec<String>) {
        let is_new = self.waiting_for != waiting_for;
        self.waiting_for = waiting_for;
        let reasons = self.waiting_for.clone();
        self.out.push(Effect::Notice(Notice::Waits { reasons, is_new }));
    }
}
