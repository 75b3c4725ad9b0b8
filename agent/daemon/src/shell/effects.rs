//! Carries out what the host says.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use blixard_model::removal::RemovedFrom;
use blixard_model::wire::{JoinRequest, PeerRequest, PeerResponse};
use blixard_model::{Contact, EndpointId};
use blixard_net::{JoinError, RequestError, SendOutcome};
use blixard_node::Envelope;
use blixard_node::host::disk::{Write, Written, carry_out};
use blixard_node::host::{Answer, CallError, CallId, Effect, Input, WaiterId};
use blixard_node::joining::JoinFailure;

use super::super::{codec, leases, missing_data, stop_notes, tickets};
use super::{Shell, ShellError};

impl Shell {
    pub(super) fn carry_out(&mut self, effect: Effect) -> Result<(), ShellError> {
        match effect {
            Effect::Raft(envelope) => self.send_raft(envelope)?,
            Effect::AskPeer { call, to, request, patience_ms } => {
                self.ask_peer(call, to, &request, Duration::from_millis(patience_ms));
            }
            Effect::AskToJoin { call, contact, cluster_id, request, patience_ms } => {
                let patience = Duration::from_millis(patience_ms);
                self.ask_to_join(call, contact, cluster_id, &request, patience);
            }
            Effect::ForgetCall { call } => {
                if let Some(call) = self.calls.remove(&call) {
                    call.abort();
                }
            }
            Effect::AnswerPeer { call, response } => {
                if let Some(reply) = self.peers.remove(&call) {
                    // An error means that nobody waits for the answer any more.
                    let _gone = reply.send(*response).is_err();
                }
            }
            Effect::AnswerJoin { call, response } => {
                if let Some(reply) = self.joiners.remove(&call) {
                    // As above.
                    let _gone = reply.send(*response).is_err();
                }
            }
            Effect::Answer { waiter, answer } => self.answer(waiter, answer),
            Effect::Peers { contacts, listed, removed } => {
                self.agent.set_peers(contacts, listed, words(removed));
            }
            Effect::StandAside(stands_aside) => self.agent.net.stand_aside(stands_aside),
            Effect::ServeJoins(cluster) => self.agent.net.serve_joins(cluster),
            Effect::ListUnits { look } => self.list_units(look),
            Effect::Act { action, vm, lease } => self.act(action, vm, lease),
            Effect::ForgetOrder { vm } => self.forget_order(vm),
            Effect::WriteLease(file) => {
                let failure = tokio::task::block_in_place(|| leases::write(&file));
                self.give(Input::LeaseWritten { failure })?;
            }
            Effect::FetchConsole { vm, lines } => self.fetch_console(vm, lines),
            Effect::Write(write) => self.write(&write)?,
            Effect::KeepTicket { waiter, text } => {
                let dir = &self.agent.config.data_dir;
                let kept = tokio::task::block_in_place(|| tickets::keep(dir, &text));
                let kept = kept.map_err(|error| error.to_string());
                self.give(Input::TicketKept { waiter, kept })?;
            }
            Effect::ReadTicket => {
                let read = tokio::task::block_in_place(|| tickets::read(&self.agent.config));
                self.give(Input::TicketRead(Box::new(read)))?;
            }
            Effect::ForgetTicket(of) => {
                tokio::task::block_in_place(|| tickets::forget(&self.agent.config.data_dir, of));
            }
            Effect::KeepStop { waiter, notes } => {
                let dir = &self.agent.config.data_dir;
                let kept = tokio::task::block_in_place(|| stop_notes::keep(dir, &notes));
                let failure = kept.err().map(|error| error.to_string());
                self.give(Input::StopKept { waiter, notes, failure })?;
            }
            Effect::ForgetStops(notes) => {
                tokio::task::block_in_place(|| stop_notes::forget(&self.agent.config.data_dir, &notes));
            }
            Effect::Notice(notice) => self.notices.tell(&notice),
        }
        Ok(())
    }

    fn send_raft(&mut self, envelope: Envelope) -> Result<(), ShellError> {
        let Envelope { to, member, frame, is_snapshot } = envelope;
        if is_snapshot {
            let delivery = self.agent.net.send_snapshot(to, frame);
            self.deliveries.push(Box::pin(async move { (member, delivery.await.is_ok()) }));
        } else if self.agent.net.send_raft(to, frame) != SendOutcome::Queued {
            self.give(Input::RaftNotSent { member })?;
        }
        Ok(())
    }

    /// Runs a question of the host beside it; how it ended is its next input.
    fn spawn_call(&mut self, call: CallId, ends: impl Future<Output = Input> + Send + 'static) {
        let host = self.agent.host.clone();
        let task = self.tasks.spawn(async move {
            let input = ends.await;
            // The task has ended, and nobody waits.
            let _ended = host.input(input).await;
        });
        self.calls.insert(call, task.abort_handle());
    }

    fn ask_peer(&mut self, call: CallId, to: EndpointId, request: &PeerRequest, patience: Duration) {
        let (net, bytes) = (self.agent.net.clone(), codec::encode(request));
        self.spawn_call(call, async move {
            let answer = match net.request(to, bytes, patience).await {
                Ok(bytes) => codec::decode::<PeerResponse>(&bytes)
                    .map(Box::new)
                    .map_err(|why| CallError::Unknown(format!("an answer that is none: {why}"))),
                Err(error @ RequestError::NotSent(_)) => Err(CallError::NotSent(error.to_string())),
                Err(error @ RequestError::Unknown(_)) => Err(CallError::Unknown(error.to_string())),
            };
            Input::PeerAnswered { call, answer }
        });
    }

    fn ask_to_join(
        &mut self,
        call: CallId,
        contact: Contact,
        cluster_id: blixard_model::ClusterId,
        request: &JoinRequest,
        patience: Duration,
    ) {
        let (net, bytes) = (self.agent.net.clone(), codec::encode(request));
        self.spawn_call(call, async move {
            let asked = net.join(&contact, cluster_id, bytes, patience).await;
            let answer = match asked {
                Ok(bytes) => codec::decode(&bytes)
                    .map(Box::new)
                    .map_err(|why| JoinFailure::Other(format!("an answer that is none: {why}"))),
                Err(error) => {
                    let why = format!("{}: {error}", contact.endpoint_id.short());
                    Err(match error {
                        JoinError::NotServed => JoinFailure::NotServed(why),
                        _ => JoinFailure::Other(why),
                    })
                }
            };
            Input::JoinAnswered { call, answer }
        });
    }

    fn answer(&mut self, waiter: WaiterId, answer: Answer) {
        let Some((since, reply)) = self.waiters.remove(&waiter) else { return };
        if let Answer::Changed(Ok(_)) = &answer {
            self.agent.metrics.change(since.elapsed());
        }
        // An error means that nobody waits for the answer any more.
        let _gone = reply.send(answer).is_err();
    }

    /// Makes it durable, and says so to the host.
    fn write(&mut self, write: &Write) -> Result<(), ShellError> {
        let agent = &self.agent;
        let me = (agent.endpoint_id, agent.name());
        let store = &mut self.store;
        let written = tokio::task::block_in_place(|| carry_out(store, me, write))?;
        if let Written::Removed { failure: Some(why) } = &written {
            tracing::warn!("that this node was removed could not be written down: {why}");
        }
        if let Written::Bound(kept) = &written {
            let record = missing_data::record();
            missing_data::keep(&agent.config.data_dir, record.as_deref(), kept.marker.cluster_id);
        }
        let now = self.now();
        Ok(self.host.handle(now, Input::Written(Box::new(written)))?)
    }
}

/// What removed nodes are told when they dial this one.
fn words(removed: BTreeMap<EndpointId, RemovedFrom>) -> BTreeMap<EndpointId, String> {
    removed.into_iter().map(|(id, removed)| (id, removed.to_string())).collect()
}
