//! What is told of the seeds: for people and as JSON.

use std::fmt::Write as _;

use blixard_sim::disk::{CrashMoment, CrashPoints, Op};
use blixard_sim::{Options, Report};
use serde_json::{Map, Value, json};

use crate::batch::Done;

/// Faults whose medians are told.
const FAULTS: [&str; 13] = [
    "crashes",
    "crashes_in_writes",
    "kills",
    "restarts",
    "partitions",
    "one_way_partitions",
    "pauses",
    "slow_disks",
    "full_disks",
    "lost_disks",
    "rolled_back",
    "lost",
    "duplicated",
];

/// All seeds as one object.
pub(crate) fn json(done: &Done) -> Value {
    let failures: Vec<Value> = done.failures().map(|run| json_of(run.seed, run.nodes, &run.report)).collect();
    json!({
        "seeds": done.runs.len(),
        "start": done.runs.first().map(|run| run.seed),
        "failures": failures,
        "seeds_per_min": per_minute(done),
        "trace_hash": format!("{:016x}", trace_hash(done)),
        "faults": medians(done),
        "crash_points": crash_points(&done.points()),
        "never_happened": done.missed(),
        "totals": totals(done),
    })
}

/// One seed as an object.
pub(crate) fn json_of(seed: u64, nodes: Option<usize>, report: &Report) -> Value {
    let violation = report.violation.as_ref().map(|violation| {
        json!({ "invariant": violation.invariant, "what": violation.what, "at_us": violation.at_us })
    });
    let counts: Map<String, Value> =
        report.counts.numbers().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    json!({
        "seed": seed,
        "trace_hash": format!("{:016x}", report.trace_hash),
        "violation": violation,
        "counts": counts,
        "replay": replay(seed, nodes),
    })
}

/// All seeds for people.
pub(crate) fn text(done: &Done) -> String {
    let mut text = String::new();
    for run in done.failures() {
        let _ = writeln!(text, "{}", text_of(run.seed, run.nodes, &run.report));
    }
    let _ = writeln!(text, "{}", done.points());
    let medians: Vec<String> =
        medians(done).iter().map(|(name, median)| format!("{name} {median}")).collect();
    let _ = writeln!(text, "medians of a seed: {}", medians.join(", "));
    if !done.missed().is_empty() {
        let _ = writeln!(text, "never happened, and should have: {}", done.missed().join(", "));
    }
    let _ = writeln!(
        text,
        "{} seeds from {}, {} failed, {:.0} a minute, trace {:016x}",
        done.runs.len(),
        done.runs.first().map_or(0, |run| run.seed),
        done.failures().count(),
        per_minute(done),
        trace_hash(done)
    );
    text
}

/// One seed for people; what failed with everything that is needed to see it again.
pub(crate) fn text_of(seed: u64, nodes: Option<usize>, report: &Report) -> String {
    let mut text = String::new();
    if let Some(violation) = &report.violation {
        let _ = writeln!(text, "seed {seed} FAILED: {violation}\n{}", Options::of(seed, nodes));
        let _ = writeln!(text, "again: {}", replay(seed, nodes));
        return text;
    }
    let counts: Vec<String> =
        report.counts.numbers().iter().map(|(name, count)| format!("{name} {count}")).collect();
    let _ = writeln!(text, "seed {seed} held, trace {:016x}: {}", report.trace_hash, counts.join(", "));
    text
}

fn replay(seed: u64, nodes: Option<usize>) -> String {
    let nodes = nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
    format!("cargo xtask sim --seed {seed}{nodes} --trace")
}

fn per_minute(done: &Done) -> f64 {
    done.runs.len() as f64 * 60.0 / done.took.as_secs_f64().max(1e-3)
}

fn trace_hash(done: &Done) -> u64 {
    done.runs.iter().fold(0, |hash, run| {
        (hash ^ run.seed ^ run.report.trace_hash).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
    })
}

fn crash_points(points: &CrashPoints) -> Value {
    let cells = Op::ALL.into_iter().flat_map(|op| CrashMoment::ALL.map(|moment| (op, moment)));
    let named = cells
        .filter(|(op, moment)| CrashPoints::exists(*op, *moment))
        .map(|(op, moment)| (format!("{op:?}.{moment:?}"), points.count(op, moment).into()));
    Value::Object(named.collect())
}

fn medians(done: &Done) -> Map<String, Value> {
    let median = |name: &str| {
        let of =
            |report: &Report| report.counts.numbers().into_iter().find(|(n, _)| *n == name).map(|(_, c)| c);
        let mut counts: Vec<u64> = done.runs.iter().filter_map(|run| of(&run.report)).collect();
        counts.sort_unstable();
        counts.get(counts.len() / 2).copied().unwrap_or(0)
    };
    FAULTS.iter().map(|name| ((*name).to_owned(), median(name).into())).collect()
}

fn totals(done: &Done) -> Map<String, Value> {
    let mut totals = Map::new();
    for run in &done.runs {
        for (name, count) in run.report.counts.numbers() {
            let sum = totals.get(name).and_then(Value::as_u64).unwrap_or(0) + count;
            totals.insert(name.to_owned(), sum.into());
        }
    }
    totals
}
