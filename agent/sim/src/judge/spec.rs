//! What a name may do, one operation after another: the reference that the tester compares with.

use std::cell::RefCell;
use std::rc::Rc;

use rustc_hash::FxHashSet;
use stateright::semantics::SequentialSpec;

use super::history::{ClientAction, ClientAnswer, CreatedAs, Sight};

/// Most steps of one search: operations that the tester tried to put next.
pub const STEPS_MAX: u64 = 100_000;

/// What is known of a name.
///
/// A deleted VM disappears when its node has reported the unit gone, which no client sees happen. So there
/// is no state "deleting": after a delete a name is [`NameState::Going`], deleting or gone already, until
/// somebody is told which. Being told "deleting" leaves it so, since it may be gone a moment later; being
/// told "not there", or a create that is done, settles it, and from then on nobody may be told "deleting"
/// again. That is exactly what a VM that may disappear at any moment allows, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NameState {
    /// No VM has this name.
    Absent,
    /// It is there and shall not run.
    Stopped,
    /// It is there and shall run.
    Running,
    /// It was deleted: on its way out, or gone.
    Going,
}

impl NameState {
    /// The state after this action was answered so; none if here it cannot be.
    pub fn step(self, action: ClientAction, answer: ClientAnswer) -> Option<Self> {
        use NameState::{Absent, Going, Running, Stopped};
        let to = match (action, answer, self) {
            (ClientAction::Create(wanted), ClientAnswer::Done, Absent | Going) => Self::wanted(wanted),
            (ClientAction::Create(_), ClientAnswer::Exists, Stopped | Running) => self,
            (ClientAction::Create(_), ClientAnswer::NoRoom, _) => self,
            (
                ClientAction::Create(_) | ClientAction::Start | ClientAction::Stop | ClientAction::Change,
                ClientAnswer::Deleting,
                Going,
            ) => Going,
            (ClientAction::Start, ClientAnswer::Done, Stopped) => Running,
            (ClientAction::Start, ClientAnswer::Unchanged, Running) => Running,
            (ClientAction::Stop, ClientAnswer::Done, Running) => Stopped,
            (ClientAction::Stop, ClientAnswer::Unchanged, Stopped) => Stopped,
            (
                ClientAction::Change,
                ClientAnswer::Done | ClientAnswer::Unchanged | ClientAnswer::NoRoom,
                Stopped | Running,
            ) => self,
            (ClientAction::Delete, ClientAnswer::Done, Stopped | Running) => Going,
            (ClientAction::Delete, ClientAnswer::Unchanged, Going) => Going,
            (ClientAction::Delete, ClientAnswer::NoRoom, Stopped | Running) => self,
            (
                ClientAction::Start | ClientAction::Stop | ClientAction::Change | ClientAction::Delete,
                ClientAnswer::NotFound,
                Absent | Going,
            ) => Absent,
            (ClientAction::Read, ClientAnswer::Sees(Sight::Absent), Absent | Going) => Absent,
            (ClientAction::Read, ClientAnswer::Sees(Sight::Running), Running) => Running,
            (ClientAction::Read, ClientAnswer::Sees(Sight::Stopped), Stopped) => Stopped,
            (ClientAction::Read, ClientAnswer::Sees(Sight::Deleting), Going) => Going,
            _ => return None,
        };
        Some(to)
    }

    /// The state after an action whose answer nobody saw, where it has an effect; where it has none, the
    /// tester leaves it out just as well.
    pub fn step_unseen(self, action: ClientAction) -> Self {
        match (action, self) {
            (ClientAction::Create(wanted), Self::Absent | Self::Going) => Self::wanted(wanted),
            (ClientAction::Start, Self::Stopped) => Self::Running,
            (ClientAction::Stop, Self::Running) => Self::Stopped,
            (ClientAction::Delete, Self::Stopped | Self::Running) => Self::Going,
            _ => self,
        }
    }

    fn wanted(wanted: CreatedAs) -> Self {
        match wanted {
            CreatedAs::Running => Self::Running,
            CreatedAs::Stopped => Self::Stopped,
        }
    }
}

/// An action with its number in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) action: ClientAction,
}

/// How far one search has come.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Which operations were put in order, and the state after them. What follows depends on nothing else
    /// and the tester stops at the first order that it finds: to come here again is to fail again.
    seen: FxHashSet<(u128, NameState)>,
    pub(super) steps: u64,
}

/// A name as the tester goes through it. The tester tries every order; what it remembers here keeps it from
/// trying what is known to fail. Nothing of it can make an order pass that does not.
#[derive(Debug, Clone)]
pub(super) struct Name {
    state: NameState,
    /// The numbers of the operations put in order.
    placed: u128,
    search: Rc<RefCell<Search>>,
}

impl Name {
    pub(super) fn new(search: Rc<RefCell<Search>>) -> Self {
        Self { state: NameState::Absent, placed: 0, search }
    }
}

impl SequentialSpec for Name {
    type Op = Call;
    type Ret = ClientAnswer;

    /// The tester calls it for what is in flight; the answer that it gives is shown to nobody.
    fn invoke(&mut self, call: &Call) -> ClientAnswer {
        self.search.borrow_mut().steps += 1;
        self.placed |= 1 << call.number;
        self.state = self.state.step_unseen(call.action);
        ClientAnswer::Done
    }

    fn is_valid_step(&mut self, call: &Call, answer: &ClientAnswer) -> bool {
        let mut search = self.search.borrow_mut();
        search.steps += 1;
        if search.steps > STEPS_MAX {
            return false;
        }
        let Some(state) = self.state.step(call.action, *answer) else { return false };
        self.state = state;
        self.placed |= 1 << call.number;
        search.seen.insert((self.placed, self.state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_told_that_it_is_gone_is_never_told_that_it_goes() {
        let deleted =
            NameState::Running.step(ClientAction::Delete, ClientAnswer::Done).expect("it was there");
        let seen = deleted.step(ClientAction::Read, ClientAnswer::Sees(Sight::Deleting));
        assert_eq!(seen, Some(NameState::Going));
        let gone = deleted.step(ClientAction::Start, ClientAnswer::NotFound).expect("it may be gone");
        assert_eq!(gone.step(ClientAction::Read, ClientAnswer::Sees(Sight::Deleting)), None);
        assert_eq!(gone.step(ClientAction::Delete, ClientAnswer::Unchanged), None);
        assert_eq!(deleted.step(ClientAction::Read, ClientAnswer::Sees(Sight::Running)), None);
    }

    #[test]
    fn what_nobody_saw_answered_does_what_an_answer_would_have_said() {
        let states = [NameState::Absent, NameState::Stopped, NameState::Running, NameState::Going];
        let create = ClientAction::Create(CreatedAs::Stopped);
        for state in states {
            let changes =
                [ClientAction::Start, ClientAction::Stop, ClientAction::Change, ClientAction::Delete];
            for action in std::iter::once(create).chain(changes) {
                let told = state.step(action, ClientAnswer::Done);
                assert_eq!(state.step_unseen(action), told.unwrap_or(state), "{state:?} {action:?}");
            }
        }
    }
}
