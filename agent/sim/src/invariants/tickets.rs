//! A ticket admits one node, once, and none that was taken back or is over; a node that an operator removed
//! comes back with a ticket or not at all. Kept beside the state, from the entries alone.

use std::collections::{BTreeMap, BTreeSet};

use blixard_model::{Command, EndpointId, Member, Outcome, Removal, TicketId, TicketUse};

use super::canon::{AgreedEntry, AppliedCommand};

#[derive(Debug, Default)]
pub(crate) struct Tickets {
    /// When each that admits somebody is over, by the clock of who made it.
    open: BTreeMap<TicketId, u64>,
    removed: BTreeSet<EndpointId>,
}

impl Tickets {
    pub(crate) fn applied(&mut self, applied: &AgreedEntry) -> Result<(), String> {
        match applied {
            AgreedEntry::Command(command) => self.command(command),
            AgreedEntry::Removed(member, Removal::Operator { .. }) => {
                self.removed.insert(member.node.endpoint_id);
            }
            AgreedEntry::Admitted(member, used) => return self.admitted(member, used.as_ref()),
            AgreedEntry::Removed(_, Removal::LostStore) | AgreedEntry::Nothing => {}
        }
        Ok(())
    }

    fn command(&mut self, AppliedCommand { request, outcome, changed }: &AppliedCommand) {
        if !matches!(outcome, Outcome::Done { .. }) {
            return;
        }
        match &request.command {
            // Asked for again it has another leader's time in it, and changes nothing.
            Command::CreateTicket { id, ttl_ms, at_ms, .. } if *changed => {
                self.open.insert(*id, at_ms + ttl_ms);
            }
            Command::RevokeTicket { id } => drop(self.open.remove(id)),
            Command::ExpireTickets { ids } => self.open.retain(|id, _| !ids.contains(id)),
            _ => {}
        }
    }

    fn admitted(&mut self, member: &Member, used: Option<&TicketUse>) -> Result<(), String> {
        let was_removed = self.removed.remove(&member.node.endpoint_id);
        let Some(used) = used else {
            let name = &member.node.name;
            let back = || format!("{name} was removed, and is admitted again without a ticket");
            return if was_removed { Err(back()) } else { Ok(()) };
        };
        let name = &member.node.name;
        match self.open.remove(&used.id) {
            None => {
                Err(format!("{name} was admitted with ticket {}, which admits nobody (any more)", used.id))
            }
            Some(over_ms) if used.at_ms >= over_ms => Err(format!(
                "{name} was admitted with ticket {} {} ms after its end",
                used.id,
                used.at_ms - over_ms
            )),
            Some(_) => Ok(()),
        }
    }
}
