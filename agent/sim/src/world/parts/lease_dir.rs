//! The directory by which an agent lets the supervisors of its VMs know of its lease.

use std::collections::BTreeMap;

use blixard_model::{LeaseFile, LeaseTerms, VmName};

/// The directory and its file. It lies in memory.
#[derive(Debug, Default)]
pub(crate) struct SimLeaseDir {
    pub(crate) file: Option<LeaseFile>,
    /// Which directory it is: one that is made anew is another one. None while there is none.
    pub(crate) number: Option<u64>,
    /// There is no space until then, in µs.
    pub(crate) full_until_us: u64,
    last_number: u64,
    /// The last one of an earlier boot.
    old: Option<LeaseFile>,
    /// Until when VMs of these generations may run by all that was written in this boot, in ms of the
    /// machine's clock.
    granted: BTreeMap<(VmName, u64), u64>,
}

impl SimLeaseDir {
    /// The file is written in this boot.
    pub(crate) fn write(&mut self, file: LeaseFile, now_ms: u64, terms: LeaseTerms) {
        if self.number.is_none() {
            self.last_number += 1;
            self.number = Some(self.last_number);
        }
        // Whoever was allowed to go on for longer, or without an end, learns of it, or is ended, within this
        // time.
        let settled_ms = now_ms + terms.settle_ms;
        self.granted.values_mut().for_each(|until_ms| *until_ms = settled_ms.min(*until_ms));
        let until_ms = file.until_ms.unwrap_or(u64::MAX);
        for (name, generation) in &file.vms {
            let granted = self.granted.entry((name.clone(), *generation)).or_insert(0);
            *granted = (*granted).max(until_ms);
        }
        self.file = Some(file);
    }

    /// Until when a VM could know that it may run, in ms of the machine's clock; u64::MAX without an end.
    pub(crate) fn granted_ms(&self, name: &VmName, generation: u64) -> u64 {
        self.granted.get(&(name.clone(), generation)).copied().unwrap_or(0)
    }

    /// Somebody removes it.
    pub(crate) fn remove(&mut self) {
        (self.file, self.number) = (None, None);
    }

    /// Somebody puts the file of an earlier boot in its place. False: there is none, or no directory.
    pub(crate) fn put_old_back(&mut self) -> bool {
        let old = self.old.clone().filter(|_| self.number.is_some());
        let found = old.is_some();
        self.file = old.or(self.file.take());
        found
    }

    /// The machine lost its power. With `kept` the directory was not in memory after all.
    pub(crate) fn lose_power(&mut self, kept: bool) {
        self.old = self.file.clone().or(self.old.take());
        self.granted.clear();
        self.full_until_us = 0;
        if !kept {
            self.remove();
        }
    }
}
