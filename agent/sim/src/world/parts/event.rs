//! What happens next, and when: the one queue of the simulation.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use blixard_core::ports::ObservedUnit;
use blixard_core::reconciler::Action;
use blixard_model::wire::{JoinRequest, JoinResponse, PeerRequest, PeerResponse};
use blixard_model::{JoinTicket, RenewalAnswer, VmName};
use blixard_node::host::CallId;
use bytes::Bytes;

use super::supervised::UnitEvent;

/// A machine, counted from 0.
pub(crate) type MachineId = usize;

/// A question of another agent that is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerQuestion {
    pub(crate) from: MachineId,
    /// The run that asked.
    pub(crate) run: u64,
    pub(crate) call: CallId,
}

/// What travels between two agents.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    /// A Raft message.
    Raft(Bytes),
    /// A snapshot; its delivery is reported to the sender's run.
    Snapshot { frame: Bytes, member: u64 },
    /// A question of this run.
    Request { run: u64, call: CallId, request: Box<PeerRequest> },
    /// Its answer.
    Response { run: u64, call: CallId, response: Box<PeerResponse> },
    /// A stranger with a ticket.
    Join { run: u64, call: CallId, request: Box<JoinRequest> },
    /// What it is answered.
    Joined { run: u64, call: CallId, response: Box<JoinResponse> },
    /// Nobody waits for the answer to this question any more.
    GaveUp { run: u64, call: CallId },
}

/// One thing that goes wrong, or is mended again.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The machine loses its power now.
    Power(MachineId),
    /// It loses it at the so many-th boundary of an operation of its disk from now.
    PowerInWrite(MachineId, u64),
    /// kill -9.
    Kill(MachineId),
    /// The agent is asked to stop; it hands the leadership over first.
    Restart(MachineId),
    /// It stops, in order.
    Stop(MachineId, u64),
    /// These directions carry nothing.
    Cut(Vec<(MachineId, MachineId)>),
    /// They do again.
    Mend(Vec<(MachineId, MachineId)>),
    /// The agent stands still for so many µs.
    Pause(MachineId, u64),
    /// The machine is suspended for so many µs: its agent, its guests and its jobs stand still, its clocks go
    /// on.
    Sleep(MachineId, u64),
    /// The machine has another address from now on.
    Move(MachineId),
    /// The clock jumps ahead by so many µs.
    ClockJump(MachineId, u64),
    /// A sync takes so many µs.
    SlowDisk(MachineId, u64),
    /// No more space than so many bytes beyond what is used.
    DiskFull(MachineId, usize),
    /// Space again.
    DiskFree(MachineId),
    /// The next sync fails.
    DiskError(MachineId),
    /// An empty disk in the place of the old one.
    Wipe(MachineId),
    /// All machines lose their power, and one of them its disk.
    FuseBlows(MachineId),
    /// An empty disk in the place of the old one, if nobody has a cluster yet.
    WipeUnborn(MachineId),
    /// As above, if the cluster does not count on the store in it yet.
    WipeUnadmitted(MachineId),
    /// The agent's directory is removed, and the agent killed: the guests go on.
    LoseStore(MachineId),
    /// Somebody starts a unit by hand that nobody has placed there.
    Stranger(MachineId),
    /// A copy of the disk is taken.
    Copy(MachineId),
    /// The copy is put in the disk's place.
    RollBack(MachineId),
}

/// Something that happens at one moment.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Raft's clock on one machine.
    Tick { machine: MachineId, run: u64 },
    /// The host has its turn.
    Turn { machine: MachineId, run: u64 },
    /// The time has come that the host asked to be woken at.
    Wake { machine: MachineId, run: u64 },
    /// Its store is bound to the cluster that it found.
    Bind { machine: MachineId, run: u64 },
    /// A connection to be admitted over is looked at.
    Connection { machine: MachineId, run: u64, call: CallId, to: MachineId },
    /// The service manager answers with the units: as it saw them before, or as they are now.
    ListUnits { machine: MachineId, run: u64, look: u64, seen: Option<Vec<ObservedUnit>> },
    /// The last lines of a console are there.
    Console { machine: MachineId, run: u64, vm: VmName },
    /// A snapshot was delivered to the peer's agent, or not.
    SnapshotEnd { machine: MachineId, run: u64, member: u64, delivered: bool },
    /// A message arrives. `to_run` is the agent's run that the connection stood with when it was sent.
    Arrival { to: MachineId, to_run: Option<u64>, from: MachineId, message: Message },
    /// Links are looked at again.
    Link { machine: MachineId },
    /// A unit's job ends: whatever became of the agent meanwhile.
    JobDone { machine: MachineId, boot: u64, run: u64, action: Action, fails: bool },
    /// Something happens to the processes of a unit, by the number that they have in this boot.
    Unit { machine: MachineId, boot: u64, vm: VmName, number: u64, what: Box<UnitEvent> },
    /// A machine is copied, and the copy switched on.
    CopyBegins,
    /// The copy looks at its lease.
    CopyStep,
    /// It asks this machine's agent.
    CopyAsks { to: MachineId, to_run: u64, asked: PeerQuestion, request: Box<PeerRequest> },
    /// It is answered.
    CopyAnswered { run: u64, call: CallId, answer: Box<RenewalAnswer> },
    /// It is looked whether guests run on without a lease.
    Audit,
    /// The next fault of supervisors and of what they read is chosen.
    LeaseNemesis,
    /// An operator does something about leases.
    LeaseOperator,
    /// A guest ends by itself.
    GuestEnds { machine: MachineId },
    /// A client acts.
    Client { client: usize },
    /// The operator acts.
    Operator,
    /// A ticket is brought to a machine.
    Ticket { machine: MachineId, ticket: Box<JoinTicket> },
    /// A client gives an operation up on its side: the connection ended.
    ClientTimeout { client: usize, op: u64 },
    /// The agent of a machine is started.
    Start { machine: MachineId },
    /// Something goes wrong.
    Fault(Fault),
    /// The next fault is chosen.
    Nemesis,
    /// Everything is mended: from here on, progress is due.
    Heal,
    /// Whether everything has come to rest.
    LivenessCheck,
}

impl Event {
    /// The machine whose agent has to run for it, if it is one's.
    pub(crate) fn machine(&self) -> Option<MachineId> {
        match self {
            Self::Tick { machine, .. }
            | Self::Turn { machine, .. }
            | Self::Wake { machine, .. }
            | Self::Bind { machine, .. }
            | Self::Connection { machine, .. }
            | Self::ListUnits { machine, .. }
            | Self::Console { machine, .. }
            | Self::SnapshotEnd { machine, .. }
            | Self::CopyAsks { to: machine, .. }
            | Self::Arrival { to: machine, .. } => Some(*machine),
            _ => None,
        }
    }

    /// The run of the agent that it belongs to.
    pub(crate) fn run(&self) -> Option<u64> {
        match self {
            Self::Tick { run, .. }
            | Self::Turn { run, .. }
            | Self::Wake { run, .. }
            | Self::Bind { run, .. }
            | Self::Connection { run, .. }
            | Self::ListUnits { run, .. }
            | Self::Console { run, .. }
            | Self::CopyAsks { to_run: run, .. }
            | Self::SnapshotEnd { run, .. } => Some(*run),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Scheduled {
    at_us: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// Events in the order of their time; those of one time in the order they were put in.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Scheduled>>,
    number: u64,
    now_us: u64,
}

impl Queue {
    pub(crate) fn now_us(&self) -> u64 {
        self.now_us
    }

    pub(crate) fn at(&mut self, at_us: u64, event: Event) {
        self.number += 1;
        let at_us = at_us.max(self.now_us);
        self.heap.push(Reverse(Scheduled { at_us, number: self.number, event }));
    }

    pub(crate) fn after(&mut self, us: u64, event: Event) {
        self.at(self.now_us + us, event);
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        let Reverse(next) = self.heap.pop()?;
        self.now_us = next.at_us;
        Some(next.event)
    }
}
