//! An agent whose UDP address cannot be listened on.

use std::net::UdpSocket;

use super::cluster::{Cluster, Node};

#[test]
fn an_agent_whose_address_is_in_use_reports_it_and_takes_part_when_it_is_free() {
    let mut c = Cluster::new(3);
    let address = format!("{}:7431", c.address(1));
    let holder = UdpSocket::bind(&address).expect("free");
    c.nodes.iter_mut().for_each(Node::start);
    let said = |c: &Cluster, what: &str| {
        c.nodes[0].status().is_some_and(|status| status.warnings.iter().any(|warning| warning.contains(what)))
    };
    c.until("its status names the address", |c| said(c, &format!("UDP address {address} is in use")));
    let run = c.nodes[0].blixard("status");
    assert!(run.code == 0 && run.stdout.contains("this node has no network"), "{run:?}");
    drop(holder);
    c.await_formed(3);
    assert!(!said(&c, "network"), "it is mended");
    let log = c.nodes[0].log();
    assert_eq!(log.matches("no network: ").count(), 1, "logged once: {log}");
    assert!(log.contains(&format!("listens on {address}")), "{log}");
}
