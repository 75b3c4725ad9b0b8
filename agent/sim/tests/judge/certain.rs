//! Whether a history is wrong for a reason that one can point at, without any search.

use blixard_sim::judge::{ClientAction, ClientAnswer, CreatedAs, History, Operation, Sight};

/// The last thing that can have changed the name before an answer contradicts it: the number of the write
/// (none: the name was never used), and of the operation that was told otherwise.
pub(crate) fn contradiction(history: &History) -> Option<(Option<usize>, usize)> {
    let all = &history.operations;
    let writes = (0..all.len()).filter(|at| all[*at].answer() == Some(ClientAnswer::Done)).map(Some);
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
            let may_write = matches!(all[at].answer(), Some(ClientAnswer::Done) | None);
            !may_write || apart(&all[at])
        })
}

/// What a read may show of what the write left, when the other operation took effect.
fn left_by(all: &[Operation], last: Option<usize>, told: usize) -> Vec<Sight> {
    let Some(last) = last else { return vec![Sight::Absent] };
    match all[last].action {
        ClientAction::Create(CreatedAs::Running) | ClientAction::Start => vec![Sight::Running],
        ClientAction::Create(CreatedAs::Stopped) | ClientAction::Stop => vec![Sight::Stopped],
        // It leaves what was there, which was there.
        ClientAction::Change => vec![Sight::Running, Sight::Stopped],
        ClientAction::Delete | ClientAction::Read => {
            let is_gone = all.iter().any(|seen| {
                let says_so =
                    matches!(seen.answer(), Some(ClientAnswer::NotFound | ClientAnswer::Sees(Sight::Absent)));
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
        (ClientAction::Create(_), ClientAnswer::NoRoom) => return true,
        (ClientAction::Create(_), ClientAnswer::Done) => &[Absent],
        (ClientAction::Create(_), ClientAnswer::Exists) | (ClientAction::Delete, ClientAnswer::Done) => {
            &[Running, Stopped]
        }
        (
            ClientAction::Create(_) | ClientAction::Start | ClientAction::Stop | ClientAction::Change,
            ClientAnswer::Deleting,
        ) => &[Deleting],
        (
            ClientAction::Start | ClientAction::Stop | ClientAction::Change | ClientAction::Delete,
            ClientAnswer::NotFound,
        ) => &[Absent],
        (ClientAction::Change, ClientAnswer::Done | ClientAnswer::Unchanged | ClientAnswer::NoRoom)
        | (ClientAction::Delete, ClientAnswer::NoRoom) => &[Running, Stopped],
        (ClientAction::Start, ClientAnswer::Done) | (ClientAction::Stop, ClientAnswer::Unchanged) => {
            &[Stopped]
        }
        (ClientAction::Start, ClientAnswer::Unchanged) | (ClientAction::Stop, ClientAnswer::Done) => {
            &[Running]
        }
        (ClientAction::Delete, ClientAnswer::Unchanged) => &[Deleting],
        (ClientAction::Read, ClientAnswer::Sees(sight)) => return there.contains(&sight),
        _ => &[],
    };
    allowed.iter().any(|sight| there.contains(sight))
}
