//! The second judge, judged: good histories of two sources are accepted, corrupted ones are refused, and on
//! small ones it says what trying everything says.

mod brute_force;
mod certain;
mod corrupt;
mod generated;
mod reference;

use std::collections::HashSet;

use blixard_sim::judge::{self, History, Judged, Verdict, judge};
use blixard_sim::{Options, SimRng};

/// Judged seeds.
const SEEDS: u64 = 100;
/// Good histories that are made here.
const MADE: u64 = 1_000;
/// Of each kind of corruption.
const EACH_KIND: usize = 200;

fn made(seed: u64) -> History {
    let mut rng = SimRng::new(seed);
    let (clients, operations) = (2 + rng.below(7), 10 + rng.below(40));
    generated::history(&mut rng, clients, operations)
}

fn recorded() -> Vec<Judged> {
    (1..=SEEDS).map(|seed| judge::run(seed, false)).collect()
}

#[test]
fn what_clients_see_of_a_hundred_seeds_is_linearizable() {
    let all = recorded();
    for judged in &all {
        let failed: Vec<String> = judged.failures().map(|(h, verdict)| format!("{verdict}\n{h}")).collect();
        assert!(judged.holds() && judged.report.violation.is_none(), "{}: {failed:?}", judged.seed);
    }
    let histories: Vec<&History> = all.iter().flat_map(|judged| &judged.histories).collect();
    let refuted = histories.iter().filter(|history| certain::contradiction(history).is_some());
    assert_eq!((histories.len(), refuted.count()), (400, 0));
    let operations: usize = all.iter().map(Judged::operations).sum();
    assert!(operations > 6_000, "only {operations} operations");
}

#[test]
fn who_listens_changes_nothing() {
    let mut compared = 0;
    for seed in 1..=10 {
        let judged = judge::run(seed, false);
        let plain = blixard_sim::run(seed, Options::judged(seed), false);
        // A judged run does not wait for the rest as long as another.
        if judged.report.counts.settled_us > 0 {
            assert_eq!(judged.report, plain, "{seed}");
            compared += 1;
        }
    }
    assert!(compared >= 3, "only {compared} came to rest");
}

#[test]
fn a_thousand_good_histories_are_accepted() {
    let mut most_steps = 0;
    for seed in 0..MADE {
        let history = made(seed);
        assert_eq!(certain::contradiction(&history), None, "{seed}\n{history}");
        let verdict = judge(&history);
        let Verdict::Linearizable { steps } = verdict else { panic!("{seed}: {verdict}\n{history}") };
        most_steps = most_steps.max(steps);
    }
    println!("at most {most_steps} steps");
    assert!(most_steps < judge::STEPS_MAX / 4, "{most_steps} steps");
}

#[test]
fn every_corrupted_history_is_refused() {
    let mut good: Vec<History> = (1..=20).flat_map(|seed| judge::run(seed, false).histories).collect();
    let from_runs = good.len();
    good.extend((0..200).map(made));
    let mut rng = SimRng::new(1);
    let (mut of_runs, mut most_steps, mut all) = (0, 0, HashSet::new());
    for (name, corrupt) in corrupt::KINDS {
        let mut refused = 0;
        // Each in its turn, so that both sources are met.
        for _ in 0..200 {
            for (source, history) in good.iter().enumerate() {
                let Some(wrong) = corrupt(history, &mut rng) else { continue };
                if certain::contradiction(&wrong).is_none() || !all.insert(wrong.clone()) {
                    continue;
                }
                let verdict = judge(&wrong);
                let Verdict::Wrong { steps } = verdict else { panic!("{name}: {verdict}\n{wrong}") };
                most_steps = most_steps.max(steps);
                refused += 1;
                of_runs += usize::from(source < from_runs);
                if refused == EACH_KIND {
                    break;
                }
            }
            if refused == EACH_KIND {
                break;
            }
        }
        assert_eq!(refused, EACH_KIND, "{name}");
    }
    assert_eq!(all.len(), 1_200);
    println!("{of_runs} of them were recorded, at most {most_steps} steps");
    assert!(of_runs > 400 && most_steps < judge::STEPS_MAX / 4, "{of_runs} recorded, {most_steps} steps");
}

#[test]
fn on_small_histories_it_says_what_trying_everything_says() {
    let (mut right, mut wrong) = (0, 0);
    for seed in 0..4_000 {
        let mut rng = SimRng::new(seed);
        let clients = 2 + rng.below(2);
        let mut history = generated::history(&mut rng, clients, 6);
        if rng.chance(3, 4) {
            corrupt::any_answer(&mut history, &mut rng);
        }
        let expected = brute_force::is_linearizable(&history);
        assert_eq!(judge(&history).holds(), expected, "{seed}\n{history}");
        *(if expected { &mut right } else { &mut wrong }) += 1;
    }
    assert!(right > 1_000 && wrong > 1_000, "{right} right, {wrong} wrong");
}
