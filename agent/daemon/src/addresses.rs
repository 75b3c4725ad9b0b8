//! Where the others reach this node, when nobody has written it down.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use blixard_model::node::ADDRESSES_MAX;
use blixard_net::IpFamilies;
use nix::ifaddrs::getifaddrs;

/// Peers for whom it is looked up from where they are reached.
const PEERS_LOOKED_UP_MAX: usize = 16;

/// The addresses to offer: what is configured; and this machine's own, when nothing is configured, or nothing
/// of it is this machine's any more because it has moved. Those from which these peers are reached come
/// first: a machine with many inner networks may have more than there is room for. None is offered that the
/// node's socket does not hear.
pub(crate) fn offered(
    configured: &[SocketAddr],
    (listen, heard): (SocketAddr, IpFamilies),
    peers: impl IntoIterator<Item = SocketAddr>,
) -> Vec<SocketAddr> {
    let sources: Vec<IpAddr> = peers.into_iter().take(PEERS_LOOKED_UP_MAX).filter_map(source).collect();
    let mut local = local();
    local.sort_by_key(|ip| (!sources.contains(ip), *ip));
    choose(configured, (listen, heard), &local)
}

/// The address of this machine that the kernel would send from; nothing is sent.
fn source(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn choose(
    configured: &[SocketAddr],
    (listen, heard): (SocketAddr, IpFamilies),
    local: &[IpAddr],
) -> Vec<SocketAddr> {
    let mine: Vec<SocketAddr> = if listen.ip().is_unspecified() {
        let local = local.iter().filter(|ip| heard.hear(**ip));
        local.map(|ip| SocketAddr::new(*ip, listen.port())).collect()
    } else {
        vec![listen]
    };
    let configured: Vec<SocketAddr> =
        configured.iter().copied().filter(|address| heard.hear(address.ip())).collect();
    // Behind a translated address none of them is ever this machine's: the others only try one more.
    let moved = !configured.iter().any(|address| mine.contains(address));
    let mut all = configured;
    if moved {
        all.extend(mine);
    }
    all.truncate(ADDRESSES_MAX);
    all
}

/// This machine's addresses that others may send to.
fn local() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let mut all: Vec<IpAddr> = interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .filter(reachable)
        .collect();
    all.sort();
    all.dedup();
    all
}

fn reachable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn the_address_from_which_a_peer_is_reached_comes_first() {
        assert_eq!(source(at(&["127.0.0.1:9"])[0]), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let listen = at(&["0.0.0.0:7431"])[0];
        let listen = (listen, IpFamilies::heard_at(listen.ip()));
        let all = offered(&[], listen, []);
        let Some(last) = all.last() else { return };
        let towards = SocketAddr::new(last.ip(), 9);
        assert_eq!(offered(&[], listen, [towards]).first(), Some(last), "{all:?}");
    }

    #[test]
    fn what_is_written_down_counts_while_it_is_true() {
        let local: Vec<IpAddr> = vec!["10.0.0.1".parse().expect("ip"), "fd00::1".parse().expect("ip")];
        let any = ["0.0.0.0:7431", "[::]:7431"].map(|text| text.parse::<SocketAddr>().expect("address"));
        for any in any {
            let cases = [
                (at(&["10.0.0.1:7431"]), any, at(&["10.0.0.1:7431"])),
                (at(&[]), any, at(&["10.0.0.1:7431", "[fd00::1]:7431"])),
                (at(&["10.0.0.9:7431"]), any, at(&["10.0.0.9:7431", "10.0.0.1:7431", "[fd00::1]:7431"])),
                (at(&[]), "10.0.0.1:9".parse().expect("address"), at(&["10.0.0.1:9"])),
                // Of a family that the socket does not hear.
                (at(&["[fd00::9]:9"]), "10.0.0.1:9".parse().expect("address"), at(&["10.0.0.1:9"])),
            ];
            for (configured, listen, expected) in cases {
                let heard = IpFamilies::heard_at(listen.ip());
                assert_eq!(choose(&configured, (listen, heard), &local), expected, "{configured:?} {listen}");
            }
        }
        // A machine without IPv6.
        let (v4_only, configured) = (IpFamilies::heard_at(local[0]), at(&["[fd00::1]:7431"]));
        assert_eq!(choose(&configured, (any[1], v4_only), &local), at(&["10.0.0.1:7431"]));
    }
}
