//! systemd's notification protocol, as far as it is needed (sd_notify(3)).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use blixard_model::UnitStatus;

/// Longest status, in bytes: systemd takes no notification of more than 4,096.
const STATUS_LEN_MAX: usize = 1_000;
/// A service manager that is busy has this long to take the last word.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The socket on which systemd hears of this unit.
#[derive(Debug)]
pub(crate) struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// The one that systemd names in `$NOTIFY_SOCKET`. Without it nobody is told anything.
    ///
    /// # Errors
    /// The kernel gives no socket, or the name is none of a socket.
    pub(crate) fn from_environment() -> io::Result<Self> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(Self(None)) };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
            None => SocketAddr::from_pathname(&name)?,
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
        let Some((socket, address)) = &self.0 else { return Ok(()) };
        let status: String = status.to_string().chars().filter(|c| !c.is_control()).collect();
        let status = &status[..status.floor_char_boundary(STATUS_LEN_MAX)];
        let ready = if ready { "READY=1\n" } else { "" };
        socket.send_to_addr(format!("{ready}STATUS={status}\n").as_bytes(), address).map(drop)
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
}
