//! What peers say beside Raft's messages: of themselves, of the members, and of this node.

use blixard_core::declared::DeclaredMember;
use blixard_model::formation::{Identity, Phase};
use blixard_model::removal::RemovedFrom;
use blixard_model::{MembersAsk, mutant};

use super::Node;
use super::error::NodeError;
use super::waiting::Waits;

impl<P: Waits, R: Waits> Node<P, R> {
    /// What a peer said of itself: unasked, or as the answer to a question that was asked when this node's
    /// [`Summary::membership_version`](crate::Summary::membership_version) was `asked`. An answer is no older
    /// than its question, a word that came unasked may be as old as any.
    ///
    /// # Errors
    /// [`NodeError::Left`] or [`NodeError::Removed`]: it knows for certain that this node's raft id has left
    /// the cluster.
    pub fn note_identity(&mut self, identity: Identity, asked: Option<u64>) -> Result<(), NodeError> {
        if let Phase::Formed { cluster_id, you_left: true, you_were_removed, .. } = identity.phase
            && cluster_id == self.config.cluster_id
            && !mutant::lives("left-store-not-recognised")
        {
            let raft_id = self.news.summary().raft_id;
            let removed = you_were_removed;
            return Err(if removed { NodeError::Removed { raft_id } } else { NodeError::Left { raft_id } });
        }
        self.note_told(&identity);
        self.claims.note(identity, asked, self.tick);
        Ok(())
    }

    /// A peer of the same cluster may name its members.
    fn note_told(&mut self, identity: &Identity) {
        let Phase::Formed { cluster_id, applied, members, .. } = &identity.phase else { return };
        if *cluster_id == self.config.cluster_id {
            self.peers.note_told(*applied, members, self.news.summary().applied);
        }
    }

    /// A member says that an operator removed this node.
    ///
    /// # Errors
    /// [`NodeError::Removed`], unless that was from another cluster, or under an earlier raft id.
    pub fn note_removed(&mut self, removed: RemovedFrom) -> Result<(), NodeError> {
        let own = self.news.summary().raft_id;
        let ours = removed.cluster_id == self.config.cluster_id;
        if ours && removed.raft_id >= own { Err(NodeError::Removed { raft_id: own }) } else { Ok(()) }
    }

    /// The nodes on this node's list that are there with an empty store and no members yet: whoever leads may
    /// have another list, or none, and has to be told.
    pub fn vouches(&self) -> Vec<MembersAsk> {
        let state = self.state();
        let waits = |declared: &&DeclaredMember| {
            let id = declared.endpoint_id;
            state.member_by_endpoint(id).is_none() && !state.is_kept_out(id)
        };
        let vouch = |declared: &DeclaredMember| {
            let heard = self.claims.of(declared.endpoint_id)?;
            let fits = heard.node.name == declared.name && matches!(heard.phase, Phase::Empty { .. });
            let node = Identity { node: declared.let_in(&heard.node), ..heard.clone() };
            fits.then_some(MembersAsk::Vouch { node: Box::new(node) })
        };
        let led = self.news.summary().leader.is_some() && !self.raft.leads();
        let listed = self.config.declared.iter().filter(waits);
        if led { listed.filter_map(vouch).collect() } else { Vec::new() }
    }
}
