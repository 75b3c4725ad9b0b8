//! The commands that a hypervisor has not answered yet.

use std::collections::BTreeMap;

use crate::qemu::message::QmpCommand;

/// Commands by their ids, each with when it was sent, in milliseconds.
#[derive(Debug, Default)]
pub(super) struct AwaitedAnswers {
    commands: BTreeMap<u64, (QmpCommand, u64)>,
    last_id: u64,
}

impl AwaitedAnswers {
    /// A command is sent. Returns its id.
    pub(super) fn begin(&mut self, command: QmpCommand, now_ms: u64) -> u64 {
        self.last_id += 1;
        self.commands.insert(self.last_id, (command, now_ms));
        self.last_id
    }

    /// Which command this is the answer to. An answer to none is nobody's. Commands are answered in their
    /// order, so those before it have had their answers.
    pub(super) fn answered(&mut self, id: Option<u64>) -> Option<QmpCommand> {
        let id = id?;
        let (command, _) = self.commands.remove(&id)?;
        self.commands.retain(|earlier, _| *earlier > id);
        Some(command)
    }

    pub(super) fn awaits(&self, command: QmpCommand) -> bool {
        self.commands.values().any(|(awaited, _)| *awaited == command)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Since when the oldest command is not answered.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.commands.values().map(|(_, since)| *since).min()
    }

    /// Nothing is answered any more.
    pub(super) fn clear(&mut self) {
        self.commands.clear();
    }
}
