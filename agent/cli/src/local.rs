//! `blixard local`: asks this node's agent, and where that does not answer systemd itself.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use blixard_model::api::ErrorKind;
use blixard_model::id::VmName;
use blixard_model::local::{LocalListing, LocalSource, LocalStop};
use blixard_model::report::ObservedState;
use blixard_model::words::duration;
use hyper::Method;
use tokio::time::Instant;

use crate::args::{LocalCommand, LocalListArgs, LocalStopArgs};
use crate::client::{Cut, WriteCall, bounded};
use crate::failure::Failure;
use crate::output;
use crate::session::{ANSWER_TIMEOUT, Session, random_id};
use crate::show;

/// An agent that has not answered for so long does not answer.
const AGENT_PATIENCE: Duration = Duration::from_secs(5);
/// Patience of a stop: the guest gets 30 s for its shutdown.
const STOP_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between two looks at a VM.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// How long the cluster may take to learn of a stop, before it is said that it does not know.
const KNOWN_PATIENCE: Duration = Duration::from_secs(2);
const NOT_IN_TIME: &str = "not done in time";
const INTERRUPTED: &str = "interrupted: it may be done all the same";
const LIST_PATH: &str = "/v1/local/vms";

/// What comes of work beside the agent.
pub type LocalWork<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + 'a>>;

/// This machine's units without its agent: systemd is asked by crates that the command line does not link,
/// and the binary hands in an implementation. `config` is the node's configuration.
pub trait LocalUnits {
    /// The VMs that systemd knows.
    fn list<'a>(&'a self, config: &'a Path) -> LocalWork<'a, LocalListing>;

    /// Stops a VM, and keeps that it is to stay so. Returns once its unit has ended.
    fn stop<'a>(&'a self, config: &'a Path, name: &'a VmName) -> LocalWork<'a, LocalStop>;
}

/// Runs one of them.
pub(crate) async fn run(command: LocalCommand, json: bool, units: &dyn LocalUnits) -> Result<(), Failure> {
    match command {
        LocalCommand::List(args) => Box::pin(list(args, json, units)).await,
        LocalCommand::Stop(args) => Box::pin(stop(args, json, units)).await,
    }
}

async fn list(args: LocalListArgs, json: bool, units: &dyn LocalUnits) -> Result<(), Failure> {
    let session = Session::open(&args.ask, json, ANSWER_TIMEOUT);
    let listing = match within(&session, Box::pin(ask(&session))).await {
        Err(failure) if is_away(&failure) => {
            say_away(&failure);
            within(&session, units.list(&args.config.config)).await?
        }
        answered => answered?,
    };
    if let Some(problem) = &listing.problem {
        output::note(&format!("note: {problem}\n"));
    }
    session.print(&listing, &show::local::list(&listing))
}

async fn ask(session: &Session) -> Result<LocalListing, Failure> {
    session.client().get(LIST_PATH, session.deadline().within(AGENT_PATIENCE)).await
}

async fn stop(args: LocalStopArgs, json: bool, units: &dyn LocalUnits) -> Result<(), Failure> {
    let (name, began) = (&args.name, Instant::now());
    let session = Session::open(&args.ask, json, STOP_TIMEOUT);
    let stopped = match within(&session, Box::pin(by_agent(&session, name))).await {
        // It may have begun, or end while it does: said to both, it is done once.
        Err(failure) if is_away(&failure) => {
            say_away(&failure);
            within(&session, units.stop(&args.config.config, name)).await?
        }
        answered => answered?,
    };
    session.print(&stopped, &said(&stopped, began.elapsed()))
}

/// What is said of a stop of which the cluster does not know.
const MOVES: &str = ". The cluster does not know of it yet: if this node is lost before it does, another one \
                     starts the VM";

fn said(stopped: &LocalStop, took: Duration) -> String {
    let LocalStop { name, source, may_start_elsewhere } = stopped;
    let knows = match source {
        LocalSource::Agent => "",
        LocalSource::Systemd => "; the agent tells the cluster once it runs and there is a quorum",
    };
    let elsewhere = if *may_start_elsewhere { MOVES } else { "" };
    let took = duration(took);
    format!("{name} is stopped ({took}) and stays so until `blixard vm start {name}`{knows}{elsewhere}\n")
}

/// Has the agent stop it, and waits until no unit of it runs, and a moment longer for the cluster to learn of
/// it where it may start it elsewhere.
async fn by_agent(session: &Session, name: &VmName) -> Result<LocalStop, Failure> {
    let path = format!("{LIST_PATH}/{name}/stop");
    let id = random_id()?;
    let call = WriteCall { method: Method::POST, path: &path, body: Vec::new(), id: &id };
    let taken: LocalStop = session.client().write(call, session.deadline().within(AGENT_PATIENCE)).await?;
    let (taken_at, mut progress) = (Instant::now(), session.progress());
    let mut over_at = None;
    loop {
        let listing = ask(session).await?;
        let seen = listing.items.iter().find(|vm| vm.name == *name);
        let state = seen.map_or(ObservedState::Stopped, |vm| vm.state);
        // A look from before does not show a start that was under way then.
        let is_new = Duration::from_millis(listing.age_ms) <= taken_at.elapsed();
        if is_new && is_over(state) {
            // The log knows of it by then.
            let is_known = !seen.is_some_and(|vm| vm.stopped_by_hand);
            let over_at = *over_at.get_or_insert_with(Instant::now);
            if is_known || !taken.may_start_elsewhere || over_at.elapsed() >= KNOWN_PATIENCE {
                let may_start_elsewhere = taken.may_start_elsewhere && !is_known;
                return Ok(LocalStop { may_start_elsewhere, ..taken });
            }
        }
        progress.show(&format!("{name}: {state}"));
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

fn is_over(state: ObservedState) -> bool {
    matches!(state, ObservedState::Stopped | ObservedState::Failed)
}

/// Whether the agent did not say anything that counts: it does not run, hangs, or is no member. What the user
/// or the deadline ended is over.
fn is_away(failure: &Failure) -> bool {
    let is_over = [NOT_IN_TIME, INTERRUPTED].contains(&failure.cause.as_str());
    matches!(failure.kind, ErrorKind::Unavailable | ErrorKind::Unknown) && !is_over
}

fn say_away(failure: &Failure) {
    output::note(&format!("the agent does not answer ({}): systemd itself is asked\n", failure.cause));
}

async fn within<T>(session: &Session, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    bounded(session.deadline(), work).await.unwrap_or_else(|cut| {
        let how = match cut {
            Cut::Deadline => NOT_IN_TIME,
            Cut::Interrupt => INTERRUPTED,
        };
        Err(Failure::unknown(how, "`blixard local list` shows how far it is"))
    })
}
