//! What has to hold of a member beside the others, whoever asks: the log before a change and at its
//! application, a genesis, a configured list.
//!
//! An address that a member gives has to be one that the others can send to. Loopback addresses are allowed
//! where they can be right: to a member that is alone, or when *every* member has nothing but loopback
//! addresses (a whole cluster on one machine).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use blixard_model::formation::Genesis;
use blixard_model::member::MEMBERS_MAX;
use blixard_model::node::ADDRESSES_MAX;
use blixard_model::vm::CPUS_MAX;
use blixard_model::{Capacity, EndpointId, NodeFacts, NodeName, Offer, RelayUrl, StoreId};

use super::nodes::NodeRef;
use crate::declared::DeclaredMember;

/// A node may offer more cpus than one VM may have, within reason.
const CAPACITY_CPUS_MAX: u32 = CPUS_MAX * 64;

/// What is looked at of a member, be it in the log, in a genesis, or only declared.
#[derive(Debug, Clone, Copy)]
pub struct CheckedMember<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// Its identity.
    pub endpoint_id: EndpointId,
    /// Its store; none while it is only declared.
    pub store_id: Option<StoreId>,
    /// Where it is reached.
    pub addresses: &'a [SocketAddr],
    /// The relay it is reached through.
    pub relay_url: Option<&'a RelayUrl>,
    /// The resources that it offers.
    pub capacity: Option<Capacity>,
}

impl<'a> From<&'a NodeFacts> for CheckedMember<'a> {
    fn from(node: &'a NodeFacts) -> Self {
        let NodeFacts { name, endpoint_id, store_id, offer } = node;
        Self { store_id: Some(*store_id), ..Self::offered(name, *endpoint_id, offer) }
    }
}

impl<'a> From<NodeRef<'a>> for CheckedMember<'a> {
    fn from(NodeRef { name, endpoint_id, store_id, offer }: NodeRef<'a>) -> Self {
        Self { store_id: Some(store_id), ..Self::offered(name, endpoint_id, offer) }
    }
}

impl<'a> From<&'a DeclaredMember> for CheckedMember<'a> {
    fn from(declared: &'a DeclaredMember) -> Self {
        Self {
            name: &declared.name,
            endpoint_id: declared.endpoint_id,
            store_id: None,
            addresses: &declared.addresses,
            relay_url: None,
            capacity: None,
        }
    }
}

impl<'a> CheckedMember<'a> {
    /// A node that offers this, whatever its store.
    pub fn offered(name: &'a NodeName, endpoint_id: EndpointId, offer: &'a Offer) -> Self {
        Self {
            name,
            endpoint_id,
            store_id: None,
            addresses: &offer.addresses,
            relay_url: offer.relay_url.as_ref(),
            capacity: offer.capacity,
        }
    }
}

/// Which of a member's fields is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberField {
    /// [`CheckedMember::name`].
    Name,
    /// [`CheckedMember::endpoint_id`].
    EndpointId,
    /// [`CheckedMember::store_id`].
    StoreId,
    /// [`CheckedMember::addresses`].
    Addresses,
    /// [`CheckedMember::capacity`].
    Capacity,
}

/// The reason why a member does not fit beside the others, with the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Another member has the name.
    #[error("node {name} is a member already: choose another node name")]
    NameTaken {
        /// The name.
        name: NodeName,
    },
    /// Another member has the endpoint id.
    #[error("endpoint {endpoint_id} is {by}'s as well: every node has a key of its own")]
    EndpointTaken {
        /// The endpoint id.
        endpoint_id: EndpointId,
        /// The member that has it.
        by: NodeName,
    },
    /// Another member has the store id.
    #[error("store {store_id} belongs to {by}: a data directory cannot be copied to another node")]
    StoreTaken {
        /// The store id.
        store_id: StoreId,
        /// The member that has it.
        by: NodeName,
    },
    /// Nobody could reach it.
    #[error("no address and no relay: the others could not reach it; write at least one IP:PORT")]
    Unreachable,
    /// Too many addresses.
    #[error("{count} addresses, more than {ADDRESSES_MAX}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// An address that nobody could send to.
    #[error("{address} {why}: write one that the others can send to")]
    Unusable {
        /// The address.
        address: SocketAddr,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An address twice.
    #[error("{address} is there twice")]
    Twice {
        /// The address.
        address: SocketAddr,
    },
    /// Another member has the address.
    #[error("{address} is {by}'s as well: correct one of the two")]
    AddressTaken {
        /// The address.
        address: SocketAddr,
        /// The member that has it.
        by: NodeName,
    },
    /// A loopback address in a cluster that is not on one machine.
    #[error(
        "{address} ({of}) is a loopback address beside {other}: others would reach themselves there; write \
         an address of the network, or only loopback addresses for every member (a cluster on one machine)"
    )]
    Loopback {
        /// The loopback address.
        address: SocketAddr,
        /// The member that it belongs to.
        of: NodeName,
        /// What is not loopback.
        other: String,
    },
    /// The cluster is full.
    #[error("there are {MEMBERS_MAX} members already, the most that one cluster has")]
    Full,
    /// A capacity that no machine has.
    #[error("{cpus} cpus are not believable: the most is {CAPACITY_CPUS_MAX}")]
    Capacity {
        /// The cpus.
        cpus: u32,
    },
}

impl MemberError {
    /// Which field has to be corrected.
    pub const fn field(&self) -> MemberField {
        match self {
            Self::NameTaken { .. } | Self::Full => MemberField::Name,
            Self::EndpointTaken { .. } => MemberField::EndpointId,
            Self::StoreTaken { .. } => MemberField::StoreId,
            Self::Capacity { .. } => MemberField::Capacity,
            Self::Unreachable
            | Self::TooMany { .. }
            | Self::Unusable { .. }
            | Self::Twice { .. }
            | Self::AddressTaken { .. }
            | Self::Loopback { .. } => MemberField::Addresses,
        }
    }
}

/// Checks a member against all the other ones there are, itself not among them.
///
/// # Errors
/// The first thing that is wrong, see [`MemberError`].
pub fn check_member(member: CheckedMember<'_>, others: &[CheckedMember<'_>]) -> Result<(), MemberError> {
    check_facts(member, others)?;
    check_loopback(member, others)
}

/// Checks what one member is to be blamed for.
fn check_facts(member: CheckedMember<'_>, others: &[CheckedMember<'_>]) -> Result<(), MemberError> {
    if others.len() >= MEMBERS_MAX {
        return Err(MemberError::Full);
    }
    for other in others {
        check_unique(member, *other)?;
    }
    check_addresses(member, others)?;
    match member.capacity {
        Some(offered) if offered.cpus > CAPACITY_CPUS_MAX => {
            Err(MemberError::Capacity { cpus: offered.cpus })
        }
        _ => Ok(()),
    }
}

/// Checks a whole list, each member against all the others.
///
/// # Errors
/// The first member that has to be corrected, and what is wrong with it.
pub fn check_members(members: &[CheckedMember<'_>]) -> Result<(), (NodeName, MemberError)> {
    for (at, member) in members.iter().enumerate() {
        let others = [&members[..at], &members[at + 1..]].concat();
        check_facts(*member, &others).map_err(|error| (member.name.clone(), error))?;
    }
    // Once nothing else is wrong: whoever has the address has to correct it.
    let Some((first, others)) = members.split_first() else { return Ok(()) };
    check_loopback(*first, others).map_err(|error| match &error {
        MemberError::Loopback { of, .. } => (of.clone(), error),
        _ => (first.name.clone(), error),
    })
}

/// Checks the voters that a cluster is to be born with.
///
/// # Errors
/// As [`check_members`].
pub fn check_genesis(genesis: &Genesis) -> Result<(), (NodeName, MemberError)> {
    check_members(&genesis.voters.iter().map(CheckedMember::from).collect::<Vec<_>>())
}

fn check_unique(member: CheckedMember<'_>, other: CheckedMember<'_>) -> Result<(), MemberError> {
    let by = || other.name.clone();
    if other.name == member.name {
        return Err(MemberError::NameTaken { name: by() });
    }
    if other.endpoint_id == member.endpoint_id {
        return Err(MemberError::EndpointTaken { endpoint_id: member.endpoint_id, by: by() });
    }
    match member.store_id {
        Some(store_id) if other.store_id == Some(store_id) => {
            Err(MemberError::StoreTaken { store_id, by: by() })
        }
        _ => Ok(()),
    }
}

fn check_addresses(member: CheckedMember<'_>, others: &[CheckedMember<'_>]) -> Result<(), MemberError> {
    // A member that is alone is reached by nobody.
    if member.addresses.is_empty() && member.relay_url.is_none() && !others.is_empty() {
        return Err(MemberError::Unreachable);
    }
    if member.addresses.len() > ADDRESSES_MAX {
        return Err(MemberError::TooMany { count: member.addresses.len() });
    }
    let mut seen = BTreeSet::new();
    for address in member.addresses {
        if let Some(why) = unusable(*address) {
            return Err(MemberError::Unusable { address: *address, why });
        }
        if !seen.insert(place(*address)) {
            return Err(MemberError::Twice { address: *address });
        }
        let has_it = |other: &&CheckedMember<'_>| {
            other.addresses.iter().any(|theirs| place(*theirs) == place(*address))
        };
        if let Some(other) = others.iter().find(has_it) {
            return Err(MemberError::AddressTaken { address: *address, by: other.name.clone() });
        }
    }
    Ok(())
}

fn unusable(address: SocketAddr) -> Option<&'static str> {
    let ip = place(address).0;
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    match () {
        () if address.port() == 0 => Some("has port 0"),
        () if ip.is_unspecified() => Some("is the unspecified address"),
        () if ip.is_multicast() => Some("is a multicast address"),
        () if broadcast => Some("is the broadcast address"),
        () => None,
    }
}

/// Two forms of one address are one.
fn place(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

fn is_loopback(address: SocketAddr) -> bool {
    place(address).0.is_loopback()
}

fn check_loopback(member: CheckedMember<'_>, others: &[CheckedMember<'_>]) -> Result<(), MemberError> {
    if others.is_empty() {
        return Ok(());
    }
    // The member itself comes first: its own address is the one to correct, if it has one.
    let all = || std::iter::once(&member).chain(others);
    let addresses = || all().flat_map(|of| of.addresses.iter().map(move |address| (*of, *address)));
    let Some((of, address)) = addresses().find(|(_, address)| is_loopback(*address)) else { return Ok(()) };
    let other = addresses()
        .find(|(_, address)| !is_loopback(*address))
        .map(|(of, address)| format!("{address} ({})", of.name))
        .or_else(|| {
            let homeless = all().find(|of| of.addresses.is_empty())?;
            Some(format!("{}, which has no address", homeless.name))
        });
    match other {
        Some(other) => Err(MemberError::Loopback { address, of: of.name.clone(), other }),
        None => Ok(()),
    }
}
