//! `blixard node`, and `blixard cluster leave`, with which a node removes itself.

use blixard_model::api::{Accepted, Listing, NodeView};
use hyper::Method;

use crate::args::{Fate, LeaveArgs, ListArgs, NodeCommand, RemoveArgs};
use crate::failure::Failure;
use crate::session::{ANSWER_TIMEOUT, Session};
use crate::show;

/// Runs one of them.
pub(crate) async fn run(command: NodeCommand, json: bool) -> Result<(), Failure> {
    match command {
        NodeCommand::List(args) => list(args, json).await,
        NodeCommand::Remove(args) => remove(args, json).await,
    }
}

async fn list(args: ListArgs, json: bool) -> Result<(), Failure> {
    let session = Session::open(&args.ask, json, ANSWER_TIMEOUT);
    let list: Listing<NodeView> = session.read("/v1/nodes", args.fresh).await?;
    session.print_list(&list, show::node::list)
}

async fn remove(args: RemoveArgs, json: bool) -> Result<(), Failure> {
    let session = Session::open(&args.ask, json, ANSWER_TIMEOUT);
    if args.i_know_it_is_off && args.vms == Some(Fate::Keep) {
        let cause = "--i-know-it-is-off is for VMs that are forgotten, and --vms keep keeps them";
        return Err(Failure::usage(cause, "leave one of the two out"));
    }
    let fate = match args.vms {
        None => "",
        Some(Fate::Delete) if args.i_know_it_is_off => "&vms=delete",
        Some(Fate::Delete) => "&vms=retire",
        Some(Fate::Keep) => "&vms=keep",
    };
    let path = format!("/v1/nodes/{}?force={}{fate}", args.name, args.force);
    let accepted: Accepted = session.write(Method::DELETE, &path, Vec::new()).await?;
    let was = if accepted.unchanged { "had left the cluster before" } else { "is removed from the cluster" };
    session.print(&accepted, &format!("{} {was}\n", args.name))
}

/// `blixard cluster leave`.
pub(crate) async fn leave(args: LeaveArgs, json: bool) -> Result<(), Failure> {
    let session = Session::open(&args.ask, json, ANSWER_TIMEOUT);
    let accepted: Accepted = session.write(Method::POST, "/v1/cluster/leave", Vec::new()).await?;
    let node = accepted.node.as_ref().map_or_else(|| "this node".to_owned(), ToString::to_string);
    session.print(
        &accepted,
        &format!("{node} has left the cluster; `blixard status` says how to use it again\n"),
    )
}
