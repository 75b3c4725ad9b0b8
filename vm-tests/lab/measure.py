"""How long it takes until a VM is gone from a node that is lost, and until its guest speaks elsewhere.

Each trial has a VM of its own, on the machine that is to be lost, in a cluster that is whole. The fault comes
at a moment that is drawn from the time between two renewals of a lease. What ends and what runs is what the
judge saw from outside; when the guest spoke stands in the journal of the machine that runs it. All machines
and the judge have one clock.

A *boot* is from the moment the hypervisor let its guest go, as the judge saw it, until the guest's first
line. A failover less the boot is twofold, and both are told: without the boot that it had itself (`runs_ms`,
what the cluster takes: leases, decision, systemd's job, supervisor, start of the hypervisor), which is what a
promise is held against; and without the bare boot, which is that of the same VM before anything was done to
it. On a busy computer two boots differ by seconds, and with them the second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import cast
import judge
import progress
import reporting
import waiting
from cluster import Lab
from driver import Driver, Machine
from errors import LabError
from layout import GUEST_DIR, Layout
from telling import SilentLog

NODES = 3
AGENT = "blixard.service"
MEMORY_MIB = 256
GUEST = f"--cpus 1 --memory-mib {MEMORY_MIB} --kernel {GUEST_DIR}/vmlinux --initrd {GUEST_DIR}/initrd"
MARK = f"--cpus 1 --memory-mib 64 --kernel {GUEST_DIR}/vmlinux"

#: The leases that are measured: the default one, and one that is chosen.
LEASES_MS = (10_000, 5_000)
STOP_MS = 5_000
#: What a failover may take without the bare boot, with the default lease.
TAKEOVER_MAX_MS = 20_000
#: The same when the leader is lost with the VM.
TAKEOVER_FROM_LEADER_MAX_MS = 24_000

_STATUS = "blixard status --json --timeout 3"
_CALM_SECONDS = 240.0
_TAKEOVER_SECONDS = 120.0
_LOOK_SECONDS = 0.25
#: After leases became shorter each node is waited for by the longer ones until it has said that its
#: supervisors know of it, which it does a minute later.
_SHORTER_SECONDS = 75.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of a run."""
    parser.add_argument("--trials", type=int, default=5, help="of each fault with each lease")
    parser.add_argument("--only", action="append", choices=sorted(KINDS), help="this fault; may be repeated")
    parser.add_argument("--seed", type=int, default=1, help="which machines, and which moments")
    parser.add_argument("--json", action="store_true", help="print one JSON object last, the rest on stderr")


# Faults.


def _freeze_supervisor(victim: Machine, unit: str) -> Callable[[], None]:
    """Makes everything ready to freeze the supervisor and not its hypervisor; returns what does it."""
    group = f"/sys/fs/cgroup{victim.get_unit_property(unit, 'ControlGroup')}/frozen"
    pid = victim.get_unit_property(unit, "MainPID")
    victim.succeed(f"mkdir '{group}' && echo {pid} > '{group}/cgroup.procs'")
    return lambda: _do(victim, f"echo 1 > '{group}/cgroup.freeze'")


def _do(victim: Machine, command: str) -> None:
    victim.succeed(command)


@dataclass(frozen=True)
class Kind:
    """A fault that is measured."""

    #: Whether it hits the machine that leads; else one that does not.
    hits_leader: bool
    #: What of the VM's machine is lost.
    loses_power: bool = False
    freezes_agent: bool = False
    freezes_supervisor: bool = False

    @property
    def moves_vm(self) -> bool:
        """Whether the VM comes to run on another machine; else it is started again where it was."""
        return self.loses_power or self.freezes_agent

    def prepare(self, victim: Machine, unit: str) -> Callable[[], None]:
        """Returns what lets it happen."""
        freeze = _freeze_supervisor(victim, unit) if self.freezes_supervisor else None

        def begin() -> None:
            if self.loses_power:
                victim.crash()
            if freeze is not None:
                freeze()
            if self.freezes_agent:
                _do(victim, f"systemctl freeze {AGENT}")

        return begin

    def end(self, victim: Machine) -> None:
        """Ends it."""
        if self.loses_power:
            victim.connect()
        elif self.freezes_agent:
            _do(victim, f"systemctl thaw {AGENT}")

    def takeover_max_ms(self, lease_ms: int) -> int | None:
        """The promise about the time until the guest speaks elsewhere, without its bare boot."""
        if lease_ms != LEASES_MS[0] or not self.loses_power:
            return None
        return TAKEOVER_FROM_LEADER_MAX_MS if self.hits_leader else TAKEOVER_MAX_MS


KINDS = {
    "follower_crashed": Kind(hits_leader=False, loses_power=True),
    "leader_crashed": Kind(hits_leader=True, loses_power=True),
    "agent_frozen": Kind(hits_leader=False, freezes_agent=True),
    "supervisor_frozen": Kind(hits_leader=False, freezes_supervisor=True),
    "agent_and_supervisor_frozen": Kind(hits_leader=False, freezes_agent=True, freezes_supervisor=True),
}


@dataclass(frozen=True)
class Trial:
    """What was measured once, in milliseconds from just before the fault unless said otherwise."""

    kind: str
    lease_ms: int
    #: From the guest let go to its first line, before the fault.
    bare_boot_ms: float
    #: Until no copy of the VM ran where it ran before.
    gone_ms: float
    #: Until a guest was let go again.
    runs_ms: float
    #: Until its first line.
    line_ms: float
    #: How many processes wanted to run on the computer, on average in the minute before.
    load: float


# A run.


class Measuring:
    """One run."""

    def __init__(self, driver: Driver, seed: int) -> None:
        self._driver = driver
        self._machines = driver.machines
        self._dice = random.Random(seed)
        self.trials: list[Trial] = []

    def run(self, trials: int, kinds: Iterable[str]) -> None:
        """Makes the cluster, and measures each fault so often with each lease."""
        with progress.step("machines boot, agents form a cluster"):
            self._driver.start_all()
            for machine in self._machines:
                machine.connect()
            self._calm()
            self._driver.judge.start()
        kinds = list(kinds)
        for lease_ms in LEASES_MS:
            self._choose_lease(lease_ms)
            for number in range(1, trials + 1):
                for kind in kinds:
                    self._try(kind, lease_ms, number)

    def _choose_lease(self, lease_ms: int) -> None:
        # A new cluster has the first.
        if lease_ms != LEASES_MS[0]:
            with progress.step(f"until each node is waited for by a lease of {lease_ms} ms and no longer"):
                self._machines[0].succeed(f"blixard cluster lease --lease {lease_ms // 1000}s")
                time.sleep(_SHORTER_SECONDS)
                self._calm()

    def _until(self, what: str, seconds: float, look: Callable[[], Any]) -> Any:
        seen = waiting.until(lambda _last: look(), seconds, _LOOK_SECONDS)
        if not seen:
            raise LabError(f"{what}: not within {seconds:.0f} s")
        return seen

    def _status(self, machine: Machine) -> dict[str, Any] | None:
        code, text = machine.execute(_STATUS, timeout=10)
        return json.loads(text) if code == 0 else None

    def _calm(self) -> Machine:
        """Waits until each machine sees all of them with a lease that holds; returns the leader."""
        return self._until("the cluster is whole", _CALM_SECONDS, self._leader)

    def _leader(self) -> Machine | None:
        views = [self._status(machine) for machine in self._machines]
        if not all(view is not None and is_whole(view) for view in views):
            return None
        leaders = {view["leader"] for view in views}
        return next((each for each in self._machines if leaders == {each.name}), None)

    def _try(self, name: str, lease_ms: int, number: int) -> None:
        kind, vm = KINDS[name], f"{name.replace('_', '-')}-{lease_ms}-{number}"
        unit = f"blixard-vm@{vm}.service"
        leader = self._calm()
        others = [machine for machine in self._machines if machine is not leader]
        home = leader if kind.hits_leader else self._dice.choice(others)
        bare_boot_ms = self._start(vm, unit, home)
        begin = kind.prepare(home, unit)
        # The phase of the lease is drawn.
        time.sleep(self._dice.uniform(0, lease_ms / 3000))
        load = os.getloadavg()[0]
        began_ms = _now_ms()
        begin()
        home_now = self._new_home(vm, home) if kind.moves_vm else home
        line_ms = self._first_line_ms(home_now, unit, began_ms)
        runs = self._driver.judge.runs(vm)
        self.trials.append(
            Trial(
                name,
                lease_ms,
                round(bare_boot_ms),
                round(gone_ms(runs) - began_ms),
                round(again_ms(runs) - began_ms),
                round(line_ms - began_ms),
                load,
            )
        )
        progress.say(json.dumps(asdict(self.trials[-1])))
        kind.end(home)
        self._calm()
        self._machines[0].succeed(f"blixard vm delete {vm} --timeout 120")

    def _start(self, vm: str, unit: str, home: Machine) -> float:
        """Starts the VM on that machine; returns how long its guest booted, in milliseconds."""
        asked = self._machines[0]
        others = [machine.name for machine in self._machines if machine is not home]
        # What is reserved on the others lets it be placed here, once this machine is known to have a lease.
        for name in others:
            asked.succeed(f"blixard vm create reserved-{name} --node {name} {MARK}")
        self._until(f"{vm} is placed on {home.name}", _CALM_SECONDS, lambda: self._place(vm, home))
        for name in others:
            asked.succeed(f"blixard vm delete reserved-{name}")
        asked.succeed(f"blixard vm start {vm} --timeout 120")
        line_ms = self._first_line_ms(home, unit, 0.0)
        return line_ms - self._driver.judge.runs(vm)[0].from_ms

    def _place(self, vm: str, home: Machine) -> bool:
        """Creates the VM, if it is placed on that machine."""
        asked = self._machines[0]
        asked.succeed(f"blixard vm create {vm} {GUEST} --cmdline 'quiet blixard.name={vm}'")
        is_there = self._node_of(asked, vm) == home.name
        if not is_there:
            asked.succeed(f"blixard vm delete {vm} --timeout 60")
        return is_there

    def _node_of(self, asked: Machine, vm: str) -> str | None:
        code, text = asked.execute(f"blixard vm show {vm} --json --timeout 3", timeout=10)
        return json.loads(text)["node"] if code == 0 else None

    def _new_home(self, vm: str, lost: Machine) -> Machine:
        """Waits until the VM is given to another machine than the one that is lost."""
        others = {machine.name: machine for machine in self._machines if machine is not lost}
        asked = next(iter(others.values()))

        def look() -> Machine | None:
            return others.get(self._node_of(asked, vm) or lost.name)

        return self._until(f"{vm} is given to another machine", _TAKEOVER_SECONDS, look)

    def _first_line_ms(self, home: Machine, unit: str, after_ms: float) -> float:
        """When the guest's user space came up, later than that."""
        command = f"journalctl --unit={unit} --output=json --grep=BLIXARD-GUEST-UP | tail -n 1"

        def look() -> float | None:
            text = home.execute(command)[1].strip()
            up_ms = int(json.loads(text)["__MONOTONIC_TIMESTAMP"]) / 1e3 if text else 0.0
            return up_ms if up_ms > after_ms else None

        return self._until("the guest is up", _TAKEOVER_SECONDS, look)


def _now_ms() -> float:
    return time.monotonic() * 1000


def is_whole(view: dict[str, Any]) -> bool:
    """Whether a machine's status tells of a cluster in which everybody has a lease."""
    return bool(
        view["quorum"]
        and view["leader"] is not None
        and len(view["members"]) == NODES
        and view["lease"] is not None
        and view["lease"]["holds_for_ms"]
        and all(
            each["reachable"] and each["lease"] is not None and each["lease"]["state"] == "holds"
            for each in view["members"]
        )
    )


def gone_ms(runs: list[judge.Run]) -> float:
    """When the VM's first copy had ended."""
    return max(run.to_ms for run in runs if run.copy == runs[0].copy)


def again_ms(runs: list[judge.Run]) -> float:
    """When the guest of its second copy was let go."""
    again = [run.from_ms for run in runs if run.copy != runs[0].copy]
    if not again:
        raise LabError(f"nobody saw a second copy of {runs[0].copy.vm}")
    return min(again)


# What is told.


def spread(values: Iterable[float]) -> dict[str, int]:
    """The least, the middle and the most of the values."""
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2]
    return {"least": round(ordered[0]), "median": round(middle), "most": round(ordered[-1])}


def summary(trials: list[Trial]) -> dict[str, Any]:
    """The trials in numbers, and what was promised and not kept."""
    if not trials:
        return {"measured": [], "exceeded": []}
    bare_boot = spread(trial.bare_boot_ms for trial in trials)
    measured, exceeded = [], []
    for key in dict.fromkeys((trial.kind, trial.lease_ms) for trial in trials):
        (name, lease_ms), kind = key, KINDS[key[0]]
        of_key = [trial for trial in trials if (trial.kind, trial.lease_ms) == key]
        row: dict[str, Any] = {"fault": name, "lease_ms": lease_ms, "trials": len(of_key)}
        # What loses power is gone at once.
        if not kind.loses_power:
            row["gone_ms"] = spread(trial.gone_ms for trial in of_key)
            exceeded += _exceeding(f"{name}, gone", row["gone_ms"]["most"], lease_ms + STOP_MS)
        row["runs_ms"] = spread(trial.runs_ms for trial in of_key)
        row["line_ms"] = spread(trial.line_ms for trial in of_key)
        row["line_less_bare_boot_ms"] = spread(trial.line_ms - trial.bare_boot_ms for trial in of_key)
        most_ms = kind.takeover_max_ms(lease_ms)
        if most_ms is not None:
            exceeded += _exceeding(f"{name}, elsewhere", row["runs_ms"]["most"], most_ms)
        measured.append(row)
    load = {"least": min(trial.load for trial in trials), "most": max(trial.load for trial in trials)}
    return {"bare_boot_ms": bare_boot, "measured": measured, "exceeded": exceeded, "load": load}


def _exceeding(what: str, is_ms: int, most_ms: int) -> list[str]:
    return [f"{what}: {is_ms} ms, and not within {most_ms} ms"] if is_ms > most_ms else []


def _play(lab: Lab, layout: Layout, arguments: argparse.Namespace, report: dict[str, Any]) -> None:
    with lab.fresh(cast.numbered(NODES)) as names:
        driver = Driver(lab, names, layout.root / "out" / "measure", SilentLog())
        measuring = Measuring(driver, arguments.seed)
        try:
            measuring.run(arguments.trials, arguments.only or KINDS)
            report["ended"] = True
        except Exception:
            report["logs"] = str(lab.save_logs(names, "measure"))
            raise
        finally:
            with contextlib.suppress(LabError):
                driver.judge.stop()
                seen = judge.verdict(driver.judge.record())
                report |= {key: seen[key] for key in ("overlaps", "looks", "longest_blind_ms")}
                report |= summary(measuring.trials)
                report["each"] = [asdict(trial) for trial in measuring.trials]


def run(layout: Layout, arguments: argparse.Namespace) -> int:
    """Measures; returns the exit code, which is 1 when something that was promised was not kept."""
    report: dict[str, Any] = {"ok": False, "ended": False, "seed": arguments.seed, "cores": os.cpu_count()}
    began = time.monotonic()
    with reporting.broken_off(report):
        _play(Lab(layout), layout, arguments, report)
    report["seconds"] = round(time.monotonic() - began)
    report["ok"] = report["ended"] and report.get("overlaps") == 0 and not report.get("exceeded")
    for line in report.get("exceeded", []):
        progress.say(line)
    if "reason" in report:
        progress.say(f"the run broke off: {report['reason']}")
    out = sys.stdout if arguments.json else sys.stderr
    print(json.dumps(report, indent=None if arguments.json else 2), file=out, flush=True)
    return 0 if report["ok"] else 1
