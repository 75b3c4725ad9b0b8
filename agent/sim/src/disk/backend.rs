//! An open file.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::points::Op;
use super::state::{DiskState, Inode};
use crate::planted;

/// What redb reads and writes through; worthless once the process that opened it is gone. It locks nothing:
/// there is one process on a machine.
#[derive(Debug)]
pub(super) struct SimBackend {
    pub(super) state: Arc<Mutex<DiskState>>,
    pub(super) inode: Inode,
    pub(super) incarnation: u64,
}

impl SimBackend {
    fn state(&self) -> io::Result<MutexGuard<'_, DiskState>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.alive(self.incarnation)?;
        Ok(state)
    }
}

impl StorageBackend for SimBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.file(self.inode)?.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.state()?.file(self.inode)?.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state()?.set_len(self.inode, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.state()?.sync_file(self.inode, Op::SyncData);
        if synced.is_err() && planted::repeats_sync() {
            return self.state()?.sync_file(self.inode, Op::SyncData);
        }
        synced
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state()?.write(self.inode, offset, data)
    }
}
