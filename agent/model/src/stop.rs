//! Why a VM that was wanted to run stays stopped although nobody told the cluster to stop it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{NodeName, VmName};

/// How the run of a guest ended that nobody stopped. A start that failed, and an end that the cluster itself
/// brought about (a lease that was over, a watchdog), are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCause {
    /// The guest shut itself down.
    GuestShutDown,
    /// The guest restarted itself; a panic of a Linux guest ends in a restart as well.
    GuestRestarted,
    /// The guest told the hypervisor that it panicked.
    GuestPanicked,
    /// The kernel ended it for want of memory.
    OutOfMemory,
    /// The hypervisor, or its supervisor, ended otherwise.
    HypervisorEnded,
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GuestShutDown => "the guest shut itself down",
            Self::GuestRestarted => "the guest restarted itself",
            Self::GuestPanicked => "the guest panicked",
            Self::OutOfMemory => "the kernel ended it for want of memory",
            Self::HypervisorEnded => "the hypervisor ended",
        })
    }
}

/// Whether a VM that ended by itself is started again where it is placed. A start that failed is tried again
/// in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// However it ended.
    #[default]
    Always,
    /// Unless the guest shut itself down.
    OnFailure,
    /// However it ended, it stays stopped.
    Never,
}

impl RestartPolicy {
    /// All of them, by their names.
    pub const NAMES: [&'static str; 3] = ["always", "on-failure", "never"];

    /// Whether it is the one that is left out where specs are written.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a VM is started again after this end.
    pub fn restarts_after(self, end: EndCause) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => end != EndCause::GuestShutDown,
            Self::Never => false,
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [always, on_failure, never] = Self::NAMES;
        f.pad(match self {
            Self::Always => always,
            Self::OnFailure => on_failure,
            Self::Never => never,
        })
    }
}

impl std::str::FromStr for RestartPolicy {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Always, Self::OnFailure, Self::Never];
        let found = all.into_iter().zip(Self::NAMES).find(|(_, name)| *name == text);
        found
            .map(|(policy, _)| policy)
            .ok_or_else(|| format!("{text:?} is none of {}", Self::NAMES.join(", ")))
    }
}

/// Why a VM stays stopped on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// Somebody stopped it on its node: `blixard local stop`.
    ByHand,
    /// It ended by itself, and its restart policy leaves it at that.
    Ended(EndCause),
}

/// A stop that a node found or was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmStop {
    /// The cause.
    pub cause: StopCause,
    /// When it happened, in milliseconds since the Unix epoch, by the clock of its node.
    pub at_unix_ms: u64,
}

/// A stop as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NotedStop {
    /// The node on which it happened.
    pub node: NodeName,
    /// What happened there.
    #[serde(flatten)]
    pub stop: VmStop,
}

impl NotedStop {
    /// In words, with the way out.
    pub fn words(&self, vm: &VmName) -> String {
        let node = &self.node;
        match self.stop.cause {
            StopCause::ByHand => format!("stopped by hand on {node}; `blixard vm start {vm}` starts it"),
            StopCause::Ended(end) => format!("{end} on {node}; `blixard vm start {vm}` starts it again"),
        }
    }
}

/// What an operator has told one node beside the cluster: this placement of a VM is not to run here. It is
/// kept on the node's disk until the log knows of it, or knows of another placement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StopNote {
    /// The VM.
    pub name: VmName,
    /// [`Placement::generation`](crate::Placement::generation).
    pub generation: u64,
    /// When it was told, in milliseconds since the Unix epoch, by the node's clock.
    pub at_unix_ms: u64,
}

impl StopNote {
    /// Whether it is of this placement.
    pub fn is_of(&self, name: &VmName, generation: u64) -> bool {
        self.name == *name && self.generation == generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_policy_is_known_by_its_name() {
        for name in RestartPolicy::NAMES {
            let policy: RestartPolicy = name.parse().expect("a policy");
            assert_eq!(policy.to_string(), name);
            assert_eq!(serde_json::to_string(&policy).expect("JSON"), format!("{name:?}"));
        }
        assert!("sometimes".parse::<RestartPolicy>().is_err_and(|why| why.contains("on-failure")));
        assert!(RestartPolicy::Always.is_default());
    }

    #[test]
    fn a_policy_says_after_which_ends_a_vm_is_started_again() {
        use EndCause::{GuestPanicked, GuestRestarted, GuestShutDown, HypervisorEnded, OutOfMemory};
        let failures = [GuestRestarted, GuestPanicked, OutOfMemory, HypervisorEnded];
        assert!(!RestartPolicy::OnFailure.restarts_after(GuestShutDown));
        assert!(RestartPolicy::Always.restarts_after(GuestShutDown));
        for end in failures {
            assert!(
                RestartPolicy::Always.restarts_after(end) && RestartPolicy::OnFailure.restarts_after(end)
            );
            assert!(!RestartPolicy::Never.restarts_after(end), "{end}");
        }
    }

    #[test]
    fn a_stop_in_the_log_says_where_it_happened_and_why() {
        let node: NodeName = "n1".parse().expect("a name");
        let text = r#"{"node":"n1","cause":"by_hand","at_unix_ms":7}"#;
        let stop = VmStop { cause: StopCause::ByHand, at_unix_ms: 7 };
        let noted = NotedStop { node: node.clone(), stop };
        assert_eq!(serde_json::to_string(&noted).expect("JSON"), text);
        assert_eq!(serde_json::from_str::<NotedStop>(text).expect("a stop"), noted);
        let web: VmName = "web".parse().expect("a name");
        assert_eq!(noted.words(&web), "stopped by hand on n1; `blixard vm start web` starts it");
        let text = r#"{"node":"n1","cause":{"ended":"guest_shut_down"},"at_unix_ms":7}"#;
        let noted: NotedStop = serde_json::from_str(text).expect("a stop");
        assert_eq!(noted.stop.cause, StopCause::Ended(EndCause::GuestShutDown));
        assert!(noted.words(&web).starts_with("the guest shut itself down on n1; "));
    }
}
