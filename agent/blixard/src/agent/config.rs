//! The configuration file: read, checked, complete before anything is started.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use blixard_core::formation::DeclaredMember;
use blixard_core::state::member_check::{MemberFacts, MemberField, check_member, check_members};
use blixard_model::id::ClusterName;
use blixard_model::member::MEMBERS_MAX;
use blixard_model::{Accel, Capacity, EndpointId, NodeName, RelayUrl};
use blixard_net::{RelayCa, RelayList};
use serde::Deserialize;

/// The UDP port, unless configured.
const DEFAULT_PORT: u16 = 7431;
/// Memory that is not offered to VMs, in MiB, unless configured.
const DEFAULT_RESERVE_MIB: u64 = 512;
/// A voter that was not heard of for so many seconds is replaced, unless configured: longer than a machine
/// takes to boot again.
const DEFAULT_VOTER_LOST_AFTER_S: u32 = 180;
/// Least of it, in seconds: several elections.
const VOTER_LOST_AFTER_S_MIN: u32 = 5;
/// Largest configuration file, and largest file of authorities, in bytes.
const FILE_LEN_MAX: u64 = 1 << 20;

/// Everything the agent is told by its operator.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Config {
    /// This node's name.
    pub(crate) node_name: NodeName,
    /// The cluster's name.
    #[serde(default = "default_cluster_name")]
    pub(crate) cluster_name: ClusterName,
    /// Where the store and, unless given elsewhere, the key are.
    #[serde(default = "default_data_dir")]
    pub(crate) data_dir: PathBuf,
    /// The node's key.
    #[serde(default)]
    pub(crate) key_file: Option<PathBuf>,
    /// The address that is listened on.
    #[serde(default = "default_listen_address")]
    pub(crate) listen_address: IpAddr,
    /// The UDP port that is listened on.
    #[serde(default = "default_port")]
    pub(crate) port: u16,
    /// The local socket.
    #[serde(default = "default_socket")]
    pub(crate) socket: PathBuf,
    /// Where others reach this node, when that is not what `members` says.
    #[serde(default)]
    pub(crate) advertise_addresses: Vec<SocketAddr>,
    /// Without a list of members: this node joins a cluster with a ticket, and forms none of its own.
    #[serde(default)]
    pub(crate) join: bool,
    /// Where the ticket is; as `join`.
    #[serde(default)]
    pub(crate) join_ticket_file: Option<PathBuf>,
    /// Whether VMs may run here.
    #[serde(default)]
    pub(crate) role: NodeRole,
    /// As leader, replaces a voter that was not heard of for so many seconds.
    #[serde(default = "default_voter_lost_after_s")]
    pub(crate) voter_lost_after_s: u32,
    /// How other nodes are reached.
    #[serde(default)]
    pub(crate) net: NetSettings,
    /// How VMs run here.
    #[serde(default)]
    pub(crate) vms: VmSettings,
    /// What is offered to VMs.
    #[serde(default)]
    pub(crate) resources: Resources,
    /// The nodes of the cluster, this one included.
    #[serde(default)]
    pub(crate) members: BTreeMap<NodeName, MemberSettings>,
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NodeRole {
    /// Runs VMs, votes or is replicated to.
    #[default]
    Node,
    /// Votes and keeps the log, and is never given a VM.
    Witness,
}

/// How this node reaches others that it has no direct way to.
#[derive(Debug, Clone, Deserialize, Default)]
pub(crate) struct NetSettings {
    /// The relays it uses, the only ones.
    #[serde(default)]
    relay_urls: Vec<RelayUrl>,
    /// Certificates of the authorities that vouch for them, in PEM.
    #[serde(default)]
    relay_ca_file: Option<PathBuf>,
}

/// How VMs run on this node.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct VmSettings {
    /// What executes guest code.
    #[serde(default = "default_accel")]
    pub(crate) accel: Accel,
    /// The QEMU program.
    #[serde(default = "default_qemu")]
    pub(crate) qemu: String,
    /// Where disks lie.
    #[serde(default = "default_disk_dirs")]
    pub(crate) disk_dirs: Vec<PathBuf>,
}

impl Default for VmSettings {
    fn default() -> Self {
        Self { accel: default_accel(), qemu: default_qemu(), disk_dirs: default_disk_dirs() }
    }
}

/// What this node offers; what is left out is taken from the machine.
#[derive(Debug, Clone, Deserialize, Default)]
pub(crate) struct Resources {
    /// Virtual cpus to offer.
    #[serde(default)]
    cpus: Option<u32>,
    /// Memory to offer, in MiB.
    #[serde(default)]
    memory_mib: Option<u64>,
    /// Memory to keep for the machine itself when `memory_mib` is not set, in MiB.
    #[serde(default)]
    reserve_memory_mib: Option<u64>,
}

/// A member as it is written down.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct MemberSettings {
    /// What `blixard keygen` prints there.
    endpoint_id: EndpointId,
    /// Where it is reached.
    #[serde(default)]
    addresses: Vec<SocketAddr>,
}

fn default_cluster_name() -> ClusterName {
    "blixard".parse().unwrap_or_else(|_| unreachable!("a plain word is a cluster name"))
}
fn default_data_dir() -> PathBuf {
    "/var/lib/blixard".into()
}
fn default_listen_address() -> IpAddr {
    Ipv4Addr::UNSPECIFIED.into()
}
fn default_port() -> u16 {
    DEFAULT_PORT
}
fn default_socket() -> PathBuf {
    "/run/blixard/blixard.sock".into()
}
fn default_voter_lost_after_s() -> u32 {
    DEFAULT_VOTER_LOST_AFTER_S
}
fn default_accel() -> Accel {
    Accel::Kvm
}
fn default_qemu() -> String {
    "qemu-system-x86_64".to_owned()
}
fn default_disk_dirs() -> Vec<PathBuf> {
    vec!["/var/lib/blixard-disks".into()]
}

/// Why a configuration can not be used. Names the key and the way out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file can not be read.
    #[error("{path}: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// No TOML, or a value that can not be.
    #[error("{path}: {message}", path = path.display())]
    Syntax { path: PathBuf, message: String },
    /// Keys that nothing reads.
    #[error("{path}: {keys}", path = path.display(), keys = keys.join("; "))]
    UnknownKeys { path: PathBuf, keys: Vec<String> },
    /// Values that contradict each other or the world.
    #[error("{path}: {problem}", path = path.display())]
    Invalid { path: PathBuf, problem: String },
}

/// The keys of each table, to name the nearest one. `*` stands for a member's name.
const KEYS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "node_name",
            "cluster_name",
            "data_dir",
            "key_file",
            "listen_address",
            "port",
            "socket",
            "advertise_addresses",
            "join",
            "join_ticket_file",
            "role",
            "voter_lost_after_s",
            "net",
            "vms",
            "resources",
            "members",
        ],
    ),
    ("net", &["relay_urls", "relay_ca_file"]),
    ("vms", &["accel", "qemu", "disk_dirs"]),
    ("resources", &["cpus", "memory_mib", "reserve_memory_mib"]),
    ("members.*", &["endpoint_id", "addresses"]),
];

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(read)?.len() > FILE_LEN_MAX {
            let problem = format!("is larger than {FILE_LEN_MAX} bytes");
            return Err(ConfigError::Invalid { path: path.to_owned(), problem });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string(),
        };
        let mut unknown = Vec::new();
        let deserializer = toml::Deserializer::parse(text).map_err(syntax)?;
        let parsed: Result<Self, _> =
            serde_ignored::deserialize(deserializer, |key| unknown.push(key.to_string()));
        // An unknown key is the likelier cause when a needed one is missing: say it first.
        if !unknown.is_empty() {
            let keys = unknown.iter().map(|key| describe_unknown(key)).collect();
            return Err(ConfigError::UnknownKeys { path: path.to_owned(), keys });
        }
        let config = parsed.map_err(syntax)?;
        match config.problem() {
            Some(problem) => Err(ConfigError::Invalid { path: path.to_owned(), problem }),
            None => Ok(config),
        }
    }

    fn problem(&self) -> Option<String> {
        if self.port == 0 {
            return Some("port: 0 is not a port".to_owned());
        }
        if self.joins() && !self.members.is_empty() {
            let key = if self.join { "join" } else { "join_ticket_file" };
            return Some(format!(
                "{key}: this node is in a list of `members`, and is admitted because it is listed: leave \
                 one of the two out"
            ));
        }
        if self.voter_lost_after_s < VOTER_LOST_AFTER_S_MIN {
            let given = self.voter_lost_after_s;
            return Some(format!("voter_lost_after_s: {given} is less than {VOTER_LOST_AFTER_S_MIN}"));
        }
        for (key, path) in [("data_dir", &self.data_dir), ("socket", &self.socket)] {
            if !path.is_absolute() {
                return Some(format!("{key}: {} is not an absolute path", path.display()));
            }
        }
        if let Some(problem) = self.relays_problem() {
            return Some(problem);
        }
        if let Some(dir) = self.vms.disk_dirs.iter().find(|dir| !dir.is_absolute()) {
            return Some(format!("vms.disk_dirs: {} is not an absolute path", dir.display()));
        }
        if self.vms.qemu.is_empty() || self.vms.qemu.starts_with('-') {
            return Some(format!("vms.qemu: {:?} is not a program", self.vms.qemu));
        }
        if self.resources.cpus == Some(0) {
            return Some(
                "resources.cpus: 0 offers nothing; leave it out for what the machine has".to_owned(),
            );
        }
        self.members_problem()
    }

    fn relays_problem(&self) -> Option<String> {
        if let Err(error) = RelayList::new(&self.net.relay_urls) {
            return Some(format!("net.relay_urls: {error}"));
        }
        let file = self.net.relay_ca_file.as_ref()?;
        if !file.is_absolute() {
            return Some(format!("net.relay_ca_file: {} is not an absolute path", file.display()));
        }
        let unused = self.net.relay_urls.is_empty();
        unused.then(|| "net.relay_ca_file: there is no relay to vouch for in net.relay_urls".to_owned())
    }

    fn members_problem(&self) -> Option<String> {
        for (name, member) in &self.members {
            if let Err(error) = blixard_net::key::check_endpoint_id(&member.endpoint_id) {
                return Some(format!("members.{name}.endpoint_id: {error}"));
            }
        }
        if self.members.len() > MEMBERS_MAX {
            return Some(format!("members: {} of them, more than {MEMBERS_MAX}", self.members.len()));
        }
        let list = self.declared();
        let facts: Vec<_> = list.iter().map(MemberFacts::from).collect();
        if let Err((name, error)) = check_members(&facts) {
            let key = match error.field() {
                MemberField::Addresses => "addresses",
                _ => "endpoint_id",
            };
            return Some(format!("members.{name}.{key}: {error}"));
        }
        self.advertised_problem(&facts)
    }

    /// What this node says of itself takes the place of what the list says.
    fn advertised_problem(&self, listed: &[MemberFacts<'_>]) -> Option<String> {
        let (me, others): (Vec<MemberFacts<'_>>, Vec<_>) =
            listed.iter().partition(|member| *member.name == self.node_name);
        // A list without this node is another mistake, which is told with the local id.
        if self.advertise_addresses.is_empty() || me.is_empty() && !others.is_empty() {
            return None;
        }
        let me = MemberFacts {
            name: &self.node_name,
            endpoint_id: me.first().map_or(EndpointId::from_bytes([0; 32]), |me| me.endpoint_id),
            store_id: None,
            addresses: &self.advertise_addresses,
            relay_url: None,
            capacity: None,
        };
        let error = check_member(me, &others).err()?;
        Some(format!("advertise_addresses: {error}"))
    }

    /// The members list; empty for an explicit cluster of one.
    pub(crate) fn declared(&self) -> Vec<DeclaredMember> {
        let member = |(name, member): (&NodeName, &MemberSettings)| DeclaredMember {
            name: name.clone(),
            endpoint_id: member.endpoint_id,
            addresses: member.addresses.clone(),
        };
        self.members.iter().map(member).collect()
    }

    /// What is wrong when there is a list and this node is not in it.
    pub(crate) fn unlisted(&self) -> Option<String> {
        let listed = self.members.is_empty() || self.members.contains_key(&self.node_name);
        (!listed).then(|| {
            format!(
                "members: node_name {} is not in the list; the list names every node, this one included",
                self.node_name
            )
        })
    }

    /// Checks that this node is who the members list says it is.
    ///
    /// # Errors
    /// What to write into the list, with the local id.
    pub(crate) fn check_own_id(&self, endpoint_id: EndpointId) -> Result<(), String> {
        match self.members.get(&self.node_name) {
            None if !self.members.is_empty() => Err(format!(
                "{}; this node's key has the endpoint id {endpoint_id}",
                self.unlisted().unwrap_or_default()
            )),
            Some(member) if member.endpoint_id != endpoint_id => Err(format!(
                "members.{name}.endpoint_id is {theirs}, but the endpoint id of this node's key is \
                 {endpoint_id}: \
                 write that one into the list on every node, or restore the key of the listed one",
                name = self.node_name,
                theirs = member.endpoint_id,
            )),
            _ => Ok(()),
        }
    }

    /// This node is to join a cluster with a ticket.
    pub(crate) fn joins(&self) -> bool {
        self.join || self.join_ticket_file.is_some()
    }

    /// Where the others reach this node, as far as it is written down.
    pub(crate) fn own_addresses(&self) -> Vec<SocketAddr> {
        if !self.advertise_addresses.is_empty() {
            return self.advertise_addresses.clone();
        }
        self.members.get(&self.node_name).map(|member| member.addresses.clone()).unwrap_or_default()
    }

    /// The relays that this node uses.
    ///
    /// # Errors
    /// Only of a list that was not checked when it was read.
    pub(crate) fn relays(&self) -> Result<RelayList, blixard_net::RelayListError> {
        RelayList::new(&self.net.relay_urls)
    }

    /// Who vouches for them; `None` leaves it to the public authorities. Read at the start and not when the
    /// configuration is checked, which may be on another machine.
    ///
    /// # Errors
    /// The file can not be read, or holds none: names the key.
    pub(crate) fn relay_ca(&self) -> anyhow::Result<Option<RelayCa>> {
        let Some(path) = &self.net.relay_ca_file else { return Ok(None) };
        let named = || format!("net.relay_ca_file: {}", path.display());
        let len = std::fs::metadata(path).with_context(named)?.len();
        anyhow::ensure!(len <= FILE_LEN_MAX, "{}: is larger than {FILE_LEN_MAX} bytes", named());
        let text = std::fs::read(path).with_context(named)?;
        RelayCa::from_pem(&text).with_context(named).map(Some)
    }

    /// The address and port that are listened on.
    pub(crate) fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.listen_address, self.port)
    }

    /// Where the key is: as configured, else systemd's credential, else in the data directory.
    pub(crate) fn key_path(&self, credentials_dir: Option<&Path>) -> PathBuf {
        if let Some(path) = &self.key_file {
            return path.clone();
        }
        let credential = credentials_dir.map(|dir| dir.join("node.key")).filter(|path| path.exists());
        credential.unwrap_or_else(|| self.data_dir.join("node.key"))
    }

    /// What this node offers to VMs.
    ///
    /// # Errors
    /// The machine can not be asked for what the configuration leaves out.
    pub(crate) fn capacity(&self) -> std::io::Result<Capacity> {
        let cpus = match self.resources.cpus {
            Some(cpus) => cpus,
            None => u32::try_from(std::thread::available_parallelism()?.get()).unwrap_or(u32::MAX),
        };
        let memory_mib = match self.resources.memory_mib {
            Some(memory_mib) => memory_mib,
            None => {
                let reserve = self.resources.reserve_memory_mib.unwrap_or(DEFAULT_RESERVE_MIB);
                machine_memory_mib()?.saturating_sub(reserve)
            }
        };
        Ok(Capacity { cpus, memory_mib })
    }

    /// The disk directories as text.
    pub(crate) fn disk_dirs(&self) -> Vec<String> {
        self.vms.disk_dirs.iter().map(|dir| dir.to_string_lossy().into_owned()).collect()
    }
}

fn machine_memory_mib() -> std::io::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib =
        line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    kib.map(|kib| kib / 1024)
        .ok_or_else(|| std::io::Error::other("/proc/meminfo has no MemTotal: set resources.memory_mib"))
}

fn describe_unknown(key: &str) -> String {
    let (table, last) = key.rsplit_once('.').unwrap_or(("", key));
    let table = if table.starts_with("members.") { "members.*" } else { table };
    let known = KEYS.iter().find(|(name, _)| *name == table).map_or(&[][..], |(_, keys)| keys);
    let nearest =
        known.iter().max_by(|a, b| strsim::jaro_winkler(a, last).total_cmp(&strsim::jaro_winkler(b, last)));
    match nearest {
        Some(nearest) => format!("unknown key `{key}`: did you mean `{nearest}`?"),
        None => format!("unknown key `{key}`"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ID: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    /// The key of RFC 8032's second test.
    const OTHER_ID: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";

    /// A node with these relays.
    fn relays(list: &str) -> String {
        format!("node_name = \"n1\"\n[net]\nrelay_urls = [{list}]")
    }

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("c.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn fuzz_config() {
        let target = blixard_hostile::Target::new("config")
            .valid(full())
            .valid("node_name = \"n1\"\n")
            .heap_max(16 << 20);
        let words = [
            "[members.",
            "addresses = [",
            "\"127.0.0.1:1\"",
            "port = ",
            "\n",
            "[vms]",
            "=",
            "\"\"\"",
            "\\u0000",
            ".",
            ID,
        ];
        target.words(words).run(|bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return "no text".to_owned() };
            match parse(text) {
                Ok(config) => {
                    assert!(config.data_dir.is_absolute() && config.socket.is_absolute() && config.port != 0);
                    format!("valid with {} members", "x".repeat(config.declared().len().min(16)))
                }
                Err(why) => why,
            }
        });
    }

    fn full() -> String {
        format!(
            r#"
            node_name = "n1"
            cluster_name = "lab"
            data_dir = "/d"
            key_file = "/k"
            listen_address = "127.0.0.1"
            port = 1
            socket = "/s"
            advertise_addresses = ["127.0.0.1:1"]
            role = "witness"
            voter_lost_after_s = 60
            [net]
            relay_urls = ["https://relay.example.org"]
            relay_ca_file = "/ca"
            [vms]
            accel = "tcg"
            qemu = "qemu"
            disk_dirs = ["/disks"]
            [resources]
            cpus = 3
            memory_mib = 4
            reserve_memory_mib = 5
            [members.n1]
            endpoint_id = "{ID}"
            addresses = ["127.0.0.1:7431"]
            "#
        )
    }

    #[test]
    fn every_key_is_read_and_every_read_key_is_listed() {
        let config = parse(&full()).expect("valid");
        assert_eq!(config.capacity().expect("given"), Capacity { cpus: 3, memory_mib: 4 });
        let table: toml::Table = full().parse().expect("toml");
        let listed = |name: &str| KEYS.iter().find(|(table, _)| *table == name).expect("listed").1.to_vec();
        let keys = |table: &toml::Table| table.keys().cloned().collect::<BTreeSet<_>>();
        let wanted = |name: &str| listed(name).iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        // A node on a list joins with no ticket.
        let joining = "node_name = \"n1\"\njoin = true\njoin_ticket_file = \"/t\"\n";
        assert!(parse(joining).expect("valid").joins());
        let joining: toml::Table = joining.parse().expect("toml");
        assert_eq!(&keys(&table) | &keys(&joining), wanted(""));
        assert_eq!(keys(table["net"].as_table().expect("table")), wanted("net"));
        assert_eq!(keys(table["vms"].as_table().expect("table")), wanted("vms"));
        assert_eq!(keys(table["resources"].as_table().expect("table")), wanted("resources"));
        assert_eq!(keys(table["members"]["n1"].as_table().expect("table")), wanted("members.*"));
    }

    #[test]
    fn who_joins_is_on_no_list_and_a_lost_voter_is_missed_for_some_seconds() {
        let refused = |text: &str, why: &str| {
            let said = parse(text).expect_err(why);
            assert!(said.contains(why), "{said}");
        };
        let listed = full();
        refused(&format!("join = true\n{listed}"), "leave one of the two out");
        refused("node_name = \"n1\"\nvoter_lost_after_s = 4\n", "voter_lost_after_s: 4 is less than 5");
        refused("node_name = \"n1\"\nrole = \"voter\"\n", "witness");
    }

    #[test]
    fn a_name_is_enough_for_a_cluster_of_one() {
        let config = parse("node_name = \"n1\"").expect("valid");
        assert!(config.declared().is_empty());
        assert_eq!(config.listen().to_string(), "0.0.0.0:7431");
    }

    #[test]
    fn unknown_keys_are_named_with_the_nearest() {
        let cases = [
            ("node_nme = \"n1\"", "`node_nme`: did you mean `node_name`?"),
            ("node_name = \"n1\"\n[vms]\nacel = \"tcg\"", "`vms.acel`: did you mean `accel`?"),
            (
                "node_name = \"n1\"\n[members.n1]\nendpointid = \"x\"",
                "`members.n1.endpointid`: did you mean `endpoint_id`?",
            ),
        ];
        for (text, wanted) in cases {
            let error = parse(text).expect_err("unknown");
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn values_that_can_not_be_are_refused_by_name() {
        let two = format!(
            "node_name = \"n1\"\n[members.n1]\nendpoint_id = \"{ID}\"\naddresses = [\"127.0.0.1:1\"]\n\
             [members.n2]\n"
        );
        let cases = [
            ("node_name = \"N1\"".to_owned(), "node name"),
            ("node_name = \"n1\"\nport = 0".to_owned(), "port"),
            ("node_name = \"n1\"\nport = 70000".to_owned(), "port"),
            ("node_name = \"n1\"\ndata_dir = \"x\"".to_owned(), "data_dir"),
            ("node_name = \"n1\"\n[vms]\ndisk_dirs = [\"x\"]".to_owned(), "vms.disk_dirs"),
            ("node_name = \"n1\"\n[vms]\naccel = \"magic\"".to_owned(), "accel"),
            (relays("\"relay.example.org\""), "is not a relay url"),
            (relays("\"https://a\", \"https://a/\""), "net.relay_urls: https://a/ is there twice"),
            (relays("\"http://relay.example.org\""), "without TLS"),
            (relays("\"https://a\"") + "\nrelay_ca_file = \"x\"", "net.relay_ca_file: x is not"),
            (relays("") + "\nrelay_ca_file = \"/x\"", "there is no relay to vouch for"),
            (format!("{two}endpoint_id = \"{ID}\"\naddresses = [\"127.0.0.1:2\"]"), "07511a is n2's as well"),
        ];
        for (text, wanted) in cases {
            let error = parse(&text).expect_err("invalid");
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }

    /// A list of n1, which is this node, and n2.
    fn two(advertised: &str, first: &str, second: &str) -> Result<Config, String> {
        let text = format!(
            "node_name = \"n1\"\nadvertise_addresses = [{advertised}]\n\
             [members.n1]\nendpoint_id = \"{ID}\"\naddresses = [{first}]\n\
             [members.n2]\nendpoint_id = \"{OTHER_ID}\"\naddresses = [{second}]\n"
        );
        parse(&text)
    }

    #[test]
    fn addresses_that_nobody_could_send_to_are_refused_by_key() {
        let good = "\"10.77.0.1:7431\"";
        let cases = [
            ("", good, "", "members.n2.addresses: no address and no relay"),
            ("", good, good, "members.n1.addresses: 10.77.0.1:7431 is n2's as well"),
            (
                "",
                good,
                "\"10.77.0.2:1\", \"10.77.0.2:1\"",
                "members.n2.addresses: 10.77.0.2:1 is there twice",
            ),
            ("", good, "\"0.0.0.0:1\"", "members.n2.addresses: 0.0.0.0:1 is the unspecified address"),
            ("", good, "\"[ff02::1]:1\"", "members.n2.addresses: [ff02::1]:1 is a multicast address"),
            ("", good, "\"10.77.0.2:0\"", "members.n2.addresses: 10.77.0.2:0 has port 0"),
            (
                "",
                good,
                "\"127.0.0.2:1\"",
                "members.n2.addresses: 127.0.0.2:1 (n2) is a loopback address beside",
            ),
            (
                "\"127.0.0.1:1\"",
                good,
                "\"10.77.0.2:1\"",
                "advertise_addresses: 127.0.0.1:1 (n1) is a loopback",
            ),
            ("\"10.77.0.2:1\"", good, "\"10.77.0.2:1\"", "advertise_addresses: 10.77.0.2:1 is n2's as well"),
        ];
        for (advertised, first, second, wanted) in cases {
            let error = two(advertised, first, second).expect_err(wanted);
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
        assert!(two("", good, "\"10.77.0.2:7431\", \"[2001:db8::2]:7431\"").is_ok());
        assert!(two("", "\"127.0.0.1:1\"", "\"127.0.0.2:1\"").is_ok(), "a whole cluster on one machine");
        assert!(two("\"203.0.113.7:1\"", good, "\"10.77.0.2:1\"").is_ok(), "behind another address");
    }

    #[test]
    fn a_node_alone_advertises_what_it_likes_except_nothing_at_all() {
        let alone = |address| parse(&format!("node_name = \"n1\"\nadvertise_addresses = [\"{address}\"]"));
        assert!(alone("127.0.0.1:1").is_ok());
        assert!(alone("[::]:1").expect_err("nowhere").contains("advertise_addresses: [::]:1"));
        let many = ["10.77.0.1:1"; 9].join("\", \"");
        assert!(alone(&many).expect_err("too many").contains("advertise_addresses: 9 addresses"));
    }

    #[test]
    fn a_list_without_this_node_is_refused_with_the_local_id() {
        let config = parse(&full().replace("members.n1", "members.n2")).expect("a list");
        assert!(config.unlisted().expect("not in it").contains("node_name n1 is not in the list"));
        let local = EndpointId::from_bytes([7; 32]);
        assert!(config.check_own_id(local).expect_err("not in it").contains(&local.to_string()));
    }

    #[test]
    fn authorities_that_can_not_be_read_are_named_at_the_start() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("ca.pem");
        let text = relays("\"https://a\"") + &format!("\nrelay_ca_file = \"{}\"", path.display());
        let config = parse(&text).expect("it is read at the start, not here");
        assert!(format!("{:#}", config.relay_ca().expect_err("missing")).contains("net.relay_ca_file"));
        std::fs::write(&path, "hello").expect("written");
        let error = format!("{:#}", config.relay_ca().expect_err("no certificate"));
        assert!(error.contains("net.relay_ca_file") && error.contains("no certificate"), "{error}");
        assert!(parse(&relays("\"https://a\"")).expect("fine").relay_ca().expect("none").is_none());
    }

    #[test]
    fn another_own_id_is_refused_with_the_local_one() {
        let config = parse(&full()).expect("valid");
        let local = EndpointId::from_bytes([7; 32]);
        let error = config.check_own_id(local).expect_err("differs");
        assert!(error.contains(&local.to_string()), "{error}");
    }
}
