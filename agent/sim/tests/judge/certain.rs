//! Whether a history is wrong for a reason that one can point at, without any search.

use blixard_sim::judge::{Action, Answer, History, Operation, Sight, Wanted};

/// The last thing that can have changed the name before an answer contradicts it: the number of the write
/// (none: the name was never used), and of the operation that was told otherwise.
pub(crate) fn contradiction(history: &History) -> Option<(Option<usize>, usize)> {
    let all = &history.operations;
    let writes = (0..all.len()).filter(|at| all[*at].answer() == Some(Answer::Done)).map(Some);
    let lasts: Vec<Option<usize>> = std::iter::once(None).chain(writes).collect();
    let answered = (0..all.len()).filter(|at| all[*at].ended.is_some());
    answered.flat_map(|told| lasts.iter().map(move |last| (*last, told))).find(|(last, told)| {
        *last != Some(*told) && is_last(all, *last, *told) && !fits(&left_by(all, *last, *told), &all[*told])
    })
}

fn end(operation: &Operation) -> u64 {
    operation.ended.map_or(u64::MAX, |(moment, _)| moment)
}

/// Whether this write ended before the other operation began, and nothing else that may write was under way
/// from its beginning to the other's end.
fn is_last(all: &[Operation], last: Option<usize>, told: usize) -> bool {
    let from = last.map_or(0, |last| all[last].began);
    let to = end(&all[told]);
    let apart = |other: &Operation| end(other) < from || other.began > to;
    last.is_none_or(|last| end(&all[last]) < all[told].began)
        && (0..all.len()).filter(|at| Some(*at) != last && *at != told).all(|at| {
            let may_write = matches!(all[at].answer(), Some(Answer::Done) | None);
            !may_write || apart(&all[at])
        })
}

/// What a read may show of what the write left, when the other operation took effect.
fn left_by(all: &[Operation], last: Option<usize>, told: usize) -> Vec<Sight> {
    let Some(last) = last else { return vec![Sight::Absent] };
    match all[last].action {
        Action::Create(Wanted::Running) | Action::Start => vec![Sight::Running],
        Action::Create(Wanted::Stopped) | Action::Stop => vec![Sight::Stopped],
        Action::Delete | Action::Read => {
            let is_gone = all.iter().any(|seen| {
                let says_so = matches!(seen.answer(), Some(Answer::NotFound | Answer::Sees(Sight::Absent)));
                says_so && seen.began > end(&all[last]) && end(seen) < all[told].began
            });
            if is_gone { vec![Sight::Absent] } else { vec![Sight::Absent, Sight::Deleting] }
        }
    }
}

/// Whether the answer can be given where a read would show one of these.
fn fits(there: &[Sight], operation: &Operation) -> bool {
    use Sight::{Absent, Deleting, Running, Stopped};
    let Some(answer) = operation.answer() else { return true };
    let allowed: &[Sight] = match (operation.action, answer) {
        (Action::Create(_), Answer::NoRoom) => return true,
        (Action::Create(_), Answer::Done) => &[Absent],
        (Action::Create(_), Answer::Exists) | (Action::Delete, Answer::Done) => &[Running, Stopped],
        (Action::Create(_) | Action::Start | Action::Stop, Answer::Deleting) => &[Deleting],
        (Action::Start | Action::Stop | Action::Delete, Answer::NotFound) => &[Absent],
        (Action::Start, Answer::Done) | (Action::Stop, Answer::Unchanged) => &[Stopped],
        (Action::Start, Answer::Unchanged) | (Action::Stop, Answer::Done) => &[Running],
        (Action::Delete, Answer::Unchanged) => &[Deleting],
        (Action::Read, Answer::Sees(sight)) => return there.contains(&sight),
        _ => &[],
    };
    allowed.iter().any(|sight| there.contains(sight))
}
