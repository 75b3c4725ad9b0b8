//! How often a node without a cluster asks the others.

use std::collections::BTreeMap;

use blixard_model::EndpointId;
use blixard_model::formation::{Identity, Phase};
use blixard_node::forming::{FORM, Formed, Pace};

use crate::group::{declared, endpoint, genesis, identity, store};

type Answers = BTreeMap<EndpointId, Identity>;

/// The nodes that answered, all with empty stores and without a promise.
fn answers(of: &[u8]) -> Answers {
    of.iter().map(|n| (endpoint(*n), empty(*n))).collect()
}

fn empty(n: u8) -> Identity {
    identity(n, store(n), Phase::Empty { promise: None })
}

fn missing(of: &[u8]) -> Formed {
    Formed::Waiting(of.iter().map(|n| format!("n{n}: has not answered")).collect())
}

/// One round that takes no time, when it is due. Returns the pause after it.
fn round(pace: &mut Pace, now_ms: &mut u64, answers: &Answers, formed: &Formed) -> u64 {
    *now_ms = (*now_ms).max(pace.due_ms().expect("no round is under way"));
    pace.begin();
    assert_eq!(pace.due_ms(), None, "a round is under way");
    pace.end(*now_ms, answers, formed);
    pace.due_ms().expect("it ended") - *now_ms
}

/// A pace that has come to its longest pauses while node 3 is missing.
fn slow(now_ms: &mut u64) -> Pace {
    let mut pace = Pace::new(7);
    for _ in 0..9 {
        round(&mut pace, now_ms, &answers(&[2]), &missing(&[3]));
    }
    assert!(pace.due_ms().expect("waits") - *now_ms >= FORM.longest_ms / 2);
    pace
}

#[test]
fn it_begins_at_once_and_fast_and_grows_to_a_bound_with_jitter() {
    let most = [300, 300, 600, 1_000, 1_000, 1_000, 1_000];
    let mut firsts = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut pace = Pace::new(seed);
        assert_eq!(pace.due_ms(), Some(0));
        let mut now = 0;
        let pauses = most.map(|_| round(&mut pace, &mut now, &answers(&[2]), &missing(&[3])));
        for (pause, most) in pauses.iter().zip(most) {
            assert!((most / 2..=most).contains(pause), "seed {seed}: {pauses:?}");
        }
        firsts.insert(pauses[0]);
        (0..100).for_each(|_| {
            let pause = round(&mut pace, &mut now, &answers(&[2]), &missing(&[3]));
            assert!((500..=1_000).contains(&pause), "seed {seed}: {pause}");
        });
    }
    assert!(firsts.len() > 60, "no jitter: {firsts:?}");
}

#[test]
fn another_reason_or_a_promise_makes_it_fast_again() {
    for formed in [missing(&[2, 3]), missing(&[]), Formed::Promised(genesis(3))] {
        let mut now = 1_000;
        let mut pace = slow(&mut now);
        let pause = round(&mut pace, &mut now, &answers(&[]), &formed);
        assert!(pause <= FORM.first_ms, "{pause} after {formed:?}");
    }
}

#[test]
fn a_link_that_comes_up_makes_it_fast_and_saying_so_often_no_faster() {
    let mut now = 1_000;
    let mut pace = slow(&mut now);
    pace.hurry();
    let due = pace.due_ms().expect("waits");
    assert!((now + FORM.first_ms / 2..=now + FORM.first_ms).contains(&due), "{due} at {now}");
    (0..100).for_each(|_| pace.hurry());
    assert_eq!(pace.due_ms(), Some(due));
}

#[test]
fn what_comes_during_a_round_makes_the_next_round_as_soon_as_what_comes_after_it() {
    let slow_at = |seed: u64| {
        let (mut pace, mut now) = (Pace::new(seed), 0);
        (0..9).for_each(|_| _ = round(&mut pace, &mut now, &answers(&[2]), &missing(&[3])));
        (pace, now)
    };
    let next_two = |mut pace: Pace, mut now: u64| {
        let next = pace.due_ms().expect("waits") - now;
        [next, round(&mut pace, &mut now, &answers(&[2]), &missing(&[3]))]
    };
    for seed in 0..50 {
        let (mut pace, now) = slow_at(seed);
        pace.begin();
        pace.hurry();
        pace.end(now + 2_000, &answers(&[2]), &missing(&[3]));
        let during = next_two(pace, now + 2_000);
        let (mut pace, now) = slow_at(seed);
        pace.begin();
        pace.end(now + 2_000, &answers(&[2]), &missing(&[3]));
        pace.hurry();
        assert_eq!(during, next_two(pace, now + 2_000), "seed {seed}");
    }
}

#[test]
fn a_declared_node_that_asks_and_says_something_new_makes_it_fast() {
    let promised = identity(2, store(2), Phase::Empty { promise: Some(genesis(3)) });
    for (asker, is_news, why) in [
        (empty(3), true, "it did not answer"),
        (identity(2, store(9), Phase::Empty { promise: None }), true, "it has another store"),
        (promised, true, "it has promised"),
        (empty(2), false, "it says what it answered"),
        (empty(4), false, "it is not declared"),
    ] {
        let mut now = 1_000;
        let mut pace = slow(&mut now);
        pace.heard(&declared(3), &asker);
        let soon = pace.due_ms().is_some_and(|due| due <= now + FORM.first_ms);
        assert_eq!(soon, is_news, "{why}");
    }
}

/// Two nodes ask each other and wait for node 3, for this long. Returns when they began their rounds.
fn two_wait_for_a_third(length_ms: u64) -> ([Pace; 2], [Vec<u64>; 2]) {
    let mut paces = [Pace::new(1), Pace::new(2)];
    let mut rounds = [Vec::new(), Vec::new()];
    loop {
        let due = |n: usize| paces[n].due_ms().expect("waits");
        let n = usize::from(due(1) < due(0));
        let now = due(n);
        if now > length_ms {
            return (paces, rounds);
        }
        rounds[n].push(now);
        let (asks, hears) = ([1, 2][n], [2, 1][n]);
        paces[n].begin();
        paces[1 - n].heard(&declared(3), &empty(asks));
        paces[n].end(now, &answers(&[hears]), &missing(&[3]));
    }
}

#[test]
fn two_that_wait_for_a_third_do_not_keep_each_other_awake_and_hear_it_when_it_comes() {
    let (mut paces, rounds) = two_wait_for_a_third(60_000);
    for rounds in &rounds {
        assert!((60..=124).contains(&rounds.len()), "{rounds:?}");
    }
    for pace in &mut paces {
        pace.heard(&declared(3), &empty(3));
        assert!(pace.due_ms().is_some_and(|due| due <= 60_000 + FORM.first_ms), "{pace:?}");
    }
}

#[test]
fn it_shows_how_often_it_failed_and_for_what_until_it_comes_on() {
    let mut pace = Pace::new(7);
    assert_eq!(pace.trouble(), None);
    let mut now = 0;
    for n in 1..=3 {
        round(&mut pace, &mut now, &answers(&[2]), &missing(&[3]));
        let (failures, waiting_for) = pace.trouble().expect("it waits");
        assert_eq!((failures, waiting_for), (n, &["n3: has not answered".to_owned()][..]));
    }
    round(&mut pace, &mut now, &answers(&[]), &missing(&[2, 3]));
    pace.hurry();
    assert_eq!(pace.trouble().map(|(failures, of)| (failures, of.len())), Some((4, 2)), "changed, not over");
    round(&mut pace, &mut now, &answers(&[2, 3]), &Formed::Promised(genesis(3)));
    assert_eq!(pace.trouble(), None);
}
