//! `blixard status` as a text for people.

use blixard_model::NodeName;
use blixard_model::api::{ChangeView, DisarmedView, LeaseView, NodePhase, RetryView, StatusView, VotersView};

use super::fence;
use super::kit::{NOTHING, TEXT_CHARS_MAX, columns, or_nothing, pairs, short, time, wrapped};
use super::node;

/// `blixard status`.
pub(crate) fn screen(view: &StatusView) -> String {
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
    ];
    // None while no other node could take VMs over.
    rows.extend(view.lease.as_ref().map(|view| ("LEASE", lease(view))));
    rows.push(("AGENT", agent(view)));
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
        text.push_str(&node::that_fit(&view.members));
    }
    let fences = fence::table(view);
    if !fences.is_empty() {
        text.push('\n');
        text.push_str(&fences);
    }
    text
}

/// The release, and the version of the cluster: the two that an upgrade is about.
fn agent(view: &StatusView) -> String {
    match view.cluster_version {
        Some(version) => format!("{} (cluster version {version})", view.version),
        None => view.version.clone(),
    }
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

/// That nobody is failed over, for how long, and whose VMs are not protected by that. One line.
pub(crate) fn disarmed_words(view: &DisarmedView) -> String {
    let nodes: Vec<&str> = view.waits_for.iter().map(NodeName::as_str).collect();
    let late = match nodes.len() {
        0 => String::new(),
        _ => format!("; {} did not acknowledge it yet", nodes.join(", ")),
    };
    let left = time(view.left_ms);
    format!("the cluster is disarmed for {left}: no VM is started elsewhere when its node is lost{late}")
}

/// Whether VMs that may be failed over may run on this node.
fn lease(LeaseView { holds_for_ms, denied }: &LeaseView) -> String {
    const FAILOVER: &str = "VMs that may be failed over";
    match (holds_for_ms, denied) {
        (Some(ms), None) => format!("holds for {}, renewed all the time", time(*ms)),
        (Some(ms), Some(why)) => format!("ends in {}: {why}", time(*ms)),
        (None, Some(why)) => format!("none, so that {FAILOVER} do not run here: {why}"),
        (None, None) => format!("none, so that {FAILOVER} do not run here"),
    }
}

/// What is being changed about the members.
fn changes(all: &[ChangeView]) -> String {
    let rows = all.iter().map(|ChangeView { what, waits_for }| {
        vec![what.clone(), waits_for.clone().unwrap_or_else(|| NOTHING.to_owned())]
    });
    wrapped(&["CHANGES", "WAITS FOR"], rows)
}

/// Where the log ends decides which node a recovery is done on.
fn log(view: &StatusView) -> String {
    let StatusView { term, commit, applied, last_term, last_index, .. } = view;
    format!("term {term}, committed {commit}, applied {applied}, ends at {last_index} of term {last_term}")
}

fn phase(phase: NodePhase) -> &'static str {
    match phase {
        NodePhase::Forming => "forming",
        NodePhase::Joining => "joining",
        NodePhase::Member => "member",
        NodePhase::Removed => "removed from its cluster",
    }
}

/// What failed and is tried again.
fn retries(all: &[RetryView]) -> String {
    let rows = all.iter().map(|retry| {
        let next = |ms| format!("in {}", time(ms));
        vec![
            retry.what.name().to_owned(),
            or_nothing(retry.peer.as_ref()),
            retry.failures.to_string(),
            retry.next_try_in_ms.map_or_else(|| "under way".to_owned(), next),
            short(&retry.last_error, TEXT_CHARS_MAX),
        ]
    });
    columns(&["RETRYING", "PEER", "FAILURES", "NEXT TRY", "LAST ERROR"], rows)
}

#[cfg(test)]
mod tests {
    use blixard_model::api::{NodeView, RetryKind};

    use super::*;
    use crate::sample;

    #[test]
    fn the_members_in_status_are_no_wider_than_what_fits() {
        let widest = |view: &StatusView| screen(view).lines().map(|line| line.chars().count()).max();
        let with = |addresses: u16| {
            let address = |n: u16| format!("192.168.100.{n}:7431").parse().expect("address");
            let long = NodeView { addresses: (1..=addresses).map(address).collect(), ..sample::node("n3") };
            StatusView { members: vec![sample::node("n1"), long], ..sample::status() }
        };
        assert!(screen(&with(1)).contains("ADDRESSES           ENDPOINT"));
        let text = screen(&with(2));
        assert!(text.contains("192.168.100.1:7431,192.168.100.2:7431\n"), "{text}");
        assert!(!text.contains("ADDRESSES                              ENDPOINT"), "{text}");
        let text = screen(&with(8));
        assert!(text.contains("  192.168.100.1:7431 +7\n"), "{text}");
        assert!((1..=8).all(|n| widest(&with(n)) <= Some(110)));
        let list = sample::listing(with(8).members);
        assert!(node::list(&list).contains("192.168.100.8:7431  ababababab\n"), "there it is whole");
    }

    #[test]
    fn the_quorum_is_told_with_how_many_may_be_lost() {
        let of = |has_one, voters: Option<(usize, usize, usize)>| {
            let voters = voters.map(|(reachable, total, needed)| VotersView { total, reachable, needed });
            quorum(&StatusView { quorum: has_one, voters, ..sample::status() })
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
    fn status_shows_whether_vms_that_may_be_failed_over_may_run_here() {
        let shown = |holds_for_ms, denied: Option<&str>| {
            let lease = LeaseView { holds_for_ms, denied: denied.map(str::to_owned) };
            screen(&StatusView { lease: Some(lease), ..sample::status() })
        };
        assert!(!screen(&sample::status()).contains("LEASE"), "it needs none");
        assert!(shown(Some(8_200), None).contains("\nLEASE     holds for 8.2 s, renewed all the time\n"));
        let ends = shown(Some(3_000), Some("the last grants did not reach the node"));
        assert!(ends.contains("ends in 3.0 s: the last grants did not reach the node"), "{ends}");
        assert!(shown(None, None).contains("none, so that VMs that may be failed over do not run here\n"));
    }

    #[test]
    fn status_shows_what_is_being_changed_and_what_it_waits_for() {
        let mut view = sample::status();
        assert!(!screen(&view).contains("CHANGES"));
        view.changes = vec![
            sample::change("n4 is to vote\u{1b}[31m", Some("n4 to catch up: it is 1,200 entries behind")),
            sample::change("n2 lost its store: it is to be admitted anew", None),
            sample::change("n5 is to become a member", Some(&"very ".repeat(30))),
        ];
        let text = screen(&view);
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
        let text = screen(&view);
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
        let text = screen(&view);
        for needle in
            ["none known", "not formed yet", "n3: not reached", "n4 is listed", "no: reads may be old"]
        {
            assert!(text.contains(needle), "{needle}:\n{text}");
        }
    }

    #[test]
    fn status_shows_what_is_tried_again_and_nothing_when_all_is_well() {
        let mut view = sample::status();
        assert!(!screen(&view).contains("RETRYING"));
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
        let text = screen(&view);
        for needle in [
            "\n\nRETRYING  PEER  FAILURES  NEXT TRY   LAST ERROR\n",
            "\nconnect   n3    7         in 2.5 s   no answer^[[31m\n",
            "\nforward   -     7         under way  no answer",
        ] {
            assert!(text.contains(needle), "{needle}:\n{text}");
        }
    }
}
