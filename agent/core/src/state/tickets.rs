//! Tickets in the replicated state: made, used, taken back, expired.

use blixard_model::ticket::{TICKET_TTL_MS_MAX, TICKET_TTL_MS_MIN, TICKETS_MAX};
use blixard_model::{
    FieldRefused, Member, Outcome, Reason, Refusal, RevokeProblem, TicketId, TicketRecord, TicketState,
    TicketUse, mutant,
};

use super::ClusterState;

impl ClusterState {
    pub(super) fn create_ticket(&mut self, record: TicketRecord) -> Result<Outcome, Refusal> {
        let invalid = |why: FieldRefused| Err(Refusal::Invalid { why: Reason::Code(why) });
        if !(TICKET_TTL_MS_MIN..=TICKET_TTL_MS_MAX).contains(&record.ttl_ms) {
            let (min_s, max_s) = (TICKET_TTL_MS_MIN / 1_000, TICKET_TTL_MS_MAX / 1_000);
            return invalid(FieldRefused::TicketLife { min_s, max_s });
        }
        if self.tickets.contains_key(&record.id) {
            return invalid(FieldRefused::TicketExists { id: record.id });
        }
        if let Some(name) = &record.name
            && self.member_by_name(name).is_some()
        {
            return invalid(FieldRefused::TicketForMember { node: name.clone() });
        }
        if self.tickets.len() >= TICKETS_MAX {
            self.forget_ended_ticket();
        }
        if self.tickets.len() >= TICKETS_MAX {
            return invalid(FieldRefused::TooManyTickets { max: TICKETS_MAX as u64 });
        }
        self.tickets.insert(record.id, record);
        Ok(Outcome::done(None))
    }

    /// The one that would have expired first: there is least to say about it.
    fn forget_ended_ticket(&mut self) {
        let ended = self.tickets.values().filter(|ticket| !ticket.is_open());
        let oldest = ended.min_by_key(|ticket| (ticket.expires_ms, ticket.id)).map(|ticket| ticket.id);
        if let Some(id) = oldest {
            self.tickets.remove(&id);
        }
    }

    pub(super) fn revoke_ticket(&mut self, id: TicketId) -> Result<Outcome, Refusal> {
        let ticket = self.tickets.get_mut(&id);
        let ticket = ticket.ok_or(Refusal::Ticket { why: Reason::Code(RevokeProblem::Unknown { id }) })?;
        match &ticket.state {
            TicketState::Used { node, .. } => {
                let why = RevokeProblem::Used { node: node.clone() };
                Err(Refusal::Ticket { why: Reason::Code(why) })
            }
            TicketState::Revoked | TicketState::Expired => Ok(Outcome::unchanged(None)),
            TicketState::Open => {
                if !mutant::lives("revoked-ticket-stays-open") {
                    ticket.state = TicketState::Revoked;
                }
                Ok(Outcome::done(None))
            }
        }
    }

    pub(super) fn expire_tickets(&mut self, ids: &[TicketId]) -> Outcome {
        for id in ids {
            if let Some(ticket) = self.tickets.get_mut(id).filter(|ticket| ticket.is_open()) {
                ticket.state = TicketState::Expired;
            }
        }
        Outcome::done(None)
    }

    /// Checks that a ticket admits this member; run before the change is proposed and when it is applied.
    pub(super) fn check_ticket(&self, used: &TicketUse, member: &Member) -> Result<(), String> {
        let Some(ticket) = self.tickets.get(&used.id) else {
            return Err(
                "the cluster does not know it (any more): it was never made, or is long over".to_owned()
            );
        };
        match &ticket.state {
            TicketState::Open => {}
            TicketState::Used { .. } if mutant::lives("ticket-used-again") => {}
            TicketState::Used { node, .. } => {
                return Err(format!("it has admitted {node}: a ticket is for one node"));
            }
            TicketState::Revoked => return Err("it was revoked".to_owned()),
            TicketState::Expired => return Err("it has expired".to_owned()),
        }
        if used.at_ms >= ticket.expires_ms && !mutant::lives("expired-ticket-admits") {
            return Err("it has expired".to_owned());
        }
        match &ticket.name {
            Some(name) if *name != member.node.name => Err(format!("it is for a node named {name}")),
            _ => Ok(()),
        }
    }

    pub(super) fn use_ticket(&mut self, used: &TicketUse, member: &Member) {
        if let Some(ticket) = self.tickets.get_mut(&used.id) {
            ticket.state = TicketState::Used { raft_id: member.raft_id, node: member.node.name.clone() };
        }
    }
}
