//! Views as text for people. Pure; every text passes through [`clean`].

use std::time::Duration;

use blixard_model::api::{
    ChangeView, Listing, NodePhase, NodeView, RetryView, StatusView, TicketView, VmView, VotersView,
};
use blixard_model::member::Capacity;
use blixard_model::words::{duration, grouped};
use blixard_model::{Role, TicketState};
use comfy_table::{ContentArrangement, Table, presets};

use super::members;
use super::text::clean;

/// Longest reason in a list, in characters; `vm show` has all of it.
const REASON_CHARS_MAX: usize = 60;
/// What stands where there is nothing to say.
const NOTHING: &str = "-";
/// Widest a table of `status` gets where it can be narrower, in characters.
const WIDTH_MAX: u16 = 110;

/// `blixard status`.
pub(crate) fn status(view: &StatusView) -> String {
    let cluster = match &view.cluster_id {
        Some(id) => format!("{} ({id})", view.cluster_name),
        None => format!("{} (not formed yet)", view.cluster_name),
    };
    let mut rows = vec![
        ("NODE", view.node.to_string()),
        ("ENDPOINT", view.endpoint_id.to_string()),
        ("CLUSTER", cluster),
        ("PHASE", phase(view.phase).to_owned()),
        ("LEADER", view.leader.as_ref().map_or_else(|| "none known".to_owned(), ToString::to_string)),
        ("QUORUM", quorum(view)),
        ("LOG", log(view)),
        ("VMS", view.vms.to_string()),
        ("AGENT", view.version.clone()),
    ];
    if !view.waiting_for.is_empty() {
        rows.push(("WAITING FOR", view.waiting_for.join("\n")));
    }
    if !view.warnings.is_empty() {
        rows.push(("WARNINGS", view.warnings.join("\n")));
    }
    let mut text = pairs(rows);
    if !view.changes.is_empty() {
        text.push('\n');
        text.push_str(&changes(&view.changes));
    }
    if !view.retrying.is_empty() {
        text.push('\n');
        text.push_str(&retries(&view.retrying));
    }
    if !view.members.is_empty() {
        text.push('\n');
        text.push_str(&members_that_fit(&view.members));
    }
    text
}

/// Whether there is a quorum, and how far it is from being one more or one less.
pub(crate) fn quorum(view: &StatusView) -> String {
    const WITHOUT: &str = "reads may be old, writes fail";
    let Some(VotersView { total, reachable, needed }) = view.voters else {
        return if view.quorum { "yes".to_owned() } else { format!("no: {WITHOUT}") };
    };
    let voters = format!("{reachable} of {total} voters reachable");
    match (view.quorum, reachable.checked_sub(needed)) {
        (true, Some(0)) => format!("yes: {voters}, none may be lost"),
        (true, Some(spare)) => format!("yes: {voters}, {spare} may be lost"),
        // A node that does not lead may reach fewer than the leader does.
        (true, None) => format!("yes, as the leader says: {voters} from here"),
        (false, Some(_)) => format!("no: {voters} and none of them leads: {WITHOUT}"),
        (false, None) => format!("no: {voters}, {needed} needed: {WITHOUT}"),
    }
}

/// What is being changed about the members.
fn changes(all: &[ChangeView]) -> String {
    let mut table = plain();
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH_MAX);
    table.set_header(["CHANGES", "WAITS FOR"]);
    for ChangeView { what, waits_for } in all {
        table.add_row([clean(what), clean(waits_for.as_deref().unwrap_or(NOTHING))]);
    }
    finish(table)
}

/// Where its log ends is what a recovery chooses a node by.
fn log(view: &StatusView) -> String {
    let StatusView { term, commit, applied, last_term, last_index, .. } = view;
    format!("term {term}, committed {commit}, applied {applied}, ends at {last_index} of term {last_term}")
}

/// `blixard node list`.
pub(crate) fn node_list(list: &Listing<NodeView>) -> String {
    if list.items.is_empty() {
        "no nodes yet: `blixard status` says why\n".to_owned()
    } else {
        nodes(&list.items, Detail::All)
    }
}

/// `blixard cluster ticket list`.
pub(crate) fn tickets(list: &Listing<TicketView>) -> String {
    if list.items.is_empty() {
        return "no tickets\n".to_owned();
    }
    let header = ["ID", "STATE", "ENDS", "FOR NODE", "ADMITTED"];
    let rows = list.items.iter().map(|ticket| {
        let admitted = match &ticket.state {
            TicketState::Used { node, .. } => node.to_string(),
            TicketState::Open | TicketState::Revoked | TicketState::Expired => NOTHING.to_owned(),
        };
        let state = match ticket.state {
            TicketState::Open => "open",
            TicketState::Used { .. } => "used",
            TicketState::Revoked => "revoked",
            TicketState::Expired => "expired",
        };
        vec![
            ticket.id.to_string(),
            state.to_owned(),
            members::left(ticket),
            ticket.name.as_ref().map_or_else(|| "any".to_owned(), ToString::to_string),
            admitted,
        ]
    });
    columns(&header, rows)
}

/// `blixard vm list`.
pub(crate) fn vm_list(list: &Listing<VmView>) -> String {
    if list.items.is_empty() {
        return "no VMs\n".to_owned();
    }
    let header = ["NAME", "STATE", "DESIRED", "NODE", "CPUS", "MEMORY", "PID", "SEEN", "REASON"];
    let rows = list.items.iter().map(|vm| {
        vec![
            vm.name.to_string(),
            vm.state.to_string(),
            vm.desired.to_string(),
            vm.node.to_string(),
            vm.spec.cpus.to_string(),
            format!("{} MiB", vm.spec.memory_mib),
            vm.main_pid.map_or_else(|| NOTHING.to_owned(), |pid| pid.to_string()),
            seen(vm),
            vm.reason.as_deref().map(short).unwrap_or_default(),
        ]
    });
    columns(&header, rows)
}

/// `blixard vm show`.
pub(crate) fn vm(view: &VmView) -> String {
    let spec = &view.spec;
    let disks = spec.disks.iter().map(|disk| match disk.read_only {
        true => format!("{} (read-only)", disk.path),
        false => disk.path.clone(),
    });
    let or_nothing = |text: &str| if text.is_empty() { NOTHING.to_owned() } else { text.to_owned() };
    pairs(vec![
        ("NAME", view.name.to_string()),
        ("STATE", view.state.to_string()),
        ("DESIRED", view.desired.to_string()),
        ("REASON", or_nothing(view.reason.as_deref().unwrap_or_default().trim_end())),
        ("NODE", view.node.to_string()),
        ("PINNED TO", spec.node.as_ref().map_or_else(|| NOTHING.to_owned(), ToString::to_string)),
        ("GENERATION", view.generation.to_string()),
        ("PID", view.main_pid.map_or_else(|| NOTHING.to_owned(), |pid| pid.to_string())),
        ("SEEN", seen(view)),
        ("CPUS", spec.cpus.to_string()),
        ("MEMORY", format!("{} MiB, {} MiB reserved", spec.memory_mib, spec.reserved_memory_mib())),
        ("KERNEL", spec.kernel.clone()),
        ("INITRD", or_nothing(spec.initrd.as_deref().unwrap_or_default())),
        ("CMDLINE", or_nothing(&spec.cmdline)),
        ("DISKS", or_nothing(&disks.collect::<Vec<_>>().join("\n"))),
        ("HYPERVISOR", spec.hypervisor.to_string()),
    ])
}

/// The line for stderr when a list is not what a quorum confirmed.
pub(crate) fn stale_note<T>(list: &Listing<T>) -> Option<String> {
    let Listing { items: _, linearizable, applied } = list;
    (!linearizable)
        .then(|| format!("stale: what this node knows up to log index {applied}; no quorum confirmed it\n"))
}

fn phase(phase: NodePhase) -> &'static str {
    match phase {
        NodePhase::Forming => "forming",
        NodePhase::Joining => "joining",
        NodePhase::Member => "member",
        NodePhase::Removed => "removed from its cluster",
    }
}

/// How much of each member is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    All,
    NoEndpoint,
    FirstAddress,
}

/// The members with as much of each as fits into [`WIDTH_MAX`]; `node list` has the rest.
fn members_that_fit(members: &[NodeView]) -> String {
    let fits = |text: &String| text.lines().all(|line| line.chars().count() <= usize::from(WIDTH_MAX));
    let mut wider = [Detail::All, Detail::NoEndpoint].into_iter().map(|detail| nodes(members, detail));
    wider.find(fits).unwrap_or_else(|| nodes(members, Detail::FirstAddress))
}

fn nodes(nodes: &[NodeView], detail: Detail) -> String {
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
        // A witness is one once it votes.
        Role::Learner => "learner",
    }
}

fn reachable(node: &NodeView) -> String {
    match node.unreachable_for_ms {
        _ if node.reachable => "yes".to_owned(),
        Some(ms) => format!("no, {}", duration(Duration::from_millis(ms))),
        None => "no".to_owned(),
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

/// What failed and is tried again.
fn retries(all: &[RetryView]) -> String {
    let header = ["RETRYING", "PEER", "FAILURES", "NEXT TRY", "LAST ERROR"];
    let next = |ms| format!("in {}", duration(Duration::from_millis(ms)));
    let rows = all.iter().map(|retry| {
        vec![
            retry.what.name().to_owned(),
            retry.peer.as_ref().map_or_else(|| NOTHING.to_owned(), ToString::to_string),
            retry.failures.to_string(),
            retry.next_try_in_ms.map_or_else(|| "under way".to_owned(), next),
            short(&retry.last_error),
        ]
    });
    columns(&header, rows)
}

fn seen(vm: &VmView) -> String {
    let age = |ms| format!("{} ago", duration(Duration::from_millis(ms)));
    vm.observed_age_ms.map_or_else(|| NOTHING.to_owned(), age)
}

/// The first line of a reason, cut for a list.
fn short(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    if line.chars().count() <= REASON_CHARS_MAX {
        return line.to_owned();
    }
    line.chars().take(REASON_CHARS_MAX - 1).chain(['…']).collect()
}

fn columns(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = plain();
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)).collect::<Vec<_>>());
    }
    finish(table)
}

fn pairs(rows: Vec<(&str, String)>) -> String {
    let mut table = plain();
    for (name, value) in rows {
        table.add_row(vec![name.to_owned(), clean(&value)]);
    }
    finish(table)
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn finish(mut table: Table) -> String {
    table.discover_columns();
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use blixard_model::api::RetryKind;
    use blixard_model::report::ObservedState;
    use blixard_model::vm::Desired;

    use super::*;
    use crate::sample;

    #[test]
    fn a_list_of_vms_is_aligned_and_plain() {
        let failed = VmView {
            state: ObservedState::Failed,
            main_pid: None,
            observed_age_ms: None,
            reason: Some(format!("exited 1: {}\nmore", "x".repeat(80))),
            ..sample::vm("a-longer-name")
        };
        let text = vm_list(&sample::listing(vec![sample::vm("web"), failed]));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0], "NAME           STATE    DESIRED  NODE  CPUS  MEMORY   PID   SEEN       REASON");
        assert_eq!(lines[1], "web            running  running  n1    1     256 MiB  4312  0.4 s ago");
        assert!(lines[2].starts_with(
            "a-longer-name  failed   running  n1    1     256 MiB  -     -          exited 1: x"
        ));
        assert!(lines[2].ends_with("x…"), "{text}");
    }

    #[test]
    fn empty_lists_say_so() {
        assert_eq!(vm_list(&sample::listing(vec![])), "no VMs\n");
        assert!(node_list(&sample::listing(vec![])).starts_with("no nodes yet"));
    }

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
        let text = node_list(&sample::listing(vec![leader, gone, sent, late]));
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
    }

    #[test]
    fn the_members_in_status_are_no_wider_than_what_fits() {
        let widest = |view: &StatusView| status(view).lines().map(|line| line.chars().count()).max();
        let with = |addresses: u16| {
            let address = |n: u16| format!("192.168.100.{n}:7431").parse().expect("address");
            let long = NodeView { addresses: (1..=addresses).map(address).collect(), ..sample::node("n3") };
            StatusView { members: vec![sample::node("n1"), long], ..sample::status() }
        };
        assert!(status(&with(1)).contains("ADDRESSES           ENDPOINT"));
        let text = status(&with(2));
        assert!(text.contains("192.168.100.1:7431,192.168.100.2:7431\n"), "{text}");
        assert!(!text.contains("ADDRESSES                              ENDPOINT"), "{text}");
        let text = status(&with(8));
        assert!(text.contains("  192.168.100.1:7431 +7\n"), "{text}");
        assert!((1..=8).all(|n| widest(&with(n)) <= Some(110)));
        let list = sample::listing(with(8).members);
        assert!(node_list(&list).contains("192.168.100.8:7431  ababababab\n"), "there it is whole");
    }

    #[test]
    fn the_quorum_is_told_with_how_many_may_be_lost() {
        let of = |quorum, voters: Option<(usize, usize, usize)>| {
            let voters = voters.map(|(reachable, total, needed)| VotersView { total, reachable, needed });
            super::quorum(&StatusView { quorum, voters, ..sample::status() })
        };
        let cases = [
            (true, Some((3, 3, 2)), "yes: 3 of 3 voters reachable, 1 may be lost"),
            (true, Some((5, 5, 3)), "yes: 5 of 5 voters reachable, 2 may be lost"),
            (true, Some((2, 3, 2)), "yes: 2 of 3 voters reachable, none may be lost"),
            (true, Some((1, 1, 1)), "yes: 1 of 1 voters reachable, none may be lost"),
            (true, Some((1, 3, 2)), "yes, as the leader says: 1 of 3 voters reachable from here"),
            (false, Some((1, 3, 2)), "no: 1 of 3 voters reachable, 2 needed: reads may be old, writes fail"),
            (
                false,
                Some((2, 3, 2)),
                "no: 2 of 3 voters reachable and none of them leads: reads may be old, writes fail",
            ),
            (false, None, "no: reads may be old, writes fail"),
            (true, None, "yes"),
        ];
        for (quorum, voters, words) in cases {
            assert_eq!(of(quorum, voters), words);
        }
    }

    #[test]
    fn status_shows_what_is_being_changed_and_what_it_waits_for() {
        let mut view = sample::status();
        assert!(!status(&view).contains("CHANGES"));
        view.changes = vec![
            sample::change("n4 is to vote\u{1b}[31m", Some("n4 to catch up: it is 1,200 entries behind")),
            sample::change("n2 lost its store: it is to be admitted anew", None),
            sample::change("n5 is to become a member", Some(&"very ".repeat(30))),
        ];
        let text = status(&view);
        for needle in [
            "\n\nCHANGES                                       WAITS FOR\n",
            "\nn4 is to vote^[[31m                           n4 to catch up: it is 1,200 entries behind\n",
            "\nn2 lost its store: it is to be admitted anew  -\n",
            "\n\nNAME",
        ] {
            assert!(text.contains(needle), "{needle}:\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    }

    #[test]
    fn status_shows_the_cluster_and_what_is_wrong() {
        let mut view = sample::status();
        let text = status(&view);
        for needle in
            ["LEADER    n2", "QUORUM    yes: 2 of 2 voters reachable", "PHASE     member", "\n\nNAME  ROLE"]
        {
            assert!(text.contains(needle), "{needle}:\n{text}");
        }
        assert!(!text.contains("WARNINGS"), "{text}");
        view.quorum = false;
        view.voters = None;
        view.leader = None;
        view.phase = NodePhase::Forming;
        view.cluster_id = None;
        view.members.clear();
        view.waiting_for = vec!["n2: not reached".into(), "n3: not reached".into()];
        view.warnings = vec!["n4 is listed but no member".into()];
        let text = status(&view);
        for needle in
            ["none known", "not formed yet", "n3: not reached", "n4 is listed", "no: reads may be old"]
        {
            assert!(text.contains(needle), "{needle}:\n{text}");
        }
    }

    #[test]
    fn status_shows_what_is_tried_again_and_nothing_when_all_is_well() {
        let mut view = sample::status();
        assert!(!status(&view).contains("RETRYING"));
        let retry = |what, peer: Option<&str>, next_try_in_ms| RetryView {
            what,
            peer: peer.map(|name| name.parse().expect("name")),
            failures: 7,
            next_try_in_ms,
            last_error: "no answer\u{1b}[31m".into(),
            failing_for_ms: None,
        };
        view.retrying =
            vec![retry(RetryKind::Connect, Some("n3"), Some(2_500)), retry(RetryKind::Forward, None, None)];
        let text = status(&view);
        for needle in [
            "\n\nRETRYING  PEER  FAILURES  NEXT TRY   LAST ERROR\n",
            "\nconnect   n3    7         in 2.5 s   no answer^[[31m\n",
            "\nforward   -     7         under way  no answer",
        ] {
            assert!(text.contains(needle), "{needle}:\n{text}");
        }
    }

    #[test]
    fn show_has_everything_and_is_not_steered_by_the_guest() {
        let view = VmView {
            desired: Desired::Stopped,
            reason: Some("exited 1: oops\n\u{1b}[31mred\n".into()),
            ..sample::vm("web")
        };
        let text = vm(&view);
        for needle in
            ["DESIRED     stopped", "REASON      exited 1: oops\n            ^[[31mred\n", "448 MiB reserved"]
        {
            assert!(text.contains(needle), "{needle}:\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert!(text.lines().all(|line| line == line.trim_end()), "no trailing blanks:\n{text}");
    }

    #[test]
    fn only_a_list_without_a_quorum_is_called_stale() {
        let mut list = sample::listing(vec![sample::vm("web")]);
        assert_eq!(stale_note(&list), None);
        list.linearizable = false;
        assert!(stale_note(&list).is_some_and(|note| note.starts_with("stale: ") && note.contains("17")));
    }
}
