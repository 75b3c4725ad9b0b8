//! Why something was refused, as the log keeps it.
//!
//! What applying an entry gives is replicated: the state remembers the outcomes of requests, and replicas of
//! different releases must agree on every byte of them. Words for people would bind all later releases to
//! their wording, so a reason is a code that each release puts into its own words. Before
//! [`ClusterVersion::CODED_REASONS`](crate::ClusterVersion::CODED_REASONS) the words themselves were kept:
//! they are read for ever, and clusters of that version still write them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{NodeName, TicketId, VmName};
use crate::lease::LeaseTermsRefused;

/// A reason: a code, or the words that stood for it in the first version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reason<C> {
    /// The code.
    Code(C),
    /// In words.
    Words(String),
}

impl<C: fmt::Display> Reason<C> {
    /// The same in words.
    #[must_use]
    pub fn in_words(self) -> Self {
        match self {
            Self::Code(code) => Self::Words(code.to_string()),
            Self::Words(words) => Self::Words(words),
        }
    }
}

impl<C: fmt::Display> fmt::Display for Reason<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => code.fmt(f),
            Self::Words(words) => words.fmt(f),
        }
    }
}

impl<C> From<String> for Reason<C> {
    fn from(words: String) -> Self {
        Self::Words(words)
    }
}

/// What is wrong with a field of a [`crate::VmSpec`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum FieldProblem {
    /// A number out of its range.
    #[error("{is} is not between {min} and {max}")]
    OutOfRange {
        /// The number.
        is: u64,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// A text that is too long.
    #[error("longer than {max} bytes")]
    TooLong {
        /// The most bytes that are allowed.
        max: u64,
    },
    /// Too many of something.
    #[error("more than {max}")]
    TooMany {
        /// The most that are allowed.
        max: u64,
    },
    /// A character that no terminal and no argument list should get.
    #[error("holds a control character")]
    ControlCharacter,
    /// A path that is there twice.
    #[error("is listed twice")]
    ListedTwice,
    /// A path that QEMU would split.
    #[error("holds a comma: use a path without one")]
    Comma,
    /// A path that begins nowhere.
    #[error("is not an absolute path")]
    NotAbsolute,
    /// A VM that shall be taken over by other nodes and runs on one alone.
    #[error(
        "failover is for a VM that may run on other nodes, and this one is pinned to {node}: use keep, or \
             leave the pin out"
    )]
    FailoverOfPinned {
        /// That node.
        node: NodeName,
    },
    /// A VM that shall be taken over by other nodes and writes a disk that only its own one has.
    #[error(
        "failover is for a VM without a disk that it writes, because other nodes do not have {path}: use \
             keep, or make the disk read-only"
    )]
    FailoverOfWritable {
        /// The disk.
        path: String,
    },
    /// A VM that shall be taken over by other nodes and writes a disk that no node shares.
    #[error(
        "failover is for a VM whose disks other nodes have as well, and no node shares the directories of \
         all that it writes ({path}): use keep, make the disk read-only, or list its directory as shared in \
         vms.disk_dirs on every node that has it"
    )]
    FailoverOfUnshared {
        /// The first disk that it writes.
        path: String,
    },
    /// A path with parts that lead elsewhere.
    #[error("is not a plain path of a file: write it without '.', '..', '//' and a last '/'")]
    NotPlain,
}

/// All that keeps a VM from a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lacks(pub Vec<Lack>);

impl From<Lack> for Lacks {
    fn from(lack: Lack) -> Self {
        Self(vec![lack])
    }
}

impl fmt::Display for Lacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lacks: Vec<String> = self.0.iter().map(Lack::to_string).collect();
        f.write_str(&lacks.join(" and "))
    }
}

/// Something that keeps a VM from a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Lack {
    /// It votes and keeps the log only.
    #[error("a witness runs no VMs")]
    Witness,
    /// The VM is to run on another node.
    #[error("the VM is pinned to {node}")]
    Pinned {
        /// That node.
        node: NodeName,
    },
    /// The leader had not heard of it.
    #[error("not reachable")]
    Unreachable,
    /// It has registered no resources.
    #[error("has not said yet what it offers")]
    NothingOffered,
    /// Too little memory.
    #[error("{free_mib} MiB of memory free, {needed_mib} needed")]
    Memory {
        /// What no placement reserves.
        free_mib: u64,
        /// What the VM needs, the hypervisor's own included.
        needed_mib: u64,
    },
    /// Too few cpus.
    #[error("{free} cpus free, {needed} needed")]
    Cpus {
        /// What no placement reserves.
        free: u32,
        /// What the VM needs.
        needed: u32,
    },
    /// A VM that may be failed over writes a file there that other nodes do not have.
    #[error("disk {path} does not lie in a directory that the node shares")]
    NotShared {
        /// The file.
        path: String,
    },
    /// A file that another VM writes, or that it would write for another.
    #[error("disk {path} is in use by VM {vm}")]
    Disk {
        /// The file.
        path: String,
        /// The other VM.
        vm: VmName,
    },
}

/// Why a ticket cannot be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum RevokeProblem {
    /// There is none.
    #[error("there is none with id {id}")]
    Unknown {
        /// The id.
        id: TicketId,
    },
    /// It has admitted a node.
    #[error("{node} has used it: `blixard node remove {node}` removes that node")]
    Used {
        /// That node.
        node: NodeName,
    },
}

/// What is wrong with a field of a command, outside a spec.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum FieldRefused {
    /// A VM that would be deleted before it is there. The words are in the logs of the first version, as they
    /// are: no two builds may write others.
    #[error("a VM can not be created as absent")]
    CreatedAbsent,
    /// A spec that was changed too often while its node did not say that it took the changes up.
    #[error(
        "{node} has not confirmed the earlier changes of this VM, and the disks of all its specs are still \
         reserved: change it again once {node} answers"
    )]
    ChangesUnconfirmed {
        /// The node.
        node: NodeName,
    },
    /// A directory that a node shares and that has no plain path.
    #[error("shared directory {dir}: {problem}")]
    SharedDir {
        /// The directory.
        dir: String,
        /// What is wrong.
        problem: FieldProblem,
    },
    /// Too many directories that a node shares.
    #[error("more than {max} shared directories")]
    TooManySharedDirs {
        /// How many there may be.
        max: u64,
    },
    /// A directory that is to be shared, in which two VMs have a file each that would then be one.
    #[error(
        "{dir} cannot be shared while VM {vm} and VM {other} both have {path} and one of them writes it: \
         delete one of them or give it another disk"
    )]
    SharedDiskTwice {
        /// The directory.
        dir: String,
        /// The file.
        path: String,
        /// One VM.
        vm: VmName,
        /// The other VM.
        other: VmName,
    },
    /// VMs of a node that could still say that they are gone.
    #[error("{node} is a member: its VMs are deleted one by one, or with the node")]
    NodeIsMember {
        /// The node.
        node: NodeName,
    },
    /// A life that is too short or too long.
    #[error("a ticket lives {min_s} s at least and {max_s} s at most")]
    TicketLife {
        /// The shortest, in seconds.
        min_s: u64,
        /// The longest, in seconds.
        max_s: u64,
    },
    /// An id that is taken.
    #[error("there is a ticket {id} already")]
    TicketExists {
        /// The id.
        id: TicketId,
    },
    /// A name that a member has.
    #[error("node {node} is a member already: a ticket is for a new node")]
    TicketForMember {
        /// The name.
        node: NodeName,
    },
    /// A time that is too short or too long.
    #[error("a cluster is disarmed for {min_s} s at least and {max_s} s at most")]
    DisarmTime {
        /// The shortest, in seconds.
        min_s: u64,
        /// The longest, in seconds.
        max_s: u64,
    },
    /// Terms of leases that cannot be kept.
    #[error("{0}")]
    LeaseTerms(LeaseTermsRefused),
    /// More open tickets than are kept.
    #[error("{max} tickets are open: revoke some")]
    TooManyTickets {
        /// How many are kept.
        max: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_and_its_words_are_told_apart_and_read_the_same() {
        let lacks = Lacks(vec![
            Lack::Memory { free_mib: 1, needed_mib: 2 },
            Lack::Disk { path: "/d".to_owned(), vm: "web".parse().expect("a name") },
        ]);
        let words = "1 MiB of memory free, 2 needed and disk /d is in use by VM web";
        let code = Reason::Code(lacks);
        assert_eq!(code.to_string(), words);
        let text = serde_json::to_string(&code).expect("json");
        assert_eq!(
            text,
            r#"[{"code":"memory","free_mib":1,"needed_mib":2},{"code":"disk","path":"/d","vm":"web"}]"#
        );
        assert_eq!(serde_json::from_str::<Reason<Lacks>>(&text).expect("a code"), code);
        let said = code.in_words();
        assert_eq!(serde_json::to_string(&said).expect("json"), format!("\"{words}\""));
        assert_eq!(serde_json::from_str::<Reason<Lacks>>(&format!("\"{words}\"")).expect("words"), said);
        assert_eq!(said.clone().in_words(), said);
        assert!(serde_json::from_str::<Reason<FieldProblem>>(r#"{"code":"another"}"#).is_err());
    }
}
