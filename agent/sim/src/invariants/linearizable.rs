//! Linearizable commands and default reads, with the log's index as the witness: whatever ended before an
//! operation was invoked stands before it in the log.

#[derive(Debug, Default)]
pub(crate) struct Linearizable {
    floor: u64,
}

impl Linearizable {
    /// The highest index that anybody was told of.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// A write that was applied at `index` ended; `floor` is what was known when it was invoked.
    pub(crate) fn write(&mut self, index: u64, floor: u64) -> Result<(), String> {
        self.floor = self.floor.max(index);
        if index > floor {
            return Ok(());
        }
        Err(format!("a write stands at index {index}; when it was invoked, index {floor} had been told"))
    }

    /// A read of the state at `index` ended.
    pub(crate) fn read(&mut self, index: u64, floor: u64) -> Result<(), String> {
        self.floor = self.floor.max(index);
        if index >= floor {
            return Ok(());
        }
        Err(format!("a read saw index {index}; when it was invoked, index {floor} had been told"))
    }
}
