//! Ways to make a good history wrong. What comes out may still be right by chance: it counts only where
//! [`super::certain`] can say why it is wrong.

use blixard_sim::SimRng;
use blixard_sim::judge::{ClientAction, ClientAnswer, CreatedAs, History, Operation, Sight};

pub(crate) type Corrupt = fn(&History, &mut SimRng) -> Option<History>;

/// Every kind.
pub(crate) const KINDS: [(&str, Corrupt); 6] = [
    ("a read is answered with an older state", older_state),
    ("two answers are swapped", swapped),
    ("an acknowledged create is forgotten", forgotten),
    ("a deleted VM is seen again", seen_again),
    ("a refused operation took effect", refused_took_effect),
    ("ends are reordered", reordered),
];

/// One of those that are asked for.
fn one(history: &History, rng: &mut SimRng, asked: impl Fn(&Operation) -> bool) -> Option<usize> {
    let found: Vec<usize> =
        (0..history.operations.len()).filter(|at| asked(&history.operations[*at])).collect();
    found.get(rng.below(found.len() as u64) as usize).copied()
}

fn end(operation: &Operation) -> u64 {
    operation.ended.map_or(u64::MAX, |(moment, _)| moment)
}

fn is_read(operation: &Operation) -> bool {
    operation.action == ClientAction::Read && operation.ended.is_some()
}

fn with_answer(history: &History, at: usize, answer: ClientAnswer) -> History {
    let mut history = history.clone();
    history.operations[at].ended = history.operations[at].ended.map(|(moment, _)| (moment, answer));
    history
}

/// A read says what an earlier one said.
fn older_state(history: &History, rng: &mut SimRng) -> Option<History> {
    let later = one(history, rng, is_read)?;
    let began = history.operations[later].began;
    let told = history.operations[later].answer();
    let earlier = one(history, rng, |it| is_read(it) && end(it) < began && it.answer() != told)?;
    Some(with_answer(history, later, history.operations[earlier].answer()?))
}

fn swapped(history: &History, rng: &mut SimRng) -> Option<History> {
    let first = one(history, rng, |it| it.ended.is_some())?;
    let Operation { action, .. } = history.operations[first];
    let told = history.operations[first].answer()?;
    let alike = |it: &Operation| std::mem::discriminant(&it.action) == std::mem::discriminant(&action);
    let second = one(history, rng, |it| alike(it) && it.answer().is_some_and(|answer| answer != told))?;
    let swapped = with_answer(history, first, history.operations[second].answer()?);
    Some(with_answer(&swapped, second, told))
}

/// All reads after it, up to the next write, find nothing; one more of them, so that there is one.
fn forgotten(history: &History, rng: &mut SimRng) -> Option<History> {
    let create = one(history, rng, |it| {
        matches!(it.action, ClientAction::Create(_)) && it.answer() == Some(ClientAnswer::Done)
    })?;
    let from = end(&history.operations[create]);
    let writes =
        history.operations.iter().filter(|it| it.answer().is_none_or(|told| told == ClientAnswer::Done));
    let to = writes.map(|it| it.began).filter(|began| *began > from).min().unwrap_or(u64::MAX);
    let (from, to) = (4 * from, to.saturating_mul(4));
    let mut forgotten = spaced(history);
    for read in forgotten.operations.iter_mut().filter(|it| is_read(it) && it.began > from && end(it) < to) {
        read.ended = Some((end(read), ClientAnswer::Sees(Sight::Absent)));
    }
    let ended = Some((from + 2, ClientAnswer::Sees(Sight::Absent)));
    forgotten.operations.push(Operation { client: 99, action: ClientAction::Read, began: from + 1, ended });
    forgotten.operations.sort_by_key(|operation| operation.began);
    Some(forgotten)
}

fn seen_again(history: &History, rng: &mut SimRng) -> Option<History> {
    let delete =
        one(history, rng, |it| it.action == ClientAction::Delete && it.answer() == Some(ClientAnswer::Done))?;
    let from = end(&history.operations[delete]);
    let read = one(history, rng, |it| is_read(it) && it.began > from)?;
    let sight = if rng.chance(1, 2) { Sight::Running } else { Sight::Stopped };
    Some(with_answer(history, read, ClientAnswer::Sees(sight)))
}

/// A read after it shows what it would have done.
fn refused_took_effect(history: &History, rng: &mut SimRng) -> Option<History> {
    let is_refused = |told| {
        matches!(
            told,
            ClientAnswer::Exists | ClientAnswer::Deleting | ClientAnswer::NotFound | ClientAnswer::NoRoom
        )
    };
    let refused = one(history, rng, |it| it.answer().is_some_and(is_refused))?;
    let Operation { action, ended: Some((ended, _)), .. } = history.operations[refused] else { return None };
    let effect = match action {
        ClientAction::Create(CreatedAs::Running) | ClientAction::Start => Sight::Running,
        ClientAction::Create(CreatedAs::Stopped) | ClientAction::Stop => Sight::Stopped,
        ClientAction::Delete => Sight::Deleting,
        ClientAction::Change | ClientAction::Read => return None,
    };
    let next = history.operations.iter().position(|it| is_read(it) && it.began > ended)?;
    Some(with_answer(history, next, ClientAnswer::Sees(effect)))
}

/// An operation moves behind one that it was before or beside, or its end before one that it was beside. It
/// becomes another client's, so that nobody has two at once.
fn reordered(history: &History, rng: &mut SimRng) -> Option<History> {
    let mut history = spaced(history);
    let moved = one(&history, rng, |it| it.ended.is_some())?;
    let Operation { began, ended: Some((ended, answer)), .. } = history.operations[moved] else {
        return None;
    };
    let beside = one(&history, rng, |it| it.ended.is_some() && end(it) > began && it.began < ended + 200)?;
    let other = history.operations[beside];
    let operation = &mut history.operations[moved];
    operation.client = 99;
    if rng.chance(1, 2) && began < other.began && other.began < ended {
        operation.ended = Some((other.began - 1, answer));
    } else {
        operation.began = end(&other) + 1;
        operation.ended = Some((end(&other) + 2, answer));
    }
    history.operations.sort_by_key(|operation| operation.began);
    (moved != beside).then_some(history)
}

/// With room between any two moments.
fn spaced(history: &History) -> History {
    let spaced = |operation: &Operation| Operation {
        began: 4 * operation.began,
        ended: operation.ended.map(|(moment, answer)| (4 * moment, answer)),
        ..*operation
    };
    let operations = history.operations.iter().map(spaced).collect();
    History { name: history.name.clone(), operations }
}

/// One answer becomes any other of its kind, right or wrong.
pub(crate) fn any_answer(history: &mut History, rng: &mut SimRng) {
    let Some(at) = one(history, rng, |it| it.ended.is_some()) else { return };
    let sights = [Sight::Absent, Sight::Running, Sight::Stopped, Sight::Deleting].map(ClientAnswer::Sees);
    let writes = [
        ClientAnswer::Done,
        ClientAnswer::Unchanged,
        ClientAnswer::Exists,
        ClientAnswer::Deleting,
        ClientAnswer::NotFound,
    ];
    let answers: &[ClientAnswer] = if is_read(&history.operations[at]) { &sights } else { &writes };
    *history = with_answer(history, at, answers[rng.below(answers.len() as u64) as usize]);
}
