//! Listens to the simulated clients: what they ask and what they are told, name by name.

use std::collections::BTreeMap;

use blixard_core::ClusterState;
use blixard_model::{Desired, Outcome, Refusal, VmName, WriteAsk, WriteRequest};

use super::history::{ClientAction, ClientAnswer, CreatedAs, History, Operation, Sight};

/// What is under way at a client.
#[derive(Debug)]
struct Begun {
    moment: u64,
    /// None: it reads all names.
    write: Option<(VmName, ClientAction)>,
}

/// Writes down what clients see. It draws no chance and changes nothing.
#[derive(Debug)]
pub(crate) struct Recorder {
    moment: u64,
    begun: BTreeMap<usize, Begun>,
    names: BTreeMap<VmName, Vec<Operation>>,
}

impl Recorder {
    /// For clients that use these names.
    pub(crate) fn new(names: impl Iterator<Item = VmName>) -> Self {
        let names = names.map(|name| (name, Vec::new())).collect();
        Self { moment: 0, begun: BTreeMap::new(), names }
    }

    /// A client invokes a write, or a read of everything.
    pub(crate) fn begins(&mut self, client: usize, request: Option<&WriteRequest>) {
        let write = request.and_then(|request| asked(&request.ask));
        let moment = self.next_moment();
        self.begun.insert(client, Begun { moment, write });
    }

    /// Its write was answered.
    pub(crate) fn answered(&mut self, client: usize, outcome: &Outcome) {
        self.ends(client, Some(told(outcome)));
    }

    /// It was told that its write has not happened and never will: then there is none.
    pub(crate) fn denied(&mut self, client: usize) {
        self.begun.remove(&client);
    }

    /// It gave up without knowing.
    pub(crate) fn gave_up(&mut self, client: usize) {
        self.ends(client, None);
    }

    fn ends(&mut self, client: usize, answer: Option<ClientAnswer>) {
        let moment = self.next_moment();
        let Some(Begun { moment: began, write: Some((name, action)) }) = self.begun.remove(&client) else {
            return;
        };
        let ended = answer.map(|answer| (moment, answer));
        self.names.entry(name).or_default().push(Operation { client, action, began, ended });
    }

    /// Its read was answered, from this state.
    pub(crate) fn read(&mut self, client: usize, state: &ClusterState) {
        let moment = self.next_moment();
        let Some(Begun { moment: began, write: None }) = self.begun.remove(&client) else { return };
        for (name, operations) in &mut self.names {
            let sight = state.vms.get(name).map_or(Sight::Absent, |vm| match vm.desired {
                Desired::Running => Sight::Running,
                Desired::Stopped => Sight::Stopped,
                Desired::Absent => Sight::Deleting,
            });
            let ended = Some((moment, ClientAnswer::Sees(sight)));
            operations.push(Operation { client, action: ClientAction::Read, began, ended });
        }
    }

    /// The histories of all names. What is under way has no answer.
    pub(crate) fn histories(mut self) -> Vec<History> {
        let under_way: Vec<usize> = self.begun.keys().copied().collect();
        under_way.into_iter().for_each(|client| self.gave_up(client));
        let sorted = self.names.into_iter().map(|(name, mut operations)| {
            operations.sort_by_key(|operation| operation.began);
            History { name: name.to_string(), operations }
        });
        sorted.collect()
    }

    fn next_moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }
}

fn asked(ask: &WriteAsk) -> Option<(VmName, ClientAction)> {
    match ask {
        WriteAsk::CreateVm { spec, desired } => {
            let wanted = if *desired == Desired::Running { CreatedAs::Running } else { CreatedAs::Stopped };
            Some((spec.name.clone(), ClientAction::Create(wanted)))
        }
        WriteAsk::StartVm { name } => Some((name.clone(), ClientAction::Start)),
        WriteAsk::StopVm { name } => Some((name.clone(), ClientAction::Stop)),
        WriteAsk::ChangeVm { spec, .. } => Some((spec.name.clone(), ClientAction::Change)),
        WriteAsk::DeleteVm { name } => Some((name.clone(), ClientAction::Delete)),
        _ => None,
    }
}

fn told(outcome: &Outcome) -> ClientAnswer {
    match outcome {
        Outcome::Done { unchanged: false, .. } => ClientAnswer::Done,
        Outcome::Done { unchanged: true, .. } => ClientAnswer::Unchanged,
        Outcome::Refused { refusal } => match refusal {
            Refusal::VmExists { .. } => ClientAnswer::Exists,
            Refusal::VmDeleting { .. } => ClientAnswer::Deleting,
            Refusal::VmNotFound { .. } => ClientAnswer::NotFound,
            Refusal::DoesNotFit { .. }
            | Refusal::NodeNotFound { .. }
            | Refusal::PlacedElsewhere { .. }
            // The node of a VM that is to be deleted was removed, and may still run it.
            | Refusal::Membership { .. }
            | Refusal::TooMany { .. } => ClientAnswer::NoRoom,
            _ => ClientAnswer::Unexpected,
        },
    }
}
