//! `GET /metrics`: every metric that is served is documented, and every documented metric is served.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::cluster::{Cluster, DEADLINE, Node};

const DOCUMENTED: &str = include_str!("../../agent/docs/metrics.md");

/// Sends the request as curl does. Returns the head and the body of the answer.
fn scrape(node: &Node) -> (String, String) {
    let mut stream = UnixStream::connect(node.dir.join("s.sock")).expect("the socket answers");
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
    let request = "GET /metrics HTTP/1.1\r\nhost: blixard\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_ascii_lowercase(), body.to_owned())
}

/// The served metrics, with their types.
fn served(body: &str) -> BTreeMap<String, String> {
    let types = body.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

fn documented() -> BTreeMap<String, String> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.trim_end_matches('`').to_owned();
        Some((name, cells.next()?.to_owned()))
    };
    DOCUMENTED.lines().filter_map(row).collect()
}

/// The value of a series, which is written as in the answer's text.
fn value(body: &str, series: &str) -> f64 {
    let line = body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{body}")).parse().expect("a number")
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_served() {
    let c = Cluster::formed();
    let (head, body) = scrape(&c.nodes[0]);
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert_eq!(served(&body), documented());
    let labels: Vec<_> = body.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(labels.iter().all(|line| line.starts_with("blixard_")), "{body}");
}

#[test]
fn the_metrics_change_with_what_happens() {
    let mut c = Cluster::formed();
    let leader = c.leader();
    for node in &c.nodes {
        let (_, body) = scrape(node);
        assert_eq!(value(&body, "blixard_formations_total"), 1.0, "{body}");
        assert!(value(&body, "blixard_formation_attempts_total") >= 1.0);
        assert!(value(&body, "blixard_formation_seconds") > 0.0);
    }
    let before = scrape(&c.nodes[leader]).1;
    assert!(value(&before, "blixard_elections_won_total") >= 1.0);
    assert_eq!(value(&before, "blixard_raft_leads"), 1.0);
    let run = c.nodes[leader].blixard("vm create a --kernel /k");
    assert_eq!(run.code, 0, "{run:?}");
    let after = scrape(&c.nodes[leader]).1;
    for grows in [
        "blixard_store_synced_writes_total",
        "blixard_store_synced_write_seconds_total",
        "blixard_store_written_bytes_total",
        "blixard_change_seconds_count",
        "blixard_apply_seconds_count",
        "blixard_raft_applied_index",
        "blixard_log_entries",
    ] {
        assert!(value(&after, grows) > value(&before, grows), "{grows}\n{before}\n{after}");
    }
    let other = c.followers()[0];
    let name = c.nodes[other].name.clone();
    assert_eq!(value(&after, &format!("blixard_net_link_up{{peer=\"{name}\"}}")), 1.0);
    c.nodes[other].kill();
    c.until("the lost peer is counted", |c| {
        let (_, body) = scrape(&c.nodes[leader]);
        let dropped =
            format!("blixard_net_raft_dropped_messages_total{{peer=\"{name}\",cause=\"link_down\"}}");
        let retries = format!("blixard_retry_failures{{what=\"connect\",peer=\"{name}\"}}");
        value(&body, &dropped) > 0.0 && body.contains(&retries)
    });
}
