//! The version of the cluster, as the log here has it and as this leader raises it.

use blixard_core::planner::Raising;
use blixard_model::{ClusterVersion, Command, Request};

use crate::machine::encode_request;
use crate::node::Node;
use crate::notice::Notice;
use crate::waiting::Waits;

impl<P: Waits, R: Waits> Node<P, R> {
    pub(crate) fn propose_version(&mut self, to: ClusterVersion) {
        let Ok(id) = format!("raise-{}-{}", self.summary.term, self.tick).parse() else { return };
        let request = Request { id, command: Command::RaiseVersion { to } };
        if let Ok(key) = self.raft.propose(encode_request(&request)) {
            self.raft.forget_proposal(key);
            self.raising = Some(Raising { to, at_tick: self.tick });
        }
    }

    /// What a node has to support to become a member. Between a version's proposal and its end nobody is let
    /// in who does not support it: both are entries of one log, and the later one counts.
    pub(crate) fn required_version(&self) -> ClusterVersion {
        self.raising.map_or(self.state().version, |raising| self.state().version.max(raising.to))
    }

    /// After every pump: whether the log has raised it.
    pub(crate) fn note_version(&mut self) {
        let version = self.state().version;
        if version > self.known_version {
            self.known_version = version;
            self.notices.push(Notice::VersionRaised(version));
        }
    }
}
