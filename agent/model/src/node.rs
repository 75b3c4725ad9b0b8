//! A node as everybody describes it: who it is, and what it offers to the cluster.
//!
//! The same facts stand in a genesis, in the table of the members, in a node's own words and in a change of
//! the members. They are written once here: a fact that is added to [`Offer`] is in all of them.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{EndpointId, NodeName, StoreId};
use crate::relay::RelayUrl;

/// Most addresses kept of one node.
pub const ADDRESSES_MAX: usize = 8;
/// Most directories of disks that a node shares.
pub const SHARED_DIRS_MAX: usize = 16;

/// Who a node is, and what it offers.
///
/// The id of a cluster is the digest of its genesis, in which these fields stand in this order: they keep
/// it, and new ones come after them and are left out where they say nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its name.
    pub name: NodeName,
    /// The identity that its handshakes prove.
    pub endpoint_id: EndpointId,
    /// The store that holds its vote and log.
    pub store_id: StoreId,
    /// Where it is reached and what it gives to VMs.
    #[serde(flatten)]
    pub offer: Offer,
}

/// What a node says of itself that may change while it runs on: where it is reached and what it gives to VMs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Offer {
    /// Where it may be reached: hints, never identity. At most [`ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
    /// The relay it may be reached through, if it uses one: a hint as well.
    #[serde(default)]
    pub relay_url: Option<RelayUrl>,
    /// The resources that it offers to VMs; none until it has registered them.
    #[serde(default)]
    pub capacity: Option<Capacity>,
    /// Votes and keeps the log, and is never given a VM.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub witness: bool,
    /// The directories of disks whose files are the same ones on all nodes that list them here, by the same
    /// path. At most [`SHARED_DIRS_MAX`]. Only [`crate::Command::SetNode`] tells of them, from version 4 of
    /// the cluster on: they stand in no genesis and in no change of the members.
    #[serde(default, skip_serializing_if = "SharedDirs::is_empty")]
    pub shared_dirs: SharedDirs,
}

/// Directories of disks that are shared. They take little room where there are none, as on most nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SharedDirs(Box<DirNames>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct DirNames(Vec<String>);

impl SharedDirs {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }
}

impl std::ops::Deref for SharedDirs {
    type Target = [String];
    fn deref(&self) -> &[String] {
        &self.0.0
    }
}

impl FromIterator<String> for SharedDirs {
    fn from_iter<T: IntoIterator<Item = String>>(dirs: T) -> Self {
        Self(Box::new(DirNames(dirs.into_iter().collect())))
    }
}

/// What a node offers to VMs: its resources less its reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Capacity {
    /// Virtual cpus.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}

impl Offer {
    /// Whether the disk at this path lies in a directory that is shared.
    pub fn shares(&self, path: &str) -> bool {
        self.shared_dirs.iter().any(|dir| lies_in(path, dir))
    }

    /// Reads one that has to state the resources: a release that reads the log knows no other in
    /// [`crate::Command::SetNode`].
    ///
    /// # Errors
    /// The resources are missing, or what the format says.
    pub(crate) fn with_capacity<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let offer = Self::deserialize(from)?;
        match offer.capacity {
            Some(_) => Ok(offer),
            None => Err(serde::de::Error::missing_field("capacity")),
        }
    }
}

/// Whether a path is one below a directory, both as they are written.
pub fn lies_in(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> NodeFacts {
        NodeFacts {
            name: "n1".parse().expect("a name"),
            endpoint_id: EndpointId::from_bytes([1; 32]),
            store_id: StoreId::from_bytes([2; 16]),
            offer: Offer {
                addresses: vec!["10.0.0.1:7431".parse().expect("an address")],
                capacity: Some(Capacity { cpus: 4, memory_mib: 1_024 }),
                ..Offer::default()
            },
        }
    }

    /// The id of a cluster is a digest of this text.
    #[test]
    fn the_text_of_the_facts_stays_what_it_is() {
        let text = serde_json::to_string(&facts()).expect("json");
        let wanted = format!(
            "{{\"name\":\"n1\",\"endpoint_id\":\"{}\",\"store_id\":\"{}\",\"addresses\":[\"10.0.0.1:7431\"],\
             \"relay_url\":null,\"capacity\":{{\"cpus\":4,\"memory_mib\":1024}}}}",
            EndpointId::from_bytes([1; 32]),
            StoreId::from_bytes([2; 16])
        );
        assert_eq!(text, wanted);
        assert_eq!(serde_json::from_str::<NodeFacts>(&text).expect("facts"), facts());
        let value: serde_json::Value = serde_json::from_str(&text).expect("json");
        assert_eq!(serde_json::from_value::<NodeFacts>(value).expect("facts"), facts());
    }

    #[test]
    fn a_witness_says_so_and_what_is_optional_may_be_missing() {
        let witness = NodeFacts { offer: Offer { witness: true, ..Offer::default() }, ..facts() };
        let text = serde_json::to_string(&witness).expect("json");
        assert!(text.ends_with(",\"relay_url\":null,\"capacity\":null,\"witness\":true}"), "{text}");
        let short = text.replace(",\"relay_url\":null,\"capacity\":null", "");
        assert_eq!(serde_json::from_str::<NodeFacts>(&short).expect("facts"), witness);
        assert!(serde_json::from_str::<NodeFacts>(&text.replace("\"addresses\":[],", "")).is_err());
    }

    #[test]
    fn a_disk_lies_in_a_directory_and_not_in_one_whose_name_begins_alike() {
        let offer = Offer {
            shared_dirs: ["/srv/a", "/mnt"].map(str::to_owned).into_iter().collect(),
            ..Offer::default()
        };
        for (path, shared) in [
            ("/srv/a/x.raw", true),
            ("/mnt/deep/down/x.raw", true),
            ("/srv/a", false),
            ("/srv/a/", false),
            ("/srv/ab/x.raw", false),
            ("/srv/x.raw", false),
            ("srv/a/x.raw", false),
        ] {
            assert_eq!(offer.shares(path), shared, "{path}");
        }
        let text = serde_json::to_string(&offer).expect("json");
        assert!(text.ends_with(",\"shared_dirs\":[\"/srv/a\",\"/mnt\"]}"), "{text}");
        assert_eq!(serde_json::from_str::<Offer>(&text).expect("an offer"), offer);
    }
}
