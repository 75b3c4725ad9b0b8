//! Hosts over real stores, whose inputs and effects are carried by hand on one virtual clock.

use std::collections::{BTreeMap, BTreeSet};

use blixard_consensus::{Limits, TICK_MS};
use blixard_core::lease::LeaseFound;
use blixard_core::ports::ObservedUnit;
use blixard_core::reconciler::Action;
use blixard_model::api::RetryKind;
use blixard_model::{Ask, StopNote, VmName};
use blixard_model::{BootId, ClusterVersion, LeaseFile, LeaseTerms, NodeFacts, Offer};
use blixard_node::Notice;
use blixard_node::host::disk::{Kept, Write, Written, carry_out};
use blixard_node::host::{
    Answer, CallError, CallId, Effect, Found, Host, HostConfig, Input, Moment, PeerCallId, RaftFrame,
    Trouble, WaiterId, Want,
};
use blixard_store::{DirDisk, Store};

use crate::group::{CAPACITY, address, declared, endpoint, name, store};

pub(crate) const BOOT: BootId = BootId::from_bytes([1; 16]);

pub(crate) fn at(boot_ms: u64) -> Moment {
    Moment { boot_id: BOOT, boot_ms, wall_ms: 1_700_000_000_000 + boot_ms }
}

/// Node `n` of a list of so many; of none it joins with a ticket.
pub(crate) fn config(n: u8, listed: u8) -> HostConfig {
    HostConfig {
        node: NodeFacts {
            name: name(n),
            endpoint_id: endpoint(n),
            store_id: store(n),
            offer: Offer { capacity: Some(CAPACITY), addresses: vec![address(n)], ..Offer::default() },
        },
        cluster_name: "lab".parse().expect("a name"),
        declared: if listed == 0 { Vec::new() } else { declared(listed) },
        joins: listed == 0,
        needs: None,
        ticket: None,
        written: vec![address(n)],
        voter_lost_ticks: 600,
        supports: ClusterVersion::NEWEST,
        lease_terms: LeaseTerms::DEFAULT,
        lease: LeaseFound::default(),
        limits: Limits::default(),
        incarnation: u64::from(n),
    }
}

/// A host, its store and its units.
pub(crate) struct Machine {
    pub(crate) host: Host,
    store: Store,
    _dir: tempfile::TempDir,
    boot_id: BootId,
    pub(crate) units: Vec<ObservedUnit>,
    /// What the supervisors of its VMs know.
    pub(crate) lease: Option<LeaseFile>,
    pub(crate) notices: Vec<Notice>,
    /// Why every action on its units fails; none for those that go well.
    pub(crate) actions_fail: Option<&'static str>,
    /// Why its units cannot be listed; none while they can.
    pub(crate) lists_fail: Option<&'static str>,
    /// What is kept of VMs that were stopped by hand.
    pub(crate) stopped: Vec<StopNote>,
    /// Why nothing can be kept; none while it can.
    pub(crate) keeps_fail: Option<&'static str>,
    /// The actions that were begun.
    pub(crate) begun: Vec<Action>,
    /// What it was told last about standing aside, if anything.
    pub(crate) stands_aside: Option<bool>,
    /// The consoles that were asked for and are not answered by themselves.
    pub(crate) consoles: Vec<VmName>,
    asked: BTreeMap<PeerCallId, (u8, CallId)>,
}

/// Some machines.
pub(crate) struct Hosts {
    pub(crate) machines: BTreeMap<u8, Machine>,
    pub(crate) now_ms: u64,
    /// They hear of nothing and are heard of by nobody.
    pub(crate) cut: BTreeSet<u8>,
    /// What peers never see: reports, for one.
    pub(crate) loses: fn(&Input) -> bool,
    /// A longer question or answer, as JSON in bytes, fails the test.
    pub(crate) frame_len_max: usize,
    pub(crate) answers: BTreeMap<WaiterId, Answer>,
    last_number: u64,
}

impl Hosts {
    /// So many machines with empty stores, each configured so.
    fn listed_as(count: u8, of: impl Fn(u8) -> HostConfig) -> Self {
        let mut hosts = Self {
            machines: BTreeMap::new(),
            now_ms: 1_000,
            cut: BTreeSet::new(),
            loses: |_| false,
            frame_len_max: usize::MAX,
            answers: BTreeMap::new(),
            last_number: 0,
        };
        (1..=count).for_each(|n| hosts.start(n, of(n)));
        hosts
    }

    /// The agent of this machine is started anew, configured so.
    pub(crate) fn restart(&mut self, n: u8, config: HostConfig) {
        let now = self.now(n);
        let machine = self.machine(n);
        let kept = Kept::load(&machine.store).expect("read");
        machine.host = Host::new(config, Found { kept, ..Found::default() }, now).expect("begins");
        self.link_all();
    }

    /// This machine loses power and boots again.
    pub(crate) fn reboot(&mut self, n: u8, config: HostConfig) {
        let machine = self.machine(n);
        machine.boot_id = BootId::from_bytes([2; 16]);
        machine.units.clear();
        machine.begun.clear();
        machine.lease = None;
        self.restart(n, config);
    }

    /// The time by the clocks of this machine.
    fn now(&self, n: u8) -> Moment {
        Moment { boot_id: self.machines[&n].boot_id, ..at(self.now_ms) }
    }

    fn start(&mut self, n: u8, config: HostConfig) {
        let dir = tempfile::tempdir().expect("dir");
        let disk = DirDisk::new(dir.path());
        let store = Store::open(&disk, config.node.endpoint_id, &config.cluster_name, config.node.store_id);
        let store = store.expect("opened");
        let found = Found { kept: Kept::load(&store).expect("read"), ..Found::default() };
        let host = Host::new(config, found, at(self.now_ms)).expect("begins");
        let machine = Machine {
            host,
            store,
            _dir: dir,
            boot_id: BOOT,
            units: Vec::new(),
            lease: None,
            notices: Vec::new(),
            actions_fail: None,
            lists_fail: None,
            stopped: Vec::new(),
            keeps_fail: None,
            begun: Vec::new(),
            stands_aside: None,
            consoles: Vec::new(),
            asked: BTreeMap::new(),
        };
        self.machines.insert(n, machine);
    }

    /// Listed machines that have formed a cluster and elected a leader.
    pub(crate) fn formed(count: u8) -> Self {
        Self::formed_with(count, Limits::default())
    }

    /// As above, with these limits of the log.
    pub(crate) fn formed_with(count: u8, limits: Limits) -> Self {
        Self::formed_as(count, |n| HostConfig { limits, ..config(n, count) })
    }

    /// As above, each configured so.
    pub(crate) fn formed_as(count: u8, of: impl Fn(u8) -> HostConfig) -> Self {
        let mut hosts = Self::listed_as(count, of);
        hosts.link_all();
        hosts.until("a leader that all know", |hosts| {
            hosts.machines.values().all(|machine| {
                let summary = machine.host.member().map(|member| member.replica().summary().clone());
                summary.is_some_and(|summary| summary.leader.is_some() && summary.is_member)
            })
        });
        hosts
    }

    pub(crate) fn host(&self, n: u8) -> &Host {
        &self.machines[&n].host
    }

    pub(crate) fn leader(&self) -> u8 {
        let leads =
            |machine: &Machine| machine.host.member().is_some_and(|member| member.replica().summary().leads);
        let free = self.machines.iter().filter(|(n, _)| !self.cut.contains(n));
        free.filter(|(_, machine)| leads(machine)).map(|(n, _)| *n).next().expect("one leads")
    }

    /// Tells all hosts which links there are.
    pub(crate) fn link_all(&mut self) {
        let all: Vec<u8> = self.machines.keys().copied().collect();
        for n in &all {
            let linked = |other: &&u8| *other != n && !self.cut.contains(other) && !self.cut.contains(n);
            let up = all.iter().filter(linked).map(|other| endpoint(*other)).collect();
            self.give(*n, Input::Links { up, removed: Vec::new() });
        }
    }

    /// An input, and everything that follows from it at once.
    pub(crate) fn give(&mut self, n: u8, input: Input) {
        let now = self.now(n);
        self.machine(n).host.handle(now, input).expect("goes on");
        self.turns(n);
    }

    pub(crate) fn machine(&mut self, n: u8) -> &mut Machine {
        self.machines.get_mut(&n).expect("there")
    }

    fn turns(&mut self, n: u8) {
        loop {
            let now = self.now(n);
            for effect in self.machine(n).host.turn(now).expect("goes on") {
                self.carry_out(n, effect);
            }
            if !self.machine(n).host.wants_turn() {
                return;
            }
        }
    }

    /// What another host has to hear of, unless it is cut off.
    fn deliver(&mut self, from: u8, to: u8, input: Input) {
        let lost = self.cut.contains(&from) || self.cut.contains(&to) || (self.loses)(&input);
        if !lost && self.machines.contains_key(&to) {
            self.give(to, input);
        }
    }

    fn carry_out(&mut self, n: u8, effect: Effect) {
        match effect {
            Effect::Raft(envelope) => {
                let frame = match envelope.is_snapshot {
                    true => RaftFrame::Snapshot(envelope.frame),
                    false => RaftFrame::Message(envelope.frame),
                };
                self.deliver(n, envelope.to.as_bytes()[0], Input::Raft { from: endpoint(n), frame });
                if envelope.is_snapshot {
                    self.give(n, Input::SnapshotSent { member: envelope.member, delivered: true });
                }
            }
            Effect::AskPeer { call, to, request, .. } => {
                let len = serde_json::to_vec(&request).expect("JSON").len();
                assert!(len <= self.frame_len_max, "{len} bytes");
                let to = to.as_bytes()[0];
                let asked = PeerCallId(self.new_number());
                if !self.machines.contains_key(&to) {
                    let answer = Err(CallError::NotSent("nobody is there".to_owned()));
                    return self.give(n, Input::PeerAnswered { call, answer });
                }
                self.machine(to).asked.insert(asked, (n, call));
                self.deliver(n, to, Input::PeerAsked { call: asked, from: endpoint(n), request });
            }
            Effect::AnswerPeer { call, response } => {
                let len = serde_json::to_vec(&response).expect("JSON").len();
                assert!(len <= self.frame_len_max, "{len} bytes");
                let Some((to, call)) = self.machine(n).asked.remove(&call) else { return };
                self.deliver(n, to, Input::PeerAnswered { call, answer: Ok(response) });
            }
            Effect::Answer { waiter, answer } => _ = self.answers.insert(waiter, answer),
            Effect::ListUnits { look } => {
                let machine = self.machine(n);
                let listed =
                    machine.lists_fail.map_or_else(|| Ok(machine.units.clone()), |why| Err(why.into()));
                let stopped = machine.stopped.clone();
                self.give(n, Input::Units { look, listed, stopped });
            }
            Effect::Act { action, .. } => {
                let machine = self.machine(n);
                machine.begun.push(action.clone());
                let failure = machine.actions_fail.map(str::to_owned);
                self.give(n, Input::ActionDone { action, failure });
            }
            Effect::ForgetOrder { vm } => {
                let action = Action::ConfirmGone(vm);
                self.give(n, Input::ActionDone { action, failure: None });
            }
            Effect::WriteLease(file) => {
                self.machine(n).lease = Some(*file);
                self.give(n, Input::LeaseWritten { failure: None });
            }
            Effect::KeepStop { waiter, notes } => self.keep_stop(n, waiter, notes),
            Effect::ForgetStops(notes) => self.machine(n).stopped.retain(|note| !notes.contains(note)),
            Effect::FetchConsole { vm, .. } => self.machine(n).consoles.push(vm),
            Effect::StandAside(aside) => self.machine(n).stands_aside = Some(aside),
            Effect::Write(write) => self.write(n, &write),
            Effect::Notice(notice) => self.machine(n).notices.push(notice),
            Effect::AskToJoin { .. }
            | Effect::ForgetCall { .. }
            | Effect::AnswerJoin { .. }
            | Effect::Peers { .. }
            | Effect::ServeJoins(_)
            | Effect::KeepTicket { .. }
            | Effect::ReadTicket
            | Effect::ForgetTicket(_) => {}
        }
    }

    fn keep_stop(&mut self, n: u8, waiter: WaiterId, notes: Vec<StopNote>) {
        let machine = self.machine(n);
        let failure = machine.keeps_fail.map(str::to_owned);
        if failure.is_none() {
            machine.stopped.extend(notes.clone());
        }
        self.give(n, Input::StopKept { waiter, notes, failure });
    }

    fn write(&mut self, n: u8, write: &Write) {
        let now = self.now(n);
        let machine = self.machine(n);
        let written = carry_out(&mut machine.store, (endpoint(n), &name(n)), write).expect("written");
        let again = matches!(written, Written::Bound(_));
        machine.host.handle(now, Input::Written(Box::new(written))).expect("goes on");
        if again {
            self.turns(n);
        }
    }

    fn new_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Somebody on this machine asks for a change, for up to five seconds.
    pub(crate) fn change(&mut self, n: u8, ask: impl Into<Ask>) -> WaiterId {
        self.want(n, Want::Change(Box::new(ask.into())))
    }

    /// Somebody on this machine wants something, for up to five seconds.
    pub(crate) fn want(&mut self, n: u8, want: Want) -> WaiterId {
        let waiter = WaiterId(self.new_number());
        self.give(n, Input::Wanted { waiter, want, patience_ms: 5_000 });
        waiter
    }

    /// Lets so much time pass, and with it the ticks and what hosts asked to be woken for.
    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.now_ms += 10;
            for n in self.machines.keys().copied().collect::<Vec<u8>>() {
                if self.now_ms.is_multiple_of(TICK_MS) {
                    self.give(n, Input::Tick);
                } else if self.host(n).wake_at_ms().is_some_and(|at| at <= self.now_ms) {
                    self.give(n, Input::Wake);
                }
            }
        }
    }

    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..1_000 {
            if holds(self) {
                return;
            }
            self.pass(20);
        }
        panic!("not within 20 s: {what}");
    }

    /// What this host fails at, of one kind.
    pub(crate) fn trouble(&self, n: u8, what: RetryKind) -> Option<Trouble> {
        self.host(n).troubles(at(self.now_ms)).into_iter().find(|trouble| trouble.what == what)
    }
}
