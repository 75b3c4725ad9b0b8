//! What needs a look, for monitoring. Pure.

use std::time::Duration;

use blixard_model::api::{NodePhase, RetryKind, RetryView, StatusView};
use blixard_model::id::NodeName;
use blixard_model::words::duration;

use crate::show::status::quorum;

/// What fails for longer than this needs a look, in milliseconds.
const RETRYING_MS_MAX: u64 = 60_000;

/// Everything that needs a look, each in words without a line end; nothing when all is well.
pub(crate) fn problems(view: &StatusView) -> Vec<String> {
    let mut problems: Vec<String> = match view.phase {
        NodePhase::Member if view.quorum => Vec::new(),
        NodePhase::Member => vec![format!("quorum: {}", quorum(view))],
        NodePhase::Removed => vec!["this node was removed from its cluster".to_owned()],
        NodePhase::Joining => vec!["this node is admitted and has not got the state yet".to_owned()],
        NodePhase::Forming => vec![format!("no cluster yet, waiting for {}", view.waiting_for.join(", "))],
    };
    problems.extend(view.members.iter().filter_map(|member| {
        let since = member.unreachable_for_ms.map(|ms| format!(" for {}", time(ms))).unwrap_or_default();
        match (member.reachable, member.lost) {
            (true, false) => None,
            (true, true) => Some(format!("{} is lost: the leader does not hear of it", member.name)),
            (false, false) => Some(format!("{} is unreachable{since}", member.name)),
            (false, true) => Some(format!("{} is lost, unreachable{since}", member.name)),
        }
    }));
    problems.extend(view.warnings.iter().cloned());
    problems.extend(view.ticket_problem.iter().map(|problem| format!("no ticket to join with: {problem}")));
    problems.extend(view.retrying.iter().filter(|retry| !is_said(view, retry)).filter_map(|retry| {
        let failing_ms = retry.failing_for_ms.filter(|ms| *ms > RETRYING_MS_MAX)?;
        let peer = retry.peer.as_ref().map(|peer| format!(" {peer}")).unwrap_or_default();
        let (what, why) = (retry.what.name(), &retry.last_error);
        Some(format!("{what}{peer} fails for {}: {why}", time(failing_ms)))
    }));
    problems.iter().map(|problem| problem.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// A member without a link has been named.
fn is_said(view: &StatusView, retry: &RetryView) -> bool {
    let unreachable =
        |peer: &NodeName| view.members.iter().any(|member| member.name == *peer && !member.reachable);
    retry.what == RetryKind::Connect && retry.peer.as_ref().is_some_and(unreachable)
}

fn time(ms: u64) -> String {
    duration(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use blixard_model::api::{NodeView, VotersView};

    use super::*;
    use crate::sample;

    fn retry(failing_for_ms: Option<u64>) -> RetryView {
        RetryView {
            what: RetryKind::Report,
            peer: Some("n2".parse().expect("name")),
            failures: 9,
            next_try_in_ms: None,
            last_error: "no\nanswer".into(),
            failing_for_ms,
        }
    }

    fn with(change: impl FnOnce(&mut StatusView)) -> StatusView {
        let mut view = sample::status();
        change(&mut view);
        view
    }

    #[test]
    fn a_healthy_cluster_has_nothing_to_look_at() {
        assert_eq!(problems(&sample::status()), [""; 0]);
        let changing = with(|view| {
            view.changes = vec![sample::change("n4 is to vote", Some("n4 to catch up"))];
            view.retrying = vec![retry(Some(60_000)), retry(None)];
            view.members[1].behind = None;
        });
        assert_eq!(problems(&changing), [""; 0], "what goes on by itself");
    }

    #[test]
    fn everything_that_needs_a_look_is_named_in_one_line() {
        let n2 = |change: fn(&mut NodeView)| with(|view| change(&mut view.members[1]));
        let cases = [
            (
                with(|view| {
                    view.quorum = false;
                    view.voters = Some(VotersView { total: 3, reachable: 1, needed: 2 });
                }),
                "quorum: no: 1 of 3 voters reachable, 2 needed: reads may be old, writes fail",
            ),
            (n2(|m| m.reachable = false), "n2 is unreachable"),
            (
                n2(|m| {
                    m.reachable = false;
                    m.unreachable_for_ms = Some(240_000);
                }),
                "n2 is unreachable for 4 min",
            ),
            (
                n2(|m| {
                    m.reachable = false;
                    m.lost = true;
                    m.unreachable_for_ms = Some(700_000);
                }),
                "n2 is lost, unreachable for 11 min",
            ),
            (n2(|m| m.lost = true), "n2 is lost: the leader does not hear of it"),
            (with(|view| view.warnings = vec!["one\n two".into()]), "one two"),
            (
                with(|view| view.ticket_problem = Some("it has expired".into())),
                "no ticket to join with: it has expired",
            ),
            (with(|view| view.retrying = vec![retry(Some(300_000))]), "report n2 fails for 5 min: no answer"),
            (with(|view| view.phase = NodePhase::Removed), "this node was removed from its cluster"),
            (
                with(|view| {
                    view.phase = NodePhase::Forming;
                    view.waiting_for = vec!["n2: has not answered".into(), "n3: has not answered".into()];
                }),
                "no cluster yet, waiting for n2: has not answered, n3: has not answered",
            ),
        ];
        for (view, words) in cases {
            assert_eq!(problems(&view), [words]);
        }
    }

    #[test]
    fn a_member_that_can_not_be_reached_is_named_once() {
        let view = with(|view| {
            view.members[1].reachable = false;
            view.retrying = vec![RetryView { what: RetryKind::Connect, ..retry(Some(300_000)) }];
        });
        assert_eq!(problems(&view), ["n2 is unreachable"]);
    }
}
