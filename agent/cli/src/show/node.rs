//! The members of the cluster, in `blixard node list` and in `blixard status`.

use std::collections::BTreeMap;

use blixard_model::Capacity;
use blixard_model::Role;
use blixard_model::api::{Listing, NodeView};
use blixard_model::words::grouped;

use super::kit::{NOTHING, WIDTH_MAX, columns, time};

/// Shortest silence of a reachable member that is shown, in milliseconds. Members send something several
/// times a second.
const SILENT_MS_MIN: u64 = 1_000;

/// `blixard node list`.
pub(crate) fn list(list: &Listing<NodeView>) -> String {
    if list.items.is_empty() {
        "no nodes yet: `blixard status` says why\n".to_owned()
    } else {
        table(&list.items, Detail::All) + &held_twice(&list.items) + &shared_dirs(&list.items)
    }
}

/// Below the list: where the agents are that run with one key.
fn held_twice(nodes: &[NodeView]) -> String {
    let mut text = String::new();
    for node in nodes.iter().filter(|node| !node.held_twice_at.is_empty()) {
        let places: Vec<String> = node.held_twice_at.iter().map(ToString::to_string).collect();
        let (name, places) = (&node.name, places.join(" and at "));
        text += &format!("\n{name}: two agents run with its key at the same time, at {places}\n");
    }
    text
}

/// Below the list: which directories of disks several nodes have, each with those.
fn shared_dirs(nodes: &[NodeView]) -> String {
    let mut sharers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in nodes {
        for dir in &node.shared_dirs {
            sharers.entry(dir).or_default().push(node.name.as_str());
        }
    }
    let line = |(dir, nodes): (&str, Vec<&str>)| format!("\n{dir} is shared by {}\n", nodes.join(", "));
    sharers.into_iter().map(line).collect()
}

/// How much of each member is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    All,
    NoEndpoint,
    FirstAddress,
}

/// The members with as much of each as fits into [`WIDTH_MAX`]; `node list` has the rest.
pub(super) fn that_fit(members: &[NodeView]) -> String {
    let fits = |text: &String| text.lines().all(|line| line.chars().count() <= WIDTH_MAX);
    let mut wider = [Detail::All, Detail::NoEndpoint].into_iter().map(|detail| table(members, detail));
    wider.find(fits).unwrap_or_else(|| table(members, Detail::FirstAddress))
}

fn table(nodes: &[NodeView], detail: Detail) -> String {
    let header =
        ["NAME", "ROLE", "LEADER", "REACHABLE", "BEHIND", "CPUS", "MEMORY", "VMS", "ADDRESSES", "ENDPOINT"];
    let shown = header.len() - usize::from(detail != Detail::All);
    let rows = nodes.iter().map(|node| {
        let of = |pick: fn(&Capacity) -> u64| {
            let offered = node.capacity.as_ref().map_or_else(|| "?".to_owned(), |all| pick(all).to_string());
            format!("{}/{offered}", pick(&node.reserved))
        };
        let mut row = vec![
            node.name.to_string(),
            role(node).to_owned(),
            if node.leader { "yes" } else { NOTHING }.to_owned(),
            reachable(node),
            behind(node),
            of(|capacity| u64::from(capacity.cpus)),
            of(|capacity| capacity.memory_mib) + " MiB",
            node.vms.to_string(),
            addresses(node, detail),
            node.endpoint_id.short(),
        ];
        row.truncate(shown);
        row
    });
    columns(header.get(..shown).unwrap_or(&header), rows)
}

fn role(node: &NodeView) -> &'static str {
    match node.role {
        Role::Voter if node.witness => "witness",
        Role::Voter => "voter",
        // A witness is called one only once it votes.
        Role::Learner => "learner",
    }
}

/// A link outlives the machine at its other end for some seconds: until it is given up, the silence is shown.
fn reachable(node: &NodeView) -> String {
    if !node.held_twice_at.is_empty() {
        return "held twice".to_owned();
    }
    if !node.reachable {
        return node.unreachable_for_ms.map_or_else(|| "no".to_owned(), |ms| format!("no, {}", time(ms)));
    }
    match node.silent_for_ms {
        Some(ms) if ms >= SILENT_MS_MIN => format!("silent for {}", time(ms)),
        _ => "yes".to_owned(),
    }
}

fn behind(node: &NodeView) -> String {
    match node.behind {
        _ if node.snapshot => "snapshot".to_owned(),
        Some(entries) => grouped(entries),
        None => NOTHING.to_owned(),
    }
}

fn addresses(node: &NodeView, detail: Detail) -> String {
    match &node.addresses[..] {
        [first, rest @ ..] if detail == Detail::FirstAddress && !rest.is_empty() => {
            format!("{first} +{}", rest.len())
        }
        all => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_list_of_nodes_shows_role_reach_and_room() {
        let leader = NodeView { leader: true, ..sample::node("n1") };
        let gone = NodeView {
            reachable: false,
            capacity: None,
            witness: true,
            unreachable_for_ms: Some(240_000),
            behind: None,
            ..sample::node("n2")
        };
        let learner = |name| NodeView { role: Role::Learner, witness: true, ..sample::node(name) };
        let sent = NodeView { reachable: false, snapshot: true, behind: Some(9), ..learner("n3") };
        let late = NodeView { behind: Some(1_200), ..learner("n4") };
        let text = list(&sample::listing(vec![leader, gone, sent, late]));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "NAME  ROLE     LEADER  REACHABLE  BEHIND    CPUS  MEMORY        VMS  ADDRESSES       ENDPOINT"
        );
        assert_eq!(
            lines[1],
            "n1    voter    yes     yes        0         1/4   448/2048 MiB  1    10.77.0.1:7431  ababababab"
        );
        assert_eq!(
            lines[2],
            "n2    witness  -       no, 4 min  -         1/?   448/? MiB     1    10.77.0.1:7431  ababababab"
        );
        assert_eq!(
            lines[3],
            "n3    learner  -       no         snapshot  1/4   448/2048 MiB  1    10.77.0.1:7431  ababababab"
        );
        assert_eq!(
            lines[4],
            "n4    learner  -       yes        1,200     1/4   448/2048 MiB  1    10.77.0.1:7431  ababababab"
        );
        assert!(list(&sample::listing(vec![])).starts_with("no nodes yet"));
    }

    #[test]
    fn a_silent_member_is_said_to_be_silent_before_its_link_is_given_up() {
        let node = |reachable, silent_for_ms, unreachable_for_ms| NodeView {
            reachable,
            silent_for_ms,
            unreachable_for_ms,
            ..sample::node("n2")
        };
        let cases = [
            (node(true, None, None), "yes"),
            (node(true, Some(999), None), "yes"),
            (node(true, Some(1_240), None), "silent for 1.2 s"),
            (node(true, Some(12_000), None), "silent for 12 s"),
            (node(false, Some(12_000), Some(3_000)), "no, 3.0 s"),
            (node(false, None, None), "no"),
        ];
        for (node, words) in cases {
            assert_eq!(reachable(&node), words);
        }
    }

    #[test]
    fn directories_that_nodes_share_are_told_below_the_list() {
        let node = |name, dirs: &[&str]| NodeView {
            shared_dirs: dirs.iter().map(ToString::to_string).collect(),
            ..sample::node(name)
        };
        let text = list(&sample::listing(vec![node("n1", &["/b", "/a"]), node("n2", &["/a"])]));
        assert!(text.ends_with("\n\n/a is shared by n1, n2\n\n/b is shared by n1\n"), "{text}");
    }

    #[test]
    fn a_key_that_two_agents_hold_is_told_with_both_addresses() {
        let at = ["10.77.0.2:7431", "10.77.0.9:7431"].map(|at| at.parse().expect("address"));
        let copied = NodeView { held_twice_at: at.to_vec(), ..sample::node("n2") };
        let text = list(&sample::listing(vec![sample::node("n1"), copied]));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("yes") && lines[2].contains("held twice"), "{text}");
        assert_eq!(
            lines[3..],
            ["", "n2: two agents run with its key at the same time, at 10.77.0.2:7431 and at 10.77.0.9:7431"]
        );
    }
}
