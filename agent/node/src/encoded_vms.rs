//! The VMs as they stand in a snapshot, kept while they do not change.
//!
//! A snapshot of many VMs is made on the thread that has to answer heartbeats: what changed is encoded when
//! it is applied, and the snapshot is a copy. Never decides what a VM is: what is kept only stands in for the
//! encoding of the same record.

use std::collections::BTreeMap;

use blixard_core::state::VmRecord;
use blixard_model::{Desired, Placement, VmName};

/// Encodings by name.
#[derive(Debug, Default)]
pub(crate) struct EncodedVms {
    by_name: BTreeMap<VmName, Encoded>,
}

/// One VM's encoding, and what it is of: a placement has one spec for each revision, and holds what the specs
/// before took or nothing.
#[derive(Debug)]
struct Encoded {
    desired: Desired,
    placement: Placement,
    revision: u64,
    holds: bool,
    stopped: bool,
    json: Vec<u8>,
}

impl Encoded {
    fn of(record: &VmRecord) -> Self {
        // It fails for no type of ours: maps with keys that are no text.
        let json = serde_json::to_vec(record).unwrap_or_default();
        Self {
            desired: record.desired,
            placement: record.placement.clone(),
            revision: record.revision,
            holds: record.held.is_some(),
            stopped: record.stopped.is_some(),
            json,
        }
    }

    fn stands_for(&self, record: &VmRecord) -> bool {
        let same = self.desired == record.desired && self.placement == record.placement;
        let same = same && self.revision == record.revision && self.stopped == record.stopped.is_some();
        same && self.holds == record.held.is_some()
    }
}

impl EncodedVms {
    pub(crate) fn of(vms: &BTreeMap<VmName, VmRecord>) -> Self {
        Self { by_name: vms.iter().map(|(name, record)| (name.clone(), Encoded::of(record))).collect() }
    }

    /// A command named this VM: `record` is what it is now.
    pub(crate) fn note(&mut self, name: &VmName, record: Option<&VmRecord>) {
        let Some(record) = record else { return drop(self.by_name.remove(name)) };
        self.by_name.insert(name.clone(), Encoded::of(record));
    }

    /// Forgets those that are gone.
    pub(crate) fn retain(&mut self, vms: &BTreeMap<VmName, VmRecord>) {
        if self.by_name.len() != vms.len() {
            self.by_name.retain(|name, _| vms.contains_key(name));
        }
    }

    /// Writes `vms` as one JSON object, the same as if nothing was kept.
    pub(crate) fn write(&self, vms: &BTreeMap<VmName, VmRecord>, out: &mut Vec<u8>) {
        out.reserve(self.by_name.values().map(|kept| kept.json.len() + 64).sum());
        out.push(b'{');
        for (n, (name, record)) in vms.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            // A name has nothing to escape.
            out.push(b'"');
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b"\":");
            match self.by_name.get(name).filter(|kept| kept.stands_for(record)) {
                Some(kept) => out.extend_from_slice(&kept.json),
                None => out.extend(Encoded::of(record).json),
            }
        }
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use blixard_model::{NodeName, VmSpec};

    use super::*;

    fn record(n: usize, generation: u64, desired: Desired) -> (VmName, VmRecord) {
        let name: VmName = format!("vm{n}").parse().expect("name");
        let node: NodeName = "n1".parse().expect("name");
        let spec = serde_json::json!({
            "name": name, "cpus": 1, "memory_mib": 64 + generation, "kernel": "/\u{e4}\"\\",
        });
        let spec: VmSpec = serde_json::from_value(spec).expect("spec");
        (
            name,
            VmRecord {
                spec,
                desired,
                placement: Placement { node, generation },
                revision: 0,
                lineage: 0,
                held: None,
                stopped: None,
            },
        )
    }

    #[test]
    fn what_is_kept_is_what_would_be_encoded() {
        let mut vms: BTreeMap<_, _> = (0..20).map(|n| record(n, 1, Desired::Running)).collect();
        let mut kept = EncodedVms::of(&vms);
        let check = |kept: &EncodedVms, vms: &BTreeMap<_, _>| {
            let mut written = Vec::new();
            kept.write(vms, &mut written);
            assert_eq!(written, serde_json::to_vec(vms).expect("encoded"));
        };
        check(&kept, &vms);
        check(&EncodedVms::default(), &vms);
        // Noted, and changed behind its back: stopped, gone, placed anew, new.
        for (n, noted) in [(1, true), (5, false)] {
            let changed = [record(n, 1, Desired::Stopped), record(n + 1, 7, Desired::Running)];
            vms.extend(changed.into_iter().chain([record(n + 90, 8, Desired::Absent)]));
            vms.remove(&record(n + 2, 0, Desired::Absent).0);
            for name in [n, n + 1, n + 2, n + 90].map(|n| record(n, 0, Desired::Absent).0) {
                if noted {
                    kept.note(&name, vms.get(&name));
                }
            }
            check(&kept, &vms);
            kept.retain(&vms);
            check(&kept, &vms);
        }
        assert!(kept.by_name.len() <= vms.len(), "what is gone is forgotten");
        check(&kept, &BTreeMap::new());
    }
}
