//! A VM's name as it is, with the disappearance that no client sees: written down apart from the judge's own
//! reference, which knows only what clients can tell.

use blixard_sim::judge::{Action, Answer, Sight, Wanted};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Vm {
    Absent,
    Stopped,
    Running,
    Deleting,
}

impl Vm {
    /// What is answered, and what is there afterwards.
    pub(crate) fn act(self, action: Action) -> (Answer, Self) {
        match (action, self) {
            (Action::Create(Wanted::Running), Self::Absent) => (Answer::Done, Self::Running),
            (Action::Create(Wanted::Stopped), Self::Absent) => (Answer::Done, Self::Stopped),
            (Action::Create(_), Self::Stopped | Self::Running) => (Answer::Exists, self),
            (Action::Delete, Self::Stopped | Self::Running) => (Answer::Done, Self::Deleting),
            (Action::Delete, Self::Deleting) => (Answer::Unchanged, self),
            (Action::Start, Self::Stopped) => (Answer::Done, Self::Running),
            (Action::Stop, Self::Running) => (Answer::Done, Self::Stopped),
            (Action::Start, Self::Running) | (Action::Stop, Self::Stopped) => (Answer::Unchanged, self),
            (Action::Create(_) | Action::Start | Action::Stop, Self::Deleting) => (Answer::Deleting, self),
            (Action::Start | Action::Stop | Action::Delete, Self::Absent) => (Answer::NotFound, self),
            (Action::Read, _) => (Answer::Sees(self.sight()), self),
        }
    }

    fn sight(self) -> Sight {
        match self {
            Self::Absent => Sight::Absent,
            Self::Stopped => Sight::Stopped,
            Self::Running => Sight::Running,
            Self::Deleting => Sight::Deleting,
        }
    }
}
