//! The text of a ticket: what an operator takes to a node that is to join.
//!
//! This module owns the text form and the check that a text is complete. It does not know whether a ticket
//! admits anybody.
//!
//! The form is that of iroh's tickets: the word `blixard`, then base32 in lower case. The encoded bytes are a
//! version byte, the contents, and the first 16 bytes of a hash over everything before them. So a text that
//! was mistyped or cut off is refused before anything is sent. Each ticket has exactly one text.

use std::net::SocketAddr;

use blixard_model::node::ADDRESSES_MAX;
use blixard_model::{ClusterId, Contact, EndpointId, JoinTicket, RelayUrl, TicketId, TicketSecret};
use iroh_tickets::{ParseError, Ticket};
use serde::{Deserialize, Serialize};

use crate::key;

/// Longest text of a ticket, in bytes.
pub const TICKET_TEXT_LEN_MAX: usize = 4 << 10;
/// Most contacts that a ticket holds.
pub const TICKET_CONTACTS_MAX: usize = 8;

/// The first encoded byte.
const VERSION: u8 = 1;
/// Length of the hash at the end, in bytes: enough that no accidental change gets through. It is no
/// protection against a deliberate one.
const CHECKSUM_LEN: usize = 16;
/// The context from which the checksum's key is derived.
const CHECKSUM_CONTEXT: &str = "blixard ticket text 1";

/// Why a text is not a ticket that can be used. The error never shows a part of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketTextError {
    /// The text is longer than [`TICKET_TEXT_LEN_MAX`].
    #[error(
        "the text is {len} bytes long, a ticket has at most {TICKET_TEXT_LEN_MAX}: copy the ticket and \
         nothing else"
    )]
    TooLong {
        /// The length of the text, in bytes.
        len: usize,
    },
    /// The text does not begin as a ticket does.
    #[error("this is no ticket: one begins with `{KIND}`, and a member of the cluster makes it")]
    NotATicket,
    /// A part of the text is missing or changed.
    #[error("the ticket is damaged: copy it whole")]
    Damaged,
    /// The text is complete, but of a version that this node does not know.
    #[error("the ticket is of version {version}, this node reads {VERSION}: upgrade the older node")]
    Version {
        /// The version of the ticket.
        version: u8,
    },
    /// The text is complete, but holds something that no member writes into a ticket.
    #[error("the ticket is malformed ({what}): make another one")]
    Malformed {
        /// Describes what no member writes into a ticket.
        what: String,
    },
}

const KIND: &str = Sealed::KIND;

/// The bytes of a ticket, with version and checksum.
struct Sealed(Vec<u8>);

impl Ticket for Sealed {
    const KIND: &'static str = "blixard";

    fn encode_bytes(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn decode_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        Ok(Self(bytes.to_vec()))
    }
}

/// The contents of a ticket. Ids are stored as bytes, because the model's own forms of ids are made for
/// people.
#[derive(Serialize, Deserialize)]
struct Contents {
    cluster_id: [u8; 16],
    id: [u8; 8],
    secret: TicketSecret,
    contacts: Vec<TicketContact>,
}

/// A contact, as it is stored in a ticket.
#[derive(Serialize, Deserialize)]
struct TicketContact {
    endpoint_id: [u8; 32],
    addresses: Vec<SocketAddr>,
    relay_url: Option<RelayUrl>,
}

/// The text of a ticket. Contacts and addresses over the limits are left out, and so are contacts, from the
/// end, for which there is no room in [`TICKET_TEXT_LEN_MAX`]: contacts are hints, and one is enough. The
/// text of a ticket without contacts is refused by [`decode`].
pub fn encode(ticket: &JoinTicket) -> String {
    let mut contents = Contents {
        cluster_id: *ticket.cluster_id.as_bytes(),
        id: *ticket.id.as_bytes(),
        secret: ticket.secret.clone(),
        contacts: ticket.contacts.iter().take(TICKET_CONTACTS_MAX).map(TicketContact::of).collect(),
    };
    loop {
        let text = contents.seal().encode_string();
        if text.len() <= TICKET_TEXT_LEN_MAX || contents.contacts.pop().is_none() {
            return text;
        }
    }
}

/// Reads a text; white space around it is fine. The ticket has 1 to [`TICKET_CONTACTS_MAX`] contacts, each
/// with at most [`ADDRESSES_MAX`] addresses.
///
/// # Errors
/// [`TicketTextError`], with what to do.
pub fn decode(text: &str) -> Result<JoinTicket, TicketTextError> {
    let text = text.trim();
    if text.len() > TICKET_TEXT_LEN_MAX {
        return Err(TicketTextError::TooLong { len: text.len() });
    }
    if !text.starts_with(KIND) {
        return Err(TicketTextError::NotATicket);
    }
    // The decoder would accept upper case as well.
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(TicketTextError::Damaged);
    }
    let Sealed(bytes) = Sealed::decode_string(text).map_err(|_| TicketTextError::Damaged)?;
    Contents::unseal(&bytes)?.into_ticket()
}

impl Contents {
    fn seal(&self) -> Sealed {
        // Fails only for types without a known length, of which there are none here.
        let mut bytes = postcard::to_extend(self, vec![VERSION]).unwrap_or_default();
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        Sealed(bytes)
    }

    fn unseal(bytes: &[u8]) -> Result<Self, TicketTextError> {
        let (bytes, claimed) = bytes.split_last_chunk().ok_or(TicketTextError::Damaged)?;
        if *claimed != checksum(bytes) {
            return Err(TicketTextError::Damaged);
        }
        let (&version, bytes) = bytes.split_first().ok_or(TicketTextError::Damaged)?;
        if version != VERSION {
            return Err(TicketTextError::Version { version });
        }
        match postcard::take_from_bytes(bytes) {
            Ok((contents, [])) => Ok(contents),
            Ok(_) => Err(malformed("there is more than it should hold")),
            Err(_) => Err(malformed("its contents cannot be read")),
        }
    }

    fn into_ticket(self) -> Result<JoinTicket, TicketTextError> {
        let count = self.contacts.len();
        if count == 0 || count > TICKET_CONTACTS_MAX {
            return Err(malformed(format!("{count} contacts, not 1 to {TICKET_CONTACTS_MAX}")));
        }
        Ok(JoinTicket {
            cluster_id: ClusterId::from_bytes(self.cluster_id),
            id: TicketId::from_bytes(self.id),
            secret: self.secret,
            contacts: self.contacts.into_iter().map(TicketContact::into_contact).collect::<Result<_, _>>()?,
        })
    }
}

impl TicketContact {
    fn of(contact: &Contact) -> Self {
        Self {
            endpoint_id: *contact.endpoint_id.as_bytes(),
            addresses: contact.addresses.iter().take(ADDRESSES_MAX).copied().collect(),
            relay_url: contact.relay_url.clone(),
        }
    }

    fn into_contact(self) -> Result<Contact, TicketTextError> {
        let endpoint_id = EndpointId::from_bytes(self.endpoint_id);
        key::check_endpoint_id(&endpoint_id).map_err(|_| malformed("a contact that cannot be"))?;
        let count = self.addresses.len();
        if count > ADDRESSES_MAX {
            return Err(malformed(format!("{count} addresses of a contact, more than {ADDRESSES_MAX}")));
        }
        Ok(Contact { endpoint_id, addresses: self.addresses, relay_url: self.relay_url })
    }
}

fn malformed(what: impl Into<String>) -> TicketTextError {
    TicketTextError::Malformed { what: what.into() }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let hash = blake3::derive_key(CHECKSUM_CONTEXT, bytes);
    let mut checksum = [0; CHECKSUM_LEN];
    checksum.iter_mut().zip(hash).for_each(|(byte, hashed)| *byte = hashed);
    checksum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::NodeKey;

    fn contact(addresses: Vec<SocketAddr>, relay_url: Option<&str>) -> Contact {
        let relay_url = relay_url.map(|url| url.parse().expect("url"));
        Contact { endpoint_id: NodeKey::generate().endpoint_id(), addresses, relay_url }
    }

    fn ticket(contacts: Vec<Contact>) -> JoinTicket {
        JoinTicket {
            cluster_id: ClusterId::from_bytes([7; 16]),
            id: TicketId::from_bytes([8; 8]),
            secret: TicketSecret::from_bytes([0xab; 32]),
            contacts,
        }
    }

    fn usual() -> JoinTicket {
        let addresses = |n: u8| vec![SocketAddr::from(([192, 0, 2, n], 7430))];
        ticket((1..=3).map(|n| contact(addresses(n), None)).collect())
    }

    /// The text of `bytes`, with the right checksum added.
    fn text_of(bytes: &[u8]) -> String {
        Sealed([bytes, &checksum(bytes)].concat()).encode_string()
    }

    prop_compose! {
        fn contacts()(
            ids in proptest::collection::vec(any::<u8>(), 1..=TICKET_CONTACTS_MAX),
            addresses in proptest::collection::vec(any::<(std::net::IpAddr, u16)>(), 0..=ADDRESSES_MAX),
            relay in proptest::option::of("https://[a-z]{1,20}\\.example/"),
        ) -> Vec<Contact> {
            let addresses: Vec<SocketAddr> = addresses.into_iter().map(SocketAddr::from).collect();
            ids.into_iter().map(|_| contact(addresses.clone(), relay.as_deref())).collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_ticket_survives_encoding_and_decoding(
            cluster_id in any::<[u8; 16]>(),
            id in any::<[u8; 8]>(),
            secret in any::<[u8; 32]>(),
            contacts in contacts(),
        ) {
            let ticket = JoinTicket {
                cluster_id: ClusterId::from_bytes(cluster_id),
                id: TicketId::from_bytes(id),
                secret: TicketSecret::from_bytes(secret),
                contacts,
            };
            let text = encode(&ticket);
            prop_assert!(text.len() <= TICKET_TEXT_LEN_MAX);
            prop_assert_eq!(decode(&text), Ok(ticket.clone()));
            prop_assert_eq!(decode(&format!("\n\t {text}\r\n")), Ok(ticket));
        }
    }

    #[test]
    fn a_text_that_was_cut_anywhere_is_refused() {
        let text = encode(&usual());
        for len in 0..text.len() {
            let cut = decode(&text[..len]).expect_err("it is cut");
            let expected =
                if len < KIND.len() { TicketTextError::NotATicket } else { TicketTextError::Damaged };
            assert_eq!(cut, expected, "{len} bytes");
            assert!(decode(&text[text.len() - len..]).is_err(), "the last {len} bytes");
        }
        assert!(TicketTextError::Damaged.to_string().contains("copy it whole"));
        let (twice, middle) = (format!("{text}{text}"), text.len() / 2);
        let wrapped = format!("{}\n{}", &text[..middle], &text[middle..]);
        for text in [twice, wrapped] {
            assert_eq!(decode(&text), Err(TicketTextError::Damaged));
        }
    }

    #[test]
    fn a_text_with_one_bit_flipped_is_refused() {
        let (text, mut random) = (encode(&usual()), 1u64);
        for _ in 0..10_000 {
            // Knuth's generator: any distribution is good enough here.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(random >> 33).expect("small") % text.len();
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << ((random >> 29) & 7);
            // Bytes that are no UTF-8 cannot be given to `decode`.
            if let Ok(flipped) = std::str::from_utf8(&bytes) {
                let error = decode(flipped).expect_err("it is damaged");
                let at_the_beginning = at < KIND.len() && error == TicketTextError::NotATicket;
                assert!(error == TicketTextError::Damaged || at_the_beginning, "{error} at {at}");
            }
        }
    }

    #[test]
    fn a_text_that_is_no_ticket_is_refused_with_the_way_out() {
        let text = encode(&usual());
        for other in ["", "blixar", "endpointaaaa", "\u{1f980}", "https://example.org/", "{}", "BLIXARD"] {
            assert_eq!(decode(other), Err(TicketTextError::NotATicket), "{other}");
        }
        assert_eq!(decode(&text.to_uppercase()), Err(TicketTextError::NotATicket));
        let loud = format!("{KIND}{}", text[KIND.len()..].to_uppercase());
        for damaged in [loud.as_str(), KIND, "blixard1", "blixard====", "blixard\u{1f980}", "blixardaaaaaaaa"]
        {
            assert_eq!(decode(damaged), Err(TicketTextError::Damaged), "{damaged}");
        }
        let long = "a".repeat(TICKET_TEXT_LEN_MAX + 1);
        assert_eq!(decode(&long), Err(TicketTextError::TooLong { len: 4097 }));
    }

    #[test]
    fn a_complete_text_with_invalid_contents_is_refused() {
        let whole = Contents::unseal(&Sealed::decode_string(&encode(&usual())).expect("text").0);
        let whole = postcard::to_extend(&whole.expect("whole"), vec![VERSION]).expect("bytes");
        assert_eq!(decode(&text_of(&whole)).map(|ticket| ticket.id), Ok(usual().id));
        let newer = [&[9], &whole[1..]].concat();
        assert_eq!(decode(&text_of(&newer)), Err(TicketTextError::Version { version: 9 }));
        let refused = |bytes: &[u8]| match decode(&text_of(bytes)) {
            Err(TicketTextError::Malformed { what }) => what,
            other => panic!("{other:?}"),
        };
        assert!(refused(&[&whole[..], &[0]].concat()).contains("more than"));
        assert!(refused(&whole[..whole.len() - 1]).contains("cannot be read"));
        assert!(refused(&[VERSION]).contains("cannot be read"));
        let none = decode(&encode(&ticket(Vec::new()))).expect_err("no contacts");
        assert!(none.to_string().contains("0 contacts") && none.to_string().contains("another"), "{none}");
        let impossible = (0..=255u8)
            .map(|byte| EndpointId::from_bytes([byte; 32]))
            .find(|id| key::check_endpoint_id(id).is_err())
            .expect("one of them");
        let impossible = Contact { endpoint_id: impossible, addresses: Vec::new(), relay_url: None };
        assert!(decode(&encode(&ticket(vec![impossible]))).is_err());
    }

    #[test]
    fn contacts_and_addresses_without_room_are_left_out() {
        let addresses: Vec<SocketAddr> =
            (0..20).map(|n| SocketAddr::from(([0xffff; 8], 65_000 + n))).collect();
        let url = format!("https://{}.example/", "r".repeat(200));
        let many: Vec<Contact> = (0..20).map(|_| contact(addresses.clone(), Some(&url))).collect();
        let text = encode(&ticket(many.clone()));
        assert!(text.len() <= TICKET_TEXT_LEN_MAX, "{}", text.len());
        let read = decode(&text).expect("a ticket").contacts;
        assert!((2..TICKET_CONTACTS_MAX).contains(&read.len()), "{}", read.len());
        for (read, written) in read.iter().zip(&many) {
            assert_eq!(read.addresses, written.addresses[..ADDRESSES_MAX]);
            assert_eq!((read.endpoint_id, &read.relay_url), (written.endpoint_id, &written.relay_url));
        }
        let plain: Vec<Contact> = (0..20).map(|_| contact(addresses.clone(), None)).collect();
        let read = decode(&encode(&ticket(plain.clone()))).expect("a ticket").contacts;
        assert_eq!(read.len(), TICKET_CONTACTS_MAX, "without relays there is room for all");
    }

    #[test]
    fn no_debug_text_shows_the_secret() {
        let ticket = usual();
        let shown = format!("{ticket:?} {:?}", decode(&encode(&ticket)));
        for secret in ["171, 171", "abab", "ABAB"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("TicketSecret(..)"), "{shown}");
    }

    #[test]
    fn fuzz_ticket_text() {
        let valid = encode(&usual());
        let bytes = Sealed::decode_string(&valid).expect("text").0;
        let inside = bytes[..bytes.len() - CHECKSUM_LEN].to_vec();
        // The input is tried as a text, and as bytes with the right checksum, because no mutated text gets
        // past the checksum.
        let target = blixard_hostile::Target::new("ticket-text")
            .valid(valid.as_bytes())
            .valid(encode(&ticket(vec![contact(Vec::new(), Some("https://relay.example/"))])))
            .valid(inside)
            .words([KIND, "https://", "\n"]);
        target.run(|bytes| {
            let as_text = decode(&String::from_utf8_lossy(bytes));
            let as_contents = Contents::unseal(&[bytes, &checksum(bytes)].concat());
            match (as_text, as_contents.and_then(Contents::into_ticket)) {
                (Ok(ticket), _) | (_, Ok(ticket)) => {
                    let contacts = ticket.contacts.len();
                    assert!((1..=TICKET_CONTACTS_MAX).contains(&contacts));
                    // A text may have no room for all contacts.
                    let again = decode(&encode(&ticket)).expect("a ticket").contacts;
                    assert!(!again.is_empty() && ticket.contacts.starts_with(&again));
                    format!("{contacts} contacts")
                }
                (Err(text), Err(contents)) => format!("{text} {contents}"),
            }
        });
    }
}
