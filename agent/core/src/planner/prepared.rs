//! What a leader does with an ask, as a value.

use blixard_model::{AskOutcome, ClusterVersion, MembershipChange, NodeName, RaftId, Refusal, Request};

use crate::formation::newer;

/// What the leader is to do with an ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// Propose this; who asked is answered when it is applied.
    Propose(Request),
    /// Propose this change of the members; who asked is answered when it is applied.
    Change(MembershipChange),
    /// Hand the leadership over first: the node that is to leave is the leader. Then it is asked again.
    HandOver,
    /// Note that the removal of this member was asked for: whoever gives a sign of life from now on is there.
    /// Then it is asked again.
    AwaitSigns(RaftId),
    /// Answer this: it is decided, and takes nothing.
    Answer(AskOutcome),
    /// Do nothing; it is asked again.
    NotNow(NotNow),
}

impl From<Refusal> for Prepared {
    fn from(refusal: Refusal) -> Self {
        Self::Answer(refusal.into())
    }
}

impl From<NotNow> for Prepared {
    fn from(why: NotNow) -> Self {
        Self::NotNow(why)
    }
}

/// Why a leader does not yet do what it is asked for. Nothing happened, and it is no refusal: asked again a
/// little later it may well be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// It does not know yet who is there.
    #[error("this leader is new and has not heard of every node yet")]
    NewLeader,
    /// Not every member would understand it.
    #[error(
        "the cluster has version {version}, and this takes version {needs}: it goes on to that by itself \
         once every member runs a release that supports it (`blixard status` shows which do not)"
    )]
    EarlierVersion {
        /// The version that the cluster has.
        version: ClusterVersion,
        /// The version that it takes.
        needs: ClusterVersion,
    },
    /// A node with a ticket runs a release that is too old: it keeps its ticket and is admitted once it was
    /// upgraded.
    #[error("{name}: the cluster has {}", newer(*.required, *.supports))]
    ReleaseTooOld {
        /// The node.
        name: NodeName,
        /// What it has to support.
        required: ClusterVersion,
        /// What it supports.
        supports: ClusterVersion,
    },
    /// A node whose VMs are to be forgotten was there a moment ago, and runs them for all that anybody knows.
    #[error("{node} answered a moment ago: while it is on it runs its VMs, so switch it off first")]
    StillThere {
        /// The node.
        node: NodeName,
    },
    /// There is one change of the members at a time.
    #[error("another change of the members is under way")]
    ChangeUnderWay,
    /// The change that was proposed is not what was applied.
    #[error("the members changed meanwhile")]
    MembersChanged,
    /// Before a member goes, the others show that they are there.
    #[error("the others are asked for a sign of life first")]
    SignsAskedFor,
    /// They had no time to.
    #[error("not all the others have given a sign of life yet")]
    SignsMissing,
    /// Before a member is given up for dead, it may show that it is not.
    #[error("the node itself is given the time for a sign of life")]
    OwnSignMissing,
    /// The leader is to leave.
    #[error("the node leads: the leadership is being handed over first")]
    HandsOver,
    /// The leader is to leave, and no other member can lead.
    #[error("the node leads, and no other can take the leadership over")]
    NobodyToHandOverTo,
    /// A node with a ticket is reached nowhere.
    #[error(
        "every address that the node guessed is another member's, and it has found no relay yet: without one \
         it needs `addresses` in its configuration"
    )]
    NoAddressOfItsOwn,
    /// A node with a ticket has another store than the member that it is.
    #[error("the node is known with another store, and has not heard of that yet")]
    KnownWithAnotherStore,
    /// The member that it is answers.
    #[error("the node still answers as a member with another store")]
    OtherStoreAnswers,
    /// The member that it was is none any more; it is admitted when it asks again.
    #[error("the place of the node's lost store was let go first")]
    PlaceLetGo,
}
