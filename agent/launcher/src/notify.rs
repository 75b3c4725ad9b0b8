//! systemd's notification protocol, as far as it is needed (sd_notify(3)).

use std::ffi::OsStr;
use std::io::{self, IoSlice, PipeReader};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use blixard_model::UnitStatus;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

/// Longest status, in bytes: systemd takes no notification of more than 4,096.
const STATUS_LEN_MAX: usize = 1_000;
/// A service manager that is busy has this long to take the last word.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The socket on which systemd hears of this unit.
#[derive(Debug)]
pub(crate) struct Notifier(Option<(UnixDatagram, UnixAddr)>);

impl Notifier {
    /// The one that systemd names in `$NOTIFY_SOCKET`. Without it nobody is told anything.
    ///
    /// # Errors
    /// The kernel gives no socket, or the name is none of a socket.
    pub(crate) fn from_environment() -> io::Result<Self> {
        std::env::var_os("NOTIFY_SOCKET").map_or(Ok(Self(None)), |name| Self::to(&name))
    }

    fn to(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(abstract_name) => UnixAddr::new_abstract(abstract_name)?,
            None => UnixAddr::new(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A service manager that stands still must not hold up the supervisor.
        socket.set_nonblocking(true)?;
        Ok(Self(Some((socket, address))))
    }

    /// Says how the VM is, and with `ready` that the unit has started.
    ///
    /// # Errors
    /// systemd could not be told.
    pub(crate) fn tell(&self, ready: bool, status: &UnitStatus) -> io::Result<()> {
        let status: String = status.to_string().chars().filter(|c| !c.is_control()).collect();
        let status = &status[..status.floor_char_boundary(STATUS_LEN_MAX)];
        let ready = if ready { "READY=1\n" } else { "" };
        self.send(&format!("{ready}STATUS={status}\n"), &[])
    }

    /// Says how the VM ended, before this process ends as well: nobody says it again.
    ///
    /// # Errors
    /// systemd could not be told.
    pub(crate) fn tell_last(&self, status: &UnitStatus) -> io::Result<()> {
        if let Some((socket, _)) = &self.0 {
            socket.set_nonblocking(false)?;
            socket.set_write_timeout(Some(LAST_WORD))?;
        }
        self.tell(false, status)
    }

    /// Says that the unit has started, and is to be killed unless systemd hears of it within this time, in
    /// microseconds. Both in one: a reload of systemd forgets the watchdog of a unit that has not started.
    ///
    /// # Errors
    /// systemd could not be told.
    pub(crate) fn arm(&self, watchdog_us: u64) -> io::Result<()> {
        self.send(&format!("READY=1\nWATCHDOG_USEC={watchdog_us}\n"), &[])
    }

    /// Says that the unit is to be killed unless systemd hears of it within this time, in microseconds. In a
    /// unit that is being stopped, what the stop does now is to have so much time at least.
    ///
    /// # Errors
    /// systemd could not be told.
    pub(crate) fn feed(&self, watchdog_us: u64, stop_us: Option<u64>) -> io::Result<()> {
        let extend = stop_us.map(|us| format!("EXTEND_TIMEOUT_USEC={us}\n")).unwrap_or_default();
        self.send(&format!("{extend}WATCHDOG_USEC={watchdog_us}\n"), &[])
    }

    /// Asks systemd to close what is given to it once it has taken everything that was said before. Then the
    /// returned end of the pipe is at its end. `None`: nobody is told anything.
    ///
    /// # Errors
    /// systemd could not be asked.
    pub(crate) fn barrier(&self) -> io::Result<Option<PipeReader>> {
        if self.0.is_none() {
            return Ok(None);
        }
        let (reader, writer) = io::pipe()?;
        // Alone: systemd drops whatever else the datagram holds.
        self.send("BARRIER=1", &[writer.as_raw_fd()])?;
        Ok(Some(reader))
    }

    fn send(&self, text: &str, fds: &[RawFd]) -> io::Result<()> {
        let Some((socket, address)) = &self.0 else { return Ok(()) };
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        let said = [IoSlice::new(text.as_bytes())];
        sendmsg(socket.as_raw_fd(), &said, rights, MsgFlags::MSG_NOSIGNAL, Some(address))?;
        Ok(())
    }
}
