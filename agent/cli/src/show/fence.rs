//! What ends the VMs of each node that need a lease and have none, in `blixard status`.

use blixard_model::api::{NodeView, StatusView};
use blixard_model::fences::Fences;
use blixard_model::lease::LeaseStanding;

use super::kit::{NOTHING, time, wrapped};

/// The nodes as far as leases are needed. Empty where nobody needs one. How nodes stand with their leases is
/// the leader's word: without one there is still what the answering node sees of itself.
pub(super) fn table(view: &StatusView) -> String {
    let is_own = |member: &NodeView| member.name == view.node && member.fences.is_some();
    let is_shown = |member: &&NodeView| member.lease.is_some() || view.lease.is_some() && is_own(member);
    let rows: Vec<Vec<String>> = view.members.iter().filter(is_shown).map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    wrapped(&["FENCES", "LEASE", "ENDED BY", "NOT ENDED BY", "NOT COVERED"], rows)
}

fn row(node: &NodeView) -> Vec<String> {
    let (by, not_by, uncovered) = match &node.fences {
        None => (NOTHING.to_owned(), "it has not reported it".to_owned(), NOTHING.to_owned()),
        Some(fences) => (ended_by(fences), not_ended_by(fences), uncovered(fences)),
    };
    vec![node.name.to_string(), standing(node.lease), by, not_by, uncovered]
}

fn standing(lease: Option<LeaseStanding>) -> String {
    match lease {
        None => NOTHING.to_owned(),
        Some(LeaseStanding::Holds { left_ms: 0 }) => "holds".to_owned(),
        Some(LeaseStanding::Holds { left_ms }) => format!("holds for {}", time(left_ms)),
        Some(LeaseStanding::Suspect { lost_in_ms }) => format!("suspect, lost in {}", time(lost_in_ms)),
        Some(LeaseStanding::Lost) => "lost".to_owned(),
    }
}

fn ended_by(fences: &Fences) -> String {
    let working = fences.each().into_iter().filter(|(_, state)| state.works());
    let names: Vec<&str> = working.map(|(name, _)| name).collect();
    if names.is_empty() { NOTHING.to_owned() } else { names.join(", ") }
}

fn not_ended_by(fences: &Fences) -> String {
    let missing = fences.each().into_iter();
    let words = missing.filter_map(|(name, state)| Some(format!("{name} ({})", state.why_not()?)));
    let words: Vec<String> = words.collect();
    if words.is_empty() { NOTHING.to_owned() } else { words.join("; ") }
}

/// The faults with which a VM may run on although its lease is over.
fn uncovered(fences: &Fences) -> String {
    let mut faults = vec!["a suspended or paused machine"];
    if !fences.hardware_watchdog.works() {
        faults.push("a hung kernel");
    }
    if !fences.last_resort.works() {
        faults.push("a hypervisor in D state");
    }
    if !fences.systemd_watchdog.works() {
        faults.push("a hung supervisor");
    }
    faults.join(", ")
}

#[cfg(test)]
mod tests {
    use blixard_model::api::LeaseView;
    use blixard_model::fences::FenceState;

    use super::*;
    use crate::sample;

    fn fences() -> Fences {
        Fences {
            supervisor: FenceState::Works,
            systemd_watchdog: FenceState::Works,
            last_resort: FenceState::off("last_resort is \"none\""),
            hardware_watchdog: FenceState::off("RuntimeWatchdogSec= of systemd-system.conf is not set"),
        }
    }

    fn node(name: &str, lease: Option<LeaseStanding>, fences: Option<Fences>) -> NodeView {
        NodeView { lease, fences, ..sample::node(name) }
    }

    /// The cells of one node's row.
    fn cells(node: &NodeView) -> [String; 5] {
        row(node).try_into().expect("five")
    }

    #[test]
    fn each_node_shows_what_ends_its_vms_and_what_is_not_covered() {
        let [name, lease, by, not_by, uncovered] =
            cells(&node("n1", Some(LeaseStanding::Holds { left_ms: 8_200 }), Some(fences())));
        assert_eq!([name, lease, by], ["n1", "holds for 8.2 s", "supervisor, systemd's watchdog"]);
        assert!(not_by.starts_with("last resort (last_resort is \"none\"); hardware watchdog ("), "{not_by}");
        assert_eq!(uncovered, "a suspended or paused machine, a hung kernel, a hypervisor in D state");
        let all = Fences { last_resort: FenceState::Works, hardware_watchdog: FenceState::Works, ..fences() };
        let [_, _, by, not_by, uncovered] = cells(&node("n1", Some(LeaseStanding::Lost), Some(all)));
        assert_eq!(by, "supervisor, systemd's watchdog, last resort, hardware watchdog");
        assert_eq!([not_by, uncovered], ["-", "a suspended or paused machine"]);
        let switched_off = Fences { systemd_watchdog: FenceState::off("switched off"), ..fences() };
        let suspect = LeaseStanding::Suspect { lost_in_ms: 5_000 };
        let [_, lease, by, not_by, uncovered] = cells(&node("n1", Some(suspect), Some(switched_off)));
        assert_eq!([lease, by], ["suspect, lost in 5.0 s", "supervisor"]);
        assert!(not_by.starts_with("systemd's watchdog (switched off)"), "{not_by}");
        assert!(uncovered.ends_with("a hung supervisor"), "{uncovered}");
        let [_, _, by, not_by, _] = cells(&node("n1", Some(LeaseStanding::Lost), None));
        assert_eq!([by, not_by], ["-", "it has not reported it"]);
    }

    #[test]
    fn the_table_is_there_as_far_as_leases_are_needed_and_no_wider_than_what_fits() {
        let shown = |members: Vec<NodeView>, lease: Option<LeaseView>| {
            table(&StatusView { members, lease, ..sample::status() })
        };
        assert_eq!(shown(vec![node("n1", None, Some(fences()))], None), "");
        let long = Fences { supervisor: FenceState::off("why ".repeat(40)), ..fences() };
        let holds = Some(LeaseStanding::Holds { left_ms: 0 });
        let text = shown(vec![node("n1", holds, Some(long)), node("n2", None, Some(fences()))], None);
        assert!(text.starts_with("FENCES ") && !text.contains("n2"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    }

    #[test]
    fn without_a_leader_a_node_still_shows_what_it_sees_of_itself() {
        let lease = || LeaseView { holds_for_ms: None, denied: None };
        let shown = |lease: Option<LeaseView>, own: Option<Fences>| {
            let members = vec![node("n1", None, own), node("n2", None, Some(fences()))];
            table(&StatusView { members, lease, ..sample::status() })
        };
        let text = shown(Some(lease()), Some(fences()));
        let own = text.lines().nth(1).expect("a row");
        assert!(own.starts_with("n1      -      supervisor, systemd's"), "{text}");
        assert!(!text.contains("n2"), "of the others nobody says anything: {text}");
        assert_eq!(shown(None, Some(fences())), "", "none is needed");
        assert_eq!(shown(Some(lease()), None), "", "it has not looked yet");
    }
}
