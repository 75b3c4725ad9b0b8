//! Asks the tester.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

use super::history::{ClientAnswer, History};
use super::spec::{Call, Name, STEPS_MAX, Search};

/// Operations without an answer stand on threads of their own from here on: after all clients, so that the
/// tester takes them last.
const UNANSWERED_FROM: usize = 1_000;

/// What the judge says of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The operations can be put into one order that explains every answer.
    Linearizable {
        /// How long it took to find one.
        steps: u64,
    },
    /// There is no such order.
    Wrong {
        /// How long it took to try all of them.
        steps: u64,
    },
    /// Not decided within [`STEPS_MAX`] steps.
    TooHard,
    /// Not a history: a client has two operations at once, or there are more than fit.
    Malformed(String),
}

impl Verdict {
    /// Whether the history was shown to be right; everything else is a failure.
    pub fn holds(&self) -> bool {
        matches!(self, Self::Linearizable { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable { steps } => write!(f, "linearizable, {steps} steps"),
            Self::Wrong { steps } => write!(f, "no order explains the answers, {steps} steps"),
            Self::TooHard => write!(f, "not decided within {STEPS_MAX} steps"),
            Self::Malformed(why) => write!(f, "no history: {why}"),
        }
    }
}

/// Whether the operations of this history can be put into one order.
pub fn judge(history: &History) -> Verdict {
    // Each has a bit in the set of those put in order.
    if history.operations.len() > 128 {
        return Verdict::Malformed(format!("{} operations", history.operations.len()));
    }
    let search = Rc::new(RefCell::new(Search::default()));
    let mut tester = LinearizabilityTester::new(Name::new(Rc::clone(&search)));
    for (_, thread, event) in events(history) {
        let told = match event {
            CallEvent::Begins(call) => tester.on_invoke(thread, call).map(|_| ()),
            CallEvent::Ends(answer) => tester.on_return(thread, answer).map(|_| ()),
        };
        if let Err(why) = told {
            return Verdict::Malformed(why);
        }
    }
    let is_consistent = tester.is_consistent();
    let steps = search.borrow().steps;
    match is_consistent {
        true => Verdict::Linearizable { steps },
        false if steps > STEPS_MAX => Verdict::TooHard,
        false => Verdict::Wrong { steps },
    }
}

/// How many operations of a wrong history, from its first on, are wrong already. What is wrong stays wrong
/// whatever comes after it.
pub fn first_wrong(history: &History) -> Option<usize> {
    let counts: Vec<usize> = (0..=history.operations.len()).collect();
    let at = counts.partition_point(|count| judge(&history.first(*count)).holds());
    counts.get(at).copied()
}

enum CallEvent {
    Begins(Call),
    Ends(ClientAnswer),
}

/// What the tester is told: moment, thread, and what happened.
fn events(history: &History) -> Vec<(u64, usize, CallEvent)> {
    let mut events = Vec::new();
    for (number, operation) in (0_u32..).zip(&history.operations) {
        let unanswered = UNANSWERED_FROM + number as usize;
        let thread = if operation.ended.is_some() { operation.client } else { unanswered };
        let call = Call { number, action: operation.action };
        events.push((operation.began, thread, CallEvent::Begins(call)));
        if let Some((moment, answer)) = operation.ended {
            events.push((moment, thread, CallEvent::Ends(answer)));
        }
    }
    events.sort_by_key(|(moment, _, _)| *moment);
    events
}

#[cfg(test)]
mod tests {
    use super::super::history::{ClientAction, CreatedAs, Operation, Sight};
    use super::*;

    type Told = (usize, ClientAction, u64, Option<(u64, ClientAnswer)>);

    fn judged(operations: &[Told]) -> Verdict {
        let operations = operations.iter();
        let operations = operations.map(|(client, action, began, ended)| Operation {
            client: *client,
            action: *action,
            began: *began,
            ended: *ended,
        });
        judge(&History { name: "a".to_owned(), operations: operations.collect() })
    }

    const CREATE: ClientAction = ClientAction::Create(CreatedAs::Running);

    fn sees(moment: u64, sight: Sight) -> Option<(u64, ClientAnswer)> {
        Some((moment, ClientAnswer::Sees(sight)))
    }

    #[test]
    fn an_older_state_may_be_read_only_while_the_write_is_under_way() {
        let created = (0, CREATE, 1, Some((4, ClientAnswer::Done)));
        assert!(judged(&[created, (1, ClientAction::Read, 2, sees(5, Sight::Absent))]).holds());
        let late = judged(&[created, (1, ClientAction::Read, 5, sees(6, Sight::Absent))]);
        assert!(matches!(late, Verdict::Wrong { .. }), "{late}");
    }

    #[test]
    fn what_has_no_answer_may_happen_late_or_never_but_not_be_undone() {
        let lost = (0, CREATE, 1, None);
        let reads = |sights: [Sight; 3]| {
            let read =
                |n: usize| (1, ClientAction::Read, 2 * n as u64 + 2, sees(2 * n as u64 + 3, sights[n]));
            judged(&[lost, read(0), read(1), read(2)])
        };
        assert!(reads([Sight::Absent; 3]).holds());
        assert!(reads([Sight::Absent, Sight::Absent, Sight::Running]).holds());
        let undone = reads([Sight::Absent, Sight::Running, Sight::Absent]);
        assert!(matches!(undone, Verdict::Wrong { .. }), "{undone}");
    }

    #[test]
    fn what_is_not_decided_within_the_bound_does_not_hold() {
        let reads = (1..25).map(|client| {
            let n = client as u64;
            (client, ClientAction::Read, 2 + n, sees(50 + n, Sight::Running))
        });
        let mut all: Vec<Told> = vec![(0, CREATE, 1, Some((2, ClientAnswer::Done)))];
        all.extend(reads);
        all.push((0, ClientAction::Read, 90, sees(91, Sight::Absent)));
        let verdict = judged(&all);
        assert_eq!((&verdict, verdict.holds()), (&Verdict::TooHard, false));
    }

    #[test]
    fn a_client_with_two_operations_at_once_is_no_history() {
        let twice = judged(&[
            (0, ClientAction::Read, 1, sees(3, Sight::Absent)),
            (0, ClientAction::Read, 2, sees(4, Sight::Absent)),
        ]);
        assert!(matches!(twice, Verdict::Malformed(_)), "{twice}");
    }

    #[test]
    fn a_wrong_answer_after_much_that_happened_at_once_is_found_in_few_steps() {
        let mut all: Vec<Told> = vec![(0, CREATE, 1, Some((2, ClientAnswer::Done)))];
        for round in 0..12_u64 {
            let at = 10 * (round + 1);
            let read = |client: usize| {
                let n = client as u64;
                (client, ClientAction::Read, at + n, sees(at + 5 + n, Sight::Running))
            };
            all.extend((0..4).map(read));
        }
        assert!(judged(&all).holds());
        all.push((0, ClientAction::Read, 900, sees(901, Sight::Absent)));
        let verdict = judged(&all);
        assert!(matches!(verdict, Verdict::Wrong { steps } if steps < 5_000), "{verdict}");
    }
}
