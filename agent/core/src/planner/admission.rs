//! Which change admits a node that somebody speaks for: itself with a ticket, or a member that lists it.

use std::net::SocketAddr;

use blixard_model::formation::{Identity, Phase};
use blixard_model::join::JoinRequest;
use blixard_model::{
    AskOutcome, Member, MembershipChange, RaftId, Refusal, Removal, Role, TicketRecord, TicketState,
    TicketUse, mutant,
};

use super::prepared::{NotNow, Prepared};
use super::view::LeaderView;
use crate::state::MemberRef;
use crate::ticket;

/// A member's word is as good as the leader's own list. A node that is a member already needs none, also if
/// its store is lost: that is for the leader to find.
pub(super) fn by_list(view: &LeaderView<'_>, node: Identity) -> Prepared {
    if let Some(member) = view.members.state.member_by_endpoint(node.node.endpoint_id) {
        return is_member(member);
    }
    if !is_empty(&node) {
        let why = format!("{}'s store belongs to a cluster already", node.node.name);
        return Refusal::Membership { why }.into();
    }
    admission(view, node, None)
}

/// A node shows the secret of a ticket. An unknown ticket and a wrong secret get the same answer: without a
/// secret nobody learns which tickets there are.
pub(super) fn by_ticket(view: &LeaderView<'_>, request: JoinRequest) -> Prepared {
    let JoinRequest { node, ticket: id, secret, guessed, known_as } = request;
    let state = view.members.state;
    let member = state.member_by_endpoint(node.node.endpoint_id);
    // It proved who it is, and its ticket may be forgotten by now: the answer was lost on its way.
    if let Some(member) = member.filter(|member| member.node.store_id == node.node.store_id) {
        return is_member(member);
    }
    let Some(record) = state.tickets.get(&id).filter(|ticket| ticket::matches(ticket, &secret)) else {
        return invalid("the cluster does not know it, or its secret is another one");
    };
    if view.is_over(record) {
        return invalid("it has expired");
    }
    if !is_empty(&node) {
        return invalid("the node's store belongs to a cluster already: a node joins with an empty store");
    }
    if let Some(member) = member {
        return let_go_first(view, member.raft_id, known_as, record);
    }
    let addresses = without_taken(view, &node, &guessed);
    if addresses.is_empty() && !node.node.offer.addresses.is_empty() && node.node.offer.relay_url.is_none() {
        return NotNow::NoAddressOfItsOwn.into();
    }
    let used = TicketUse { id, at_ms: view.wall_ms };
    let mut node = node;
    node.node.offer.addresses = addresses;
    admission(view, node, Some(used))
}

fn invalid(why: &str) -> Prepared {
    Refusal::Ticket { why: why.to_owned().into() }.into()
}

fn is_member(member: MemberRef<'_>) -> Prepared {
    Prepared::Answer(AskOutcome::Admitted { raft_id: member.raft_id })
}

fn is_empty(node: &Identity) -> bool {
    matches!(node.phase, Phase::Empty { .. })
}

/// A node's addresses without those of its guesses that are another member's.
fn without_taken(view: &LeaderView<'_>, node: &Identity, guessed: &[SocketAddr]) -> Vec<SocketAddr> {
    let members = || view.members.state.nodes.members();
    let others = || members().filter(|member| member.node.endpoint_id != node.node.endpoint_id);
    let taken = |address: &SocketAddr| others().any(|member| member.node.offer.addresses.contains(address));
    let stays = |address: &&SocketAddr| !(guessed.contains(address) && taken(address));
    node.node.offer.addresses.iter().filter(stays).copied().collect()
}

fn admission(view: &LeaderView<'_>, identity: Identity, ticket: Option<TicketUse>) -> Prepared {
    let Identity { node, supports, .. } = identity;
    if supports < view.members.required {
        return NotNow::ReleaseTooOld { name: node.name, required: view.members.required, supports }.into();
    }
    let member = Member { raft_id: view.members.state.next_raft_id, node, role: Role::Learner };
    Prepared::Change(MembershipChange::AddLearner { member, ticket })
}

/// The node has lost the store that it was a member with: that place is let go before it gets another.
fn let_go_first(
    view: &LeaderView<'_>,
    raft_id: RaftId,
    known_as: Option<RaftId>,
    ticket: &TicketRecord,
) -> Prepared {
    if let TicketState::Used { .. } | TicketState::Revoked | TicketState::Expired = ticket.state {
        return invalid("it has ended, and the node is a member with another store");
    }
    if known_as != Some(raft_id) && !mutant::lives("late-admission-believed") {
        return NotNow::KnownWithAnotherStore.into();
    }
    if !view.signs.knows_whether_heard(raft_id) || view.signs.is_heard(raft_id) {
        return NotNow::OtherStoreAnswers.into();
    }
    Prepared::Change(MembershipChange::Remove { raft_id, why: Removal::LostStore })
}
