//! Decides which messages reach Raft.
//!
//! Raft 0.7 takes for granted that a message comes from another Raft: many of its own checks are panics, and
//! some sums overflow. Members are trusted not to lie, but one that is broken, rolled back or of another
//! version must not take the others down. So everything that would end this process, or that no honest member
//! ever says, is refused here with a reason: [`check_form`] looks at the message alone, [`check_against`] at
//! what this node knows as well.

use std::collections::BTreeSet;

use blixard_model::mutant;
use raft::eraftpb::{EntryType, Message, MessageType, Snapshot};
use raft::{RawNode, StateRole};

use crate::error::StepError;
use crate::limits::READS_MAX;
use crate::parts::Log;

/// Highest index and term that are believed: what comes from here on overflows somewhere in Raft.
const NUMBER_MAX: u64 = 1 << 62;
/// How far a term may be ahead of this node's. A term costs an election, so that no cluster gets this far
/// while a node is away; but one broken message may not use the terms up.
const TERM_AHEAD_MAX: u64 = 1 << 32;
/// Longest context of a message and longest name of a read, in bytes: ours have 24, Raft's own word 16.
const CONTEXT_LEN_MAX: usize = 64;
/// Longest configuration change in an entry, in bytes: one member at its limits takes less.
const CHANGE_LEN_MAX: usize = 16 << 10;
/// Most members in the configuration of a snapshot.
const MEMBERS_MAX: usize = 1_024;

/// The reason of a refusal, in a few words.
type Checked = Result<(), &'static str>;

fn refuse(why: &'static str) -> Checked {
    Err(why)
}

/// Checks that terms and indices leave room to count on.
///
/// # Errors
/// One does not.
pub(crate) fn check_numbers(numbers: &[u64]) -> Checked {
    if numbers.iter().any(|number| *number >= NUMBER_MAX) {
        return refuse("a number that no log reaches");
    }
    Ok(())
}

/// Checks what can be said of a message without knowing anything else.
///
/// # Errors
/// The reason.
pub(crate) fn check_form(message: &Message) -> Checked {
    let kind = message.get_msg_type();
    match kind {
        MessageType::MsgAppend
        | MessageType::MsgAppendResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgSnapshot
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgTimeoutNow
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp => {}
        // Requests are forwarded, not entries.
        MessageType::MsgPropose => return refuse("a forwarded proposal"),
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => return refuse("of a kind that no node sends"),
    }
    if message.from == 0 || message.from == message.to {
        return refuse("from nobody, or from the receiver itself");
    }
    // Raft ends the process when it forwards a read that has a term, and takes other messages without one for
    // its own.
    if (message.term == 0) != (kind == MessageType::MsgReadIndex) {
        return refuse("a read with a term, or another message without");
    }
    let Message { term, index, commit, reject_hint, log_term, commit_term, .. } = *message;
    check_numbers(&[term, index, commit, reject_hint, log_term, commit_term])?;
    if message.context.len() > CONTEXT_LEN_MAX {
        return refuse("a context that is too long");
    }
    // Members get snapshots without asking.
    if message.request_snapshot != 0 {
        return refuse("asks for a snapshot");
    }
    match kind {
        MessageType::MsgAppend => check_entries(message),
        MessageType::MsgSnapshot => check_snapshot(message.get_snapshot(), message.term),
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => check_read(message),
        _ if !message.entries.is_empty() => refuse("entries in a message that carries none"),
        _ => Ok(()),
    }
}

fn check_read(message: &Message) -> Checked {
    let [entry] = message.get_entries() else { return refuse("a read without its name") };
    if entry.data.is_empty() || entry.data.len() > CONTEXT_LEN_MAX {
        return refuse("a read whose name is empty or too long");
    }
    Ok(())
}

/// Entries follow each other and what they build upon, in index and in term.
fn check_entries(message: &Message) -> Checked {
    // Raft finds "term 0" at every index beyond its log, and would take that for a match.
    if message.index > 0 && message.log_term == 0 {
        return refuse("builds upon an entry without a term");
    }
    let mut term = message.log_term;
    for (expected, entry) in (message.index + 1..).zip(&message.entries) {
        if entry.index != expected {
            return refuse("entries with a gap");
        }
        if entry.term == 0 || entry.term < term {
            return refuse("entries whose terms go backwards");
        }
        if entry.get_entry_type() != EntryType::EntryNormal && entry.data.len() > CHANGE_LEN_MAX {
            return refuse("a configuration change that is too large");
        }
        term = entry.term;
    }
    if term > message.term {
        return refuse("entries of a later term than the leader's");
    }
    Ok(())
}

/// Checks that a snapshot has a place in the log, and a configuration that members of ours can be in.
///
/// # Errors
/// The reason.
pub(crate) fn check_snapshot(snapshot: &Snapshot, leader_term: u64) -> Checked {
    let meta = snapshot.get_metadata();
    if meta.index == 0 || meta.index >= NUMBER_MAX || meta.term == 0 || meta.term > leader_term {
        return refuse("a snapshot without a place in the log");
    }
    let conf = meta.get_conf_state();
    // Changes are of one member at a time: there is never a joint configuration.
    if !conf.voters_outgoing.is_empty() || !conf.learners_next.is_empty() || conf.auto_leave {
        return refuse("a snapshot with a joint configuration");
    }
    let count = conf.voters.len() + conf.learners.len();
    if conf.voters.is_empty() || count > MEMBERS_MAX {
        return refuse("a snapshot without voters, or with too many members");
    }
    let ids: BTreeSet<u64> = conf.voters.iter().chain(&conf.learners).copied().collect();
    if ids.len() != count || ids.contains(&0) {
        return refuse("a snapshot with a member twice, or with one without an id");
    }
    Ok(())
}

/// Checks a message of good form against what this node knows.
///
/// # Errors
/// [`StepError::Unacceptable`] with the reason, or [`StepError::RolledBack`].
pub(crate) fn check_against(raw: &RawNode<Log>, message: &Message) -> Result<(), StepError> {
    let late = if mutant::lives("lateness-is-a-lie") { StepError::Unacceptable } else { StepError::Late };
    check_time(raw, message).map_err(late)?;
    check_state(raw, message).map_err(StepError::Unacceptable)?;
    check_acknowledged(raw, message)
}

/// A message of a correct member that came too late: dropped without an error.
fn check_time(raw: &RawNode<Log>, message: &Message) -> Checked {
    let raft = &raw.raft;
    let is_written = raft.raft_log.persisted >= raft.raft_log.last_index();
    match message.get_msg_type() {
        _ if message.to != raft.id => refuse("for a raft id that this node had before"),
        // Raft has all of its log on disk when it asks for votes, and relies on it when it gets them.
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse if !is_written => {
            refuse("a vote that is not asked for any more")
        }
        // Raft would campaign for anybody. The leader asks again, or gives up handing over.
        MessageType::MsgTimeoutNow if message.term != raft.term || raft.leader_id != message.from => {
            refuse("told to campaign by a node that it does not follow")
        }
        MessageType::MsgTimeoutNow if !is_written => refuse("told to campaign before its log is on disk"),
        // Raft would send it on under the asker's raft id, which the next one must not believe. The asker
        // asks again.
        MessageType::MsgReadIndex if raft.state != StateRole::Leader && !mutant::lives("reads-sent-on") => {
            refuse("a read sent to a node that leads no more")
        }
        _ => Ok(()),
    }
}

fn check_state(raw: &RawNode<Log>, message: &Message) -> Checked {
    let raft = &raw.raft;
    if message.term > raft.term.saturating_add(TERM_AHEAD_MAX) {
        return refuse("a term that no election can have reached");
    }
    // Raft answers messages of an earlier term without looking into them.
    if message.term != 0 && message.term < raft.term {
        return Ok(());
    }
    let is_current = message.term == raft.term;
    match message.get_msg_type() {
        MessageType::MsgAppend | MessageType::MsgSnapshot | MessageType::MsgHeartbeat if is_current => {
            check_leader(raw, message.from)
        }
        MessageType::MsgAppendResponse if is_current && raft.state == StateRole::Leader => {
            let last = raft.raft_log.last_index();
            let claimed = message.index.max(message.commit).max(message.reject_hint);
            if claimed > last { refuse("acknowledges what this leader never had") } else { Ok(()) }
        }
        MessageType::MsgReadIndex if raft.pending_read_count() >= READS_MAX => refuse("too many reads"),
        _ => Ok(()),
    }
}

/// One term has one leader. Entries of a second one would replace what the first one's were acknowledged for.
fn check_leader(raw: &RawNode<Log>, from: u64) -> Checked {
    let leader = raw.raft.leader_id;
    if leader != 0 && leader != from { refuse("a second leader of the same term") } else { Ok(()) }
}

/// A leader's heartbeat commits no more than what this node itself acknowledged to it. When that is not in
/// the log here, the disk lost it: this is how a store that was rolled back shows.
fn check_acknowledged(raw: &RawNode<Log>, message: &Message) -> Result<(), StepError> {
    let (acknowledged, last) = (message.commit, raw.raft.raft_log.last_index());
    let speaks_now = message.get_msg_type() == MessageType::MsgHeartbeat && message.term >= raw.raft.term;
    if speaks_now && acknowledged > last && !mutant::lives("rolled-back-disk-not-recognised") {
        return Err(StepError::RolledBack { acknowledged, last });
    }
    Ok(())
}
