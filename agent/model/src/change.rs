//! A membership change, and the bytes it is inside a Raft configuration change.
//!
//! The only place that knows those bytes: one for the format, then JSON. Within a format, fields and kinds
//! may be added; what gives an old one another meaning needs a new format.

use serde::{Deserialize, Serialize};

use crate::id::RaftId;
use crate::member::Member;
use crate::removal::Removal;
use crate::ticket::TicketUse;

/// Longest encoded change, in bytes; the largest that passes the checks has about a quarter of it.
pub const CHANGE_LEN_MAX: usize = 8 << 10;
/// The format that this version writes, and the only one it reads.
const FORMAT: u8 = 1;

/// One step of the membership; carried inside the Raft configuration change, so that it cannot be lost
/// beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MembershipChange {
    /// A node is replicated to, under a raft id that was never used.
    AddLearner {
        /// The new member.
        member: Member,
        /// The ticket that admits it, used up by this; none for a listed node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ticket: Option<TicketUse>,
    },
    /// A learner that has caught up votes from now on.
    Promote {
        /// The member to promote.
        raft_id: RaftId,
    },
    /// A voter is replicated to and not counted any more.
    Demote {
        /// The member to demote.
        raft_id: RaftId,
    },
    /// A raft id leaves for ever (its node may come back under a new one).
    Remove {
        /// The member to remove.
        raft_id: RaftId,
        /// Why, and what else is to be done.
        #[serde(default)]
        why: Removal,
    },
}

/// Why a change has no bytes, or bytes are no change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeFormError {
    /// More than any change has.
    #[error("a membership change of {len} bytes is longer than {CHANGE_LEN_MAX}")]
    TooLong {
        /// How many bytes it has.
        len: usize,
    },
    /// No byte at all.
    #[error("a membership change without a byte")]
    Empty,
    /// Written by another version.
    #[error("a membership change of format {format}; this version knows format {FORMAT}")]
    UnknownFormat {
        /// The format that was found.
        format: u8,
    },
    /// Of the right format, and no change.
    #[error("not a membership change: {why}")]
    Malformed {
        /// What the parser says.
        why: String,
    },
}

impl MembershipChange {
    /// The change as it stands in the log.
    ///
    /// # Errors
    /// It would be longer than [`CHANGE_LEN_MAX`], which no change is that passes the checks.
    pub fn encode(&self) -> Result<Vec<u8>, ChangeFormError> {
        let mut bytes = vec![FORMAT];
        serde_json::to_writer(&mut bytes, self)
            .map_err(|error| ChangeFormError::Malformed { why: error.to_string() })?;
        if bytes.len() > CHANGE_LEN_MAX {
            return Err(ChangeFormError::TooLong { len: bytes.len() });
        }
        Ok(bytes)
    }

    /// Reads what [`MembershipChange::encode`] wrote. Says nothing of whether the change fits.
    ///
    /// # Errors
    /// See [`ChangeFormError`]; nothing is parsed of bytes that are too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChangeFormError> {
        if bytes.len() > CHANGE_LEN_MAX {
            return Err(ChangeFormError::TooLong { len: bytes.len() });
        }
        match bytes.split_first() {
            None => Err(ChangeFormError::Empty),
            Some((&FORMAT, json)) => serde_json::from_slice(json)
                .map_err(|error| ChangeFormError::Malformed { why: error.to_string() }),
            Some((&format, _)) => Err(ChangeFormError::UnknownFormat { format }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{EndpointId, StoreId};
    use crate::member::Role;
    use crate::node::{ADDRESSES_MAX, Capacity, NodeFacts, Offer};
    use crate::relay::RELAY_URL_LEN_MAX;

    /// As much as a member may carry.
    fn largest() -> MembershipChange {
        let relay = format!("https://{}", "a".repeat(RELAY_URL_LEN_MAX - 8));
        let address = |n| format!("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:{n:04x}]:65535").parse().expect("one");
        MembershipChange::AddLearner {
            ticket: None,
            member: Member {
                raft_id: RaftId(u64::MAX),
                node: NodeFacts {
                    name: "n".repeat(48).parse().expect("a name"),
                    endpoint_id: EndpointId::from_bytes([0xff; 32]),
                    store_id: StoreId::from_bytes([0xff; 16]),
                    offer: Offer {
                        addresses: (0..ADDRESSES_MAX).map(address).collect(),
                        relay_url: Some(relay.parse().expect("a relay")),
                        capacity: Some(Capacity { cpus: u32::MAX, memory_mib: u64::MAX }),
                        witness: false,
                        shared_dirs: Default::default(),
                    },
                },
                role: Role::Learner,
            },
        }
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        let promote = MembershipChange::Promote { raft_id: RaftId(4) };
        for change in
            [largest(), promote, MembershipChange::Remove { why: Removal::LostStore, raft_id: RaftId(1) }]
        {
            let bytes = change.encode().expect("fits");
            assert!(bytes.len() < CHANGE_LEN_MAX / 4, "{}", bytes.len());
            assert_eq!(MembershipChange::decode(&bytes), Ok(change));
        }
    }

    #[test]
    fn the_bytes_stay_what_they_are() {
        let bytes = MembershipChange::Promote { raft_id: RaftId(4) }.encode().expect("fits");
        assert_eq!(bytes, b"\x01{\"kind\":\"promote\",\"raft_id\":4}");
    }

    #[test]
    fn fields_of_a_later_version_are_left_out() {
        let bytes = b"\x01{\"kind\":\"remove\",\"raft_id\":4,\"reason\":\"asked\"}";
        assert_eq!(
            MembershipChange::decode(bytes),
            Ok(MembershipChange::Remove { why: Removal::LostStore, raft_id: RaftId(4) })
        );
    }

    #[test]
    fn what_is_optional_may_be_missing() {
        let MembershipChange::AddLearner { mut member, .. } = largest() else { panic!("another kind") };
        (member.node.offer.relay_url, member.node.offer.capacity) = (None, None);
        let without = MembershipChange::AddLearner { ticket: None, member };
        let mut json = serde_json::to_value(&without).expect("json");
        let fields = json["member"].as_object_mut().expect("an object");
        assert_eq!(fields.remove("relay_url"), Some(serde_json::Value::Null));
        assert_eq!(fields.remove("capacity"), Some(serde_json::Value::Null));
        let bytes = [&[FORMAT][..], json.to_string().as_bytes()].concat();
        assert_eq!(MembershipChange::decode(&bytes), Ok(without));
    }

    #[test]
    fn another_format_and_no_byte_are_told_apart() {
        let mut bytes = largest().encode().expect("fits");
        bytes[0] = 2;
        assert_eq!(MembershipChange::decode(&bytes), Err(ChangeFormError::UnknownFormat { format: 2 }));
        assert_eq!(MembershipChange::decode(&[]), Err(ChangeFormError::Empty));
    }

    #[test]
    fn cut_lengthened_and_broken_bytes_are_errors() {
        let bytes = largest().encode().expect("fits");
        for len in 1..bytes.len() {
            assert!(MembershipChange::decode(&bytes[..len]).is_err(), "{len}");
        }
        assert!(MembershipChange::decode(&[&bytes[..], b"x"].concat()).is_err());
        for garbage in [&[FORMAT][..], b"\x01\xff\xff", b"\x01[]", b"\x01{\"kind\":\"dance\"}", b"\x01{}"] {
            assert!(matches!(MembershipChange::decode(garbage), Err(ChangeFormError::Malformed { .. })));
        }
        let deep = [vec![FORMAT], vec![b'['; CHANGE_LEN_MAX - 1]].concat();
        assert!(matches!(MembershipChange::decode(&deep), Err(ChangeFormError::Malformed { .. })));
    }

    #[test]
    fn too_much_is_refused_unread_and_never_written() {
        let mut long = MembershipChange::Promote { raft_id: RaftId(4) }.encode().expect("fits");
        long.resize(CHANGE_LEN_MAX, b' ');
        assert!(MembershipChange::decode(&long).is_ok(), "as long as it may be");
        long.push(b' ');
        let too_long = Err(ChangeFormError::TooLong { len: CHANGE_LEN_MAX + 1 });
        assert_eq!(MembershipChange::decode(&long), too_long);
        let MembershipChange::AddLearner { mut member, .. } = largest() else { panic!("another kind") };
        member.node.offer.addresses = member.node.offer.addresses.repeat(100);
        let change = MembershipChange::AddLearner { ticket: None, member };
        assert!(matches!(change.encode(), Err(ChangeFormError::TooLong { .. })));
    }
}
