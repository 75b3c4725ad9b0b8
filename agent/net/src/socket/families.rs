//! IPv4 and IPv6: which of them an endpoint listens on, and which addresses can be dialled at all.
//!
//! A socket serves one family. Nobody refuses an address of the other family: it is dialled until the attempt
//! times out. So addresses that cannot be reached are recognised here, before they are offered or dialled.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The IP families that an endpoint's sockets receive from and send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpFamilies {
    v4: bool,
    v6: bool,
}

impl IpFamilies {
    /// The families of a node that listens on `listen`: both for an unspecified address (`0.0.0.0` and `::`
    /// alike), on the assumption that the machine has both; otherwise the family of the address.
    pub fn heard_at(listen: IpAddr) -> Self {
        Self::of(&wanted(SocketAddr::new(listen, 0)))
    }

    /// The families of the given sockets.
    pub(crate) fn of(sockets: &[SocketAddr]) -> Self {
        Self { v4: sockets.iter().any(SocketAddr::is_ipv4), v6: sockets.iter().any(SocketAddr::is_ipv6) }
    }

    /// Whether packets can be sent to `ip` and received from it.
    pub fn hear(self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(_) => self.v4,
            IpAddr::V6(_) => self.v6,
        }
    }
}

impl fmt::Display for IpFamilies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.v4, self.v6) {
            (true, true) => "IPv4 and IPv6",
            (true, false) => "IPv4 only",
            (false, true) => "IPv6 only",
            (false, false) => "neither IPv4 nor IPv6",
        })
    }
}

/// Why no other machine can use an address as it is written. The text says what to write instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is an IPv4 address in IPv6 form.
    #[error("{0} is an IPv4 address written as an IPv6 one: write {ip}", ip = .0.to_canonical())]
    Mapped(IpAddr),
    /// It is a link-local IPv6 address, which has a meaning on one network interface only.
    #[error(
        "{0} is a link-local address, which is understood only together with a network interface of the \
         machine that dials: write another address of the machine"
    )]
    LinkLocal(IpAddr),
}

/// Checks that an IPv6 address means the same on every machine, and is not an IPv4 address in IPv6 form.
/// Every IPv4 address passes.
///
/// # Errors
/// [`AddressError`]
pub fn check_address(ip: IpAddr) -> Result<(), AddressError> {
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(AddressError::Mapped(ip)),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(AddressError::LinkLocal(ip)),
        _ => Ok(()),
    }
}

/// The addresses to bind for a node that listens on `listen`: one for each family that it is to listen on.
pub(crate) fn wanted(listen: SocketAddr) -> Vec<SocketAddr> {
    let (ip, port) = (listen.ip().to_canonical(), listen.port());
    if !ip.is_unspecified() {
        return vec![SocketAddr::new(ip, port)];
    }
    let both: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    both.map(|ip| SocketAddr::new(ip, port)).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_unspecified_address_serves_both_families_and_any_other_its_own() {
        let (four, six, mapped) = (ip("192.0.2.1"), ip("2001:db8::1"), ip("::ffff:192.0.2.1"));
        for any in ["0.0.0.0", "::"] {
            let heard = IpFamilies::heard_at(ip(any));
            assert!(heard.hear(four) && heard.hear(six) && heard.hear(mapped), "{any}");
            assert_eq!(heard.to_string(), "IPv4 and IPv6");
        }
        for only in [four, mapped] {
            let heard = IpFamilies::heard_at(only);
            assert!(heard.hear(four) && heard.hear(mapped) && !heard.hear(six), "{only}");
        }
        let heard = IpFamilies::heard_at(six);
        assert!(heard.hear(six) && !heard.hear(four) && !heard.hear(mapped));
        assert_eq!(heard.to_string(), "IPv6 only");
    }

    #[test]
    fn an_address_that_other_machines_would_not_understand_is_refused_with_the_way_out() {
        for fine in ["192.0.2.1", "2001:db8::1", "fd00::1", "::1", "169.254.0.1"] {
            assert_eq!(check_address(ip(fine)), Ok(()), "{fine}");
        }
        let why = check_address(ip("::ffff:192.0.2.1")).expect_err("mapped").to_string();
        assert!(why.ends_with("write 192.0.2.1"), "{why}");
        let why = check_address(ip("fe80::1")).expect_err("link-local").to_string();
        assert!(why.contains("network interface"), "{why}");
    }
}
