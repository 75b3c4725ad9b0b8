//! Log matching: logs that hold an entry of the same index and term are the same up to it. Each entry is
//! compared with the first of its index and term, together with the term before it: by induction that is all.

use std::collections::BTreeMap;

use super::seen::SeenNode;

#[derive(Debug, Default)]
pub(crate) struct LogMatching(BTreeMap<(u64, u64), (u64, Option<u64>)>);

impl LogMatching {
    pub(crate) fn check(&mut self, seen: &SeenNode<'_>) -> Result<(), String> {
        let Some(from) = seen.written_from else { return Ok(()) };
        let mut expected = None;
        for (index, entry) in seen.mirror.entries.range(from..) {
            if expected.is_some_and(|expected| expected != *index) {
                return Err(format!("n{}: a hole in the log before index {index}", seen.machine + 1));
            }
            expected = Some(index + 1);
            let before = seen.mirror.entries.get(&(index - 1)).map(|before| before.term);
            if before.is_some_and(|before| before > entry.term) {
                return Err(format!("n{}: terms go back at index {index}", seen.machine + 1));
            }
            let known = self.0.entry((*index, entry.term)).or_insert((entry.hash, before));
            let same_before = before.is_none() || known.1.is_none() || known.1 == before;
            if known.0 != entry.hash || !same_before {
                let at = (seen.machine + 1, entry.term);
                return Err(format!("n{} holds another entry {index} of term {}", at.0, at.1));
            }
            known.1 = known.1.or(before);
        }
        Ok(())
    }
}
