//! Whether the kernel ended a process of this unit for want of memory.

use std::fs;
use std::path::PathBuf;

use crate::supervisor::MemoryShortage;

/// What the kernel counts in `memory.events` of a control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    /// `oom`: the group reached its limit, and nothing could be freed.
    limit_reached: u64,
    /// `oom_kill`: a process of the group was ended, for its limit or for the machine's sake.
    killed: u64,
}

/// Watches the unit's own control group from a moment on.
#[derive(Debug)]
pub(crate) struct MemoryEvents {
    /// The group's `memory.events`; none where there is no such file.
    file: Option<PathBuf>,
    before: Counts,
}

impl MemoryEvents {
    /// Counts from now on.
    pub(crate) fn from_now_on() -> Self {
        let file = fs::read_to_string("/proc/self/cgroup").ok().as_deref().and_then(events_file);
        let before = file.as_ref().and_then(counts).unwrap_or_default();
        Self { file, before }
    }

    /// Whether a process was ended since, and for what.
    pub(crate) fn shortage(&self) -> Option<MemoryShortage> {
        let now = self.file.as_ref().and_then(counts)?;
        shortage(self.before, now)
    }
}

fn shortage(before: Counts, now: Counts) -> Option<MemoryShortage> {
    (now.killed > before.killed).then_some(if now.limit_reached > before.limit_reached {
        MemoryShortage::Limit
    } else {
        MemoryShortage::Machine
    })
}

/// The path of `memory.events`, from the text of `/proc/self/cgroup`: the unified hierarchy is the one with
/// number 0.
fn events_file(cgroup: &str) -> Option<PathBuf> {
    let group = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(["/sys/fs/cgroup", group, "memory.events"].iter().collect())
}

fn counts(file: &PathBuf) -> Option<Counts> {
    Some(parse_counts(&fs::read_to_string(file).ok()?))
}

fn parse_counts(events: &str) -> Counts {
    let value = |name: &str| {
        let found = events.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        found.unwrap_or(0)
    };
    Counts { limit_reached: value("oom "), killed: value("oom_kill ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_found_in_the_units_own_group() {
        let own = "0::/system.slice/system-blixard.slice/blixard-vm@web.service\n";
        let path = "/sys/fs/cgroup/system.slice/system-blixard.slice/blixard-vm@web.service/memory.events";
        assert_eq!(events_file(own), Some(PathBuf::from(path)));
        assert_eq!(events_file("4:memory:/a\n0::/b\n"), Some("/sys/fs/cgroup/b/memory.events".into()));
        assert_eq!(events_file("4:memory:/a\n"), None);
        let events = "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n";
        assert_eq!(parse_counts(events), Counts { limit_reached: 2, killed: 1 });
        assert_eq!(parse_counts("oom_kill x\n"), Counts::default());
    }

    #[test]
    fn the_limit_is_blamed_only_where_it_was_reached() {
        let counts = |limit_reached, killed| Counts { limit_reached, killed };
        assert_eq!(shortage(counts(1, 1), counts(2, 1)), None);
        assert_eq!(shortage(counts(1, 1), counts(2, 2)), Some(MemoryShortage::Limit));
        assert_eq!(shortage(counts(1, 1), counts(1, 2)), Some(MemoryShortage::Machine));
    }
}
