//! The agents of one test, on loopback addresses of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use blixard_model::api::{Listing, StatusView, VmView};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::namespaces;
use crate::binary::{self, Run};

/// Longest time that a condition may take to become true.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two checks of a condition.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

static CLUSTERS: AtomicU8 = AtomicU8::new(1);

/// A node: its directory, and its agent while the agent runs.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    /// The network namespace in which its agent runs; `None` for that of this process.
    pub(crate) namespace: Option<String>,
    agent: Option<Child>,
}

/// The nodes n1, n2 and so on, with their keys and configurations.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) ids: Vec<String>,
    subnet: String,
    _dir: TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Node {
    /// Runs `blixard` against this node's socket.
    pub(crate) fn blixard(&self, line: &str) -> Run {
        let socket = self.dir.join("s.sock");
        binary::run(&socket, &line.split_whitespace().collect::<Vec<_>>())
    }

    /// The status that this node shows, if its agent answers.
    pub(crate) fn status(&self) -> Option<StatusView> {
        let run = self.blixard("status --json --timeout 5");
        (run.code == 0).then(|| run.json())
    }

    /// The VMs, sorted by name, read through a quorum.
    pub(crate) fn vms(&self) -> Vec<VmView> {
        let run = self.blixard("vm list --json");
        assert_eq!(run.code, 0, "{run:?}");
        run.json::<Listing<VmView>>().items
    }

    /// The names of the VMs that this node's own log has.
    pub(crate) fn stale_names(&self) -> Vec<String> {
        let run = self.blixard("vm list --json --stale");
        if run.code != 0 {
            return Vec::new();
        }
        run.json::<Listing<VmView>>().items.into_iter().map(|vm| vm.name.to_string()).collect()
    }

    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts the agent with these additional environment variables.
    pub(crate) fn start_with(&mut self, environment: &[(&str, &str)]) {
        assert!(self.agent.is_none(), "{} runs", self.name);
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).expect("log");
        let child = namespaces::command(self.namespace.as_deref(), binary::path())
            .arg("agent")
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        self.agent = Some(child);
    }

    /// Whether the agent was started and not stopped since.
    pub(crate) fn runs(&self) -> bool {
        self.agent.is_some()
    }

    /// The exit code of the agent, if it ended by itself.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let status = self.agent.as_mut().expect("runs").try_wait().expect("asked")?;
        self.agent = None;
        Some(status.code().expect("no signal"))
    }

    /// The process id of the agent.
    pub(crate) fn pid(&self) -> u32 {
        self.agent.as_ref().expect("runs").id()
    }

    /// Ends the agent as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().expect("killed");
            agent.wait().expect("gone");
        }
    }

    /// Stops all execution of the agent, which keeps its memory and connections, until [`Node::thaw`].
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("pid"));
        kill(pid, signal).expect("signalled");
    }

    /// Ends the agent as systemd does.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let mut agent = self.agent.take().expect("runs");
        agent.wait().expect("gone")
    }

    pub(crate) fn wipe(&self) {
        fs::remove_file(self.dir.join("store.redb")).expect("removed");
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Cluster {
    /// Makes `count` nodes with keys and configurations, all of which list each other. No agent runs yet.
    pub(crate) fn new(count: usize) -> Self {
        // Each node of each cluster of each run has its own address, so their ports never collide.
        let run = std::process::id() % 250 + 1;
        Self::in_subnet(count, format!("127.{run}.{}", CLUSTERS.fetch_add(1, Ordering::Relaxed)))
    }

    /// Makes such nodes with addresses that begin with `subnet`.
    pub(crate) fn in_subnet(count: usize, subnet: String) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let mut cluster = Self { nodes: Vec::new(), ids: Vec::new(), subnet, _dir: dir };
        for number in 1..=count {
            let node_dir = cluster._dir.path().join(format!("n{number}"));
            fs::create_dir(&node_dir).expect("dir");
            cluster.ids.push(keygen(&node_dir.join("node.key")));
            cluster.nodes.push(Node {
                name: format!("n{number}"),
                dir: node_dir,
                namespace: None,
                agent: None,
            });
        }
        for number in 1..=count {
            cluster.configure(number, &(1..=count).collect::<Vec<_>>());
        }
        cluster
    }

    /// The first `listed` nodes list each other and run as a cluster. The other nodes are to join with a
    /// ticket.
    pub(crate) fn formed_of(listed: usize, unlisted: usize) -> Self {
        let mut cluster = Self::new(listed + unlisted);
        for number in 1..=listed {
            cluster.configure(number, &(1..=listed).collect::<Vec<_>>());
        }
        for number in listed + 1..=listed + unlisted {
            cluster.configure_with(number, &[], "join = true\n");
        }
        cluster.nodes.iter_mut().take(listed).for_each(Node::start);
        cluster.await_formed(listed);
        cluster
    }

    /// Writes the configuration of a node that lists these members.
    pub(crate) fn configure(&self, number: usize, members: &[usize]) {
        self.configure_with(number, members, "");
    }

    /// Writes that configuration with additional lines at its head.
    pub(crate) fn configure_with(&self, number: usize, members: &[usize], head: &str) {
        let node = &self.nodes[number - 1];
        let mut text = format!(
            "{head}node_name = \"{}\"\ncluster_name = \"test\"\ndata_dir = \"{dir}\"\n\
             listen_address = \"{}.{number}\"\nsocket = \"{dir}/s.sock\"\n[vms]\naccel = \"tcg\"\n\
             [resources]\ncpus = 4\nmemory_mib = 2048\n",
            node.name,
            self.subnet,
            dir = node.dir.display(),
        );
        for member in members {
            text += &format!(
                "[members.n{member}]\nendpoint_id = \"{}\"\naddresses = [\"{}.{member}:7431\"]\n",
                self.ids[member - 1],
                self.subnet
            );
        }
        fs::write(node.dir.join("config.toml"), text).expect("written");
    }

    /// The address of a node; or, for a number beyond the nodes, a free address of this cluster.
    pub(crate) fn address(&self, number: usize) -> String {
        format!("{}.{number}", self.subnet)
    }

    /// Three nodes that run as a cluster, in which each one knows all of them.
    pub(crate) fn formed() -> Self {
        let mut cluster = Self::new(3);
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.await_formed(3);
        cluster
    }

    pub(crate) fn await_formed(&self, voters: usize) {
        self.until("every node is a member and sees every voter", |cluster| {
            cluster.nodes.iter().filter(|node| node.agent.is_some()).all(|node| {
                node.status().is_some_and(|status| {
                    let votes = |m: &blixard_model::api::NodeView| m.role == blixard_model::Role::Voter;
                    status.quorum
                        && status.members.iter().filter(|m| votes(m) && m.capacity.is_some()).count()
                            == voters
                        && status.phase == blixard_model::api::NodePhase::Member
                })
            })
        });
    }

    /// Waits until the agent of a node ends by itself. Returns its exit code.
    pub(crate) fn await_end(&mut self, node: usize) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(code) = self.nodes[node].ended() {
                return code;
            }
            let log = self.nodes[node].log();
            assert!(begun.elapsed() <= DEADLINE, "{} has not ended\n{log}", self.nodes[node].name);
            std::thread::park_timeout(LOOK_PERIOD);
        }
    }

    /// The index of the leader on which every running node agrees.
    pub(crate) fn leader(&self) -> usize {
        let mut found = None;
        self.until("one leader", |cluster| {
            let running = cluster.nodes.iter().filter(|node| node.agent.is_some());
            let mut leaders: Vec<_> = running.map(|node| node.status().and_then(|s| s.leader)).collect();
            leaders.dedup();
            let [Some(leader)] = &leaders[..] else { return false };
            found = cluster.nodes.iter().position(|n| n.name == leader.as_str() && n.agent.is_some());
            found.is_some()
        });
        found.expect("found")
    }

    /// The indices of the nodes that are not the leader.
    pub(crate) fn followers(&self) -> Vec<usize> {
        let leader = self.leader();
        (0..self.nodes.len()).filter(|node| *node != leader).collect()
    }

    /// Checks a condition until it holds. Past the deadline it panics and shows the log of every node.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            if begun.elapsed() > DEADLINE {
                let logs: String =
                    self.nodes.iter().map(|n| format!("--- {}\n{}", n.name, n.log())).collect();
                panic!("not within {DEADLINE:?}: {what}\n{logs}");
            }
            std::thread::park_timeout(LOOK_PERIOD);
        }
    }
}

pub(crate) fn keygen(path: &Path) -> String {
    let run = binary::run(Path::new("/nowhere"), &["keygen", "--key-file", path.to_str().expect("text")]);
    assert_eq!(run.code, 0, "{run:?}");
    run.stdout.trim().to_owned()
}
