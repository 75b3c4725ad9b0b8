"""Random faults on a cluster whose VMs may be failed over, under client load, with the judge over all of it.

The seed decides which faults come, whom they hit and how long they last; when exactly something happens is
left to the machines. Everything is counted from what the judge saw outside of them and from what the load
was acknowledged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import cast
import faults
import heartbeats
import judge
import progress
import reporting
import story
import waiting
from cluster import Lab
from driver import Driver, Machine
from errors import LabError
from layout import GUEST_DIR, Layout
from ledger import Writer
from telling import SilentLog

NODES = 3
VMS = 9
WRITERS = 2
GUEST = f"--kernel {GUEST_DIR}/vmlinux --initrd {GUEST_DIR}/initrd"
#: A guest that only beats once it is up, and boots with less: on two processors the others need the rest.
IDLE = (
    "quiet blixard.mute nokaslr init_on_alloc=0 mitigations=off cryptomgr.notests"
    " initcall_blacklist=jent_mod_init,load_system_certificate_list,init_encrypted"
)

_FORM_SECONDS = 60.0
_CALM_SECONDS = 360.0
#: With the boot of as many guests as two processors are to carry.
_TAKEOVER_SECONDS = 120.0
#: An agent that ends in order announces that its VMs run on for so long (`hold_s`). Until it gives that back,
#: about a minute after its return, the VMs of its node start elsewhere so much later.
_HOLD_SECONDS = 120.0
#: No leader waits for so long unless it waits for a hold.
_USUAL_WAIT_MS = 30_000
_LOOK_SECONDS = 0.5
#: Faults that end early do so around the end of a lease and of the leader's wait.
_SHORT_SECONDS = (1.0, 20.0)
_SHORT_SHARE = 0.35
_STATUS = "blixard status --json --timeout 3"
_LIST = "blixard vm list --json --timeout 3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of a run."""
    parser.add_argument("--minutes", type=float, required=True, help="how long faults are begun")
    parser.add_argument("--seed", type=int, help="which faults; a random one unless said")
    parser.add_argument("--json", action="store_true", help="print one JSON object last, the rest on stderr")
    parser.add_argument(
        "--without-enforcers",
        action="store_true",
        help="a control run, which has to overlap: no supervisor moves, and systemd has no watchdog",
    )


@dataclass
class Done:
    """A fault that was, and when it began and ended, in the judge's milliseconds."""

    fault: faults.Fault
    began_ms: float
    ended_ms: float
    #: Whether it took away a node for whose hold the others had to wait.
    is_held: bool = False


def _now_ms() -> float:
    return time.monotonic() * 1000


class Chaos:
    """One run."""

    def __init__(self, driver: Driver, seed: int, has_enforcers: bool) -> None:
        self._driver = driver
        self._machines = driver.machines
        self._random = random.Random(seed)
        self._has_enforcers = has_enforcers
        self._kinds = [
            kind for kind in faults.ALL if has_enforcers or (kind.leaves_alive and kind.loses_machines)
        ]
        self.done: list[Done] = []
        self.slow: list[str] = []
        #: Until when the others may wait for a machine's hold, in the judge's milliseconds.
        self._held_until_ms: dict[str, float] = {}
        symbols = driver.symbols()
        exec(compile(story.COMMON.read_text(), str(story.COMMON), "exec"), symbols)
        self._common = SimpleNamespace(**symbols)
        self._vms = [f"vm-{number}" for number in range(1, VMS)] + [faults.DEAF]
        names = [f"ledger-{number}" for number in range(1, WRITERS + 1)]
        self.writers = [Writer(name, self._up, seed) for name in names]

    def _up(self) -> list[Machine]:
        return [machine for machine in self._machines if machine.is_up()]

    def run(self, seconds: float) -> None:
        """Makes the cluster, and lets faults happen for so long."""
        with progress.step("machines boot, agents form a cluster, VMs start"):
            self._driver.start_all()
            for machine in self._machines:
                machine.connect()
            self._until("a cluster", _FORM_SECONDS, lambda: self._views() is not None)
            self._driver.judge.start()
            for name in self._vms:
                words = f"{IDLE} blixard.deaf" if name == faults.DEAF else IDLE
                self._create(f"run {name} --memory-mib 96 --cmdline '{words}'", "--timeout 120")
            for writer in self.writers:
                self._create(f"create {writer.name} --memory-mib 64", "--timeout 10")
            self._wait_until_calm()
        for writer in self.writers:
            writer.start()
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                self._one_fault()
                self._wait_until_calm()
        finally:
            for writer in self.writers:
                writer.stop()
        with progress.step("the last reads"):
            for writer in self.writers:
                self._until("a read", _CALM_SECONDS, writer.read)

    def _create(self, words: str, flags: str) -> None:
        self._machines[0].succeed(f"blixard vm {words} --cpus 1 {GUEST} {flags}")

    def _until(self, what: str, seconds: float, look) -> Any:
        seen = waiting.until(lambda _last: look(), seconds, _LOOK_SECONDS)
        if not seen:
            raise LabError(f"{what}: not within {seconds:.0f} s")
        return seen

    # What is so.

    def _ask(self, machine: Machine, command: str) -> Any:
        code, text = machine.execute(command, timeout=10)
        return json.loads(text) if code == 0 else None

    def _views(self) -> list[dict[str, Any]] | None:
        """What each machine says of the cluster, if it is whole."""
        views = [self._ask(machine, _STATUS) for machine in self._up()]
        whole = len(views) == NODES and all(
            view is not None
            and view["quorum"]
            and view["leader"] is not None
            and len(view["members"]) == NODES
            and all(member["reachable"] for member in view["members"])
            for view in views
        )
        return views if whole else None

    def _homes(self, machine: Machine) -> dict[str, list[str]] | None:
        """Which VMs run on each machine, asked on this one; nothing when not all of them run."""
        listing = self._ask(machine, _LIST)
        if listing is None:
            return None
        homes: dict[str, list[str]] = {each.name: [] for each in self._machines}
        for vm in listing["items"]:
            if vm["name"] in self._vms and vm["state"] == "running":
                homes[vm["node"]].append(vm["name"])
        return homes if sum(map(len, homes.values())) == VMS else None

    def _wait_until_calm(self) -> None:
        self._until("the cluster is whole", _CALM_SECONDS, self._views)
        self._until("every VM runs and beats", _CALM_SECONDS, self._beating_homes)

    def _beating_homes(self, machine: Machine | None = None) -> dict[str, list[str]] | None:
        """Which VMs run on each machine; nothing before the guest of each has told so as well."""
        homes = self._homes(machine or self._machines[0])
        heard = self._driver.judge.heard()
        if homes is None or any((vm, node) not in heard for node, vms in homes.items() for vm in vms):
            return None
        return homes

    def _field(self) -> faults.Field:
        def look() -> faults.Field | None:
            views, homes = self._views(), self._beating_homes()
            if views is None or homes is None:
                return None
            leader = next((each for each in self._machines if each.name == views[0]["leader"]), None)
            return faults.Field(self._machines, homes, leader, self._random, self._common) if leader else None

        return self._until("the cluster is calm", _CALM_SECONDS, look)

    # Faults.

    def _one_fault(self) -> None:
        field = self._field()
        fault = self._random.choices(self._kinds, [kind.weight for kind in self._kinds])[0]
        is_short = self._random.random() < _SHORT_SHARE and self._has_enforcers
        short_seconds = self._random.uniform(*_SHORT_SECONDS)
        if not self._has_enforcers:
            self._switch_enforcers_off()
        began_ms = _now_ms()
        begun = fault.begin(field)
        if not self._has_enforcers:
            # A reload of systemd, as masking a unit asks for, switches its watchdogs on again.
            self._switch_enforcers_off()
        lost = sorted({vm for machine in begun.lost for vm in field.homes[machine.name]})
        if lost and begun.is_taken_over and not is_short:
            is_held = self._wait_for_takeover(begun.lost, lost, fault)
        else:
            time.sleep(short_seconds if begun.lost else 0.0)
            is_held = self._waits_for_hold(begun.lost)
        begun.end()
        for machine in begun.held:
            self._held_until_ms[machine.name] = _now_ms() + _HOLD_SECONDS * 1000
        self.done.append(Done(fault, began_ms, _now_ms(), is_held))
        where = " ".join(machine.name for machine in begun.lost + begun.held) or "-"
        seconds = (_now_ms() - began_ms) / 1000
        after = ", after a hold" if is_held else ""
        progress.say(f"{len(self.done):5} {fault.name:30} {where:10} {len(lost)} VMs {seconds:5.1f} s{after}")

    def _wait_for_takeover(self, lost: list[Machine], vms: list[str], fault: faults.Fault) -> bool:
        """Waits until the VMs run and beat elsewhere; returns whether the others had to wait for a hold.

        A copy that is still there beats meanwhile.
        """
        left = next(machine for machine in self._machines if machine not in lost)
        away = {machine.name for machine in lost}
        is_held = False

        def look() -> bool:
            nonlocal is_held
            is_held = is_held or self._waits_for_hold(lost)
            homes = self._beating_homes(left)
            return homes is not None and not any(homes[name] for name in away)

        seconds = _TAKEOVER_SECONDS
        is_over = waiting.until(lambda _last: look(), seconds, _LOOK_SECONDS)
        if not is_over and is_held:
            seconds += _HOLD_SECONDS
            is_over = waiting.until(lambda _last: look(), _HOLD_SECONDS, _LOOK_SECONDS)
        if not is_over:
            self.slow.append(f"{fault.name}: {', '.join(vms)} not elsewhere within {seconds:.0f} s")
        return is_held

    def _waits_for_hold(self, lost: list[Machine]) -> bool:
        """Whether the others say that they wait for the hold of one of these machines."""
        held = {each.name for each in lost if _now_ms() < self._held_until_ms.get(each.name, 0.0)}
        left = [machine for machine in self._up() if machine not in lost]
        view = self._ask(left[0], _STATUS) if held and left else None
        return view is not None and any(
            member["name"] in held and (member.get("lease") or {}).get("lost_in_ms", 0) > _USUAL_WAIT_MS
            for member in view["members"]
        )

    def _switch_enforcers_off(self) -> None:
        """From outside: systemd's watchdog as an operator can, the supervisors by a signal."""
        for machine in self._machines:
            machine.succeed("systemctl service-watchdogs no")
            faults.signal_supervisors(machine, "STOP")


def _counted(chaos: Chaos, record: judge.Record) -> dict[str, Any]:
    """The faults by their names, and the failovers, each counted for the fault that began last before it."""
    kinds: dict[str, dict[str, int]] = {}
    for done in chaos.done:
        kinds.setdefault(done.fault.name, {"times": 0, "failovers": 0, "longest_gap_ms": 0})["times"] += 1
    alive, fenced, taken, taken_after_hold = 0, [], [], []
    for move in judge.moves(record.runs):
        cause = _cause(chaos, move.began_ms)
        if cause is None:
            continue
        kind = kinds[cause.fault.name]
        kind["failovers"] += 1
        kind["longest_gap_ms"] = max(kind["longest_gap_ms"], round(move.began_ms - move.ended_ms))
        (taken_after_hold if cause.is_held else taken).append(move.began_ms - cause.began_ms)
        if cause.fault.leaves_alive:
            alive += 1
            fenced.append(move.ended_ms - cause.began_ms)
    return {
        "faults": dict(sorted(kinds.items())),
        "failovers_of_living": alive,
        "ended_after_ms": _spread(fenced),
        "started_after_ms": _spread(taken),
        "started_after_hold_ms": _spread(taken_after_hold),
    }


def _cause(chaos: Chaos, at_ms: float) -> Done | None:
    """The fault that began last before that."""
    before = [done for done in chaos.done if done.began_ms <= at_ms]
    return max(before, key=lambda done: done.began_ms, default=None)


def _spread(values: list[float]) -> dict[str, int] | None:
    """The middle and the most of the values."""
    ordered = sorted(values)
    return {"median": round(ordered[len(ordered) // 2]), "most": round(ordered[-1])} if ordered else None


def _written(chaos: Chaos) -> dict[str, Any]:
    tallies = [writer.tally for writer in chaos.writers]
    return {
        "writes": sum(tally.acknowledged for tally in tallies),
        "writes_sent_again": sum(tally.sent_again for tally in tallies),
        "reads": sum(tally.reads for tally in tallies),
        "lost_writes": sum(len(tally.lost) for tally in tallies),
        "longest_write_pause_ms": round(max(tally.longest_pause_ms for tally in tallies)),
    }


def _play(lab: Lab, layout: Layout, arguments: argparse.Namespace, report: dict[str, Any]) -> None:
    with lab.fresh(cast.numbered(NODES)) as names:
        driver = Driver(lab, names, layout.root / "out" / "chaos", SilentLog())
        chaos = Chaos(driver, report["seed"], not arguments.without_enforcers)
        try:
            chaos.run(arguments.minutes * 60)
            report["ended"] = True
        finally:
            with contextlib.suppress(LabError):
                driver.judge.stop()
                record = driver.judge.record()
                report |= judge.verdict(record) | heartbeats.verdict(record)
                report |= _counted(chaos, record) | _written(chaos)
                report["slow_takeovers"] = chaos.slow
                report["found"] = _told(record, chaos)
            if not _is_ok(report, arguments.without_enforcers):
                report["logs"] = str(lab.save_logs(names, "chaos"))


def _told(record: judge.Record, chaos: Chaos) -> list[str]:
    """Every overlap, every doubt about heartbeats and every lost write, in words."""
    told = []
    found = [("ran", each) for each in judge.overlaps(record.runs)]
    found += [("beat", each) for each in heartbeats.overlaps(record)]
    for did, overlap in found:
        cause = _cause(chaos, overlap.from_ms)
        after = f"{(overlap.from_ms - cause.began_ms) / 1000:.1f} s after {cause.fault.name}" if cause else ""
        nodes = f"{overlap.first.node} and {overlap.second.node}"
        told.append(f"{overlap.first.vm} {did} on {nodes} for {overlap.length_ms:.0f} ms, {after}")
    told += heartbeats.silent(record) + heartbeats.strange(record)
    return told + [line for writer in chaos.writers for line in writer.tally.lost]


def _is_ok(report: dict[str, Any], is_control: bool) -> bool:
    """A run passes with every guest heard, without a lost write, and without an overlap by either verdict.

    A control run has to overlap by both.
    """
    needed = ("lost_writes", "silent_copies", "strange_heartbeats")
    whole = report["ended"] and all(report.get(key) == 0 for key in needed)
    return whole and all((report[key] > 0) == is_control for key in ("overlaps", "heartbeat_overlaps"))


def run(layout: Layout, arguments: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
    report: dict[str, Any] = {"ok": False, "minutes": 0.0, "seed": seed, "vms": VMS, "ended": False}
    progress.say(f"cargo xtask chaos --minutes {arguments.minutes:g} --seed {seed}")
    began = time.monotonic()
    with reporting.broken_off(report):
        _play(Lab(layout), layout, arguments, report)
    report["minutes"] = round((time.monotonic() - began) / 60, 1)
    report["ok"] = _is_ok(report, arguments.without_enforcers)
    for line in report.get("found", []) + report.get("slow_takeovers", []):
        progress.say(line)
    if "reason" in report:
        progress.say(f"the run broke off: {report['reason']}")
    out = sys.stdout if arguments.json else sys.stderr
    print(json.dumps(report, indent=None if arguments.json else 2), file=out, flush=True)
    return 0 if report["ok"] else 1
