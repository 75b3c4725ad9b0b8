//! Where crashes happened.

use std::fmt;

/// What a process asks of a disk that can change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// A file is made.
    Create,
    /// Bytes are written.
    Write,
    /// A file's length changes.
    SetLen,
    /// An open file's data is made durable.
    SyncData,
    /// A closed file is made durable.
    SyncFile,
    /// A file gets another name.
    Rename,
    /// A file is removed.
    Remove,
    /// The directory is made durable.
    SyncDir,
    /// A file gets a second name.
    Link,
}

impl Op {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 9] = [
        Self::Create,
        Self::Write,
        Self::SetLen,
        Self::SyncData,
        Self::SyncFile,
        Self::Rename,
        Self::Remove,
        Self::SyncDir,
        Self::Link,
    ];

    fn row(self) -> usize {
        match self {
            Self::Create => 0,
            Self::Write => 1,
            Self::SetLen => 2,
            Self::SyncData => 3,
            Self::SyncFile => 4,
            Self::Rename => 5,
            Self::Remove => 6,
            Self::SyncDir => 7,
            Self::Link => 8,
        }
    }

    /// Its number in the trace; never changed.
    pub(super) fn code(self) -> u8 {
        u8::try_from(self.row()).unwrap_or(u8::MAX)
    }

    fn label(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Write => "write",
            Self::SetLen => "set_len",
            Self::SyncData => "sync_data",
            Self::SyncFile => "sync_file",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::SyncDir => "sync_dir",
            Self::Link => "link",
        }
    }
}

/// When, relative to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CrashMoment {
    /// It changed nothing yet.
    Before,
    /// Only a write has this: a part of it is done.
    Inside,
    /// It took effect, and the caller does not know.
    After,
}

impl CrashMoment {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 3] = [Self::Before, Self::Inside, Self::After];

    fn column(self) -> usize {
        match self {
            Self::Before => 0,
            Self::Inside => 1,
            Self::After => 2,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Inside => "inside",
            Self::After => "after",
        }
    }
}

/// How often a crash happened where. A cell that stays empty is a boundary that no run tested.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CrashPoints {
    counts: [[u64; CrashMoment::ALL.len()]; Op::ALL.len()],
}

impl CrashPoints {
    /// Counts one crash.
    pub fn add(&mut self, op: Op, moment: CrashMoment) {
        self.counts[op.row()][moment.column()] += 1;
    }

    /// How many crashes there were.
    pub fn count(&self, op: Op, moment: CrashMoment) -> u64 {
        self.counts[op.row()][moment.column()]
    }

    /// Whether there is such a boundary: only a write can be half done. The other operations are one step of
    /// the file system's journal, and a sync that is half done is a crash before it in which some writes were
    /// kept.
    pub fn exists(op: Op, moment: CrashMoment) -> bool {
        moment != CrashMoment::Inside || op == Op::Write
    }

    /// Adds the crashes of another run.
    pub fn merge(&mut self, other: &Self) {
        for (row, others) in self.counts.iter_mut().zip(&other.counts) {
            for (count, more) in row.iter_mut().zip(others) {
                *count += more;
            }
        }
    }

    /// All crashes.
    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// The cells with fewer than `least` crashes, of those that exist.
    pub fn below(&self, least: u64) -> Vec<(Op, CrashMoment)> {
        let cells = Op::ALL.into_iter().flat_map(|op| CrashMoment::ALL.map(|moment| (op, moment)));
        cells.filter(|(op, moment)| Self::exists(*op, *moment) && self.count(*op, *moment) < least).collect()
    }
}

impl fmt::Display for CrashPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10}", "crash")?;
        for moment in CrashMoment::ALL {
            write!(f, "{:>10}", moment.label())?;
        }
        for op in Op::ALL {
            write!(f, "\n{:<10}", op.label())?;
            for moment in CrashMoment::ALL {
                if Self::exists(op, moment) {
                    write!(f, "{:>10}", self.count(op, moment))?;
                } else {
                    write!(f, "{:>10}", "-")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_every_cell_and_names_the_empty_ones() {
        let mut points = CrashPoints::default();
        assert_eq!(points.below(1).len(), 19);
        points.add(Op::Write, CrashMoment::Inside);
        let mut other = CrashPoints::default();
        other.add(Op::Write, CrashMoment::Inside);
        points.merge(&other);
        assert_eq!(points.count(Op::Write, CrashMoment::Inside), 2);
        assert_eq!(points.total(), 2);
        assert!(!points.below(2).contains(&(Op::Write, CrashMoment::Inside)));
        assert_eq!(points.below(1).len(), 18);
        let table = points.to_string();
        assert!(table.contains("write              0         2         0"), "{table}");
        assert!(table.contains("sync_dir           0         -         0"), "{table}");
    }
}
