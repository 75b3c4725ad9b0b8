//! What clients asked about one name and what they were told.

use std::fmt;

/// Most operations of a history that is judged.
pub const OPERATIONS_MAX: usize = 100;
/// Most of them without an answer: the tester tries these in every order.
pub const UNANSWERED_MAX: usize = 4;

/// What a VM that is created shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CreatedAs {
    /// Run at once.
    Running,
    /// Wait for a start.
    Stopped,
}

/// What a client asks about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientAction {
    /// Make a VM of this name.
    Create(CreatedAs),
    /// Let it run.
    Start,
    /// Stop it.
    Stop,
    /// Give it another spec.
    Change,
    /// Delete it.
    Delete,
    /// Look at it.
    Read,
}

/// What a read shows of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sight {
    /// There is none.
    Absent,
    /// It shall run.
    Running,
    /// It shall not.
    Stopped,
    /// It is on its way out.
    Deleting,
}

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientAnswer {
    /// It is done.
    Done,
    /// It was so already.
    Unchanged,
    /// Refused: the name is taken.
    Exists,
    /// Refused: the VM is on its way out.
    Deleting,
    /// Refused: there is no VM of this name.
    NotFound,
    /// Refused for a reason outside the name: no room, no such node.
    NoRoom,
    /// What a read shows.
    Sees(Sight),
    /// Something that nothing gives.
    Unexpected,
}

/// An operation. Moments count what happened to all clients, in its order: one that ended at an earlier
/// moment than another began had certainly ended before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operation {
    /// Whose. A client has one operation at a time, until one stays without an answer.
    pub client: usize,
    /// What was asked.
    pub action: ClientAction,
    /// The moment in which it was invoked.
    pub began: u64,
    /// The moment of the answer, and the answer. None: it may have happened, may happen later, or never.
    pub ended: Option<(u64, ClientAnswer)>,
}

impl Operation {
    /// The answer, if there was one.
    pub fn answer(&self) -> Option<ClientAnswer> {
        self.ended.map(|(_, answer)| answer)
    }
}

/// Everything about one name, in the order in which it began.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct History {
    /// The name.
    pub name: String,
    /// The operations.
    pub operations: Vec<Operation>,
}

impl History {
    /// What was known when the operation after the first `count` began. What was under way then has no answer
    /// in it: the answer could rest on what is left out. A read without an answer says nothing and goes.
    pub fn first(&self, count: usize) -> Self {
        let until = self.operations.get(count).map_or(u64::MAX, |next| next.began);
        let known = |operation: &Operation| Operation {
            ended: operation.ended.filter(|(moment, _)| *moment < until),
            ..*operation
        };
        let begun = self.operations.iter().take(count).map(known);
        let says =
            |operation: &Operation| operation.ended.is_some() || operation.action != ClientAction::Read;
        Self { name: self.name.clone(), operations: begun.filter(says).collect() }
    }

    /// The longest beginning that is small enough to be judged. A beginning of a history that can be put into
    /// one order can be too, so that nothing right is ever refused for being cut.
    pub fn within_bounds(&self) -> Self {
        let fits = |history: &Self| {
            let unanswered = history.operations.iter().filter(|operation| operation.ended.is_none());
            history.operations.len() <= OPERATIONS_MAX && unanswered.count() <= UNANSWERED_MAX
        };
        let counts = (0..=self.operations.len().min(2 * OPERATIONS_MAX)).rev();
        counts.map(|count| self.first(count)).find(fits).unwrap_or_else(|| self.first(0))
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Operation { client, action, began, ended } in &self.operations {
            write!(f, "  {} client {client}: {action:?} from {began} ", self.name)?;
            match ended {
                Some((moment, answer)) => writeln!(f, "to {moment}: {answer:?}")?,
                None => writeln!(f, "on: no answer")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(
        client: usize,
        action: ClientAction,
        began: u64,
        ended: Option<(u64, ClientAnswer)>,
    ) -> Operation {
        Operation { client, action, began, ended }
    }

    #[test]
    fn a_beginning_knows_no_answer_that_came_after_it() {
        let operations = vec![
            operation(0, ClientAction::Delete, 1, Some((4, ClientAnswer::Done))),
            operation(1, ClientAction::Read, 2, Some((5, ClientAnswer::Sees(Sight::Absent)))),
            operation(2, ClientAction::Start, 3, Some((9, ClientAnswer::Done))),
        ];
        let history = History { name: "a".to_owned(), operations };
        assert_eq!(history.first(3), history);
        let two = history.first(2);
        assert_eq!(two.operations, [operation(0, ClientAction::Delete, 1, None)], "{two}");
    }

    #[test]
    fn what_is_judged_is_small() {
        let write =
            |n: u64| operation(0, ClientAction::Start, 2 * n, Some((2 * n + 1, ClientAnswer::NotFound)));
        let lost = |n: u64| operation(0, ClientAction::Start, 2 * n, None);
        let many = History { name: "a".to_owned(), operations: (0..300).map(write).collect() };
        assert_eq!(many.within_bounds().operations.len(), OPERATIONS_MAX);
        let open = History { name: "a".to_owned(), operations: (0..300).map(lost).collect() };
        assert_eq!(open.within_bounds().operations.len(), UNANSWERED_MAX);
    }
}
