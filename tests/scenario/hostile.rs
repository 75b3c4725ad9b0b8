//! Somebody misuses a member's key: a thousand connections that never say hello, and streams that trickle.
//! The cluster commits as before.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::cluster::{Cluster, DEADLINE, Node, keygen};
use crate::binary;

/// Writes that are measured in a row.
const WRITES: usize = 200;
/// How much the 99th percentile of the writes may exceed twice the usual one. This allows for other processes
/// on the same few cores, among them the attacker with its own handshakes.
const NOISE: Duration = Duration::from_millis(20);
/// How much more memory an agent may take under the attack, in KiB.
const MEMORY_KIB_MAX: u64 = 64 << 10;

/// Connections that never say hello.
const SILENT: usize = 1000;
/// Streams on which a byte arrives now and then.
const SLOW_STREAMS: usize = 50;
/// Last byte of the absent member's address, from which the attack comes.
const ABSENT: usize = 99;

/// The attacker's process, which ends with the test.
struct Attacker(Child);

impl Drop for Attacker {
    fn drop(&mut self) {
        // The process may have ended by itself, which the test has noticed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Attacker {
    /// Starts the attack. Returns when every connection and stream was held or refused once, with the line
    /// that tells how many.
    fn start(c: &Cluster, target: usize, key: &Path) -> (Self, String) {
        let child = Command::new(binary::example("blixard-net", "hostile_peer"))
            .args(["--target", &format!("{}:7431", c.address(target + 1)), "--id", &c.ids[target]])
            .args(["--bind", &format!("{}:0", c.address(ABSENT)), "--cluster", "test"])
            .args(["--idle", &SILENT.to_string(), "--slow", &SLOW_STREAMS.to_string(), "--key"])
            .arg(key)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the attacker starts");
        let mut attacker = Self(child);
        let stdout = attacker.0.stdout.take().expect("stdout");
        let line = BufReader::new(stdout).lines().next().expect("a line").expect("text");
        (attacker, line)
    }
}

/// A cluster of three nodes that list a fourth one, which never comes; and the key of the fourth one.
fn with_an_absent_member() -> (Cluster, PathBuf) {
    let mut c = Cluster::formed();
    let key = c.nodes[0].dir.join("absent.key");
    let (id, nowhere) = (keygen(&key), c.address(ABSENT));
    let member = format!("[members.n4]\nendpoint_id = \"{id}\"\naddresses = [\"{nowhere}:7431\"]\n");
    for node in &mut c.nodes {
        node.stop();
        let path = node.dir.join("config.toml");
        let text = fs::read_to_string(&path).expect("configuration");
        fs::write(path, text + &member).expect("written");
        node.start();
    }
    c.await_formed(3);
    (c, key)
}

/// Makes one committed write through the node's socket, without starting a process.
fn write(node: &Node, path: &str) {
    let mut stream = UnixStream::connect(node.dir.join("s.sock")).expect("the socket answers");
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
    let head = format!("POST {path} HTTP/1.1\r\nhost: blixard\r\nconnection: close\r\n");
    let request = format!("{head}content-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// The times of [`WRITES`] writes, sorted. A stop is written in any state of the VM.
fn measure(node: &Node, what: &str) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..WRITES)
        .map(|_| {
            let begun = Instant::now();
            write(node, "/v1/vms/a/stop");
            begun.elapsed()
        })
        .collect();
    times.sort();
    let (p50, p99) = (times[WRITES / 2], p99(&times));
    println!("MEASURED {what}: n={WRITES} p50={p50:?} p99={p99:?} max={:?}", times[WRITES - 1]);
    times
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[(sorted.len() - 1) * 99 / 100]
}

/// Memory that a node's agent occupies, in KiB.
fn resident_kib(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn silent_connections_and_trickling_streams_of_a_member_delay_no_commit() {
    let (c, key) = with_an_absent_member();
    let leader = c.leader();
    let node = &c.nodes[leader];
    let created = node.blixard("vm create a --kernel /k");
    assert_eq!(created.code, 0, "{created:?}");
    measure(node, "warming up");
    let before = measure(node, "writes");
    let memory: Vec<u64> = c.nodes.iter().map(resident_kib).collect();

    let (mut attacker, ready) = Attacker::start(&c, leader, &key);
    let held = ready.strip_prefix("ready: ").and_then(|text| text.split(' ').next()?.parse::<usize>().ok());
    assert!(held.is_some_and(|held| held > SLOW_STREAMS), "streams and connections were held: {ready}");
    let during = measure(node, "writes under attack");
    println!("MEASURED the attacker: {ready}");
    assert!(attacker.0.try_wait().expect("asked").is_none(), "the attack lasted");
    for (node, before) in c.nodes.iter().zip(memory) {
        let after = resident_kib(node);
        println!("MEASURED {}: {before} KiB before, {after} KiB under attack", node.name);
        assert!(after <= before + MEMORY_KIB_MAX, "{}: {before} KiB, then {after} KiB", node.name);
    }
    assert_eq!(c.leader(), leader, "nobody had to elect");
    drop(attacker);
    let after = measure(node, "writes after it");

    let usual = p99(&before).max(p99(&after));
    let most = 2 * usual + NOISE;
    assert!(p99(&during) <= most, "{:?} under attack, {usual:?} without: {most:?} is the most", p99(&during));
}
