//! What a leader does, with reasons: pure functions of the state and of what it has heard of whom.
//!
//! [`prepare::prepare`] says what becomes of an ask, [`plan`] what the leader does without being asked.
//! [`placement`] chooses a VM's node and runs inside apply. [`explain`] tells people what the plans wait for.

mod admission;
pub mod explain;
pub mod membership;
pub mod placement;
pub mod prepare;
mod prepared;
pub mod removal;
pub mod version;
mod view;

use blixard_model::{ClusterVersion, MembershipChange, TicketId};

use self::membership::plan_membership;
use self::version::plan_version;

pub use self::prepared::{NotNow, Prepared};
pub use self::version::Raising;
pub use self::view::{HEARD_TICKS, LeaderView, Signs};

/// Expired tickets are proposed again after so many ticks, if they still stand.
const EXPIRY_TICKS: u64 = 20;
/// A version is proposed again after so many ticks, if it is not the cluster's until then.
const RAISE_TICKS: u64 = 20;

/// What a leader proposes without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// A change of the members.
    Change(MembershipChange),
    /// Open tickets that have expired: what a clock says later does not open them again.
    Expire(Vec<TicketId>),
    /// The version of the cluster that every member supports.
    Raise(ClusterVersion),
}

/// What there is to propose now, in this order: a change of the members, if none is under way, or else the
/// version that they all support; and which tickets have expired. What is not taken is planned again.
pub fn plan(view: &LeaderView<'_>) -> Vec<Planned> {
    let first = if view.is_changing {
        // Whoever is being admitted was not asked yet what it supports.
        None
    } else {
        plan_membership(&view.members).map(Planned::Change).or_else(|| raise(view))
    };
    first.into_iter().chain(expiry(view)).collect()
}

fn raise(view: &LeaderView<'_>) -> Option<Planned> {
    let to = plan_version(&view.members)?;
    let is_same = |raising: &Raising| raising.to == to;
    let waits = view.raising.as_ref().filter(|it| is_same(it)).is_some_and(|raising| {
        let since = view.signs.tick.saturating_sub(raising.at_tick);
        since < RAISE_TICKS
    });
    (!waits).then_some(Planned::Raise(to))
}

fn expiry(view: &LeaderView<'_>) -> Option<Planned> {
    let tick = view.signs.tick;
    if view.expiry_proposed.is_some_and(|at| tick.saturating_sub(at) < EXPIRY_TICKS) {
        return None;
    }
    let over = view.members.state.tickets.values().filter(|ticket| view.is_over(ticket));
    let ids: Vec<TicketId> = over.map(|ticket| ticket.id).collect();
    (!ids.is_empty()).then_some(Planned::Expire(ids))
}
