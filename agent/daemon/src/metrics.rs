//! What is counted where it happens; `scrape` adds what can be looked up.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use blixard_core::formation::WaitClass;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A label and its value.
type Label = [(&'static str, &'static str); 1];

/// Counts since the agent started. Cheap to clone: all clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Rounds of asking everybody while there is no cluster.
    pub(crate) formation_attempts: Counter,
    /// Clusters found or formed from an empty store: at most one.
    pub(crate) formations: Counter,
    /// From the first round to the cluster.
    pub(crate) formation_seconds: Gauge<f64, AtomicU64>,
    /// Elections that this node won.
    pub(crate) elections_won: Counter,
    /// Times another node than before was seen to lead.
    pub(crate) leader_changes: Counter,
    /// Raft messages dropped because the host task was behind.
    pub(crate) inbox_dropped: Counter,
    formation_failures: Family<Label, Counter>,
    turns: Histogram,
    changes: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let formation_failures = Family::<Label, Counter>::default();
        for class in WaitClass::ALL {
            // A series that is there from the beginning shows its first step.
            drop(formation_failures.get_or_create(&[("reason", class.name())]));
        }
        // From 0.1 ms, doubled, up to 3.3 s.
        let buckets = || exponential_buckets(0.0001, 2.0, 16);
        Self {
            formation_attempts: Counter::default(),
            formations: Counter::default(),
            formation_seconds: Gauge::default(),
            elections_won: Counter::default(),
            leader_changes: Counter::default(),
            inbox_dropped: Counter::default(),
            formation_failures,
            turns: Histogram::new(buckets()),
            changes: Histogram::new(buckets()),
        }
    }
}

impl Metrics {
    /// A round did not end in a cluster; each class counts once for all the lines it has.
    pub(crate) fn formation_failed(&self, waiting_for: &[String]) {
        let mut classes: Vec<WaitClass> = waiting_for.iter().map(|line| WaitClass::of(line)).collect();
        classes.sort();
        classes.dedup();
        for class in classes {
            self.formation_failures.get_or_create(&[("reason", class.name())]).inc();
        }
    }

    /// A turn of the host applied something.
    pub(crate) fn turn(&self, took: Duration) {
        self.turns.observe(took.as_secs_f64());
    }

    /// A change that was asked of this node is done.
    pub(crate) fn change(&self, took: Duration) {
        self.changes.observe(took.as_secs_f64());
    }

    /// Shows them in `registry`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let counters = [
            ("formation_attempts", "Rounds of asking everybody", &self.formation_attempts),
            ("formations", "Clusters found or formed from an empty store", &self.formations),
            ("elections_won", "Elections that this node won", &self.elections_won),
            ("leader_changes", "Times another node than before was seen to lead", &self.leader_changes),
            ("inbox_dropped", "Raft messages dropped, the host task was behind", &self.inbox_dropped),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let failures = self.formation_failures.clone();
        registry.register("formation_failures", "Rounds without a cluster, by reason", failures);
        let seconds = self.formation_seconds.clone();
        registry.register("formation_seconds", "From the first round to the cluster", seconds);
        registry.register("apply_seconds", "Turns that applied something", self.turns.clone());
        registry.register("change_seconds", "From a change asked here to its answer", self.changes.clone());
    }
}
