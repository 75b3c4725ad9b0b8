//! To whom an agent sends packets: to its peers and its own relays, and to nobody else.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use super::cluster::Cluster;
use super::namespaces::{self, Namespaces, ROUTER, SUBNET};
use super::packets::{Target, Watch};
use crate::binary;

/// How many packets of a machine are watched; this is many heartbeats of the leader.
const PACKETS: u64 = 150;

/// An address of n1 that is in no list of members.
const INNER: &str = "172.31.7.1";

/// A relay that runs in the router's namespace.
struct Relay(Child);

impl Relay {
    fn start(namespaces: &Namespaces, address: &str) -> Self {
        let program = binary::example("blixard-net", "relay");
        let mut child = namespaces::command(Some(&namespaces.router()), program)
            .arg(address)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the relay starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        assert_eq!(lines.next().expect("a line").expect("text"), format!("ready: http://{address}"));
        Self(child)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("gone");
    }
}

/// The namespaces, and counters of the packets of both machines. `None` if there can be none here, after
/// printing why.
fn machines(forwards: bool) -> Option<(Namespaces, [Watch; 2])> {
    match Namespaces::new(forwards) {
        Ok(namespaces) => {
            namespaces.add_inner_address(1, &format!("{INNER}/24"));
            let watches = [1, 2].map(|number| Watch::start(&namespaces.machine(number)));
            Some((namespaces, watches))
        }
        Err(why) => {
            eprintln!("SKIPPED: network namespaces need root and iproute2: {why}");
            None
        }
    }
}

/// A cluster of the two machines that is not started yet, with `end` at the end of each configuration.
fn two(namespaces: &Namespaces, end: &str) -> Cluster {
    let mut cluster = Cluster::in_subnet(2, SUBNET.to_owned());
    for (number, node) in (1..).zip(&mut cluster.nodes) {
        node.namespace = Some(namespaces.machine(number));
        let path = node.dir.join("config.toml");
        let text = std::fs::read_to_string(&path).expect("read");
        std::fs::write(path, text + end).expect("written");
    }
    cluster
}

/// Lets both nodes listen on every address that they have, which is the default.
fn listen_everywhere(cluster: &Cluster) {
    for node in &cluster.nodes {
        let path = node.dir.join("config.toml");
        let text = std::fs::read_to_string(&path).expect("read");
        let elsewhere = text.lines().filter(|line| !line.starts_with("listen_address"));
        std::fs::write(path, elsewhere.collect::<Vec<_>>().join("\n")).expect("written");
    }
}

/// Makes a write on both nodes, and waits until each of them has sent more than [`PACKETS`] packets.
fn go_on_for_a_while(cluster: &Cluster, watches: &[Watch; 2]) {
    for (number, node) in (1..).zip(&cluster.nodes) {
        let run = node.blixard(&format!("vm create from-n{number} --kernel /k"));
        assert_eq!(run.code, 0, "{run:?}");
    }
    cluster.until("they have talked for a while", |_| watches.iter().all(|watch| watch.total() > PACKETS));
}

#[test]
fn two_nodes_without_a_direct_path_form_a_cluster_through_their_relay_and_send_nothing_elsewhere() {
    let Some((namespaces, watches)) = machines(false) else { return };
    let address = format!("{ROUTER}:3340");
    let _relay = Relay::start(&namespaces, &address);
    let mut cluster = two(&namespaces, &format!("[net]\nrelay_urls = [\"http://{address}\"]\n"));
    listen_everywhere(&cluster);
    cluster.nodes.iter_mut().for_each(|node| node.start());
    cluster.await_formed(2);
    let url = format!("http://{address}");
    cluster.until("both are found at the relay", |cluster| {
        let found = |status: blixard_model::api::StatusView| {
            status.members.iter().all(|m| m.relay_url.as_ref().is_some_and(|at| at.as_str() == url))
        };
        cluster.nodes.iter().all(|node| node.status().is_some_and(found))
    });
    go_on_for_a_while(&cluster, &watches);
    for (number, (node, watch)) in (1..).zip(cluster.nodes.iter().zip(&watches)) {
        assert!(node.log().contains(&format!("up (through the relay {url})")), "{}", node.log());
        let (relay, other) = (Target::tcp(&address), Target::udp(&format!("{SUBNET}.{}:7431", 3 - number)));
        println!("n{number}: {} packets to the relay, {} tried straight", watch.to(&relay), watch.to(&other));
        assert!(watch.to(&relay) > PACKETS / 2, "all goes there");
        // Where no address of the other node answers, all addresses are tried that its machine has and
        // listens on.
        let inner = Target::udp(&format!("{INNER}:7431"));
        assert_eq!(watch.elsewhere(&[relay, other, inner]), [""; 0]);
    }
}

#[test]
fn without_a_relay_packets_go_only_to_the_address_of_the_other_node() {
    let Some((namespaces, watches)) = machines(true) else { return };
    let mut cluster = two(&namespaces, "");
    cluster.nodes[0].start();
    let other = Target::udp(&format!("{SUBNET}.2:7431"));
    cluster.until("the first asks for the other", |_| watches[0].to(&other) > 0);
    cluster.nodes[1].start();
    cluster.await_formed(2);
    go_on_for_a_while(&cluster, &watches);
    for (number, watch) in (1..).zip(&watches) {
        let other = Target::udp(&format!("{SUBNET}.{}:7431", 3 - number));
        println!("n{number}: {} packets to the other", watch.to(&other));
        assert!(watch.to(&other) > PACKETS / 2);
        assert_eq!(watch.elsewhere(&[other]), [""; 0]);
    }
}
