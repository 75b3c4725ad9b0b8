//! The commands about VMs: what each sends, and what it prints.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blixard_model::api::{ChangeVm, CreateVm, Listing, VmView};
use blixard_model::words::duration;
use blixard_model::{Desired, Refusal, VmSpec};
use hyper::Method;

use crate::args::{
    ChangeArgs, CreateArgs, ListArgs, LogsArgs, RunArgs, SetArgs, ShowArgs, SpecArgs, VmCommand,
};
use crate::client::{Client, Cut, Deadline, bounded, interrupt, json_body};
use crate::failure::Failure;
use crate::output::{self, Printed};
use crate::session::{ANSWER_TIMEOUT, Session};
use crate::show;
use crate::spec::spec_of;
use crate::text::ConsoleFilter;
use crate::wait::{Goal, Wait};
use crate::write::{VmWrite, placed, vm_path};

/// Longest spec file, in bytes.
const SPEC_LEN_MAX: u64 = 1 << 20;

/// Runs one of them.
pub(crate) async fn run(command: VmCommand, json: bool) -> Result<(), Failure> {
    match command {
        VmCommand::Create(args) => create(args, json).await,
        VmCommand::Run(args) => run_vm(args, json).await,
        VmCommand::List(args) => list(args, json).await,
        VmCommand::Show(args) => show(args, json).await,
        VmCommand::Set(args) => set(args, json).await,
        VmCommand::Start(args) => change(args, json, Change::Start).await,
        VmCommand::Stop(args) => change(args, json, Change::Stop).await,
        VmCommand::Delete(args) => change(args, json, Change::Delete).await,
        VmCommand::Logs(args) => logs(args).await,
    }
}

async fn list(args: ListArgs, json: bool) -> Result<(), Failure> {
    let session = Session::open(&args.ask, json, ANSWER_TIMEOUT);
    let list: Listing<VmView> = session.read("/v1/vms", args.fresh).await?;
    session.print_list(&list, show::vm::list)
}

async fn show(args: ShowArgs, json: bool) -> Result<(), Failure> {
    let session = Session::open(&args.ask, json, ANSWER_TIMEOUT);
    let view: VmView = session.read(&vm_path(&args.name), args.fresh).await?;
    if args.fresh.stale {
        output::note("stale: what this node knows; no quorum was asked\n");
    }
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_unix_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    session.print(&view, &show::vm::one(&view, now_unix_ms))
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
        Ok(written == Printed::All)
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

async fn create(args: CreateArgs, json: bool) -> Result<(), Failure> {
    let write = VmWrite::new(args.write, json, false)?;
    let spec = read_spec(args.spec)?;
    let name = spec.name.clone();
    let body = json_body(&CreateVm { spec, start: false })?;
    let accepted = write.send(Method::POST, "/v1/vms", body).await?;
    let node = placed(&accepted);
    let done = if accepted.unchanged { "was created before" } else { "is created" };
    write.finish(&accepted, &format!("{name} {done}{node}; `blixard vm start {name}` starts it"))
}

async fn run_vm(args: RunArgs, json: bool) -> Result<(), Failure> {
    let wait = args.wait.wanted();
    let write = VmWrite::new(args.write, json, wait)?;
    let spec = read_spec(args.spec)?;
    let name = spec.name.clone();
    let body = json_body(&CreateVm { spec, start: true })?;
    let accepted = write.send(Method::POST, "/v1/vms", body).await?;
    if !wait {
        return write.finish(&accepted, &format!("{name} is created{} and will start", placed(&accepted)));
    }
    let took = write.wait(&name, Wait::new(Goal::Running, None), &accepted).await?;
    write.finish(&accepted, &format!("{name} is running{} ({})", placed(&accepted), duration(took)))
}

async fn set(args: SetArgs, json: bool) -> Result<(), Failure> {
    let SetArgs { name, flags, unset, wait, write } = args;
    if flags.is_empty() && unset.is_empty() {
        let way_out = "name what is to be another, for example --memory-mib 512; --help lists all";
        return Err(Failure::usage("nothing is to be changed", way_out));
    }
    let waits = wait.wanted();
    let write = VmWrite::new(write, json, waits)?;
    let Some(before) = write.look(&name).await? else {
        let refusal = Refusal::VmNotFound { name };
        let mut failure = Failure::refused(refusal.to_string(), "");
        failure.refusal = Some(Box::new(refusal));
        return Err(failure);
    };
    let spec = flags.change(before.spec.clone(), &unset)?;
    // Somebody else may change it at the same time: what is sent is a change of what was seen.
    let body = json_body(&ChangeVm { spec, revision: Some(before.revision) })?;
    let accepted = write.send(Method::PUT, &format!("{}/spec", vm_path(&name)), body).await?;
    let node = placed(&accepted);
    if accepted.unchanged {
        return write.finish(&accepted, &format!("{name} was so before{node}"));
    }
    if before.desired != Desired::Running {
        return write.finish(&accepted, &format!("{name} is changed{node}; it is so from its next start on"));
    }
    if !waits {
        return write.finish(&accepted, &format!("{name} is changed{node} and will be restarted"));
    }
    let took = write.wait(&name, Wait::new(Goal::Running, Some(&before)), &accepted).await?;
    write.finish(&accepted, &format!("{name} is changed and running{node} ({})", duration(took)))
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

async fn change(args: ChangeArgs, json: bool, change: Change) -> Result<(), Failure> {
    let (method, verb, goal, done, coming) = change.facts();
    let wait = args.wait.wanted();
    let name = &args.name;
    let write = VmWrite::new(args.write, json, wait)?;
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

fn read_spec(args: SpecArgs) -> Result<VmSpec, Failure> {
    let text = args.file.as_deref().map(read_file).transpose()?;
    spec_of(args.flags, text.as_deref())
}

fn read_file(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::usage(format!("the spec file {} cannot be read: {error}", path.display()), "")
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
