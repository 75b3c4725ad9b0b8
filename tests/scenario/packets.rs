//! Counts every packet that leaves a network namespace, by its target.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::namespaces;

/// `PACKET_OUTGOING` of packet(7).
const OUTGOING: u8 = 4;
/// Protocol numbers as in netinet/in.h.
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
/// Buffer for packets that were not read yet, in bytes.
const ROOM: usize = 8 << 20;

/// Where a packet goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    protocol: u8,
    address: IpAddr,
    port: u16,
}

impl Target {
    pub(crate) fn udp(text: &str) -> Self {
        Self::new(UDP, text)
    }

    pub(crate) fn tcp(text: &str) -> Self {
        Self::new(TCP, text)
    }

    fn new(protocol: u8, text: &str) -> Self {
        let target: std::net::SocketAddr = text.parse().expect("IP:PORT");
        Self { protocol, address: target.ip(), port: target.port() }
    }

    /// Reads the header of an IP packet. `None` for anything else, and for packets that the kernel sends by
    /// itself, for example that nobody listens on a port, or to find its neighbours.
    fn of(packet: &[u8]) -> Option<Self> {
        let (protocol, address, rest) = match packet.first()? >> 4 {
            4 => {
                let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
                let header = usize::from(packet.first()? & 15) * 4;
                (*packet.get(9)?, IpAddr::from(Ipv4Addr::from(address)), packet.get(header..)?)
            }
            6 => {
                let address: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
                (*packet.get(6)?, IpAddr::from(Ipv6Addr::from(address)), packet.get(40..)?)
            }
            _ => return None,
        };
        // Multicast membership reports have another header in between.
        let of_kernel = [ICMP, ICMP6].contains(&protocol) || protocol == 0 && address.is_multicast();
        let port = match rest.get(2..4) {
            Some(&[high, low]) if [TCP, UDP].contains(&protocol) => u16::from_be_bytes([high, low]),
            _ => 0,
        };
        (!of_kernel).then_some(Self { protocol, address, port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, address, port } = self;
        match *protocol {
            TCP => write!(f, "TCP {address}, port {port}"),
            UDP => write!(f, "UDP {address}, port {port}"),
            other => write!(f, "IP protocol {other} {address}"),
        }
    }
}

/// Counts packets until it is dropped. Packets on the loopback interface are counted as well, because a
/// resolver may listen there.
pub(crate) struct Watch {
    counts: Arc<Mutex<BTreeMap<Target, u64>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to count. Everything that is sent after this returns is counted.
    pub(crate) fn start(namespace: &str) -> Self {
        let path = namespaces::path(namespace);
        let (counts, stop) = (Arc::<Mutex<BTreeMap<_, _>>>::default(), Arc::<AtomicBool>::default());
        let (noted, asked) = (Arc::clone(&counts), Arc::clone(&stop));
        let (ready, listens) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            // Enters the namespace with this thread only.
            setns(File::open(path).expect("the namespace"), CloneFlags::CLONE_NEWNET).expect("entered");
            let (flags, all) = (SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll);
            let packets = socket(AddressFamily::Packet, SockType::Datagram, flags, all).expect("socket");
            setsockopt(&packets, sockopt::RcvBufForce, &ROOM).expect("room");
            setsockopt(&packets, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50)).expect("timeout");
            ready.send(()).expect("waited for");
            let mut packet = [0; 256];
            while !asked.load(Ordering::Relaxed) {
                let Ok((len, from)) = recvfrom::<LinkAddr>(packets.as_raw_fd(), &mut packet) else {
                    continue;
                };
                let leaves = from.is_some_and(|from| from.pkttype() == OUTGOING);
                let Some(target) = packet.get(..len).and_then(Target::of).filter(|_| leaves) else {
                    continue;
                };
                *noted.lock().expect("whole").entry(target).or_default() += 1;
            }
        });
        listens.recv().expect("it counts");
        Self { counts, stop, thread: Some(thread) }
    }

    /// How many packets have left in all.
    pub(crate) fn total(&self) -> u64 {
        self.counts.lock().expect("whole").values().sum()
    }

    pub(crate) fn to(&self, target: &Target) -> u64 {
        self.counts.lock().expect("whole").get(target).copied().unwrap_or_default()
    }

    /// The packets to other targets than these, as text.
    pub(crate) fn elsewhere(&self, allowed: &[Target]) -> Vec<String> {
        let counts = self.counts.lock().expect("whole");
        let others = counts.iter().filter(|(target, _)| !allowed.contains(target));
        others.map(|(target, count)| format!("{count} packets to {target}")).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, it has printed the reason itself.
            let _ = thread.join();
        }
    }
}

#[test]
fn the_target_of_a_packet_is_read_from_its_header() {
    let mut v4 = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    v4.extend([0, 53, 0x1d, 0x07, 0, 8, 0, 0]);
    assert_eq!(Target::of(&v4), Some(Target::udp("10.0.0.2:7431")));
    v4[9] = TCP;
    assert_eq!(Target::of(&v4), Some(Target::tcp("10.0.0.2:7431")));
    let mut v6 = vec![0x60, 0, 0, 0, 0, 8, UDP, 64];
    v6.extend(Ipv6Addr::LOCALHOST.octets());
    v6.extend("fd00::2".parse::<Ipv6Addr>().expect("address").octets());
    v6.extend([0, 1, 0, 53]);
    assert_eq!(Target::of(&v6), Some(Target::udp("[fd00::2]:53")));
    v6[6] = ICMP6;
    assert_eq!((Target::of(&v6), Target::of(&[]), Target::of(&[0x45])), (None, None, None));
}
