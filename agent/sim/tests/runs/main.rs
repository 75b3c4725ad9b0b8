//! The simulator itself: the same seed is the same run, in every process; a run does what its options say.

use std::process::Command;

use blixard_sim::{Options, run};

fn hash_in_a_process(seed: u64) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_blixard-sim"))
        .args(["--seed", &seed.to_string(), "--json"])
        .output()
        .expect("runs");
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    report["trace_hash"].as_str().expect("a hash").to_owned()
}

#[test]
fn a_seed_is_the_same_run_in_every_process() {
    for seed in [1, 2, 3] {
        let (one, other) = (hash_in_a_process(seed), hash_in_a_process(seed));
        let here = run(seed, Options::of(seed, None), false);
        assert_eq!(one, other, "seed {seed}");
        assert_eq!(one, format!("{:016x}", here.trace_hash), "seed {seed}");
    }
}

#[test]
fn another_seed_is_another_run() {
    let hash = |seed| run(seed, Options::of(seed, Some(1)), false).trace_hash;
    assert_ne!(hash(1), hash(2));
}

#[test]
fn a_quiet_run_of_each_size_comes_to_rest() {
    for nodes in 1..=5 {
        let options = Options {
            faults: blixard_sim::Faults::default(),
            loss: 0,
            safety_s: 10,
            ..Options::of(7, Some(nodes))
        };
        let report = run(7, options, false);
        assert_eq!(report.violation, None, "{nodes} nodes");
        assert!(report.counts.acknowledged > 0, "{nodes} nodes: {:?}", report.counts);
    }
}
