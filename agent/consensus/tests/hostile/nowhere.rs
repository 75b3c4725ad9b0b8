//! A disk for nodes that are not started again.

use blixard_consensus::{Consensus, Effects, Machine, PumpError};

/// All of a pump, on a disk that nobody reads.
pub(crate) fn pump<M: Machine>(node: &mut Consensus<M>) -> Result<Effects<M::Outcome>, PumpError> {
    let mut effects = node.pump()?;
    while effects.write.is_some() {
        effects.extend(node.written()?);
    }
    Ok(effects)
}
