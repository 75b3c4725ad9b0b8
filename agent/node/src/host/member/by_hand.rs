//! The placements that were stopped by hand on this node, until the log knows. They are kept on disk; what is
//! believed is what was looked up there with the units.

use std::collections::BTreeMap;

use blixard_model::{StopNote, VmName};

/// The placements that were stopped by hand.
#[derive(Debug, Default)]
pub(super) struct ByHand {
    notes: Vec<StopNote>,
    /// What was kept or forgotten, and the look that was the last one then: neither that one nor an earlier
    /// one need show it.
    changed: BTreeMap<(VmName, u64), (u64, Option<StopNote>)>,
}

impl ByHand {
    pub(super) fn notes(&self) -> &[StopNote] {
        &self.notes
    }

    /// What a look found on disk.
    pub(super) fn note_found(&mut self, look: u64, found: Vec<StopNote>) {
        self.changed.retain(|_, (last, _)| *last >= look);
        let key = |note: &StopNote| (note.name.clone(), note.generation);
        let mut notes: BTreeMap<_, _> = found.into_iter().map(|note| (key(&note), Some(note))).collect();
        notes.extend(self.changed.iter().map(|(key, (_, note))| (key.clone(), note.clone())));
        self.notes = notes.into_values().flatten().collect();
    }

    /// These are on disk now; `look` was the last one.
    pub(super) fn note_kept(&mut self, look: u64, kept: Vec<StopNote>) {
        for note in kept {
            self.notes.retain(|other| !other.is_of(&note.name, note.generation));
            self.changed.insert((note.name.clone(), note.generation), (look, Some(note.clone())));
            self.notes.push(note);
        }
    }

    /// These are not any more.
    pub(super) fn note_forgotten(&mut self, look: u64, forgotten: &[StopNote]) {
        for note in forgotten {
            self.notes.retain(|other| !other.is_of(&note.name, note.generation));
            self.changed.insert((note.name.clone(), note.generation), (look, None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(generation: u64) -> StopNote {
        StopNote { name: "web".parse().expect("a name"), generation, at_unix_ms: 7 }
    }

    #[test]
    fn a_look_that_may_be_older_than_a_change_does_not_undo_it() {
        let mut by_hand = ByHand::default();
        by_hand.note_kept(4, vec![note(9)]);
        assert_eq!(by_hand.notes(), [note(9)]);
        by_hand.note_found(4, vec![]);
        assert_eq!(by_hand.notes(), [note(9)], "the look was asked for before");
        by_hand.note_found(5, vec![note(9)]);
        by_hand.note_forgotten(5, &[note(9)]);
        by_hand.note_found(5, vec![note(9), note(3)]);
        assert_eq!(by_hand.notes(), [note(3)]);
        by_hand.note_found(6, vec![note(9)]);
        assert_eq!(by_hand.notes(), [note(9)], "somebody else has kept it since");
        by_hand.note_found(7, vec![]);
        assert_eq!(by_hand.notes(), [], "and somebody has removed it");
    }
}
