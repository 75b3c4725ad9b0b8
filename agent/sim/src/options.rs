//! What a seed's run is like: chosen from the seed, each kind of fault in a part of the runs only, so that no
//! fault hides another.

use std::fmt;

use blixard_consensus::Limits;
use blixard_model::LeaseTerms;

use crate::SimRng;

/// Everything that differs between two runs, beside chance itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How many machines there are.
    pub nodes: usize,
    /// The last machine is listed and started late.
    pub late_member: bool,
    /// An operator adds machines with tickets, removes some, and replaces those that are dead for good.
    pub churn: bool,
    /// Machines that are on no list, for the operator to add.
    pub spares: usize,
    /// The last listed machine is a witness.
    pub witness: bool,
    /// Every second machine begins with an older release, and is upgraded in the course of the run.
    pub old_releases: bool,
    /// Clients that write and read.
    pub clients: usize,
    /// Names that they use: few, so that they meet.
    pub names: usize,
    /// A client's pause between two operations, in ms.
    pub think_ms: u64,
    /// The phase in which things go wrong, in simulated seconds.
    pub safety_s: u64,
    /// The time in which everything must have come to rest after that, in simulated seconds.
    pub liveness_s: u64,
    /// Messages lost, of 1,000.
    pub loss: u64,
    /// Messages that arrive twice, of 1,000.
    pub duplication: u64,
    /// Least delay of a message, in µs.
    pub delay_min_us: u64,
    /// What is added to it at random, in µs: messages overtake each other.
    pub delay_spread_us: u64,
    /// Messages delayed much longer, of 1,000.
    pub stragglers: u64,
    /// Faults come this often on average, in ms.
    pub fault_ms: u64,
    /// Until there is a cluster they come eight times as often.
    pub hard_birth: bool,
    /// Which faults come.
    pub faults: Faults,
    /// A sync of the disk takes up to this long, in µs.
    pub sync_us: u64,
    /// Clocks run up to this much too fast or slow, in parts per million.
    pub drift_ppm: u64,
    /// When the log is cut.
    pub limits: Limits,
    /// After how many ticks without a word a voter is replaced.
    pub voter_lost_ticks: u64,
    /// One machine stays cut off in one direction when everything else is mended.
    pub lasting_cut: bool,
    /// Starts of a VM that fail, of 1,000.
    pub start_failures: u64,
    /// Some VMs may be taken over by other machines. Clocks are no worse then than leases allow.
    pub failover: bool,
    /// Supervisors stand still, and the files that they read are lost, old, or cannot be written.
    pub supervisor_faults: bool,
    /// One of the machines is copied, and both run for a while.
    pub node_copies: bool,
    /// Agents that end in order announce long leases.
    pub holds: bool,
    /// An operator disarms the cluster, arms it, and chooses other terms of leases.
    pub lease_operator: bool,
    /// How long leases hold, until an operator chooses other terms.
    pub lease_terms: LeaseTerms,
    /// Machines offer more or less when their agents start again, and move to other addresses.
    pub offers_change: bool,
}

/// Kinds of faults, each on or off for a whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Power loss, half of them between a write and its sync.
    pub power: bool,
    /// kill -9 of an agent.
    pub kill: bool,
    /// Partitions that cut both directions.
    pub partition: bool,
    /// Partitions that cut one direction.
    pub one_way: bool,
    /// Agents that stand still for a while.
    pub pause: bool,
    /// Clocks that jump ahead, as after a suspend.
    pub clock_jump: bool,
    /// Syncs that take seconds.
    pub slow_disk: bool,
    /// No space left.
    pub disk_full: bool,
    /// The disk fails; its content counts as lost.
    pub disk_error: bool,
    /// A disk is exchanged for an empty one.
    pub wipe: bool,
    /// An older copy is put in a disk's place.
    pub roll_back: bool,
    /// Guests that end by themselves.
    pub guest_ends: bool,
    /// Agents restarted by the operator, as after an upgrade.
    pub restart: bool,
    /// The agent's directory is lost, and the guests go on.
    pub lost_store: bool,
    /// Units that somebody starts by hand.
    pub stranger: bool,
    /// Machines that are suspended, with their guests, and wake up again.
    pub sleep: bool,
}

impl Options {
    /// The options of a seed, with a number of machines other than the seed's own if one is given.
    pub fn of(seed: u64, nodes: Option<usize>) -> Self {
        let mut rng = SimRng::new(seed ^ 0x6f70_7469_6f6e_7321);
        // What was added since is drawn from numbers of its own: the other options of a seed stay what they
        // are.
        let mut later = SimRng::new(seed ^ 0x6c61_7465_7220_6f6e);
        let drawn = [1, 2, 3, 3, 3, 3, 4, 5, 5, 5][below(&mut rng, 10)];
        let nodes = nodes.unwrap_or(drawn);
        let often = |rng: &mut SimRng| rng.chance(1, 2);
        let faults = Faults {
            power: rng.chance(4, 5),
            kill: often(&mut rng),
            partition: rng.chance(3, 4),
            one_way: rng.chance(2, 3),
            pause: often(&mut rng),
            clock_jump: rng.chance(1, 4),
            slow_disk: rng.chance(1, 4),
            disk_full: rng.chance(1, 4),
            disk_error: rng.chance(1, 5),
            wipe: rng.chance(1, 4),
            roll_back: rng.chance(1, 5),
            guest_ends: often(&mut rng),
            restart: rng.chance(1, 3),
            lost_store: rng.chance(1, 5),
            stranger: rng.chance(1, 5),
            sleep: later.chance(1, 4),
        };
        let lossy = often(&mut rng);
        let churn = often(&mut rng);
        let slow_net = rng.chance(1, 4);
        let mut options = Self {
            nodes,
            late_member: nodes > 1 && !churn && rng.chance(1, 2),
            churn,
            spares: if churn { 1 + below(&mut rng, 2) } else { 0 },
            witness: nodes >= 3 && rng.chance(1, 5),
            // Not drawn: the other options of a seed stay what they are.
            old_releases: seed % 4 == 3,
            clients: 1 + below(&mut rng, 4),
            names: 10,
            think_ms: [20, 100, 300, 1_000][below(&mut rng, 4)],
            safety_s: 56,
            liveness_s: 45,
            loss: if lossy { rng.below(150) } else { 0 },
            duplication: if often(&mut rng) { rng.below(100) } else { 0 },
            delay_min_us: if slow_net { 20_000 } else { 100 },
            delay_spread_us: if slow_net { 200_000 } else { 2_000 },
            stragglers: [0, 0, 20, 150][below(&mut rng, 4)],
            fault_ms: [1_000, 2_000, 4_000][below(&mut rng, 3)],
            hard_birth: rng.chance(1, 3),
            faults,
            sync_us: [100, 1_000, 10_000][below(&mut rng, 3)],
            drift_ppm: if often(&mut rng) { rng.below(20_000) } else { 0 },
            limits: limits(&mut rng),
            voter_lost_ticks: [30, 60, 200][below(&mut rng, 3)],
            lasting_cut: nodes >= 3 && rng.chance(1, 3),
            start_failures: if often(&mut rng) { 200 } else { 0 },
            offers_change: later.chance(1, 3),
            failover: later.chance(1, 2),
            supervisor_faults: false,
            node_copies: false,
            holds: false,
            lease_operator: false,
            lease_terms: LEASE_TERMS[below(&mut later, LEASE_TERMS.len())],
        };
        if options.failover {
            options.fail_over(seed);
        }
        options
    }

    /// Clocks are no worse than leases allow; what else is drawn is drawn from numbers of its own.
    fn fail_over(&mut self, seed: u64) {
        let mut own = SimRng::new(seed ^ 0x6672_6565_7a65_7321);
        self.drift_ppm = self.drift_ppm.min(DRIFT_PPM_MAX);
        self.faults.clock_jump = false;
        self.supervisor_faults = own.chance(3, 4);
        self.node_copies = self.nodes > 1 && own.chance(1, 4);
        // Else hardly a leader stays for as long as many leases.
        self.fault_ms = if own.chance(1, 4) { 3 * self.fault_ms } else { self.fault_ms };
        self.holds = own.chance(1, 2);
        self.faults.restart |= self.holds;
        // What is announced right before the end is waited for.
        self.liveness_s += if self.holds { 20 } else { 0 };
        self.lease_operator = own.chance(1, 3);
        self.liveness_s += if self.lease_operator { 25 } else { 0 };
    }

    /// Whether clocks are no further off than leases allow.
    pub(crate) fn clocks_hold(&self) -> bool {
        self.drift_ppm <= DRIFT_PPM_MAX && !self.faults.clock_jump
    }
}

/// What leases allow, in parts per million.
const DRIFT_PPM_MAX: u64 = 10_000;

/// Short ones too: then the machines that are lost for longer are more.
const LEASE_TERMS: [LeaseTerms; 3] = [
    LeaseTerms { settle_ms: 14_000, ..LeaseTerms::DEFAULT },
    LeaseTerms { lease_ms: 5_000, stop_ms: 2_000, margin_ms: 1_000, settle_ms: 6_000 },
    LeaseTerms { lease_ms: 2_000, stop_ms: 1_500, margin_ms: 100, settle_ms: 6_000 },
];

/// Half of the runs cut the log so early that snapshots travel.
fn limits(rng: &mut SimRng) -> Limits {
    match rng.below(4) {
        0 => Limits { compact_entries: 16, compact_bytes: 1 << 20, keep_entries: 4 },
        1 => Limits { compact_entries: 64, compact_bytes: 1 << 20, keep_entries: 16 },
        _ => Limits::default(),
    }
}

pub(crate) fn below(rng: &mut SimRng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap_or(0)
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#?}")
    }
}
