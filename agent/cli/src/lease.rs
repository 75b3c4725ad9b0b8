//! `blixard cluster disarm`, `arm` and `lease`: when VMs are started elsewhere because their node is lost.

use std::time::Duration;

use blixard_model::api::{
    Accepted, DisarmFor, DisarmedView, ErrorKind, LeaseTermsPatch, Listing, NodeView, StatusView,
};
use blixard_model::words::duration;
use blixard_model::{LeaseTerms, LeaseTermsChoice, NodeName};
use hyper::Method;

use crate::args::{ArmArgs, DisarmArgs, FreshArgs, LeaseArgs};
use crate::client::json_body;
use crate::failure::Failure;
use crate::session::{ANSWER_TIMEOUT, Session};

/// Pause between two looks at who has acknowledged it.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// `blixard cluster disarm`: waits until each node with VMs that may be failed over has its long lease.
pub(crate) async fn disarm(args: DisarmArgs, json: bool) -> Result<(), Failure> {
    let session = Session::open(&args.ask, json, ANSWER_TIMEOUT);
    let body = json_body(&DisarmFor { for_ms: millis(args.length) })?;
    let _accepted: Accepted = session.write(Method::POST, "/v1/cluster/disarm", body).await?;
    let view = wait_until_acknowledged(&session).await?;
    let left = duration(Duration::from_millis(view.left_ms));
    let text = format!(
        "disarmed for {left}: no VM is started elsewhere because its node is lost, and all VMs run on \
         without the others; `blixard cluster arm` ends it\n"
    );
    session.print(&view, &text)
}

async fn wait_until_acknowledged(session: &Session) -> Result<DisarmedView, Failure> {
    let mut progress = session.progress();
    let mut has_applied_it = false;
    loop {
        has_applied_it = has_applied_it || is_up_to_date(session).await?;
        let disarmed = match has_applied_it {
            true => session.get::<StatusView>("/v1/status").await?.disarmed,
            false => None,
        };
        let names = match disarmed {
            Some(view) if view.waits_for.is_empty() => return Ok(view),
            Some(view) => names(&view.waits_for),
            None => "this node's log".to_owned(),
        };
        progress.show(&format!("waits for {names}"));
        if session.deadline().left() <= 2 * LOOK_PAUSE {
            let cause = format!("the cluster is disarmed, but {names} did not acknowledge it");
            let way_out = "VMs there end with the lease of their node if it is cut off now; `blixard status` \
                           shows who is waited for, `blixard cluster arm` takes it back";
            return Err(Failure::refused(cause, way_out));
        }
        tokio::time::sleep(LOOK_PAUSE.min(session.deadline().left())).await;
    }
}

/// Whether this node has applied what was committed before. It may be behind whoever took the write, and its
/// status then tells of the time before: of an earlier disarm, which all have acknowledged.
async fn is_up_to_date(session: &Session) -> Result<bool, Failure> {
    let read: Result<Listing<NodeView>, Failure> =
        session.read("/v1/nodes", FreshArgs { stale: false }).await;
    match read {
        Ok(nodes) => Ok(nodes.linearizable),
        // A new leader is being elected.
        Err(failure) if failure.kind == ErrorKind::Unavailable => Ok(false),
        Err(failure) => Err(failure),
    }
}

fn names(nodes: &[NodeName]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `blixard cluster arm`.
pub(crate) async fn arm(args: ArmArgs, json: bool) -> Result<(), Failure> {
    let session = Session::open(&args.ask, json, ANSWER_TIMEOUT);
    let accepted: Accepted = session.write(Method::POST, "/v1/cluster/arm", Vec::new()).await?;
    let text = match accepted.unchanged {
        true => "the cluster was armed before\n",
        false => {
            "armed: VMs of lost nodes are started elsewhere again, those of a node that answers about a \
             minute from now on, those of another one once its long lease is over\n"
        }
    };
    session.print(&accepted, text)
}

/// `blixard cluster lease`: shows the terms, with those that were given changed.
pub(crate) async fn run(args: LeaseArgs, json: bool) -> Result<(), Failure> {
    let session = Session::open(&args.ask, json, ANSWER_TIMEOUT);
    let status: StatusView = session.get("/v1/status").await?;
    let Some(before) = status.lease_terms else {
        let way_out = "`blixard status` says whom it waits for";
        return Err(Failure::unavailable("this node is in no cluster yet", way_out));
    };
    let (lease_ms, stop_ms) = (args.lease.map(millis), args.stop_time.map(millis));
    let patch = LeaseTermsPatch { lease_ms, stop_ms, margin_ms: args.margin.map(millis) };
    let terms = if patch == LeaseTermsPatch::default() {
        before
    } else {
        patch.applied_to(before).check().map_err(|why| Failure::usage(why.to_string(), ""))?;
        session.write(Method::PATCH, "/v1/cluster/lease", json_body(&patch)?).await?
    };
    session.print(&terms, &text(terms))
}

fn text(terms: LeaseTermsChoice) -> String {
    let seconds = |ms: u64| duration(Duration::from_millis(ms));
    let wait_ms = LeaseTerms::DEFAULT.with(Some(terms)).wait_ms();
    format!(
        "lease      {}\nstop time  {}\nmargin     {}\n\na lost node's VMs start elsewhere {} after the last \
         renewal of its lease\n",
        seconds(terms.lease_ms),
        seconds(terms.stop_ms),
        seconds(terms.margin_ms),
        seconds(wait_ms)
    )
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terms_are_told_with_what_comes_of_them() {
        assert_eq!(
            text(LeaseTerms::DEFAULT.into()),
            "lease      10 s\nstop time  5.0 s\nmargin     2.0 s\n\na lost node's VMs start elsewhere 17 s \
             after the last renewal of its lease\n"
        );
    }
}
