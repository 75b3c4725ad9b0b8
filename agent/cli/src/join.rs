//! `blixard cluster join`: hands the ticket to this node's agent, and waits until the node is a member.

use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

use blixard_model::api::{JoinCluster, JoinTaken, NodePhase, RetryKind, StatusView};
use hyper::Method;

use crate::args::JoinArgs;
use crate::client::json_body;
use crate::failure::Failure;
use crate::output;
use crate::session::Session;

/// Patience of a join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between two looks at a join.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Longest ticket file, in bytes.
const TICKET_LEN_MAX: u64 = 16 << 10;

/// Runs it.
pub(crate) async fn run(args: JoinArgs, json: bool) -> Result<(), Failure> {
    let ticket = read_ticket(&args.ticket_file)?;
    let session = Session::open(&args.ask, json, JOIN_TIMEOUT);
    let body = json_body(&JoinCluster { ticket })?;
    let taken: JoinTaken = session.write(Method::POST, "/v1/cluster/join", body).await?;
    if !args.wait.wanted() {
        let text = format!("ticket {} is taken; `blixard status` shows how it goes on\n", taken.id);
        return session.print(&taken, &text);
    }
    let view = wait_until_member(&session).await?;
    let text = format!("{} is a member of {} ({})\n", view.node, view.cluster_name, taken.cluster_id);
    session.print(&view, &text)
}

async fn wait_until_member(session: &Session) -> Result<StatusView, Failure> {
    let mut progress = session.progress();
    loop {
        let view: StatusView = session.get("/v1/status").await?;
        let waits = match judge(&view)? {
            Progressed::Member => return Ok(view),
            Progressed::Waits(waits) => waits,
        };
        progress.show(&waits);
        if session.deadline().left() <= 2 * LOOK_PAUSE {
            let way_out = "the agent goes on trying, `blixard status` shows how far it is; if the ticket was \
                           used, revoked or has expired, make another one on a member: `blixard cluster \
                           ticket create`";
            return Err(Failure::unknown(format!("not a member yet: {waits}"), way_out));
        }
        tokio::time::sleep(LOOK_PAUSE.min(session.deadline().left())).await;
    }
}

/// How far a join is.
#[derive(Debug, PartialEq, Eq)]
enum Progressed {
    /// This node is a member.
    Member,
    /// What it waits for, in words.
    Waits(String),
}

/// Judges one look at the node.
///
/// # Errors
/// Waiting does not help: the ticket is of no use, or the node was removed.
fn judge(view: &StatusView) -> Result<Progressed, Failure> {
    if let Some(problem) = &view.ticket_problem {
        let way_out = "`blixard cluster ticket create` on a member makes a ticket";
        return Err(Failure::refused(format!("this node was not admitted: {problem}"), way_out));
    }
    Ok(match view.phase {
        NodePhase::Member => Progressed::Member,
        NodePhase::Removed => {
            let cause = "this node was removed from its cluster";
            return Err(Failure::refused(cause, "`blixard status` says how to use it again"));
        }
        NodePhase::Joining => Progressed::Waits("admitted, waiting for the cluster's state".to_owned()),
        NodePhase::Forming => {
            let waits = format!("waiting for {}", view.waiting_for.join("; "));
            Progressed::Waits(match what_hinders(view) {
                Some(why) => format!("{waits} ({why})"),
                None => waits,
            })
        }
    })
}

/// Why the last attempt to join failed. Whatever else fails beside it, as the forming of a cluster by a node
/// that joins one, is no reason.
fn what_hinders(view: &StatusView) -> Option<&str> {
    let last = |kind| view.retrying.iter().find(|retry| retry.what == kind);
    let retry = last(RetryKind::Transport).or_else(|| last(RetryKind::Join))?;
    Some(&retry.last_error)
}

fn read_ticket(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::usage(format!("the ticket cannot be read from {}: {error}", path.display()), "")
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
    let text = text.trim();
    if text.is_empty() {
        let way_out = "`blixard cluster ticket create` on a member prints one";
        return Err(Failure::usage(format!("there is no ticket in {}", name_of(path)), way_out));
    }
    Ok(text.to_owned())
}

fn name_of(path: &Path) -> String {
    if path.as_os_str() == "-" { "stdin".to_owned() } else { path.display().to_string() }
}

#[cfg(test)]
mod tests {
    use blixard_model::api::{ErrorKind, RetryView};

    use super::*;
    use crate::sample;

    fn forming(retrying: Vec<RetryView>, ticket_problem: Option<&str>) -> StatusView {
        StatusView {
            phase: NodePhase::Forming,
            waiting_for: vec!["a member of cluster 00112233 to let this node in".to_owned()],
            retrying,
            ticket_problem: ticket_problem.map(str::to_owned),
            ..sample::status()
        }
    }

    fn retry(what: RetryKind, last_error: &str) -> RetryView {
        RetryView {
            what,
            peer: None,
            failures: 3,
            next_try_in_ms: Some(100),
            last_error: last_error.to_owned(),
            failing_for_ms: Some(900),
        }
    }

    #[test]
    fn a_ticket_of_no_use_ends_the_wait_with_the_reason() {
        let view = forming(vec![retry(RetryKind::Form, "?")], Some("the ticket was revoked"));
        let failure = judge(&view).expect_err("of no use");
        assert_eq!(failure.kind, ErrorKind::Refused);
        assert!(failure.cause.ends_with("the ticket was revoked"), "{failure:?}");
        assert!(failure.way_out.contains("blixard cluster ticket create"), "{failure:?}");
    }

    #[test]
    fn the_reason_shown_is_the_one_that_hinders_the_join() {
        let waits = |retrying| match judge(&forming(retrying, None)).expect("waits") {
            Progressed::Waits(text) => text,
            Progressed::Member => "member".to_owned(),
        };
        let form = retry(RetryKind::Form, "n2 has not answered");
        let join = retry(RetryKind::Join, "that node lets nobody in");
        let transport = retry(RetryKind::Transport, "the port is taken");
        let plain = "waiting for a member of cluster 00112233 to let this node in";
        assert_eq!(waits(vec![]), plain);
        assert_eq!(waits(vec![form.clone()]), plain);
        assert_eq!(waits(vec![form.clone(), join.clone()]), format!("{plain} (that node lets nobody in)"));
        assert_eq!(waits(vec![form, join, transport]), format!("{plain} (the port is taken)"));
    }

    #[test]
    fn a_node_that_is_removed_meanwhile_does_not_wait_for_ever() {
        let at = |phase| judge(&StatusView { phase, ..sample::status() });
        assert_eq!(at(NodePhase::Member), Ok(Progressed::Member));
        assert!(matches!(at(NodePhase::Joining), Ok(Progressed::Waits(_))));
        assert!(at(NodePhase::Removed).is_err());
    }
}
