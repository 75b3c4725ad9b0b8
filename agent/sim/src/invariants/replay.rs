//! The state machine is pure: a replay of the whole log from the birth, through the bytes of a snapshot taken
//! in its middle, gives what every node has.

use blixard_consensus::{EntryContent, Machine as _};
use blixard_core::ClusterState;
use blixard_node::StateMachine;

use super::canon::{Canon, apply_membership, state_hash};
use crate::world::parts::machine::SimMachine;

pub(crate) fn check(canon: &Canon, machines: &[SimMachine]) -> Result<(), String> {
    let mut replayed = StateMachine::new(ClusterState::new(canon.genesis().clone()));
    let mut voters = replayed.0.nodes.raft_ids().collect();
    let middle = canon.entries().len() / 2;
    for (position, agreed) in canon.entries().iter().enumerate() {
        let index = position as u64 + 2;
        match &*agreed.content {
            EntryContent::Empty => {}
            EntryContent::Command(bytes) => drop(replayed.apply((index, agreed.term), bytes)?),
            EntryContent::Membership(change) => apply_membership(&mut replayed.0, &mut voters, change),
        }
        if position == middle {
            let bytes = replayed.snapshot();
            let state = replayed.read_snapshot(&bytes)?;
            replayed.restore(state);
        }
    }
    if replayed.0 != *canon.state() {
        return Err("a replay through a snapshot differs from one without".to_owned());
    }
    let hash = state_hash(&replayed.0);
    for (id, machine) in machines.iter().enumerate() {
        let at_end = machine.node().filter(|node| node.summary().applied == canon.last());
        if at_end.is_some_and(|node| state_hash(node.state()) != hash) {
            return Err(format!("n{} differs from a replay", id + 1));
        }
    }
    Ok(())
}
