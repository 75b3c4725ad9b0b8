//! The configuration file: read, checked, complete before anything is started.

mod address;
mod check;
mod read;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use blixard_core::declared::DeclaredMember;
use blixard_model::api::DEFAULT_SOCKET;
use blixard_model::id::ClusterName;
use blixard_model::{Accel, Capacity, EndpointId, NodeName, RelayUrl};
use blixard_net::{RelayCa, RelayList};
use serde::Deserialize;

/// The UDP port, unless configured.
const DEFAULT_PORT: u16 = 7431;
/// Memory that is not offered to VMs, in MiB, unless configured.
const DEFAULT_RESERVE_MIB: u64 = 512;
/// `hold_s` unless set: an upgrade of the agent takes less.
const DEFAULT_HOLD_S: u32 = 120;
/// A voter that was not heard of for so many seconds is replaced, unless configured: longer than a machine
/// takes to boot again.
const DEFAULT_VOTER_LOST_AFTER_S: u32 = 180;
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
    #[serde(default = "default_listen_address", deserialize_with = "address::ip")]
    pub(crate) listen_address: IpAddr,
    /// The UDP port that is listened on.
    #[serde(default = "default_port")]
    pub(crate) port: u16,
    /// The local socket.
    #[serde(default = "default_socket")]
    pub(crate) socket: PathBuf,
    /// Where others reach this node, when that is not what `members` says.
    #[serde(default, deserialize_with = "address::list")]
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
    /// What is done where SIGKILL does not end a VM whose lease is over.
    #[serde(default)]
    pub(crate) last_resort: LastResortChoice,
    /// As leader, replaces a voter that was not heard of for so many seconds.
    #[serde(default = "default_voter_lost_after_s")]
    pub(crate) voter_lost_after_s: u32,
    /// VMs of this node that may be failed over run on for so many seconds when the agent is stopped; 0: no
    /// longer than their lease.
    #[serde(default = "default_hold_s")]
    pub(crate) hold_s: u32,
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

/// What is done where SIGKILL does not end a VM whose lease is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LastResortChoice {
    /// Nothing is done.
    #[default]
    None,
    /// `blixard-last-resort.service` restarts the machine.
    Reboot,
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
    pub(crate) disk_dirs: Vec<DiskDir>,
}

/// A directory of disks: its path alone, or with what is to be said of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a path, or { path = \"/...\", shared = true }")]
pub(crate) enum DiskDir {
    /// It is this node's own.
    Own(PathBuf),
    /// It may be shared.
    Described(DescribedDir),
}

/// A directory of disks with what is to be said of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DescribedDir {
    path: PathBuf,
    /// Its files are the same ones on every node that says so, by the same path.
    #[serde(default)]
    shared: bool,
}

impl DiskDir {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Own(path) | Self::Described(DescribedDir { path, .. }) => path,
        }
    }

    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Described(DescribedDir { shared: true, .. }))
    }

    fn text(&self) -> String {
        self.path().to_string_lossy().into_owned()
    }
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
    #[serde(default, deserialize_with = "address::list")]
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
    DEFAULT_SOCKET.into()
}
fn default_voter_lost_after_s() -> u32 {
    DEFAULT_VOTER_LOST_AFTER_S
}
fn default_hold_s() -> u32 {
    DEFAULT_HOLD_S
}
fn default_accel() -> Accel {
    Accel::default_on(std::env::consts::ARCH)
}
fn default_qemu() -> String {
    "qemu-system-x86_64".to_owned()
}
fn default_disk_dirs() -> Vec<DiskDir> {
    vec![DiskDir::Own("/var/lib/blixard-disks".into())]
}

impl Config {
    /// The members list; empty for an explicit cluster of one.
    pub(crate) fn declared(&self) -> Vec<DeclaredMember> {
        let member = |(name, member): (&NodeName, &MemberSettings)| DeclaredMember {
            name: name.clone(),
            endpoint_id: member.endpoint_id,
            addresses: member.addresses.clone(),
        };
        self.members.iter().map(member).collect()
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
    /// The file cannot be read or holds no certificate; the error names the configuration key.
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
    /// The machine cannot be asked for what the configuration leaves out.
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
        self.vms.disk_dirs.iter().map(DiskDir::text).collect()
    }

    /// Those of them that are shared with other nodes. A witness runs no VM, and shares none.
    pub(crate) fn shared_dirs(&self) -> Vec<String> {
        let shared = |dir: &&DiskDir| dir.is_shared() && self.role != NodeRole::Witness;
        self.vms.disk_dirs.iter().filter(shared).map(DiskDir::text).collect()
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

#[cfg(test)]
mod tests;
