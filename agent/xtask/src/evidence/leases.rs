//! What leases cost, and how long it takes with them until a VM of a lost node runs elsewhere.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::Value;

use super::object::object;
use crate::place::Place;

/// Faults on three real machines, so many times each.
pub(super) fn failovers(place: &Place, trials: u32) -> Result<String> {
    let told = measured(place, &["measure", "--trials", &trials.to_string()])?;
    failovers_told(&told, trials)
}

/// Clusters with few and with many VMs.
pub(super) fn cost(place: &Place) -> Result<String> {
    cost_told(&measured(place, &["lease-cost"])?)
}

fn measured(place: &Place, words: &[&str]) -> Result<Value> {
    let mut command = place.cargo();
    command.args(["run", "--quiet", "--package", "xtask", "--", "lab"]).args(words).arg("--json");
    // What was promised and not kept is told, and no reason to tell nothing.
    let told = object(&mut command, &[0, 1])?;
    match told["reason"].as_str() {
        Some(reason) => anyhow::bail!("`cargo xtask lab {}` broke off: {reason}", words.join(" ")),
        None => Ok(told),
    }
}

fn failovers_told(told: &Value, trials: u32) -> Result<String> {
    let mut text = format!(
        "\n## VMs of a lost node\n\n\
         `cargo xtask lab measure --trials {trials} --json`: median and most, in milliseconds from the \
         fault; a bare boot takes {}; {} overlaps; load average {}. What is promised and not kept: {}.\n\n\
         | fault | lease | VM gone | guest runs again | its first line | less the bare boot |\n\
         |---|---|---|---|---|---|\n",
        spread(&told["bare_boot_ms"]),
        told["overlaps"],
        load(&told["load"]),
        exceeded(&told["exceeded"]),
    );
    for row in told["measured"].as_array().context("the lab told of no faults")? {
        let columns = ["gone_ms", "runs_ms", "line_ms", "line_less_bare_boot_ms"];
        let columns = columns.map(|column| spread(&row[column])).join(" | ");
        let fault = row["fault"].as_str().context("a fault without a name")?;
        writeln!(text, "| `{fault}` | {} | {columns} |", row["lease_ms"])?;
    }
    Ok(text)
}

fn cost_told(told: &Value) -> Result<String> {
    let mut text = format!(
        "\n## What leases cost\n\n\
         `cargo xtask lab lease-cost --json`, each counted for {} s, of the agent that leads and of the two \
         others: processor time in ms, bytes sent and received, all for each second. VMs are placed and in \
         the lease files, and are not started. A lease of 5 minutes is renewed every 100 s.\n\n\
         | VMs | lease | leader | sent | received | others | sent | received | load |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        told["seconds"],
    );
    for row in told["measured"].as_array().context("the lab told of no counts")? {
        let columns = ["cpu_ms_per_s", "sent_bytes_per_s", "received_bytes_per_s"];
        let leader = columns.map(|column| row["leader"][column].to_string()).join(" | ");
        let others = row["followers"].as_array().context("a cluster without followers")?;
        let others = columns.map(|column| each(others, column)).join(" | ");
        let lease = row["lease"].as_str().context("no lease is named")?;
        writeln!(text, "| {} | {lease} | {leader} | {others} | {:.1} |", row["vms"], number(&row["load"]))?;
    }
    Ok(text)
}

fn each(of: &[Value], column: &str) -> String {
    of.iter().map(|one| one[column].to_string()).collect::<Vec<_>>().join(", ")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn spread(value: &Value) -> String {
    if value.is_null() { "-".to_owned() } else { format!("{}, {}", value["median"], value["most"]) }
}

fn load(value: &Value) -> String {
    format!("{:.1} to {:.1}", number(&value["least"]), number(&value["most"]))
}

fn exceeded(value: &Value) -> String {
    let lines: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if lines.is_empty() { "nothing".to_owned() } else { lines.join("; ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_fault_has_its_row_and_what_was_not_kept_is_told() {
        let times = json!({ "least": 1, "median": 2, "most": 3 });
        let row = json!({ "fault": "leader_crashed", "lease_ms": 10_000, "runs_ms": times, "line_ms": times,
            "line_less_bare_boot_ms": times });
        let told = json!({ "bare_boot_ms": times, "overlaps": 0, "measured": [row],
            "load": { "least": 0.25, "most": 4.0 }, "exceeded": ["leader_crashed, elsewhere: too late"] });
        let text = failovers_told(&told, 5).expect("told");
        assert!(text.ends_with("\n| `leader_crashed` | 10000 | - | 2, 3 | 2, 3 | 2, 3 |\n"), "{text}");
        assert!(text.contains("kept: leader_crashed, elsewhere: too late."), "{text}");
    }

    #[test]
    fn each_count_of_vms_has_its_row() {
        let agent = json!({ "cpu_ms_per_s": 1.5, "sent_bytes_per_s": 20, "received_bytes_per_s": 30 });
        let row = json!({ "vms": 300, "lease": "10s", "leader": agent, "followers": [agent, agent],
            "load": 0.75 });
        let text = cost_told(&json!({ "seconds": 60, "measured": [row] })).expect("told");
        let row = "\n| 300 | 10s | 1.5 | 20 | 30 | 1.5, 1.5 | 20, 20 | 30, 30 | 0.8 |\n";
        assert!(text.ends_with(row), "{text}");
    }
}
