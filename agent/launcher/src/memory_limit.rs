//! Whether the kernel ended a process of this unit because the unit had reached its memory limit.

use std::fs;
use std::path::PathBuf;

/// Counts, from a moment on, the processes of the unit that the kernel ended for want of memory.
#[derive(Debug)]
pub(crate) struct OutOfMemory {
    /// The control group's `memory.events`; none where there is no such file.
    events: Option<PathBuf>,
    before: u64,
}

impl OutOfMemory {
    /// Counts from now on.
    pub(crate) fn from_now_on() -> Self {
        let events = fs::read_to_string("/proc/self/cgroup").ok().as_deref().and_then(events_file);
        let before = events.as_ref().and_then(count).unwrap_or(0);
        Self { events, before }
    }

    /// Whether it has happened since.
    pub(crate) fn has_happened(&self) -> bool {
        self.events.as_ref().and_then(count).is_some_and(|count| count > self.before)
    }
}

/// The path of `memory.events`, from the text of `/proc/self/cgroup`: the unified hierarchy is the one with
/// number 0.
fn events_file(cgroup: &str) -> Option<PathBuf> {
    let group = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(["/sys/fs/cgroup", group, "memory.events"].iter().collect())
}

fn count(events: &PathBuf) -> Option<u64> {
    killed(&fs::read_to_string(events).ok()?)
}

/// The line `oom_kill N` of `memory.events`.
fn killed(events: &str) -> Option<u64> {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_the_units_own_group() {
        let own = "0::/system.slice/system-blixard.slice/blixard-vm@web.service\n";
        let path = "/sys/fs/cgroup/system.slice/system-blixard.slice/blixard-vm@web.service/memory.events";
        assert_eq!(events_file(own), Some(PathBuf::from(path)));
        assert_eq!(events_file("4:memory:/a\n0::/b\n"), Some("/sys/fs/cgroup/b/memory.events".into()));
        assert_eq!(events_file("4:memory:/a\n"), None);
        assert_eq!(killed("low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(killed("oom_kill x\n"), None);
    }
}
