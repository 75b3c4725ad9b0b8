//! How long the steps of a test run took.

use std::cmp::Reverse;
use std::time::Duration;

/// So many of the slowest steps are named at the end.
const SLOWEST: usize = 8;

/// Longer than this, nobody runs it before a merge.
const TOTAL_MAX: Duration = Duration::from_secs(35 * 60);

/// The slowest steps, and how long all of it took.
pub(super) fn times(mut took: Vec<(String, Duration)>, total: Duration) -> String {
    took.sort_by_key(|(_, time)| Reverse(*time));
    let mut text = String::from("the slowest steps:\n");
    for (name, time) in took.iter().take(SLOWEST) {
        text += &format!("{:>7.0} s  {name}\n", time.as_secs_f64());
    }
    let (minutes, most) = (total.as_secs_f64() / 60.0, TOTAL_MAX.as_secs() / 60);
    text += &format!("all of it took {minutes:.0} min\n");
    if total > TOTAL_MAX {
        text += &format!("WARNING: that is more than {most} min: make the slowest steps faster, or fewer\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_steps_stand_first_and_a_slow_run_is_warned_of() {
        let steps = |count: u64| (1..=count).map(|n| (format!("step {n}"), Duration::from_secs(n * 10)));
        let text = times(steps(20).collect(), TOTAL_MAX);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["the slowest steps:", "    200 s  step 20", "    190 s  step 19"]);
        assert_eq!(lines.len(), SLOWEST + 2, "{text}");
        assert_eq!(lines.last(), Some(&"all of it took 35 min"));
        let text = times(steps(2).collect(), TOTAL_MAX + Duration::from_secs(1));
        assert!(
            text.ends_with("WARNING: that is more than 35 min: make the slowest steps faster, or fewer\n")
        );
    }
}
