//! `blixard vm list` and `blixard vm show`.

use blixard_model::OnNodeLoss;
use blixard_model::api::{Listing, VmView};
use blixard_model::report::LastEnd;

use super::kit::{GAP, NOTHING, WIDTH_MAX, columns, or_nothing, pairs, short, time};

/// Fewest characters of a reason that are worth a column.
const REASON_CHARS_MIN: usize = 20;

/// A column of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Name,
    State,
    Desired,
    Node,
    Cpus,
    Memory,
    Pid,
    Seen,
    Reason,
}

/// All of them, in their order.
const COLUMNS: [Column; 9] = [
    Column::Name,
    Column::State,
    Column::Desired,
    Column::Node,
    Column::Cpus,
    Column::Memory,
    Column::Pid,
    Column::Seen,
    Column::Reason,
];
/// Those that are left out where lines get too long, the first one first; `vm show` has them.
const LEFT_OUT: [Column; 6] =
    [Column::Pid, Column::Cpus, Column::Memory, Column::Seen, Column::Desired, Column::Reason];

impl Column {
    const fn title(self) -> &'static str {
        match self {
            Self::Name => "NAME",
            Self::State => "STATE",
            Self::Desired => "DESIRED",
            Self::Node => "NODE",
            Self::Cpus => "CPUS",
            Self::Memory => "MEMORY",
            Self::Pid => "PID",
            Self::Seen => "SEEN",
            Self::Reason => "REASON",
        }
    }

    fn cell(self, vm: &VmView) -> String {
        match self {
            Self::Name => vm.name.to_string(),
            Self::State => vm.state.to_string(),
            Self::Desired => vm.desired.to_string(),
            Self::Node => vm.node.to_string(),
            Self::Cpus => vm.spec.cpus.to_string(),
            Self::Memory => format!("{} MiB", vm.spec.memory_mib),
            Self::Pid => or_nothing(vm.main_pid),
            Self::Seen => seen(vm),
            Self::Reason => {
                vm.reason.as_deref().and_then(|text| text.lines().next()).unwrap_or("").to_owned()
            }
        }
    }

    /// Characters that the column takes, the gap behind it included.
    fn width(self, vms: &[VmView]) -> usize {
        let cells = vms.iter().map(|vm| self.cell(vm).chars().count()).max().unwrap_or(0);
        cells.max(self.title().len()) + GAP
    }
}

/// `blixard vm list`, in lines of at most [`WIDTH_MAX`] characters.
pub(crate) fn list(list: &Listing<VmView>) -> String {
    let vms = &list.items;
    if vms.is_empty() {
        return "no VMs\n".to_owned();
    }
    let (shown, reason_chars) = fitting(vms);
    let header: Vec<&str> = shown.iter().map(|column| column.title()).collect();
    let cell = |vm: &VmView, column: &Column| match column {
        Column::Reason => short(&column.cell(vm), reason_chars),
        _ => column.cell(vm),
    };
    columns(&header, vms.iter().map(|vm| shown.iter().map(|column| cell(vm, column)).collect()))
}

/// As many columns as fit, and the characters that are left for the reason.
fn fitting(vms: &[VmView]) -> (Vec<Column>, usize) {
    let reason_chars = Column::Reason.width(vms) - GAP;
    let mut shown = COLUMNS.to_vec();
    for next in LEFT_OUT.map(Some).into_iter().chain([None]) {
        let others = shown.iter().filter(|column| **column != Column::Reason);
        let room = WIDTH_MAX.checked_sub(others.map(|column| column.width(vms)).sum());
        if let Some(room) = room.filter(|room| *room >= REASON_CHARS_MIN.min(reason_chars)) {
            return (shown, room);
        }
        shown.retain(|column| Some(*column) != next);
    }
    (shown, 0)
}

/// `blixard vm show`, at this time by the clock here.
pub(crate) fn one(view: &VmView, now_unix_ms: u64) -> String {
    let spec = &view.spec;
    let disks = spec.disks.iter().map(|disk| match disk.read_only {
        true => format!("{} (read-only)", disk.path),
        false => disk.path.clone(),
    });
    pairs(vec![
        ("NAME", view.name.to_string()),
        ("STATE", view.state.to_string()),
        ("DESIRED", view.desired.to_string()),
        ("REASON", or_nothing(view.reason.as_deref().map(str::trim_end))),
        ("NODE", view.node.to_string()),
        ("PINNED TO", or_nothing(spec.node.as_ref())),
        ("GENERATION", view.generation.to_string()),
        ("REVISION", view.revision.to_string()),
        ("PID", or_nothing(view.main_pid)),
        ("SEEN", seen(view)),
        ("CPUS", spec.cpus.to_string()),
        ("MEMORY", format!("{} MiB, {} MiB reserved", spec.memory_mib, spec.reserved_memory_mib())),
        ("KERNEL", spec.kernel.clone()),
        ("INITRD", or_nothing(spec.initrd.as_ref())),
        ("CMDLINE", or_nothing(Some(&spec.cmdline))),
        ("DISKS", or_nothing(Some(disks.collect::<Vec<_>>().join("\n")))),
        ("HYPERVISOR", spec.hypervisor.to_string()),
        ("NODE LOSS", spec.on_node_loss.unwrap_or(OnNodeLoss::Keep).to_string()),
        ("RESTART", spec.restart.to_string()),
        ("LAST END", or_nothing(view.last_end.as_ref().map(|end| last_end(end, now_unix_ms)))),
    ])
}

/// How it ended the last time, how long ago, and how often in a row.
fn last_end(end: &LastEnd, now_unix_ms: u64) -> String {
    let ago = time(now_unix_ms.saturating_sub(end.at_unix_ms));
    let row = match end.failures {
        0 => ", and ran well since".to_owned(),
        1 => String::new(),
        n => format!(", {n} in a row"),
    };
    format!("{ago} ago{row}: {}", end.why.trim_end())
}

/// How old the observation is.
fn seen(vm: &VmView) -> String {
    vm.observed_age_ms.map_or_else(|| NOTHING.to_owned(), |ms| format!("{} ago", time(ms)))
}

#[cfg(test)]
mod tests {
    use blixard_model::report::ObservedState;
    use blixard_model::vm::Desired;

    use super::*;
    use crate::sample;

    fn failed(name: &str, reason: &str) -> VmView {
        VmView {
            state: ObservedState::Failed,
            main_pid: None,
            observed_age_ms: None,
            reason: Some(reason.to_owned()),
            ..sample::vm(name)
        }
    }

    #[test]
    fn a_list_of_vms_is_aligned_and_plain() {
        let reason = format!("exited 1: {}\nmore", "x".repeat(80));
        let text = list(&sample::listing(vec![sample::vm("web"), failed("a-longer-name", &reason)]));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0], "NAME           STATE    DESIRED  NODE  CPUS  MEMORY   PID   SEEN       REASON");
        assert_eq!(lines[1], "web            running  running  n1    1     256 MiB  4312  0.4 s ago");
        assert!(lines[2].starts_with(
            "a-longer-name  failed   running  n1    1     256 MiB  -     -          exited 1: x"
        ));
        assert!(lines[2].ends_with("x…"), "{text}");
        assert_eq!(lines[2].chars().count(), WIDTH_MAX);
        assert_eq!(list(&sample::listing(vec![])), "no VMs\n");
    }

    #[test]
    fn a_list_is_never_wider_than_a_line_and_loses_what_matters_least_first() {
        let header = |vm: VmView| {
            let text = list(&sample::listing(vec![vm]));
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(WIDTH_MAX), "{text}");
            text.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let long = "x".repeat(200);
        let all = "NAME STATE DESIRED NODE CPUS MEMORY PID SEEN REASON";
        assert_eq!(header(failed("web", &long)), all);
        assert_eq!(header(failed(&"w".repeat(30), &long)), all);
        assert_eq!(header(failed(&"w".repeat(48), "")), all, "no reason needs no room");
        assert_eq!(header(failed(&"w".repeat(48), &long)), "NAME STATE DESIRED NODE MEMORY SEEN REASON");
        let node = "n".repeat(48).parse().expect("name");
        let widest = VmView { node, ..failed(&"w".repeat(48), &long) };
        assert_eq!(header(widest), "NAME STATE NODE");
    }

    #[test]
    fn show_tells_the_last_end_with_its_time_and_how_often() {
        let line = |failures| {
            let end = LastEnd { why: "the guest panicked".to_owned(), at_unix_ms: 1_000, failures };
            let text = one(&VmView { last_end: Some(end), ..sample::vm("web") }, 3_500);
            text.lines().find(|line| line.starts_with("LAST END")).unwrap_or_default().to_owned()
        };
        assert_eq!(line(0), "LAST END    2.5 s ago, and ran well since: the guest panicked");
        assert_eq!(line(1), "LAST END    2.5 s ago: the guest panicked");
        assert_eq!(line(3), "LAST END    2.5 s ago, 3 in a row: the guest panicked");
        assert!(one(&sample::vm("web"), 0).contains("LAST END    -\n"));
        assert!(one(&sample::vm("web"), 0).contains("RESTART     always\n"));
    }

    #[test]
    fn show_has_everything_and_is_not_steered_by_the_guest() {
        let view = VmView {
            desired: Desired::Stopped,
            reason: Some("exited 1: oops\n\u{1b}[31mred\n".into()),
            ..sample::vm("web")
        };
        let text = one(&view, 0);
        for needle in
            ["DESIRED     stopped", "REASON      exited 1: oops\n            ^[[31mred\n", "448 MiB reserved"]
        {
            assert!(text.contains(needle), "{needle}:\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert!(text.lines().all(|line| line == line.trim_end()), "no trailing blanks:\n{text}");
    }
}
