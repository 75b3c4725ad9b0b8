//! Every way of a write through its state drawing.

use blixard_consensus::RaftRole;
use blixard_model::{AskOutcome, Outcome, RaftId};
use blixard_node::{AttemptEnd, NO_LEADER_PATIENCE_MS, Step, Submission, SubmitError, Summary};

use crate::group::{create, endpoint, name};

const DEADLINE_MS: u64 = 60_000;
/// The pauses after the first failures, without jitter, in milliseconds.
const PAUSES_MS: [u64; 7] = [50, 100, 200, 400, 800, 1_000, 1_000];

fn submission() -> Submission {
    Submission::new(create("a", None), DEADLINE_MS, 7)
}

/// What node 1 knows: who leads, in which term.
fn led_by(leader: Option<u8>, term: u64) -> Summary {
    Summary {
        joinable: false,
        raft_id: RaftId(1),
        role: RaftRole::Follower,
        leads: leader == Some(1),
        leader: leader.map(|n| (name(n), endpoint(n))),
        term,
        applied: 1,
        is_member: true,
        membership_version: 1,
    }
}

fn next(submission: &mut Submission, now_ms: u64, summary: &Summary) -> Step {
    submission.next(now_ms, endpoint(1), summary)
}

fn forward(to: u8, now_ms: u64) -> Step {
    forward_for(to, (DEADLINE_MS - now_ms).min(5_000))
}

fn forward_for(to: u8, patience_ms: u64) -> Step {
    Step::Forward { leader: name(to), endpoint_id: endpoint(to), patience_ms }
}

fn rejected(why: &str) -> AttemptEnd {
    AttemptEnd::NotTaken { why: why.to_owned() }
}

fn unknown(why: &str) -> AttemptEnd {
    AttemptEnd::Unknown { why: why.to_owned() }
}

#[test]
fn the_leader_is_asked_and_its_answer_is_the_end() {
    for (leader, asked) in [(1, Step::Propose { patience_ms: DEADLINE_MS - 10 }), (2, forward(2, 10))] {
        let mut s = submission();
        assert_eq!(next(&mut s, 10, &led_by(Some(leader), 1)), asked);
        let outcome = AskOutcome::from(Outcome::done(Some(name(3))));
        s.note(20, AttemptEnd::Decided(outcome.clone()));
        // Whatever the cluster looks like, and however late it is.
        for (now_ms, summary) in [(20, led_by(None, 2)), (DEADLINE_MS + 1, led_by(Some(2), 1))] {
            assert_eq!(next(&mut s, now_ms, &summary), Step::Done(Ok(outcome.clone())));
        }
    }
}

#[test]
fn without_a_leader_it_waits_and_then_nothing_was_done() {
    let mut s = submission();
    let limit = 1_000 + NO_LEADER_PATIENCE_MS;
    assert_eq!(next(&mut s, 1_000, &led_by(None, 1)), Step::Wait { until_ms: limit });
    assert_eq!(next(&mut s, limit - 1, &led_by(None, 2)), Step::Wait { until_ms: limit });
    let Step::Done(Err(SubmitError::Unavailable(why))) = next(&mut s, limit, &led_by(None, 2)) else {
        panic!("it goes on without a leader")
    };
    assert!(why.contains("no quorum"), "{why}");
}

#[test]
fn a_leader_in_between_begins_the_patience_anew() {
    let mut s = submission();
    next(&mut s, 0, &led_by(None, 1));
    assert_eq!(next(&mut s, 4_000, &led_by(Some(2), 2)), forward(2, 4_000));
    s.note(4_100, AttemptEnd::NotLeader { leader: None });
    let until_ms = 4_200 + NO_LEADER_PATIENCE_MS;
    assert_eq!(next(&mut s, 4_200, &led_by(None, 2)), Step::Wait { until_ms });
}

#[test]
fn without_a_leader_what_may_have_reached_somebody_is_not_known() {
    let mut s = submission();
    next(&mut s, 0, &led_by(Some(2), 1));
    s.note(10, unknown("the link was lost"));
    next(&mut s, 20, &led_by(None, 2));
    let Step::Done(Err(SubmitError::Unknown(why))) =
        next(&mut s, 20 + NO_LEADER_PATIENCE_MS, &led_by(None, 2))
    else {
        panic!("it claims to know")
    };
    assert!(why.starts_with("the link was lost; then: no quorum"), "{why}");
}

#[test]
fn what_was_unknown_once_stays_so_until_it_is_applied() {
    let mut s = submission();
    next(&mut s, 0, &led_by(Some(2), 1));
    s.note(10, unknown("the link was lost"));
    next(&mut s, 2_000, &led_by(Some(2), 1));
    s.note(2_010, rejected("too many requests"));
    let wanted = SubmitError::Unknown("the link was lost; then: too many requests".to_owned());
    assert_eq!(next(&mut s, DEADLINE_MS, &led_by(Some(2), 1)), Step::Done(Err(wanted)));
    s.note(DEADLINE_MS, AttemptEnd::Decided(Outcome::done(None).into()));
    assert_eq!(next(&mut s, DEADLINE_MS, &led_by(None, 1)), Step::Done(Ok(Outcome::done(None).into())));
}

#[test]
fn at_the_deadline_it_ends_with_the_last_reason() {
    let mut s = submission();
    let said = |why: &str| Step::Done(Err(SubmitError::Unavailable(why.to_owned())));
    assert_eq!(next(&mut s, DEADLINE_MS, &led_by(Some(2), 1)), said("there was no time"));
    let mut s = submission();
    next(&mut s, 0, &led_by(Some(2), 1));
    s.note(10, rejected("too many requests"));
    assert_eq!(next(&mut s, DEADLINE_MS, &led_by(Some(2), 1)), said("too many requests"));
    // No wait goes past it.
    let mut s = submission();
    let late = DEADLINE_MS - 20;
    assert_eq!(next(&mut s, late, &led_by(None, 1)), Step::Wait { until_ms: DEADLINE_MS });
    next(&mut s, late, &led_by(Some(2), 1));
    s.note(late, rejected("too many requests"));
    assert_eq!(next(&mut s, late, &led_by(Some(2), 1)), Step::Wait { until_ms: DEADLINE_MS });
}

#[test]
fn the_same_leader_is_asked_again_only_after_the_pause() {
    let (mut s, summary, mut now_ms) = (submission(), led_by(Some(2), 1), 0);
    for (n, most) in PAUSES_MS.into_iter().enumerate() {
        assert_eq!(next(&mut s, now_ms, &summary), forward(2, now_ms));
        s.note(now_ms, rejected("too many requests"));
        let Step::Wait { until_ms } = next(&mut s, now_ms, &summary) else { panic!("no pause") };
        let pause = until_ms - now_ms;
        assert!((most / 2..=most).contains(&pause), "{pause} after failure {n}");
        assert_eq!(next(&mut s, until_ms - 1, &summary), Step::Wait { until_ms });
        now_ms = until_ms;
    }
    assert_eq!(s.failures(), (7, "too many requests"));
}

#[test]
fn what_is_not_answered_is_asked_again_with_more_patience_each_time() {
    let (mut s, summary, mut now_ms) = (submission(), led_by(Some(2), 1), 0);
    let mut asked = Vec::new();
    loop {
        match next(&mut s, now_ms, &summary) {
            Step::Forward { patience_ms, .. } => {
                asked.push(patience_ms);
                now_ms += patience_ms;
                s.note(now_ms, unknown("it was not answered in time"));
            }
            Step::Wait { until_ms } => now_ms = until_ms,
            end => {
                let why = "it was not answered in time".to_owned();
                assert_eq!(end, Step::Done(Err(SubmitError::Unknown(why))));
                break;
            }
        }
    }
    assert_eq!(asked[..3], [5_000, 10_000, 20_000], "{asked:?}");
    assert!(asked.len() == 4 && now_ms == DEADLINE_MS, "the last gets what is left: {asked:?} at {now_ms}");
    // Another leader is asked with no more patience than the first.
    let mut s = submission();
    next(&mut s, 0, &summary);
    s.note(5_000, unknown("it was not answered in time"));
    assert_eq!(next(&mut s, 5_000, &led_by(Some(3), 2)), forward_for(3, 5_000));
}

#[test]
fn those_who_fail_together_do_not_come_back_together() {
    let pause = |seed| {
        let mut s = Submission::new(create("a", None), DEADLINE_MS, seed);
        s.note(0, rejected("x"));
        next(&mut s, 0, &led_by(Some(2), 1));
        s.note(0, rejected("x"));
        s.note(0, rejected("x"));
        s.note(0, rejected("x"));
        match next(&mut s, 0, &led_by(Some(2), 1)) {
            Step::Wait { until_ms } => until_ms,
            step => panic!("{step:?}"),
        }
    };
    let pauses: std::collections::BTreeSet<u64> = (0..50).map(pause).collect();
    assert!(pauses.len() > 20, "{pauses:?}");
    assert_eq!(pause(3), pause(3), "the same inputs give the same run");
}

#[test]
fn another_leader_or_term_is_asked_at_once() {
    let mut s = submission();
    next(&mut s, 0, &led_by(Some(2), 1));
    s.note(10, AttemptEnd::NotLeader { leader: None });
    assert!(matches!(next(&mut s, 11, &led_by(Some(2), 1)), Step::Wait { .. }));
    assert_eq!(next(&mut s, 11, &led_by(Some(3), 2)), forward(3, 11));
    s.note(12, AttemptEnd::NotLeader { leader: None });
    assert!(matches!(next(&mut s, 13, &led_by(Some(3), 2)), Step::Wait { .. }));
    assert_eq!(next(&mut s, 13, &led_by(Some(3), 3)), forward(3, 13), "it won another election");
}

#[test]
fn a_leader_that_was_replaced_is_not_waited_for() {
    let mut s = submission();
    assert!(!s.is_replaced(&led_by(Some(3), 9)), "nobody was asked");
    next(&mut s, 0, &led_by(Some(2), 4));
    for (summary, replaced) in [
        (led_by(Some(2), 4), false),
        (led_by(Some(2), 5), false),
        (led_by(None, 5), false),
        (led_by(Some(3), 4), false),
        (led_by(Some(3), 5), true),
    ] {
        assert_eq!(s.is_replaced(&summary), replaced, "{summary:?}");
    }
    s.note_replaced(10);
    assert_eq!(next(&mut s, 10, &led_by(Some(3), 5)), forward(3, 10));
    // It may have reached the one before.
    let end = next(&mut s, DEADLINE_MS, &led_by(None, 6));
    assert!(matches!(&end, Step::Done(Err(SubmitError::Unknown(_)))), "{end:?}");
}

#[test]
fn what_its_agent_can_not_go_on_with_is_unknown_if_it_may_have_reached_somebody() {
    let summary = led_by(Some(2), 3);
    let mut submission = submission();
    assert!(matches!(submission.abandoned("stopping"), SubmitError::Unavailable(_)));
    assert_eq!(next(&mut submission, 0, &summary), forward(2, 0));
    submission.note(10, unknown("the link was lost"));
    assert!(matches!(submission.abandoned("stopping"), SubmitError::Unknown(_)));
}
