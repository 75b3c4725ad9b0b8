//! systemd's notification protocol, as far as it is needed (sd_notify(3)).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use blixard_model::UnitStatus;

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
        let ready = if ready { "READY=1\n" } else { "" };
        socket.send_to_addr(format!("{ready}STATUS={status}\n").as_bytes(), address).map(drop)
    }
}
