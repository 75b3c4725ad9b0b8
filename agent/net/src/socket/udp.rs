//! Questions to the kernel about UDP addresses, answered by binding a socket for a moment.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn6, bind, setsockopt, socket, sockopt::Ipv6V6Only,
};

/// Binds the address as iroh does, with one socket for each IP family, and releases it again.
///
/// # Errors
/// The error of the kernel.
pub(crate) fn try_bind(address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => UdpSocket::bind(address).map(drop),
        SocketAddr::V6(v6) => {
            let fd = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
            // Without this option the socket would take the IPv4 address of the same port as well.
            setsockopt(&fd, Ipv6V6Only, &true)?;
            Ok(bind(fd.as_raw_fd(), &SockaddrIn6::from(v6))?)
        }
    }
}

/// Whether this machine has the address's IP family. Without IPv6 (`ipv6.disable=1`), no IPv6 socket can be
/// made.
pub(crate) fn has_family(mut address: SocketAddr) -> bool {
    address.set_port(0);
    try_bind(address).is_ok()
}

/// A UDP port that is free at this moment.
///
/// # Errors
/// The error of the kernel.
pub(crate) fn free_port(address: SocketAddr) -> io::Result<u16> {
    Ok(UdpSocket::bind(SocketAddr::new(address.ip(), 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_own_ports() {
        let any = |text: &str| text.parse::<SocketAddr>().expect("address");
        assert!(has_family(any("0.0.0.0:1")) && has_family(any("[::]:1")), "this machine has both");
        let held = UdpSocket::bind("0.0.0.0:0").expect("socket");
        let port = held.local_addr().expect("address").port();
        let in_use = try_bind(SocketAddr::new(any("0.0.0.0:0").ip(), port)).expect_err("held");
        assert_eq!(in_use.kind(), io::ErrorKind::AddrInUse);
        assert!(try_bind(SocketAddr::new(any("[::]:0").ip(), port)).is_ok(), "it is another family's");
    }
}
