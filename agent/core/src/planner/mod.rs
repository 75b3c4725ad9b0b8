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
mod view;

use blixard_model::{MembershipChange, TicketId};

use self::membership::plan_membership;

pub use self::prepared::{NotNow, Prepared};
pub use self::view::{HEARD_TICKS, LeaderView, Signs};

/// Expired tickets are proposed again after so many ticks, if they still stand.
const EXPIRY_TICKS: u64 = 20;

/// What a leader proposes without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// A change of the members.
    Change(MembershipChange),
    /// Open tickets that have expired: what a clock says later does not open them again.
    Expire(Vec<TicketId>),
}

/// What there is to propose now, in this order: a change of the members, if none is under way, and which
/// tickets have expired. What is not taken is planned again.
pub fn plan(view: &LeaderView<'_>) -> Vec<Planned> {
    let change = (!view.is_changing).then(|| plan_membership(&view.members)).flatten();
    change.map(Planned::Change).into_iter().chain(expiry(view)).collect()
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
