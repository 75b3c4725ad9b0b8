//! What is done to a node's store while its agent is stopped: a restore, and a recovery.
//!
//! The store's lock tells whether an agent runs; it is held to the end. What a new cluster begins with is
//! decided in `blixard-core`, and made a store of in `blixard-node`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use blixard_core::lineage::Founder;
use blixard_model::api::ErrorKind;
use blixard_model::backup::{BACKUP_LEN_MAX, BackupHeader};
use blixard_model::words::{duration, with_causes};
use blixard_model::{EndpointId, Member, NodeFacts, NodeName, Offer};
use blixard_net::NodeKey;
use blixard_node::rebirth::{
    Rebirth, RemainsError, check_place, plan_rebirth, read_remains, replaced_endpoint,
};
use blixard_node::{Backup, decode_backup};
use blixard_store::{DirDisk, FILE_NAME, OpenError, ReplaceError, Store, StoreDisk as _};

use super::config::{Config, NodeRole};
use super::{clock, keygen, random, stop_notes};

const STOP_IT: &str = "stop it first: systemctl stop blixard (VMs go on)";

/// The files of a node whose agent is stopped.
#[derive(Debug, Clone, Copy)]
pub struct StoppedNode<'a> {
    /// Its configuration.
    pub config: &'a Path,
    /// Its key, where the configuration does not say where it is.
    pub key_file: Option<&'a Path>,
}

/// Why a store was not given a new cluster, or why that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct OfflineError {
    /// Whether nothing was changed or this is not known.
    pub kind: ErrorKind,
    /// What went wrong, with its causes.
    pub cause: String,
    /// What to do; empty when the cause says it.
    pub way_out: String,
}

impl OfflineError {
    pub(crate) fn refused(cause: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Refused, cause: cause.into(), way_out: way_out.into() }
    }
}

/// Begins a new cluster with the state of the backup in `file`; one of another cluster is only taken
/// `as_new`. The VMs that the backup places here may have moved since, so somebody has to say that they run
/// nowhere else: `others_are_stopped`. Returns what was done and what to do next.
///
/// # Errors
/// Nothing was changed, or it is said that this is not known.
pub fn restore(
    node: StoppedNode<'_>,
    file: &Path,
    (as_new, others_are_stopped): (bool, bool),
) -> Result<String, OfflineError> {
    let node = OfflineNode::of(node)?;
    let backup = read_backup(file)?;
    let name = &node.config.node_name;
    let found = node.find_store()?;
    let endpoint_id = node.endpoint_id(found.as_ref())?;
    let marker = found.as_ref().and_then(Store::cluster);
    if !as_new {
        let cluster_name = node.config.cluster_name.as_str();
        check_place((&backup.header, &backup.state), cluster_name, marker).map_err(refused)?;
    }
    let replaced = replaced_endpoint(&backup.state, name, endpoint_id);
    let store_id = random::store_id();
    let founder = node.founder(endpoint_id, store_id, backup.header.index)?;
    let rebirth = plan_rebirth(backup.state, backup.header.term, founder).map_err(refused)?;
    if !others_are_stopped {
        check_runs_once(name, &rebirth)?;
    }
    let mut told = backup_text(file, &backup.header);
    if let Some(other) = replaced {
        told += &format!(
            "{name} has another key in the backup (endpoint id {}): this node takes its place\n",
            other.short()
        );
    }
    let held = found.as_ref().and_then(Store::cluster).map(|marker| marker.cluster_id);
    let store = match found {
        Some(store) => store,
        // Made first, so that it can be held: an agent that starts meanwhile is refused.
        None => Store::open(&node.disk, endpoint_id, &node.config.cluster_name, store_id)
            .map_err(|error| node.can_not_open(error))?,
    };
    let kept_as = format!("{FILE_NAME}.before-restore-{}", clock::wall_ms());
    store.replace(&node.disk, &rebirth.begin, &kept_as).map_err(not_replaced)?;
    told += &forget_stops(&node.config.data_dir);
    if let Some(held) = held {
        told += &format!("the store of cluster {} is kept as {kept_as}\n", held.short());
    }
    Ok(told + &outcome(&node, &rebirth))
}

/// A VM that was placed here when the backup was made may have been given to another node since, where it
/// goes on for as long as its hold or without an end while that agent is stopped.
fn check_runs_once(name: &NodeName, rebirth: &Rebirth) -> Result<(), OfflineError> {
    if rebirth.starts == 0 || rebirth.given_up.is_empty() {
        return Ok(());
    }
    let cause = format!(
        "{name} starts {} VMs of the backup at once, and those that were given to {} since would run twice",
        rebirth.starts,
        names_of(&rebirth.given_up)
    );
    let way_out = "stop the agents and the VMs of the other machines (systemctl stop blixard \
                   'blixard-vm@*'), then say so: --i-know-the-others-are-stopped";
    Err(OfflineError::refused(cause, way_out))
}

fn names_of(members: &[Member]) -> String {
    let mut names: Vec<&str> = members.iter().map(|member| member.node.name.as_str()).collect();
    names.sort_unstable();
    names.join(", ")
}

/// What was stopped by hand was of VMs as they were after the backup.
fn forget_stops(data_dir: &Path) -> String {
    match stop_notes::forget_all(data_dir) {
        Ok(()) => String::new(),
        Err(error) => format!("what was stopped by hand could not be forgotten: {error}\n"),
    }
}

fn backup_text(file: &Path, header: &BackupHeader) -> String {
    let age = Duration::from_millis(clock::wall_ms().saturating_sub(header.made_at_ms));
    let mut text = format!(
        "{}: cluster {} (id {}) at index {}, made {} ago by {}\n",
        file.display(),
        header.cluster_name,
        header.cluster_id.short(),
        header.index,
        duration(age),
        header.node
    );
    if !header.linearizable {
        text += "it was made with --stale: writes acknowledged before it may be missing\n";
    }
    text
}

/// Begins a new cluster with what this node has. Returns what was done and what to do next.
///
/// # Errors
/// Nothing was changed, or it is said that this is not known.
pub fn recover(node: StoppedNode<'_>) -> Result<String, OfflineError> {
    let node = OfflineNode::of(node)?;
    let name = &node.config.node_name;
    let store = node.find_store()?.ok_or_else(|| refused(RemainsError::Empty))?;
    let endpoint_id = node.endpoint_id(Some(&store))?;
    if let Some(marker) = store.cluster()
        && marker.genesis.cluster_name != node.config.cluster_name
    {
        let theirs = marker.genesis.cluster_name.clone();
        let path = node.disk.path(FILE_NAME);
        let ours = node.config.cluster_name.clone();
        return Err(node.can_not_open(OpenError::OtherCluster { path, theirs, ours }));
    }
    let remains = read_remains(&store, name).map_err(refused)?;
    let (old, count) = (remains.state.cluster_id(), remains.not_known_committed);
    let mut told = format!(
        "{name} was raft id {} of cluster {} (id {}), {} members, its log ends at index {}\n",
        remains.raft_id,
        remains.state.genesis.cluster_name,
        old.short(),
        remains.state.nodes.member_count(),
        remains.index
    );
    told += &match count {
        0 => "all of its log was known to be committed\n".to_owned(),
        n => format!("entries at its end that were not known to be committed: {n}; they are kept\n"),
    };
    let founder = node.founder(endpoint_id, store.store_id(), remains.index)?;
    let rebirth = plan_rebirth(remains.state, remains.term, founder).map_err(refused)?;
    let kept_as = format!("{FILE_NAME}.before-recover-{}", clock::wall_ms());
    store.replace(&node.disk, &rebirth.begin, &kept_as).map_err(not_replaced)?;
    told += &format!("the old store is kept as {kept_as}\n");
    Ok(told + &outcome(&node, &rebirth))
}

/// A node whose agent is stopped.
struct OfflineNode {
    config: Config,
    disk: DirDisk,
    /// As its key says, where that can be found.
    key: Option<EndpointId>,
}

impl OfflineNode {
    fn of(files: StoppedNode<'_>) -> Result<Self, OfflineError> {
        let config = Config::load(files.config).map_err(refused)?;
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
        let credentials = credentials.as_deref().map(Path::new);
        let path = files.key_file.map_or_else(|| config.key_path(credentials), Path::to_owned);
        let key = match NodeKey::load(&path, keygen::credentials_dir(&path).as_deref()) {
            Ok(key) => Some(key.endpoint_id()),
            // It may be one that only systemd hands over; the store and the list know whose it is.
            Err(error) if error.is_not_found() && files.key_file.is_none() => None,
            Err(error) => return Err(refused(error)),
        };
        Ok(Self { disk: DirDisk::new(&config.data_dir), config, key })
    }

    fn find_store(&self) -> Result<Option<Store>, OfflineError> {
        let path = self.disk.path(FILE_NAME);
        match self.disk.exists(FILE_NAME) {
            Ok(false) => Ok(None),
            Ok(true) => Store::open_found(&self.disk).map(Some).map_err(|error| self.can_not_open(error)),
            Err(source) => Err(self.can_not_open(OpenError::Io { path, source })),
        }
    }

    /// Who this node is: its key, else the list, else its store say so, and none says otherwise.
    fn endpoint_id(&self, store: Option<&Store>) -> Result<EndpointId, OfflineError> {
        let listed = self.config.declared().into_iter().find(|listed| listed.name == self.config.node_name);
        let stored = store.map(Store::endpoint_id);
        let ours = self.key.or(listed.map(|listed| listed.endpoint_id)).or(stored);
        let ours = ours.ok_or_else(|| {
            let way_out = "name it with --key-file, or make one: blixard keygen";
            OfflineError::refused("this node's key is not where the configuration says", way_out)
        })?;
        self.config.check_own_id(ours).map_err(|why| OfflineError::refused(why, ""))?;
        match stored {
            Some(theirs) if theirs != ours => {
                let path = self.disk.path(FILE_NAME);
                Err(self.can_not_open(OpenError::OtherNode { path, theirs, ours }))
            }
            _ => Ok(ours),
        }
    }

    fn founder(
        &self,
        endpoint_id: EndpointId,
        store_id: blixard_model::StoreId,
        index: u64,
    ) -> Result<Founder, OfflineError> {
        let capacity = self.config.capacity().map_err(|error| refused(NoCapacity(error)))?;
        let me = NodeFacts {
            name: self.config.node_name.clone(),
            endpoint_id,
            store_id,
            offer: Offer {
                addresses: self.config.own_addresses(),
                relay_url: None,
                capacity: Some(capacity),
                witness: self.config.role == NodeRole::Witness,
                ..Offer::default()
            },
        };
        Ok(Founder { me, cluster_name: self.config.cluster_name.clone(), index, nonce: random::u64() })
    }

    fn can_not_open(&self, error: OpenError) -> OfflineError {
        match error {
            OpenError::InUse { .. } => {
                let dir = self.config.data_dir.display();
                OfflineError::refused(format!("an agent runs on {dir}: nothing was changed"), STOP_IT)
            }
            // Its own words speak of a node whose cluster is there.
            OpenError::Broken { path, source } => OfflineError::refused(
                format!("{} cannot be opened: {source}", path.display()),
                "move it away; `blixard cluster restore` then makes a new store of a backup",
            ),
            error => refused(error),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it cannot be found out what this machine offers")]
struct NoCapacity(#[source] std::io::Error);

/// A refusal in an error's own words and those of its causes.
fn refused(error: impl std::error::Error) -> OfflineError {
    OfflineError::refused(with_causes(&error), "")
}

fn not_replaced(error: ReplaceError) -> OfflineError {
    let failure = refused(&error);
    match error {
        ReplaceError::Undone(_) => OfflineError { kind: ErrorKind::Unavailable, ..failure },
        ReplaceError::Unknown(_) => OfflineError {
            kind: ErrorKind::Unknown,
            way_out: "`blixard status` shows the cluster id once the agent runs".to_owned(),
            ..failure
        },
    }
}

fn read_backup(path: &Path) -> Result<Backup, OfflineError> {
    let about = |why: String| OfflineError::refused(format!("{}: {why}", path.display()), "");
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(BACKUP_LEN_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes: Vec<u8> = read().map_err(|error: std::io::Error| about(error.to_string()))?;
    if bytes.len() > BACKUP_LEN_MAX {
        return Err(about(format!("it is longer than {BACKUP_LEN_MAX} bytes: it is no backup")));
    }
    decode_backup(&bytes).map_err(|error| about(error.to_string()))
}

fn outcome(node: &OfflineNode, rebirth: &Rebirth) -> String {
    let name = &node.config.node_name;
    let marker = &rebirth.begin.marker;
    let (here, all) = rebirth.vms;
    let mut text = format!(
        "new cluster {} (id {}): {name} is its only member, raft id {}\n\
         it has {all} VMs, {here} of them placed on {name}\n",
        marker.genesis.cluster_name,
        marker.cluster_id.short(),
        marker.raft_id
    );
    let given_up = rebirth.given_up.len();
    if given_up > 0 {
        text += &format!("given up: {given_up} members: {}\n", names_of(&rebirth.given_up));
    }
    if here < all {
        text += "VMs placed on others are unknown until their node is back, or they are deleted\n";
    }
    text += "next:\n  1. start this node's agent: systemctl start blixard\n";
    if given_up > 0 {
        text += "  2. on each of the others, before its agent starts: move store.redb out of the data \
                 directory\n  3. start them: listed ones are admitted, others join with a ticket\n";
    }
    text
}
