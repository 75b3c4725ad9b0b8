//! A disk for nodes that are not started again.

use std::convert::Infallible;

use blixard_consensus::{LogStore, LogWrite};

/// A disk nobody reads again.
#[derive(Debug)]
pub(crate) struct Sink;

impl LogStore for Sink {
    type Error = Infallible;
    fn write(&mut self, _batch: &LogWrite) -> Result<(), Self::Error> {
        Ok(())
    }
}
