//! A VM's name as it is, with the disappearance that no client sees: written down apart from the judge's own
//! reference, which knows only what clients can tell.

use blixard_sim::judge::{ClientAction, ClientAnswer, CreatedAs, Sight};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Vm {
    Absent,
    Stopped,
    Running,
    Deleting,
}

impl Vm {
    /// What is answered, and what is there afterwards.
    pub(crate) fn act(self, action: ClientAction) -> (ClientAnswer, Self) {
        match (action, self) {
            (ClientAction::Create(CreatedAs::Running), Self::Absent) => (ClientAnswer::Done, Self::Running),
            (ClientAction::Create(CreatedAs::Stopped), Self::Absent) => (ClientAnswer::Done, Self::Stopped),
            (ClientAction::Create(_), Self::Stopped | Self::Running) => (ClientAnswer::Exists, self),
            (ClientAction::Delete, Self::Stopped | Self::Running) => (ClientAnswer::Done, Self::Deleting),
            (ClientAction::Delete, Self::Deleting) => (ClientAnswer::Unchanged, self),
            (ClientAction::Start, Self::Stopped) => (ClientAnswer::Done, Self::Running),
            (ClientAction::Stop, Self::Running) => (ClientAnswer::Done, Self::Stopped),
            (ClientAction::Start, Self::Running) | (ClientAction::Stop, Self::Stopped) => {
                (ClientAnswer::Unchanged, self)
            }
            (ClientAction::Change, Self::Stopped | Self::Running) => (ClientAnswer::Done, self),
            (
                ClientAction::Create(_) | ClientAction::Start | ClientAction::Stop | ClientAction::Change,
                Self::Deleting,
            ) => (ClientAnswer::Deleting, self),
            (
                ClientAction::Start | ClientAction::Stop | ClientAction::Change | ClientAction::Delete,
                Self::Absent,
            ) => (ClientAnswer::NotFound, self),
            (ClientAction::Read, _) => (ClientAnswer::Sees(self.sight()), self),
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
