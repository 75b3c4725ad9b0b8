//! Good histories: clients at one true VM, each operation taking effect at one moment between its invocation
//! and its answer.

use blixard_sim::SimRng;
use blixard_sim::judge::{ClientAction, ClientAnswer, CreatedAs, History, Operation, UNANSWERED_MAX};

use super::reference::Vm;

/// An operation on its way.
struct Open {
    /// Where it stands in the history.
    number: usize,
    /// What it was answered where it took effect.
    answer: Option<ClientAnswer>,
    /// Its client does not wait for it any more.
    is_lost: bool,
}

pub(crate) fn action(rng: &mut SimRng) -> ClientAction {
    match rng.below(11) {
        0 | 1 => ClientAction::Create(CreatedAs::Running),
        2 => ClientAction::Create(CreatedAs::Stopped),
        3 => ClientAction::Start,
        4 => ClientAction::Stop,
        5 => ClientAction::Delete,
        6 => ClientAction::Change,
        _ => ClientAction::Read,
    }
}

/// So many operations of so many clients. By how it is made it can be put into one order.
pub(crate) fn history(rng: &mut SimRng, clients: u64, operations: u64) -> History {
    let mut vm = Vm::Absent;
    let (mut moment, mut lost) = (0, 0);
    let mut open: Vec<Open> = Vec::new();
    let mut all: Vec<Operation> = Vec::new();
    while all.len() < operations as usize || open.iter().any(|it| !it.is_lost) {
        moment += 4;
        if vm == Vm::Deleting && rng.chance(1, 12) {
            vm = Vm::Absent;
        }
        let client = rng.below(clients) as usize;
        let Some(at) = open.iter().position(|it| !it.is_lost && all[it.number].client == client) else {
            if all.len() < operations as usize {
                open.push(Open { number: all.len(), answer: None, is_lost: false });
                all.push(Operation { client, action: action(rng), began: moment, ended: None });
            }
            continue;
        };
        let Open { number, answer, .. } = open[at];
        let action = all[number].action;
        match answer {
            None if action != ClientAction::Read && lost < UNANSWERED_MAX && rng.chance(1, 40) => {
                open[at].is_lost = true;
                lost += 1;
            }
            None if matches!(action, ClientAction::Create(_)) && rng.chance(1, 6) => {
                open[at].answer = Some(ClientAnswer::NoRoom);
            }
            None => take_effect(&mut vm, &mut open[at], action),
            Some(answer) => {
                all[number].ended = Some((moment, answer));
                open.remove(at);
            }
        }
        // What nobody waits for happens late, or never.
        if let Some(late) = open.iter_mut().find(|it| it.is_lost && it.answer.is_none())
            && rng.chance(1, 30)
        {
            take_effect(&mut vm, late, all[late.number].action);
        }
    }
    History { name: "made".to_owned(), operations: all }
}

fn take_effect(vm: &mut Vm, open: &mut Open, action: ClientAction) {
    let (answer, after) = vm.act(action);
    (*vm, open.answer) = (after, Some(answer));
}
