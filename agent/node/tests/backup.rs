//! Backup files: what is written is read, and nothing else.

use blixard_core::ClusterState;
use blixard_hostile::Target;
use blixard_model::backup::{BACKUP_BODY_LEN_MAX, BACKUP_HEADER_LEN_MAX};
use blixard_model::ticket::TicketRecord;
use blixard_model::{Command, Request, TicketHash, TicketId, WriteAsk, WriteRequest};
use blixard_node::{BackupError, BackupFacts, decode_backup, encode_backup};

use crate::group::{create, genesis, name};

fn facts() -> BackupFacts {
    BackupFacts {
        index: 40,
        term: 3,
        linearizable: true,
        node: name(2),
        version: "0.1.0".to_owned(),
        made_at_ms: 1_800_000_000_000,
    }
}

/// Three nodes, a VM, an open ticket.
fn state() -> ClusterState {
    let mut state = ClusterState::new(genesis(3));
    let WriteRequest { id, ask: WriteAsk::CreateVm { spec, desired } } = create("web", None) else {
        panic!("another kind")
    };
    let vm = Request { id, command: Command::CreateVm { spec, desired, eligible: vec![name(1)] } };
    let ticket = Command::CreateTicket {
        id: TicketId::from_bytes([1; 8]),
        name: None,
        hash: TicketHash::from_bytes([0xee; 32]),
        ttl_ms: 60_000,
        at_ms: 5,
    };
    state.apply(2, &vm);
    state.apply(3, &Request { id: "ticket".parse().expect("an id"), command: ticket });
    assert!(state.tickets.values().any(TicketRecord::is_open) && state.vms.len() == 1);
    state
}

fn written() -> Vec<u8> {
    encode_backup(facts(), state()).expect("not too large")
}

#[test]
fn what_is_written_is_read_without_tickets() {
    let bytes = written();
    let backup = decode_backup(&bytes).expect("whole");
    let mut without = state();
    without.tickets.clear();
    assert_eq!(backup.state, without);
    assert_eq!((backup.header.index, backup.header.term, backup.header.linearizable), (40, 3, true));
    assert_eq!(backup.header.cluster_id, state().cluster_id());
    let text = String::from_utf8(bytes).expect("text");
    assert!(text.starts_with("{\"magic\":\"blixard-backup\",\"format\":1,"), "{text}");
    assert!(!text.contains(&"ee".repeat(32)), "the hash of a ticket is in it");
}

#[test]
fn any_flipped_bit_is_noticed() {
    let bytes = written();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let error = decode_backup(&flipped).expect_err("flipped");
            assert!(!error.to_string().is_empty(), "{at} {bit}");
        }
    }
}

#[test]
fn what_is_cut_or_lengthened_is_noticed_and_nothing_else_is_taken_for_a_backup() {
    let bytes = written();
    for len in 0..bytes.len() {
        assert!(decode_backup(&bytes[..len]).is_err(), "{len}");
    }
    let longer = decode_backup(&[&bytes[..], b"\n"].concat()).expect_err("longer");
    assert!(matches!(longer, BackupError::Damaged { .. }), "{longer}");
    for other in [&b""[..], b"\n", b"{}\n{}", b"PK\x03\x04", &[b' '; 2 * BACKUP_HEADER_LEN_MAX]] {
        assert_eq!(decode_backup(other), Err(BackupError::NoBackup));
    }
}

/// A header with this changed, and its digest made right again.
fn headed(change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> Vec<u8> {
    let bytes = written();
    let end = bytes.iter().position(|byte| *byte == b'\n').expect("a line");
    let (line, body) = bytes.split_at(end);
    let mut header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(line).expect("a header");
    header.remove("header_blake3");
    change(&mut header);
    let text = serde_json::to_string(&header).expect("json");
    let covered = text.strip_suffix('}').expect("an object");
    let digest = blake3::hash(covered.as_bytes()).to_hex();
    [format!("{covered},\"header_blake3\":\"{digest}\"}}").as_bytes(), body].concat()
}

#[test]
fn fields_of_a_later_version_are_left_out_and_a_later_format_is_said() {
    assert!(decode_backup(&headed(|_| ())).is_ok());
    assert!(decode_backup(&headed(|header| _ = header.insert("mood".to_owned(), "good".into()))).is_ok());
    let newer = decode_backup(&headed(|header| _ = header.insert("format".to_owned(), 2.into())));
    let newer = newer.expect_err("newer");
    assert_eq!(newer, BackupError::Newer { format: 2 });
    assert!(newer.to_string().contains("use the newer version"), "{newer}");
}

#[test]
fn a_header_of_another_state_is_refused_and_so_is_too_much() {
    let other = "00".repeat(16);
    let error = decode_backup(&headed(|header| _ = header.insert("cluster_id".to_owned(), other.into())));
    assert!(error.expect_err("another").to_string().contains("name two clusters"));
    let len = BACKUP_BODY_LEN_MAX as u64 + 1;
    let error = decode_backup(&headed(|header| _ = header.insert("body_len".to_owned(), len.into())));
    assert_eq!(error, Err(BackupError::TooLarge { len }));
}

#[test]
fn fuzz_backup() {
    let words =
        ["\"format\":", "\"body_len\":", "\"header_blake3\":\"", "\n", "}", "\"magic\":\"blixard-backup\""];
    Target::new("backup").valid(written()).valid(headed(|_| ())).words(words).run(
        |bytes| match decode_backup(bytes) {
            Ok(backup) => {
                assert!(
                    backup.state.tickets.is_empty() && backup.header.cluster_id == backup.state.cluster_id()
                );
                "a backup".to_owned()
            }
            Err(error) => error.to_string(),
        },
    );
}
