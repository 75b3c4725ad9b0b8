//! `blixard cluster ticket`: making, listing and revoking tickets.

use blixard_model::api::{Accepted, Listing, NewTicket, TicketMade, TicketView};
use hyper::Method;

use crate::args::{ListArgs, TicketCommand, TicketCreateArgs, TicketRevokeArgs};
use crate::client::json_body;
use crate::failure::Failure;
use crate::session::{ANSWER_TIMEOUT, Session};
use crate::{output, show};

/// Runs one of them.
pub(crate) async fn run(command: TicketCommand, json: bool) -> Result<(), Failure> {
    match command {
        TicketCommand::Create(args) => create(args, json).await,
        TicketCommand::List(args) => list(args, json).await,
        TicketCommand::Revoke(args) => revoke(args, json).await,
    }
}

async fn create(args: TicketCreateArgs, json: bool) -> Result<(), Failure> {
    let session = Session::open(&args.ask, json, ANSWER_TIMEOUT);
    let ttl_ms = Some(u64::try_from(args.ttl.as_millis()).unwrap_or(u64::MAX));
    let body = json_body(&NewTicket { ttl_ms, name: args.name })?;
    let made: TicketMade = session.write(Method::POST, "/v1/tickets", body).await?;
    if !json {
        let whom = made.name.as_ref().map_or_else(|| "one node".to_owned(), |name| format!("node {name}"));
        output::note(&format!(
            "ticket {}: admits {whom} within {}; on the new node: blixard cluster join\n",
            made.id,
            humantime::format_duration(args.ttl)
        ));
    }
    session.print(&made, &format!("{}\n", made.ticket))
}

async fn list(args: ListArgs, json: bool) -> Result<(), Failure> {
    let session = Session::open(&args.ask, json, ANSWER_TIMEOUT);
    let list: Listing<TicketView> = session.read("/v1/tickets", args.fresh).await?;
    session.print_list(&list, show::ticket::list)
}

async fn revoke(args: TicketRevokeArgs, json: bool) -> Result<(), Failure> {
    let session = Session::open(&args.ask, json, ANSWER_TIMEOUT);
    let path = format!("/v1/tickets/{}", args.id);
    let accepted: Accepted = session.write(Method::DELETE, &path, Vec::new()).await?;
    let text = match accepted.unchanged {
        true => {
            format!("ticket {} was of no use any more: it has been used, revoked or has expired\n", args.id)
        }
        false => format!("ticket {} is revoked\n", args.id),
    };
    session.print(&accepted, &text)
}
