//! One change of a VM and the wait behind it: they share an id, a deadline and a form of output. When the
//! wait is over is decided in [`crate::wait`].

use std::ffi::OsString;
use std::time::Duration;

use blixard_model::api::{Accepted, ErrorKind, VmView};
use blixard_model::id::{RequestId, VmName};
use hyper::Method;
use tokio::time::Instant;

use crate::args::WriteArgs;
use crate::client::{Cut, WriteCall, bounded};
use crate::failure::Failure;
use crate::session::{ANSWER_TIMEOUT, Session, random_id};
use crate::text::retry_command;
use crate::wait::{Wait, WaitVerdict};

/// Patience of a command that waits for a VM.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);
/// Shortest and longest pause between two looks at a VM.
const LOOK_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

/// The path of a VM in the local API. A name holds nothing that a path would have to escape.
pub(crate) fn vm_path(name: &VmName) -> String {
    format!("/v1/vms/{name}")
}

/// ` on NODE`, where the node is known.
pub(crate) fn placed(accepted: &Accepted) -> String {
    accepted.node.as_ref().map_or_else(String::new, |node| format!(" on {node}"))
}

/// One change of a VM.
#[derive(Debug)]
pub(crate) struct VmWrite {
    session: Session,
    began: Instant,
    id: RequestId,
}

impl VmWrite {
    /// Begins now. Nothing is sent yet.
    ///
    /// # Errors
    /// The system has no random bits for an id.
    pub(crate) fn new(args: WriteArgs, json: bool, waits: bool) -> Result<Self, Failure> {
        let patience = if waits { WAIT_TIMEOUT } else { ANSWER_TIMEOUT };
        Ok(Self {
            session: Session::open(&args.ask, json, patience),
            began: Instant::now(),
            id: args.request_id.map_or_else(random_id, Ok)?,
        })
    }

    /// Sends it.
    ///
    /// # Errors
    /// As [`crate::client::Client::write`], with the id and the command that repeats it safely.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Accepted, Failure> {
        let write = WriteCall { method, path, body, id: &self.id };
        let patience = self.session.deadline().within(ANSWER_TIMEOUT);
        self.session.client().write(write, patience).await.map_err(|failure| self.with_retry(failure))
    }

    /// Adds how to send the write again safely to a failure that leaves open whether it was done.
    fn with_retry(&self, mut failure: Failure) -> Failure {
        failure.request_id.get_or_insert_with(|| self.id.clone());
        if failure.kind == ErrorKind::Unknown {
            let typed: Vec<OsString> = std::env::args_os().collect();
            let retry = retry_command(&typed, self.id.as_str());
            failure.way_out = format!("it is applied at most once; to make sure of it, repeat: {retry}");
        }
        failure
    }

    /// The VM as it is now; `None` if there is none.
    ///
    /// # Errors
    /// As [`crate::client::Client::find`].
    pub(crate) async fn look(&self, name: &VmName) -> Result<Option<VmView>, Failure> {
        self.session.client().find(&vm_path(name), self.session.deadline()).await
    }

    /// Looks until the wait is over; returns how long the command took so far.
    ///
    /// # Errors
    /// It failed, somebody else changed the VM, or it was not over in time. The write itself is accepted.
    pub(crate) async fn wait(
        &self,
        name: &VmName,
        mut wait: Wait,
        accepted: &Accepted,
    ) -> Result<Duration, Failure> {
        let deadline = self.session.deadline();
        let mut progress = self.session.progress();
        let mut last = format!("{name}: accepted{}", placed(accepted));
        let (mut pause, longest) = LOOK_PAUSES;
        loop {
            progress.show(&last);
            match bounded(deadline, self.look(name)).await {
                Err(cut) => return Err(self.wait_cut(cut, &last)),
                Ok(Ok(seen)) => {
                    match wait.judge(seen.as_ref(), self.began.elapsed()) {
                        WaitVerdict::Continue => {}
                        WaitVerdict::Reached => return Ok(self.began.elapsed()),
                        WaitVerdict::Overtaken(why) => return Err(self.accepted_but(overtaken(name, &why))),
                        WaitVerdict::Failed(reason) => {
                            return Err(self.accepted_but(failed(name, seen.as_ref(), &reason)));
                        }
                    }
                    last = seen.as_ref().map_or(last, describe);
                }
                // A new leader is being elected or the agent restarts: it may come back before the deadline.
                Ok(Err(failure)) if failure.kind == ErrorKind::Unavailable => {
                    last = format!("{name}: not known: {}", failure.cause);
                }
                Ok(Err(failure)) => return Err(self.accepted_but(failure)),
            }
            if let Err(cut) = bounded(deadline, tokio::time::sleep(pause)).await {
                return Err(self.wait_cut(cut, &last));
            }
            pause = (pause * 5 / 4).min(longest);
        }
    }

    fn wait_cut(&self, cut: Cut, last: &str) -> Failure {
        let cause = match cut {
            Cut::Deadline => "accepted, but not done in time",
            Cut::Interrupt => "accepted, but the wait was interrupted",
        };
        let way_out = "the cluster goes on with it: `blixard vm list` shows how far it is";
        self.accepted_but(Failure::unknown(format!("{cause} (last seen: {last})"), way_out))
    }

    fn accepted_but(&self, mut failure: Failure) -> Failure {
        failure.request_id.get_or_insert_with(|| self.id.clone());
        failure
    }

    /// Prints how it ended well.
    ///
    /// # Errors
    /// As [`Session::print`].
    pub(crate) fn finish(&self, accepted: &Accepted, text: &str) -> Result<(), Failure> {
        self.session.print(accepted, &format!("{text}\n"))
    }
}

fn overtaken(name: &VmName, why: &str) -> Failure {
    Failure::refused(format!("VM {name}: {why}"), format!("`blixard vm show {name}` shows how it is now"))
}

/// The files of a VM are those of its node, which the user may not have chosen: it is named.
fn failed(name: &VmName, seen: Option<&VmView>, reason: &str) -> Failure {
    let reason = reason.trim_end();
    let show =
        format!("`blixard vm logs {name}` shows its console, `blixard vm show {name}` everything else");
    let Some(VmView { node, spec, .. }) = seen else {
        return Failure::refused(format!("VM {name} failed: {reason}"), show);
    };
    let way_out = match &spec.node {
        Some(_) => show,
        None => format!(
            "{show}; its kernel, initrd and disks have to be on {node}, where the cluster placed it: to \
             choose the node, delete the VM and run it again with --node"
        ),
    };
    Failure::refused(format!("VM {name} failed on {node}: {reason}"), way_out)
}

/// The line of a wait: name, node, state and reason.
fn describe(view: &VmView) -> String {
    let VmView { name, node, state, .. } = view;
    match view.reason.as_deref().and_then(|reason| reason.lines().next()) {
        Some(reason) => format!("{name} on {node}: {state}: {reason}"),
        None => format!("{name} on {node}: {state}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_wait_says_where_and_why() {
        let mut view = sample::vm("web");
        assert_eq!(describe(&view), "web on n1: running");
        view.reason = Some("first\nsecond".into());
        assert_eq!(describe(&view), "web on n1: running: first");
    }

    #[test]
    fn a_failure_names_the_node_and_how_to_choose_another() {
        let mut view = sample::vm("web");
        let failure = failed(&view.name, Some(&view), "kernel \"/k\": is not there\n");
        assert_eq!(failure.cause, "VM web failed on n1: kernel \"/k\": is not there");
        assert!(failure.way_out.contains("have to be on n1") && failure.way_out.contains("--node"));
        view.spec.node = Some("n1".parse().expect("name"));
        let pinned = failed(&view.name, Some(&view), "exited 1");
        assert!(!pinned.way_out.contains("--node"), "it was chosen: {pinned:?}");
    }
}
