//! `vm-run`: the process around the [`Supervisor`]. It hands over what happens and does what is decided.
//!
//! One thread, one `poll`: signals, the control connection, the status socket, the lease and the clock. The
//! thread that starts the hypervisor must be the main one, because the kernel ends the hypervisor when that
//! thread ends.
//!
//! A process may stand still for any time, between any two of its steps. So the end of a lease is looked at
//! before anything else after each wait, and again before each turn.

use std::fs;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use blixard_model::lease::ENDLESS_WATCHDOG_MS;
use blixard_model::words::with_causes;
use blixard_model::{UnitStatus, VmName};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::clock::now_ms;
use crate::exec::{CheckedLaunch, LaunchError, launch_of};
use crate::hypervisor::{MONITOR_SOCKET, STATUS_SOCKET, own_runtime_dir};
use crate::lease::LeaseDir;
use crate::lease_note;
use crate::lease_watcher::LeaseWatcher;
use crate::memory_limit::MemoryEvents;
use crate::notify::Notifier;
use crate::qemu::message::{QmpLines, parse};
use crate::say::say;
use crate::supervisor::{ProcessEnd, Supervisor, SupervisorEffect, SupervisorInput, VmEnd, watchdog_us};

/// Bytes that are read at once; what a hypervisor floods is read in turns.
const READ_LEN: usize = 16 * 1024;
/// Most reads of what a hypervisor said before it ended: more than a socket holds.
const LAST_READS_MAX: usize = 64;
/// How long until systemd is told again what it did not take, in milliseconds.
const TELL_AGAIN_MS: u64 = 100;

/// Why a supervisor could not go on. Its hypervisor ends together with it.
#[derive(Debug, thiserror::Error)]
pub enum VmRunError {
    /// Signals cannot be waited for.
    #[error("signals cannot be waited for")]
    Signals(#[source] nix::Error),
    /// A socket in the unit's runtime directory cannot be made.
    #[error("the socket {path}")]
    Socket {
        /// Its path.
        path: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The programs that stop the VM cannot be left a note of its lease.
    #[error("a note of the lease that the VM needs cannot be left in {}", .directory.display())]
    Note {
        /// The unit's runtime directory.
        directory: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// systemd's notification socket cannot be used.
    #[error("systemd's notification socket")]
    Notify(#[source] io::Error),
    /// The kernel does not tell what has happened.
    #[error("what happens cannot be waited for")]
    Wait(#[source] nix::Error),
}

/// Supervises the VM of this unit until it has ended. The agent's lease is looked for in `lease_dir`, if the
/// VM needs one.
///
/// # Errors
/// [`VmRunError`]: the supervisor could not go on.
pub fn vm_run(name: &str, lease_dir: LeaseDir) -> Result<VmEnd, VmRunError> {
    let notifier = Notifier::from_environment().map_err(VmRunError::Notify)?;
    match checked(name) {
        Ok((directory, launch)) => VmProcess::new(&directory, launch, lease_dir, notifier)?.run(),
        Err(error) => {
            let end = VmEnd::NotStarted(with_causes(&error));
            let _ = notifier.tell_last(&UnitStatus::Ended(end.to_string()));
            say(&end.to_string());
            Ok(end)
        }
    }
}

fn checked(name: &str) -> Result<(PathBuf, CheckedLaunch), LaunchError> {
    let name: VmName = name.parse()?;
    let directory = own_runtime_dir(&name);
    let launch = launch_of(&name, Some(&directory))?;
    Ok((directory, launch))
}

/// The hypervisor's control connection.
enum Monitor {
    /// It is listened for.
    Awaited(UnixListener),
    /// It is there.
    Open(UnixStream, QmpLines),
    /// It is of no use any more.
    Closed,
}

/// How far systemd is in watching a unit with a lease.
enum Arming {
    /// It is not asked to, or has confirmed.
    None,
    /// It is still to be told until when the guest may run.
    ToTell(u64),
    /// It is still to be asked whether it has taken that.
    ToAsk,
    /// It closes the other end of this when it has.
    Asked(PipeReader),
}

struct VmProcess {
    supervisor: Supervisor,
    /// The agent's lease, of a VM that needs one.
    lease: Option<LeaseWatcher>,
    arming: Arming,
    /// Until when the guest may run, which systemd is still to be told, and whether the unit is being
    /// stopped.
    unfed: Option<(u64, bool)>,
    argv: Vec<String>,
    notifier: Notifier,
    /// What systemd is still to be told.
    untold: Option<(bool, UnitStatus)>,
    /// How the VM is, for whoever asks.
    status: UnitStatus,
    signals: SignalFd,
    monitor: Monitor,
    asked: UnixListener,
    child: Option<Child>,
    memory: MemoryEvents,
    end: Option<VmEnd>,
}

impl VmProcess {
    fn new(
        directory: &Path,
        launch: CheckedLaunch,
        lease_dir: LeaseDir,
        notifier: Notifier,
    ) -> Result<Self, VmRunError> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
            set.add(signal);
        }
        set.thread_block().map_err(VmRunError::Signals)?;
        if let Some(need) = &launch.lease {
            lease_note::leave(directory, need, &lease_dir)
                .map_err(|source| VmRunError::Note { directory: directory.to_owned(), source })?;
        }
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self {
            supervisor: Supervisor::new(
                launch.disks,
                launch.lease.is_some().then_some(ENDLESS_WATCHDOG_MS),
                now_ms(),
            ),
            lease: launch.lease.map(|need| LeaseWatcher::new(need, lease_dir)),
            arming: Arming::None,
            unfed: None,
            argv: launch.argv,
            notifier,
            untold: None,
            status: UnitStatus::Starting,
            signals: SignalFd::with_flags(&set, flags).map_err(VmRunError::Signals)?,
            monitor: Monitor::Awaited(listen(&directory.join(MONITOR_SOCKET))?),
            asked: listen(&directory.join(STATUS_SOCKET))?,
            child: None,
            memory: MemoryEvents::from_now_on(),
            end: None,
        })
    }

    fn run(mut self) -> Result<VmEnd, VmRunError> {
        loop {
            self.carry_out();
            if let Some(end) = self.end.take() {
                return Ok(end);
            }
            self.wait()?;
        }
    }

    fn handle(&mut self, input: SupervisorInput) {
        self.supervisor.handle(now_ms(), input);
    }

    /// Does what is decided, until nothing more is.
    fn carry_out(&mut self) {
        loop {
            self.go_on_arming();
            self.look_at_lease();
            let effects = self.supervisor.turn();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.carry_out_one(effect);
            }
        }
        self.tell();
        self.feed();
    }

    /// Hands over the time, and before that what the lease allows at the same moment.
    fn look_at_lease(&mut self) {
        let now_ms = now_ms();
        let deadline_ms = self.supervisor.lease_deadline_ms();
        if let Some(permission) = self.lease.as_mut().and_then(|lease| lease.look(now_ms, deadline_ms)) {
            self.supervisor.handle(now_ms, SupervisorInput::Lease(permission));
        }
        self.supervisor.handle(now_ms, SupervisorInput::Wake);
    }

    /// Whether the end of the lease has come, as far as is known.
    fn lease_may_be_over(&self) -> bool {
        self.supervisor.lease_deadline_ms().is_some_and(|until_ms| now_ms() >= until_ms)
    }

    fn carry_out_one(&mut self, effect: SupervisorEffect) {
        match effect {
            SupervisorEffect::Spawn => match self.spawn() {
                Ok(child) => self.child = Some(child),
                Err(error) => {
                    self.handle(SupervisorInput::NotSpawned(format!("vm-child cannot be run: {error}")));
                }
            },
            SupervisorEffect::Send { command, id } => {
                let Monitor::Open(stream, _) = &mut self.monitor else { return };
                if let Err(error) = stream.write_all(command.line(id).as_bytes()) {
                    self.close(format!("it cannot be written: {error}"));
                }
            }
            SupervisorEffect::Terminate => self.signal(Signal::SIGTERM),
            SupervisorEffect::Kill => self.signal(Signal::SIGKILL),
            SupervisorEffect::Notify { ready, status } => {
                let before = self.untold.take().is_some_and(|(ready, _)| ready);
                self.status = status.clone();
                self.untold = Some((ready || before, status));
                self.tell();
            }
            SupervisorEffect::Arm { until_ms } => self.arming = Arming::ToTell(until_ms),
            SupervisorEffect::Feed { until_ms, stopping } => {
                self.unfed = Some((until_ms, stopping));
                self.feed();
            }
            SupervisorEffect::Say(text) => say(&text),
            SupervisorEffect::End(end) => {
                self.end = Some(end.clone());
                self.tell();
                if end != VmEnd::Stopped {
                    say(&end.to_string());
                }
            }
        }
    }

    /// The hypervisor, by way of `vm-child`, which ties it to this process.
    fn spawn(&self) -> io::Result<Child> {
        let supervisor = std::process::id().to_string();
        let (program, arguments) = self.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        Command::new("/proc/self/exe")
            .arg("vm-child")
            .arg(supervisor)
            .arg(program)
            .arg("--")
            .args(arguments)
            .spawn()
    }

    fn signal(&self, signal: Signal) {
        let Some(child) = &self.child else { return };
        // It is not waited for yet, so its process id is its own.
        if let Ok(pid) = i32::try_from(child.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
        }
    }

    fn close(&mut self, why: String) {
        self.monitor = Monitor::Closed;
        self.handle(SupervisorInput::ConnectionLost(why));
    }

    /// Tells systemd what it was not told yet. What it does not take is told again, as long as the VM runs.
    fn tell(&mut self) {
        let Some((ready, status)) = self.untold.take() else { return };
        if self.end.is_some() {
            if let Err(error) = self.notifier.tell_last(&status) {
                say(&format!("systemd cannot be told how the VM ended: {error}"));
            }
        } else if self.notifier.tell(ready, &status).is_err() {
            self.untold = Some((ready, status));
        }
    }

    /// Tells systemd of the lease what it was not told yet. What it does not take is told again.
    fn feed(&mut self) {
        let Some((until_ms, stopping)) = self.unfed else { return };
        let told_first = matches!(self.arming, Arming::ToTell(_));
        let us = watchdog_us(now_ms(), until_ms, ENDLESS_WATCHDOG_MS);
        if !told_first && self.notifier.feed(us, stopping.then_some(us)).is_ok() {
            self.unfed = None;
        }
    }

    /// Makes systemd watch and confirm that it does, as far as is possible now.
    fn go_on_arming(&mut self) {
        if let Arming::ToTell(until_ms) = self.arming {
            let told = self.notifier.arm(watchdog_us(now_ms(), until_ms, ENDLESS_WATCHDOG_MS));
            if self.is_taken(told).is_some() {
                self.arming = Arming::ToAsk;
            }
        }
        if let Arming::ToAsk = self.arming {
            let asked = self.notifier.barrier();
            match self.is_taken(asked) {
                Some(Some(confirmation)) => self.arming = Arming::Asked(confirmation),
                // Nobody is told anything, so nobody watches: somebody runs this by hand.
                Some(None) => self.armed(),
                None => {}
            }
        }
        if let Arming::Asked(confirmation) = &self.arming
            && is_ready_now(confirmation)
        {
            self.armed();
        }
    }

    fn armed(&mut self) {
        self.arming = Arming::None;
        self.handle(SupervisorInput::Armed);
    }

    /// What came of telling systemd; `None` if it did not take that. Where it has no room it is told again,
    /// as long as the supervisor waits for it.
    fn is_taken<T>(&mut self, told: io::Result<T>) -> Option<T> {
        match told {
            Ok(taken) => Some(taken),
            Err(error) if is_temporary(&error) => None,
            Err(error) => {
                self.arming = Arming::None;
                self.handle(SupervisorInput::NotArmed(format!("systemd cannot be told: {error}")));
                None
            }
        }
    }

    /// How long nothing has to be done, in milliseconds.
    fn wait_ms(&self) -> u64 {
        let look_at_ms = self.lease.as_ref().map_or(u64::MAX, LeaseWatcher::look_at_ms);
        let wait_ms = self.supervisor.wake_at_ms().min(look_at_ms).saturating_sub(now_ms());
        let tells_again = self.untold.is_some()
            || self.unfed.is_some()
            || matches!(self.arming, Arming::ToTell(_) | Arming::ToAsk);
        if tells_again { wait_ms.min(TELL_AGAIN_MS) } else { wait_ms }
    }

    /// Waits until something happens, and hands it over.
    fn wait(&mut self) -> Result<(), VmRunError> {
        if let Some(lease) = &mut self.lease {
            lease.set_timer(self.supervisor.lease_deadline_ms());
        }
        let timeout = PollTimeout::try_from(self.wait_ms()).unwrap_or(PollTimeout::MAX);
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![readable(self.signals.as_fd()), readable(self.asked.as_fd())];
        let monitor_at = fds.len();
        match &self.monitor {
            Monitor::Awaited(listener) => fds.push(readable(listener.as_fd())),
            Monitor::Open(stream, _) => fds.push(readable(stream.as_fd())),
            Monitor::Closed => {}
        }
        let others_at = fds.len();
        // These are looked at whenever something happens.
        fds.extend(self.lease.iter().flat_map(LeaseWatcher::fds).map(readable));
        if let Arming::Asked(confirmation) = &self.arming {
            fds.push(readable(confirmation.as_fd()));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(VmRunError::Wait(error)),
        }
        let is_ready = |fd: Option<&PollFd<'_>>| fd.and_then(PollFd::any).unwrap_or(false);
        let asked = is_ready(fds.get(1));
        let said = monitor_at < others_at && is_ready(fds.get(monitor_at));
        drop(fds);
        if self.lease_may_be_over() {
            self.carry_out();
        }
        // What the hypervisor has said comes before its end.
        if said {
            self.hear();
        }
        if asked {
            self.answer();
        }
        self.take_signals()
    }

    fn take_signals(&mut self) -> Result<(), VmRunError> {
        while let Some(info) = self.signals.read_signal().map_err(VmRunError::Signals)? {
            match Signal::try_from(info.ssi_signo.cast_signed()) {
                Ok(Signal::SIGCHLD) => self.reap(),
                Ok(_) => self.handle(SupervisorInput::Stop),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn reap(&mut self) {
        let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) else { return };
        self.child = None;
        self.hear_last_words();
        let end = self.process_end(status);
        self.handle(SupervisorInput::Ended(end));
    }

    fn process_end(&self, status: ExitStatus) -> ProcessEnd {
        ProcessEnd { status: status.code(), signal: status.signal(), out_of_memory: self.memory.shortage() }
    }

    /// Takes the hypervisor's connection, or what it says on it. Returns false when there is nothing (more).
    fn hear(&mut self) -> bool {
        match &mut self.monitor {
            Monitor::Awaited(listener) => match listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                Ok(stream)
            }) {
                Ok(stream) => {
                    // Nobody else is listened to.
                    self.monitor = Monitor::Open(stream, QmpLines::default());
                    self.handle(SupervisorInput::Connected);
                    true
                }
                Err(_) => false,
            },
            Monitor::Open(stream, lines) => {
                let mut chunk = [0; READ_LEN];
                let read = match stream.read(&mut chunk) {
                    Ok(0) => Err("the hypervisor closed it".to_owned()),
                    Ok(read) => lines.push(&chunk[..read]).map_err(|error| error.to_string()),
                    Err(error) if is_temporary(&error) => return false,
                    Err(error) => Err(error.to_string()),
                };
                let said = read.and_then(|lines| {
                    let said = lines.iter().map(|line| parse(line).map_err(|error| error.to_string()));
                    said.collect::<Result<Vec<_>, _>>()
                });
                match said {
                    Ok(said) => said.into_iter().for_each(|said| self.handle(SupervisorInput::Said(said))),
                    Err(why) => self.close(why),
                }
                true
            }
            Monitor::Closed => false,
        }
    }

    /// What it said last. That is no more than what a socket holds, unless others than itself write there.
    fn hear_last_words(&mut self) {
        for _ in 0..LAST_READS_MAX {
            if !self.hear() {
                break;
            }
        }
    }

    /// Tells somebody on this machine how the VM is.
    fn answer(&mut self) {
        if let Ok((mut stream, _)) = self.asked.accept() {
            // Whoever does not read gets nothing.
            let _ = stream.set_nonblocking(true);
            let _ = stream.write_all(format!("{}\n", self.status).as_bytes());
        }
    }
}

/// Whether a read would not wait.
fn is_ready_now(pipe: &PipeReader) -> bool {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Listens on a socket that only this unit's user and root can reach: it lies in the unit's runtime
/// directory.
fn listen(path: &Path) -> Result<UnixListener, VmRunError> {
    let wrong = |source| VmRunError::Socket { path: path.display().to_string(), source };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(wrong)?;
    listener.set_nonblocking(true).map_err(wrong)?;
    Ok(listener)
}
