//! What has changed for those who look at this node: its summary, and what is told of it.

use blixard_consensus::RaftRole;
use blixard_model::ClusterVersion;

use crate::notice::Notice;
use crate::summary::Summary;

/// What was told, and what is to be told with the next turn.
#[derive(Debug)]
pub(super) struct News {
    /// As of the last turn.
    summary: Summary,
    /// The cluster's version as it was told to people.
    version: ClusterVersion,
    notices: Vec<Notice>,
}

impl News {
    pub(super) fn new(summary: Summary, version: ClusterVersion) -> Self {
        Self { summary, version, notices: Vec::new() }
    }

    /// To be told with the next turn.
    pub(super) fn tell(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    /// What is to be told now.
    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The node's place in the cluster, as of the last turn.
    pub(super) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The version by the log here: told when it was raised.
    pub(super) fn note_version(&mut self, version: ClusterVersion) {
        if version > self.version {
            self.version = version;
            self.tell(Notice::VersionRaised(version));
        }
    }

    /// The summary at the end of a turn: told when the leader or its term changed. True: this node has begun
    /// to lead.
    pub(super) fn note_summary(&mut self, new: Summary) -> bool {
        let old = std::mem::replace(&mut self.summary, new);
        let new = &self.summary;
        let leads = new.role == RaftRole::Leader;
        if old.leader != new.leader || old.term != new.term {
            let leader = new.leader.as_ref().map(|(name, _)| name.clone());
            self.notices.push(Notice::Leader { term: new.term, leader, here: leads });
        }
        leads && old.role != RaftRole::Leader
    }
}

#[cfg(test)]
mod tests {
    use blixard_model::RaftId;

    use super::*;

    fn summary(term: u64, role: RaftRole) -> Summary {
        Summary {
            raft_id: RaftId(1),
            role,
            leads: false,
            leader: None,
            term,
            applied: 0,
            is_member: true,
            membership_version: 0,
            joinable: false,
        }
    }

    #[test]
    fn a_term_is_told_once_and_the_beginning_of_leading_is_noticed() {
        let mut news = News::new(summary(1, RaftRole::Follower), ClusterVersion::FIRST);
        assert!(!news.note_summary(summary(1, RaftRole::Candidate)));
        assert!(news.take_notices().is_empty());
        assert!(news.note_summary(summary(2, RaftRole::Leader)));
        assert!(matches!(news.take_notices()[..], [Notice::Leader { term: 2, here: true, .. }]));
        assert!(!news.note_summary(Summary { leads: true, ..summary(2, RaftRole::Leader) }));
        assert!(news.take_notices().is_empty() && news.summary().leads);
    }

    #[test]
    fn a_version_is_told_when_it_is_raised() {
        let mut news = News::new(summary(1, RaftRole::Follower), ClusterVersion::FIRST);
        for version in [ClusterVersion::FIRST, ClusterVersion::NEWEST, ClusterVersion::NEWEST] {
            news.note_version(version);
        }
        assert!(matches!(news.take_notices()[..], [Notice::VersionRaised(ClusterVersion::NEWEST)]));
    }
}
