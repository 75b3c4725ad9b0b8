"""What leases cost agents, and whether that depends on how many VMs there are that may be failed over.

Three machines with systemd, each agent with its own lease file. The VMs are placed on them, and each is in
the lease file of its machine, which is all that leases know of a VM; they are never started, so that units
and hypervisors cost nothing. What agents report to the leader every second names each VM all the same.
Processor time is that of the agent's unit; bytes are everything that the machine's cable carries, with the
headers of Ethernet, IP and UDP.

A lease of five minutes is renewed every 100 s: so what the renewals cost is seen beside the usual one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import cast
import measure
import progress
import reporting
import waiting
from cluster import Lab
from driver import Driver, Machine
from errors import LabError
from layout import GUEST_DIR, Layout
from telling import SilentLog

NODES = 3
#: How many VMs there are, one count after the other, with the usual lease; then the same backwards with a
#: long one.
COUNTS = (0, 30, 300)
#: The terms, as the command line takes them.
USUAL, LONG = "10s", "5m"
#: Room for all of them on each machine.
ROOM = {"resources": {"cpus": 4096, "memory_mib": 1_000_000}}

_FORM_SECONDS = 120.0
_LOOK_SECONDS = 0.25
#: After the number of VMs or the terms have changed, before anything is counted.
_QUIET_SECONDS = 15.0
#: What a machine says: processor time of its agent, bytes sent and received, bytes of the lease file.
_SAMPLE = (
    "sed -n 's/^usage_usec //p' /sys/fs/cgroup/system.slice/blixard.service/cpu.stat"
    " && ip -json -stats link show dev eth1 | jq '.[0].stats64 | .tx.bytes, .rx.bytes'"
    " && stat --format=%s /run/blixard-lease/lease.json"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of a run."""
    parser.add_argument("--seconds", type=int, default=60, help="how long is counted each time")
    parser.add_argument("--json", action="store_true", help="print one JSON object last, the rest on stderr")


@dataclass(frozen=True)
class Sample:
    """What a machine's agent has used so far."""

    at: float
    cpu_us: int
    sent: int
    received: int
    lease_file_bytes: int


def read(at: float, text: str) -> Sample:
    """Reads what a machine said."""
    cpu_us, sent, received, lease_file_bytes = (int(word) for word in text.split())
    return Sample(at, cpu_us, sent, received, lease_file_bytes)


def used(before: Sample, after: Sample) -> dict[str, float]:
    """What was used in between, for each second."""
    seconds = after.at - before.at
    return {
        "cpu_ms_per_s": round((after.cpu_us - before.cpu_us) / 1000 / seconds, 2),
        "sent_bytes_per_s": round((after.sent - before.sent) / seconds),
        "received_bytes_per_s": round((after.received - before.received) / seconds),
        "lease_file_bytes": after.lease_file_bytes,
    }


class Counting:
    """One run."""

    def __init__(self, driver: Driver, seconds: int) -> None:
        self._driver = driver
        self._machines = driver.machines
        self._seconds = seconds
        self._vms: list[str] = []
        self.measured: list[dict[str, Any]] = []

    def run(self) -> None:
        """Makes the cluster, and counts with each number of VMs and each lease."""
        with progress.step("machines boot, agents form a cluster, leases begin"):
            self._driver.start_all()
            for machine in self._machines:
                machine.connect()
            self._wait_until_whole()
        for count in COUNTS:
            self._create(count)
            self._count(USUAL)
        self._machines[0].succeed(f"blixard cluster lease --lease {LONG}")
        for count in reversed(COUNTS):
            self._delete(count)
            self._count(LONG)

    def _status(self, machine: Machine) -> dict[str, Any] | None:
        code, text = machine.execute("blixard status --json --timeout 3", timeout=10)
        return json.loads(text) if code == 0 else None

    def _wait_until_whole(self) -> dict[str, Any]:
        def look(_last: bool) -> dict[str, Any] | None:
            views = [self._status(machine) for machine in self._machines]
            whole = all(view is not None and measure.is_whole(view) for view in views)
            return views[0] if whole else None

        view = waiting.until(look, _FORM_SECONDS, _LOOK_SECONDS)
        if view is None:
            raise LabError(f"the cluster is not whole within {_FORM_SECONDS:.0f} s")
        return view

    def _create(self, count: int) -> None:
        names = [f"vm-{number}" for number in range(len(self._vms) + 1, count + 1)]
        self._vms += names
        spec = f"--cpus 1 --memory-mib 64 --kernel {GUEST_DIR}/vmlinux --on-node-loss failover"
        self._for_each(names, f"blixard vm create $vm {spec}", f"{count} VMs are made")

    def _delete(self, count: int) -> None:
        names, self._vms = self._vms[count:], self._vms[:count]
        self._for_each(names, "blixard vm delete $vm", f"{count} VMs are left")

    def _for_each(self, names: list[str], command: str, what: str) -> None:
        if names:
            with progress.step(what):
                words = " ".join(names)
                self._machines[0].succeed(f"for vm in {words}; do {command} > /dev/null || exit 1; done")

    def _count(self, lease: str) -> None:
        with progress.step(f"{len(self._vms)} VMs, a lease of {lease}: counting for {self._seconds} s"):
            leader = self._wait_until_whole()["leader"]
            time.sleep(_QUIET_SECONDS)
            before = {machine.name: self._sample(machine) for machine in self._machines}
            time.sleep(self._seconds)
            after = {machine.name: self._sample(machine) for machine in self._machines}
            if self._wait_until_whole()["leader"] != leader:
                raise LabError("another node leads than before: what was counted is of neither")
        of = {name: used(before[name], after[name]) for name in before}
        followers = [of[name] for name in of if name != leader]
        row = {"vms": len(self._vms), "lease": lease, "load": os.getloadavg()[0]}
        self.measured.append(row | {"leader": of[leader], "followers": followers})
        progress.say(json.dumps(self.measured[-1]))

    def _sample(self, machine: Machine) -> Sample:
        text = machine.succeed(_SAMPLE)
        return read(time.monotonic(), text)


def _play(lab: Lab, layout: Layout, arguments: argparse.Namespace, report: dict[str, Any]) -> None:
    names = cast.numbered(NODES).names
    with lab.fresh(cast.Cast(tuple(names), settings={name: ROOM for name in names})):
        driver = Driver(lab, names, layout.root / "out" / "lease-cost", SilentLog())
        counting = Counting(driver, arguments.seconds)
        try:
            counting.run()
            report["ok"] = True
        except Exception:
            report["logs"] = str(lab.save_logs(names, "lease-cost"))
            raise
        finally:
            report["measured"] = counting.measured


def run(layout: Layout, arguments: argparse.Namespace) -> int:
    """Counts; returns the exit code."""
    report: dict[str, Any] = {"ok": False, "seconds": arguments.seconds, "cores": os.cpu_count()}
    with reporting.broken_off(report):
        _play(Lab(layout), layout, arguments, report)
    if "reason" in report:
        progress.say(f"the run broke off: {report['reason']}")
    out = sys.stdout if arguments.json else sys.stderr
    print(json.dumps(report, indent=None if arguments.json else 2), file=out, flush=True)
    return 0 if report["ok"] else 1
