//! The commands about who belongs to the cluster: tickets, joining, leaving, removing.

use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

use blixard_model::api::{
    Accepted, JoinCluster, JoinTaken, Listing, NewTicket, NodePhase, StatusView, TicketMade, TicketView,
};
use blixard_model::id::RequestId;
use hyper::Method;

use super::args::{
    AskArgs, Fate, JoinArgs, LeaveArgs, ListArgs, RemoveArgs, TicketCommand, TicketCreateArgs,
    TicketRevokeArgs,
};
use super::client::{Client, Deadline, Write, json_body};
use super::failure::Failure;
use super::progress::Progress;
use super::vm::{ANSWER_TIMEOUT, random_id};
use super::{deadline_of, output, stale_query, table};
use blixard_model::words::duration;

/// Patience of a join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between two looks at a join.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Longest ticket file, in bytes.
const TICKET_LEN_MAX: u64 = 16 << 10;

/// Runs one of the commands about tickets.
pub(super) async fn ticket(command: TicketCommand) -> Result<(), Failure> {
    match command {
        TicketCommand::Create(args) => create(args).await,
        TicketCommand::List(args) => list(args).await,
        TicketCommand::Revoke(args) => revoke(args).await,
    }
}

async fn send<T: serde::de::DeserializeOwned>(
    ask: &AskArgs,
    (method, path): (Method, &str),
    body: Vec<u8>,
    patience: Duration,
) -> Result<T, Failure> {
    let client = Client::new(&ask.at.socket);
    let id: RequestId = random_id()?;
    client.write(Write { method, path, body, id: &id }, deadline_of(ask, patience)).await
}

async fn create(args: TicketCreateArgs) -> Result<(), Failure> {
    let ttl_ms = Some(u64::try_from(args.ttl.as_millis()).unwrap_or(u64::MAX));
    let body = json_body(&NewTicket { ttl_ms, name: args.name })?;
    let made: TicketMade = send(&args.ask, (Method::POST, "/v1/tickets"), body, ANSWER_TIMEOUT).await?;
    if args.ask.json {
        return output::print_json(&made);
    }
    let whom = made.name.as_ref().map_or_else(|| "one node".to_owned(), |name| format!("node {name}"));
    output::note(&format!(
        "ticket {}: admits {whom} within {}; on the new node: blixard cluster join\n",
        made.id,
        humantime::format_duration(args.ttl)
    ));
    output::print(&format!("{}\n", made.ticket))
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let client = Client::new(&args.ask.at.socket);
    let path = format!("/v1/tickets{}", stale_query(args.fresh));
    let list: Listing<TicketView> = client.get(&path, deadline_of(&args.ask, ANSWER_TIMEOUT)).await?;
    super::print_list(&list, args.ask.json, table::tickets)
}

async fn revoke(args: TicketRevokeArgs) -> Result<(), Failure> {
    let path = format!("/v1/tickets/{}", args.id);
    let accepted: Accepted = send(&args.ask, (Method::DELETE, &path), Vec::new(), ANSWER_TIMEOUT).await?;
    let text = match accepted.unchanged {
        true => format!("ticket {} had ended before\n", args.id),
        false => format!("ticket {} is revoked\n", args.id),
    };
    if args.ask.json { output::print_json(&accepted) } else { output::print(&text) }
}

/// `blixard cluster join`.
pub(super) async fn join(args: JoinArgs) -> Result<(), Failure> {
    let ticket = read_ticket(&args.ticket_file)?;
    let deadline = deadline_of(&args.ask, JOIN_TIMEOUT);
    let body = json_body(&JoinCluster { ticket })?;
    let taken: JoinTaken = send(&args.ask, (Method::POST, "/v1/cluster/join"), body, ANSWER_TIMEOUT).await?;
    if !args.wait.wanted() {
        let text = format!("ticket {} is taken; `blixard status` shows how it goes on\n", taken.id);
        return if args.ask.json { output::print_json(&taken) } else { output::print(&text) };
    }
    let view = wait_until_member(&args.ask, deadline).await?;
    let text = format!("{} is a member of {} ({})\n", view.node, view.cluster_name, taken.cluster_id);
    if args.ask.json { output::print_json(&view) } else { output::print(&text) }
}

async fn wait_until_member(ask: &AskArgs, deadline: Deadline) -> Result<StatusView, Failure> {
    let client = Client::new(&ask.at.socket);
    let mut progress = Progress::new(ask.json);
    loop {
        let view: StatusView = client.get("/v1/status", deadline).await?;
        if let Some(problem) = view.ticket_problem {
            return Err(Failure::refused(
                problem,
                "`blixard cluster ticket create` on a member makes a ticket",
            ));
        }
        match view.phase {
            NodePhase::Member => return Ok(view),
            NodePhase::Removed => return Err(Failure::refused("this node was removed", "")),
            NodePhase::Forming | NodePhase::Joining => {}
        }
        let last = view.retrying.iter().map(|retry| retry.last_error.as_str()).next();
        let waits = view.waiting_for.join("; ");
        progress.show(&match (view.phase, last) {
            (NodePhase::Joining, _) => "admitted, waiting for the state".to_owned(),
            (_, Some(last)) => format!("waiting for {waits} ({last})"),
            (_, None) => format!("waiting for {waits}"),
        });
        if deadline.left() <= 2 * LOOK_PAUSE {
            let cause = format!("not a member yet: waiting for {waits}");
            return Err(Failure::unknown(cause, "it goes on by itself; `blixard status` shows how"));
        }
        tokio::time::sleep(LOOK_PAUSE.min(deadline.left())).await;
    }
}

fn read_ticket(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::usage(format!("the ticket can not be read from {}: {error}", path.display()), "")
    };
    let mut text = String::new();
    if path.as_os_str() == "-" {
        if std::io::stdin().is_terminal() {
            output::note("paste the ticket, then press Ctrl-D on a line of its own\n");
        }
        std::io::stdin().take(TICKET_LEN_MAX).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(TICKET_LEN_MAX).read_to_string(&mut text).map_err(unreadable)?;
    }
    Ok(text.trim().to_owned())
}

/// `blixard cluster leave`.
pub(super) async fn leave(args: LeaveArgs) -> Result<(), Failure> {
    let asked = (Method::POST, "/v1/cluster/leave");
    let accepted: Accepted = send(&args.ask, asked, Vec::new(), ANSWER_TIMEOUT).await?;
    let node = accepted.node.as_ref().map(ToString::to_string).unwrap_or_default();
    let text = format!("{node} has left the cluster; `blixard status` says how to use it again\n");
    if args.ask.json { output::print_json(&accepted) } else { output::print(&text) }
}

/// `blixard node remove`.
pub(super) async fn remove(args: RemoveArgs) -> Result<(), Failure> {
    let mut path = format!("/v1/nodes/{}?force={}", args.name, args.force);
    match args.vms {
        None => {}
        Some(Fate::Delete) => path.push_str("&vms=delete"),
        Some(Fate::Keep) => path.push_str("&vms=keep"),
    }
    let accepted: Accepted = send(&args.ask, (Method::DELETE, &path), Vec::new(), ANSWER_TIMEOUT).await?;
    let was = if accepted.unchanged { "had left the cluster before" } else { "is removed from the cluster" };
    let text = format!("{} {was}\n", args.name);
    if args.ask.json { output::print_json(&accepted) } else { output::print(&text) }
}

/// How long until a ticket ends, in words.
pub(super) fn left(view: &TicketView) -> String {
    if !view.state.eq(&blixard_model::TicketState::Open) {
        return "-".to_owned();
    }
    match view.expires_in_ms {
        0 => "over".to_owned(),
        ms => format!("in {}", duration(Duration::from_millis(ms))),
    }
}
