//! The commands about VMs: send, and wait where that is wanted. The decision when a wait is over is in
//! [`super::wait`].

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use blixard_model::api::{Accepted, CreateVm, ErrorKind, Listing, VmView};
use blixard_model::id::{RequestId, VmName};
use blixard_model::words::duration;
use hyper::Method;
use tokio::time::Instant;

use super::args::{
    ChangeArgs, CreateArgs, ListArgs, LogsArgs, RunArgs, ShowArgs, SpecArgs, VmCommand, WriteArgs,
};
use super::client::{Client, Cut, Deadline, Write, bounded, interrupt, json_body};
use super::failure::Failure;
use super::output::{self, Written};
use super::progress::Progress;
use super::spec::spec_of;
use super::text::{ConsoleFilter, retry_command};
use super::wait::{Goal, Verdict, Wait};
use super::{deadline_of, stale_query, table};

/// Patience of a command that does not wait for a VM.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Patience of a command that waits for a VM.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);
/// Shortest and longest pause between two looks at a VM.
const LOOK_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));
/// Longest spec file, in bytes.
const SPEC_LEN_MAX: u64 = 1 << 20;

/// Runs one of them.
pub(crate) async fn run(command: VmCommand) -> Result<(), Failure> {
    match command {
        VmCommand::Create(args) => create(args).await,
        VmCommand::Run(args) => run_vm(args).await,
        VmCommand::List(args) => list(args).await,
        VmCommand::Show(args) => show(args).await,
        VmCommand::Start(args) => change(args, Change::Start).await,
        VmCommand::Stop(args) => change(args, Change::Stop).await,
        VmCommand::Delete(args) => change(args, Change::Delete).await,
        VmCommand::Logs(args) => logs(args).await,
    }
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let client = Client::new(&args.ask.at.socket);
    let path = format!("/v1/vms{}", stale_query(args.fresh));
    let list: Listing<VmView> = client.get(&path, deadline_of(&args.ask, ANSWER_TIMEOUT)).await?;
    super::print_list(&list, args.ask.json, table::vm_list)
}

async fn show(args: ShowArgs) -> Result<(), Failure> {
    let client = Client::new(&args.ask.at.socket);
    let path = format!("{}{}", vm_path(&args.name), stale_query(args.fresh));
    let view: VmView = client.get(&path, deadline_of(&args.ask, ANSWER_TIMEOUT)).await?;
    if args.fresh.stale {
        output::note("stale: what this node knows; no quorum was asked\n");
    }
    if args.ask.json { output::print_json(&view) } else { output::print(&table::vm(&view)) }
}

async fn logs(args: LogsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.at.socket);
    let mut path = format!("{}/logs?follow={}", vm_path(&args.name), args.follow);
    if let Some(lines) = args.lines {
        path.push_str(&format!("&lines={lines}"));
    }
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let mut filter = ConsoleFilter::default();
    let take = |piece: &[u8]| {
        let mut out = std::io::stdout().lock();
        let written = if terminal {
            output::write(&mut out, filter.push(piece).as_bytes())?
        } else {
            output::write(&mut out, piece)?
        };
        Ok(written == Written::All)
    };
    let timeout = args.timeout.map_or(ANSWER_TIMEOUT, |seconds| Duration::from_secs(seconds.into()));
    let deadline = Deadline::after(timeout);
    let stream = client.stream(&path, deadline, take);
    if args.follow {
        return tokio::select! {
            biased;
            () = interrupt() => Ok(()),
            end = stream => end,
        };
    }
    match bounded(deadline, stream).await {
        Ok(end) => end,
        Err(Cut::Interrupt) => Ok(()),
        Err(Cut::Deadline) => {
            let cause = format!("the log did not end within {} s", timeout.as_secs());
            Err(Failure::unavailable(cause, "--lines N asks for less of it, --timeout gives it longer"))
        }
    }
}

async fn create(args: CreateArgs) -> Result<(), Failure> {
    let write = WriteSession::new(args.write, false)?;
    let spec = read_spec(&args.spec)?;
    let name = spec.name.clone();
    let body = json_body(&CreateVm { spec, start: false })?;
    let accepted = write.send(Method::POST, "/v1/vms", body).await?;
    let node = placed(&accepted);
    let done = if accepted.unchanged { "was created before" } else { "is created" };
    write.finish(&accepted, &format!("{name} {done}{node}; `blixard vm start {name}` starts it"))
}

async fn run_vm(args: RunArgs) -> Result<(), Failure> {
    let wait = args.wait.wanted();
    let write = WriteSession::new(args.write, wait)?;
    let spec = read_spec(&args.spec)?;
    let name = spec.name.clone();
    let body = json_body(&CreateVm { spec, start: true })?;
    let accepted = write.send(Method::POST, "/v1/vms", body).await?;
    if !wait {
        return write.finish(&accepted, &format!("{name} is created{} and will start", placed(&accepted)));
    }
    let took = write.wait(&name, Wait::new(Goal::Running, None), &accepted).await?;
    write.finish(&accepted, &format!("{name} is running{} ({})", placed(&accepted), duration(took)))
}

/// A change of a VM that exists.
#[derive(Debug, Clone, Copy)]
enum Change {
    Start,
    Stop,
    Delete,
}

impl Change {
    /// Method, last part of the path, what is waited for, what is so then, what will be so.
    fn facts(self) -> (Method, &'static str, Goal, &'static str, &'static str) {
        match self {
            Self::Start => (Method::POST, "/start", Goal::Running, "is running", "will start"),
            Self::Stop => (Method::POST, "/stop", Goal::Stopped, "is stopped", "will stop"),
            Self::Delete => (Method::DELETE, "", Goal::Gone, "is deleted", "will be deleted"),
        }
    }
}

async fn change(args: ChangeArgs, change: Change) -> Result<(), Failure> {
    let (method, verb, goal, done, coming) = change.facts();
    let wait = args.wait.wanted();
    let name = &args.name;
    let write = WriteSession::new(args.write, wait)?;
    // What was so before tells an old failure from one of this request. A deletion has no use for it.
    let before = if wait && goal != Goal::Gone { write.look(name).await? } else { None };
    let accepted = write.send(method, &format!("{}{verb}", vm_path(name)), Vec::new()).await?;
    if !wait {
        return write.finish(&accepted, &format!("{name} {coming}{}", placed(&accepted)));
    }
    let took = write.wait(name, Wait::new(goal, before.as_ref()), &accepted).await?;
    let node = if goal == Goal::Gone { String::new() } else { placed(&accepted) };
    write.finish(&accepted, &format!("{name} {done}{node} ({})", duration(took)))
}

fn vm_path(name: &VmName) -> String {
    // A name holds nothing that a path would have to escape.
    format!("/v1/vms/{name}")
}

fn placed(accepted: &Accepted) -> String {
    accepted.node.as_ref().map_or_else(String::new, |node| format!(" on {node}"))
}

fn read_spec(args: &SpecArgs) -> Result<blixard_model::VmSpec, Failure> {
    let text = args.file.as_deref().map(read_file).transpose()?;
    spec_of(args, text.as_deref())
}

fn read_file(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::usage(format!("the spec file {} can not be read: {error}", path.display()), "")
    };
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(unreadable)?)
    };
    let mut text = String::new();
    source.take(SPEC_LEN_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > SPEC_LEN_MAX {
        return Err(Failure::usage(format!("the spec file is longer than {SPEC_LEN_MAX} bytes"), ""));
    }
    Ok(text)
}

/// One write and the wait behind it: they share id, deadline and form of output.
#[derive(Debug)]
struct WriteSession {
    client: Client,
    deadline: Deadline,
    began: Instant,
    id: RequestId,
    json: bool,
}

impl WriteSession {
    fn new(args: WriteArgs, wait: bool) -> Result<Self, Failure> {
        let timeout = if wait { WAIT_TIMEOUT } else { ANSWER_TIMEOUT };
        Ok(Self {
            client: Client::new(&args.ask.at.socket),
            deadline: deadline_of(&args.ask, timeout),
            began: Instant::now(),
            id: args.request_id.map_or_else(random_id, Ok)?,
            json: args.ask.json,
        })
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Accepted, Failure> {
        let write = Write { method, path, body, id: &self.id };
        let patience = self.deadline.within(ANSWER_TIMEOUT);
        self.client.write(write, patience).await.map_err(|failure| self.with_retry(failure))
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

    /// The VM as it is now; `None` when there is none.
    async fn look(&self, name: &VmName) -> Result<Option<VmView>, Failure> {
        self.client.find(&vm_path(name), self.deadline).await
    }

    /// Looks until the wait is over; how long the command took so far.
    async fn wait(&self, name: &VmName, mut wait: Wait, accepted: &Accepted) -> Result<Duration, Failure> {
        let mut progress = Progress::new(self.json);
        let mut last = format!("{name}: accepted{}", placed(accepted));
        let (mut pause, longest) = LOOK_PAUSES;
        loop {
            progress.show(&last);
            match bounded(self.deadline, self.look(name)).await {
                Err(cut) => return Err(self.wait_cut(cut, &last)),
                Ok(Ok(seen)) => {
                    match wait.judge(seen.as_ref(), self.began.elapsed()) {
                        Verdict::Continue => {}
                        Verdict::Reached => return Ok(self.began.elapsed()),
                        end => return Err(self.wait_failed(name, end)),
                    }
                    last = seen.as_ref().map_or(last, describe);
                }
                // A new leader is being elected or the agent restarts: it may come back before the deadline.
                Ok(Err(failure)) if failure.kind == ErrorKind::Unavailable => {
                    last = format!("{name}: not known: {}", failure.cause);
                }
                Ok(Err(failure)) => return Err(self.accepted_but(failure)),
            }
            if let Err(cut) = bounded(self.deadline, tokio::time::sleep(pause)).await {
                return Err(self.wait_cut(cut, &last));
            }
            pause = (pause * 5 / 4).min(longest);
        }
    }

    fn wait_cut(&self, cut: Cut, last: &str) -> Failure {
        let cause = match cut {
            Cut::Deadline => "accepted, but not so in time",
            Cut::Interrupt => "accepted, but the wait was interrupted",
        };
        let way_out = "the cluster goes on with it: `blixard vm list` shows how far it is";
        self.accepted_but(Failure::unknown(format!("{cause} (last seen: {last})"), way_out))
    }

    fn wait_failed(&self, name: &VmName, end: Verdict) -> Failure {
        self.accepted_but(match end {
            Verdict::Overtaken(why) => {
                Failure::refused(format!("VM {name}: {why}"), format!("`blixard vm show {name}` says more"))
            }
            Verdict::Failed(reason) => {
                let way_out =
                    format!("`blixard vm logs {name}` shows its console, `blixard vm show {name}` the rest");
                Failure::refused(format!("VM {name} failed: {}", reason.trim_end()), way_out)
            }
            Verdict::Continue | Verdict::Reached => Failure::unknown(format!("VM {name}: still waiting"), ""),
        })
    }

    fn accepted_but(&self, mut failure: Failure) -> Failure {
        failure.request_id.get_or_insert_with(|| self.id.clone());
        failure
    }

    fn finish(&self, accepted: &Accepted, text: &str) -> Result<(), Failure> {
        if self.json { output::print_json(accepted) } else { output::print(&format!("{text}\n")) }
    }
}

/// The line of a wait: name, node, state and reason.
fn describe(view: &VmView) -> String {
    let VmView { name, node, state, .. } = view;
    match view.reason.as_deref().and_then(|reason| reason.lines().next()) {
        Some(reason) => format!("{name} on {node}: {state}: {reason}"),
        None => format!("{name} on {node}: {state}"),
    }
}

/// 128 random bits, so that no two requests share an id.
pub(crate) fn random_id() -> Result<RequestId, Failure> {
    let failure = |why: String| {
        Failure::unavailable(format!("no request id could be made: {why}"), "give --request-id")
    };
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| failure(error.to_string()))?;
    format!("{:032x}", u128::from_be_bytes(bytes))
        .parse()
        .map_err(|error: blixard_model::InvalidId| failure(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn random_ids_are_valid_and_differ() {
        assert_ne!(random_id().expect("id"), random_id().expect("id"));
    }

    #[test]
    fn a_wait_says_where_and_why() {
        let mut view = sample::vm("web");
        assert_eq!(describe(&view), "web on n1: running");
        view.reason = Some("first\nsecond".into());
        assert_eq!(describe(&view), "web on n1: running: first");
    }
}
