//! Backup files: what of the state goes into one, and what is believed of one that is read.
//!
//! The form of the header is `blixard_model::backup`'s. Every byte of a file is covered by a digest: those of
//! the body by one in the header, those of the header by one at its end.

use blixard_core::ClusterState;
use blixard_model::NodeName;
use blixard_model::backup::{
    BACKUP_BODY_LEN_MAX, BACKUP_FORMAT, BACKUP_HEADER_LEN_MAX, BACKUP_MAGIC, BackupHeader,
};
use serde::Deserialize;

use crate::machine::{decode_state, encode_state};

/// What stands between the header and its own digest.
const DIGEST_KEY: &str = ",\"header_blake3\":\"";
const DIGEST_END: &str = "\"}";
/// Hexadecimal digits of a digest.
const DIGEST_LEN: usize = 64;

/// What a node knows of a backup beside the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFacts {
    /// The last log index that the state holds.
    pub index: u64,
    /// The node's term.
    pub term: u64,
    /// Whether a quorum confirmed that nothing acknowledged is missing.
    pub linearizable: bool,
    /// Who makes it.
    pub node: NodeName,
    /// The version of its agent.
    pub version: String,
    /// Its clock, in milliseconds since the Unix epoch.
    pub made_at_ms: u64,
}

/// A backup that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// What it says of itself.
    pub header: BackupHeader,
    /// The state.
    pub state: ClusterState,
}

/// Why a file is no backup, or a state cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// Something else.
    #[error("it is no backup of a blixard cluster")]
    NoBackup,
    /// Written by a later version.
    #[error(
        "it is a backup of format {format}, this version knows {BACKUP_FORMAT}: use the newer version that \
         wrote it"
    )]
    Newer {
        /// Its format.
        format: u32,
    },
    /// Not as it was written.
    #[error("it is damaged ({what}): use another copy")]
    Damaged {
        /// What gives it away.
        what: String,
    },
    /// More than any backup has.
    #[error("its state has {len} bytes, more than the {BACKUP_BODY_LEN_MAX} that a backup may have")]
    TooLarge {
        /// How many it has.
        len: u64,
    },
}

fn damaged(what: impl Into<String>) -> BackupError {
    BackupError::Damaged { what: what.into() }
}

/// The bytes of a backup. Tickets are left out: who holds an open one must not come in with a restore.
///
/// # Errors
/// [`BackupError::TooLarge`].
pub fn encode_backup(facts: BackupFacts, mut state: ClusterState) -> Result<Vec<u8>, BackupError> {
    state.tickets.clear();
    let body = encode_state(&state);
    if body.len() > BACKUP_BODY_LEN_MAX {
        return Err(BackupError::TooLarge { len: body.len() as u64 });
    }
    let header = BackupHeader {
        magic: BACKUP_MAGIC.to_owned(),
        format: BACKUP_FORMAT,
        cluster_id: state.cluster_id(),
        cluster_name: state.genesis.cluster_name,
        index: facts.index,
        term: facts.term,
        linearizable: facts.linearizable,
        node: facts.node,
        version: facts.version,
        made_at_ms: facts.made_at_ms,
        body_len: body.len() as u64,
        body_blake3: digest(&body),
        header_blake3: String::new(),
    };
    let text = serde_json::to_string(&header).map_err(|error| damaged(error.to_string()))?;
    let text = text.strip_suffix(DIGEST_END).and_then(|text| text.strip_suffix(DIGEST_KEY));
    let covered = text.ok_or_else(|| damaged("its header has no place for a digest"))?;
    let end = digest(covered.as_bytes());
    let header = format!("{covered}{DIGEST_KEY}{end}{DIGEST_END}\n");
    Ok([header.as_bytes(), &body].concat())
}

/// Reads what [`encode_backup`] wrote.
///
/// # Errors
/// See [`BackupError`]; nothing of a file that is not whole is believed.
pub fn decode_backup(bytes: &[u8]) -> Result<Backup, BackupError> {
    let head = bytes.get(..bytes.len().min(BACKUP_HEADER_LEN_MAX)).unwrap_or_default();
    let end = head.iter().position(|byte| *byte == b'\n').ok_or(BackupError::NoBackup)?;
    let (line, body) = (&bytes[..end], &bytes[end + 1..]);
    let header = decode_header(line)?;
    let len = body.len() as u64;
    if header.body_len > BACKUP_BODY_LEN_MAX as u64 {
        return Err(BackupError::TooLarge { len: header.body_len });
    }
    if len != header.body_len {
        return Err(damaged(format!("{len} bytes follow the header, and not {}", header.body_len)));
    }
    if digest(body) != header.body_blake3 {
        return Err(damaged("the digest of its body is another one"));
    }
    let state =
        decode_state(body).map_err(|why| damaged(format!("its state cannot be understood: {why}")))?;
    if state.cluster_id() != header.cluster_id || state.genesis.cluster_name != header.cluster_name {
        return Err(damaged("its header and its state name two clusters"));
    }
    Ok(Backup { header, state })
}

/// What every format has.
#[derive(Deserialize)]
struct AnyHeader {
    magic: String,
    format: u32,
}

fn decode_header(line: &[u8]) -> Result<BackupHeader, BackupError> {
    let text = std::str::from_utf8(line).map_err(|_| BackupError::NoBackup)?;
    // Not the digest first: a later format may have another one.
    let any: AnyHeader = serde_json::from_str(text).map_err(|_| BackupError::NoBackup)?;
    if any.magic != BACKUP_MAGIC {
        return Err(BackupError::NoBackup);
    }
    if any.format > BACKUP_FORMAT {
        return Err(BackupError::Newer { format: any.format });
    }
    let at = text.len().checked_sub(DIGEST_KEY.len() + DIGEST_LEN + DIGEST_END.len());
    let parts = at.and_then(|at| text.split_at_checked(at));
    let (covered, end) = parts.ok_or_else(|| damaged("its header has no digest"))?;
    if end != format!("{DIGEST_KEY}{}{DIGEST_END}", digest(covered.as_bytes())) {
        return Err(damaged("the digest of its header is another one"));
    }
    serde_json::from_str(text).map_err(|error| damaged(format!("its header: {error}")))
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
