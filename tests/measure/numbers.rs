//! How numbers are computed and printed.

use std::time::Duration;

use serde_json::{Value, json};

/// Prints one line: what was measured, the numbers, and the load and the cores of the machine.
pub(super) fn print(what: &str, numbers: &Value) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split(' ').take(3).collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{}", json!({ "measured": what, "numbers": numbers, "load": load.join(" "), "cores": cores }));
}

/// Milliseconds with two decimals.
pub(super) fn ms(time: Duration) -> f64 {
    two_decimals(time.as_secs_f64() * 1000.0)
}

pub(super) fn two_decimals(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// The minimum, the median, the 99th percentile and the maximum.
pub(super) fn spread(mut times: Vec<Duration>) -> Value {
    times.sort();
    let Some(last) = times.len().checked_sub(1) else { return Value::Null };
    let at = |percent: usize| ms(times[last * percent / 100]);
    json!({ "n": times.len(), "min": at(0), "p50": at(50), "p99": at(99), "max": at(100) })
}

/// The 99th percentile.
pub(super) fn p99(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[(times.len() - 1) * 99 / 100]
}
