//! `blixard cluster ticket list`.

use blixard_model::TicketState;
use blixard_model::api::{Listing, TicketView};

use super::kit::{NOTHING, columns, time};

/// `blixard cluster ticket list`.
pub(crate) fn list(list: &Listing<TicketView>) -> String {
    if list.items.is_empty() {
        return "no tickets: `blixard cluster ticket create` makes one\n".to_owned();
    }
    let header = ["ID", "STATE", "EXPIRES", "FOR NODE", "ADMITTED"];
    let rows = list.items.iter().map(|ticket| {
        let (state, admitted) = match &ticket.state {
            TicketState::Open => ("open", NOTHING.to_owned()),
            TicketState::Used { node, .. } => ("used", node.to_string()),
            TicketState::Revoked => ("revoked", NOTHING.to_owned()),
            TicketState::Expired => ("expired", NOTHING.to_owned()),
        };
        let only = ticket.name.as_ref().map_or_else(|| "any".to_owned(), ToString::to_string);
        vec![ticket.id.to_string(), state.to_owned(), expires(ticket), only, admitted]
    });
    columns(&header, rows)
}

/// How long a ticket still admits a node.
fn expires(ticket: &TicketView) -> String {
    match (&ticket.state, ticket.expires_in_ms) {
        (TicketState::Open, 0) => "now".to_owned(),
        (TicketState::Open, ms) => format!("in {}", time(ms)),
        _ => NOTHING.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use blixard_model::RaftId;

    use super::*;
    use crate::sample;

    #[test]
    fn a_ticket_shows_for_whom_it_is_and_how_long_or_whom_it_admitted() {
        let used = TicketState::Used { raft_id: RaftId(4), node: "n4".parse().expect("name") };
        let named = TicketView { name: Some("n4".parse().expect("name")), ..sample::ticket(used) };
        let over = TicketView { expires_in_ms: 0, ..sample::ticket(TicketState::Open) };
        let tickets = vec![
            sample::ticket(TicketState::Open),
            over,
            named,
            sample::ticket(TicketState::Revoked),
            sample::ticket(TicketState::Expired),
        ];
        let text = list(&sample::listing(tickets));
        assert_eq!(
            text,
            "\
ID                STATE    EXPIRES    FOR NODE  ADMITTED
abababababababab  open     in 30 min  any       -
abababababababab  open     now        any       -
abababababababab  used     -          n4        n4
abababababababab  revoked  -          any       -
abababababababab  expired  -          any       -
"
        );
        assert!(list(&sample::listing(Vec::new())).starts_with("no tickets"));
    }
}
