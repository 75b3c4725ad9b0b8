"""The demo: three machines form a cluster, run a VM, lose their leader and go on; then they lose the machine
that runs the VM, which comes up elsewhere. It measures as it goes."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import cast
import progress
import reporting
import waiting
from cluster import Lab
from driver import Driver, Machine
from errors import LabError
from layout import GUEST_DIR, Layout
from telling import SilentLog

NODES = 3
VM = "web"
UNIT = f"blixard-vm@{VM}.service"
GUEST = f"--kernel {GUEST_DIR}/vmlinux --initrd {GUEST_DIR}/initrd"
STATUS = "blixard status --json --timeout 2"

_FORM_DEADLINE_SECONDS = 60.0
_BOOT_DEADLINE_SECONDS = 120.0
_FAILOVER_DEADLINE_SECONDS = 60.0
#: A lease has to be over first.
_VM_FAILOVER_DEADLINE_SECONDS = 180.0
#: Between two looks at what is being measured.
_LOOK_SECONDS = 0.03

#: The command line's exit code for what was understood and not done.
_REFUSED = 1

_USE = """
The cluster stays up. Look around:
  cargo xtask lab exec n1 -- blixard status
  cargo xtask lab exec n1 -- blixard vm list
  cargo xtask lab exec n1 -- blixard vm logs {vm}      (on {home}, where it runs)
  cargo xtask lab crash n2; cargo xtask lab start n2
Take it down:
  cargo xtask lab down"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The demo's flags."""
    parser.add_argument("--keep", action="store_true", help="leave the cluster up at the end")
    parser.add_argument("--json", action="store_true", help="print one JSON object last, the rest on stderr")
    parser.add_argument("--setup-ms", type=int, default=0, help="what came before, for the report")
    parser.add_argument("--build-ms", type=int, default=0, help="what came before, for the report")


class Demo:
    """One run; `report` grows as it goes."""

    def __init__(self, driver: Driver, report: dict[str, Any], out) -> None:
        self._machines = {machine.name: machine for machine in driver.machines}
        self._driver = driver
        self._report = report
        self._out = out

    def run(self) -> None:
        """Everything between making the machines and taking them down."""
        with progress.step("machines boot, agents form a cluster"):
            self._form()
        self._tell("blixard node list", self._first.succeed("blixard node list"))
        leader = self._status(self._first)["leader"]
        with progress.step(f"a VM starts on another machine than {leader}, which leads"):
            home, line = self._run_vm(leader)
        self._tell(f"the console of {VM}", line)
        before = self._vm(home)
        with progress.step(f"{leader}, the leader, loses power; the next write is acknowledged"):
            successor = self._lose(leader, home)
        self._tell("blixard node list", home.succeed("blixard node list"))
        after = self._vm(home)
        if before != after or after["state"] != "running":
            raise LabError(f"the VM did not stay as it was: before {before}, now {after}")
        self._tell("blixard vm list", home.succeed("blixard vm list"))
        self._report |= {"leader": leader, "new_leader": successor}
        self._report |= {"vm_node": home.name, "vm_pid": after["pid"]}
        progress.say(f"{successor} leads now; {VM} runs on as process {after['pid']}")
        self._bring_back(leader)
        with progress.step(f"{home.name}, which runs {VM}, loses power; another machine starts {VM}"):
            home, line = self._lose_home(home)
        self._tell(f"the console of {VM} on {home.name}", line)
        self._tell("blixard vm list", home.succeed("blixard vm list"))
        self._report["vm_new_node"] = home.name

    @property
    def _first(self) -> Machine:
        return self._driver.machines[0]

    def _tell(self, title: str, text: str) -> None:
        print(f"\n$ {title}\n{text.rstrip()}\n", file=self._out, flush=True)

    def _status(self, machine: Machine) -> dict[str, Any]:
        code, text = machine.execute(STATUS, timeout=10)
        return json.loads(text) if code == 0 else {}

    def _until(self, what: str, seconds: float, look) -> Any:
        """Looks again and again until there is something to see."""
        seen = waiting.until(lambda _last: look(), seconds, _LOOK_SECONDS)
        if not seen:
            raise LabError(f"{what}: not within {seconds:.0f} s")
        return seen

    def _form(self) -> None:
        began = time.monotonic()
        for machine in self._driver.machines:
            machine.connect()
        self._report["boot_ms"] = _ms_since(began)
        # The agents start with their machines; the last of them counts.
        started = max(self._agent_start(machine) for machine in self._driver.machines)
        self._write(self._first, "first-write", _FORM_DEADLINE_SECONDS)
        self._until("all nodes are members", _FORM_DEADLINE_SECONDS, self._formed)
        self._report["formed_ms"] = _ms_since(started)
        self._first.succeed("blixard vm delete first-write")

    def _agent_start(self, machine: Machine) -> float:
        def look() -> int:
            return int(machine.get_unit_property("blixard.service", "ExecMainStartTimestampMonotonic") or 0)

        # The machines share the kernel, and so its clock.
        return self._until(f"the agent of {machine.name} starts", _FORM_DEADLINE_SECONDS, look) / 1e6

    def _formed(self) -> bool:
        views = [self._status(machine) for machine in self._driver.machines]
        return all(
            view.get("leader") and [member["role"] for member in view["members"]] == ["voter"] * NODES
            for view in views
        )

    def _write(self, machine: Machine, name: str, seconds: float) -> None:
        """Creates a small VM that never starts. Tried again under one request id, so that it happens once."""
        said: list[str] = []

        def attempt() -> bool:
            # A refusal is an outcome, the answer to its request id ever after: the next try is a new request.
            request = f"--request-id demo-{name}-{len(said)} --timeout 2"
            command = f"blixard vm create {name} --memory-mib 64 {GUEST} {request} 2>&1"
            code, text = machine.execute(command, timeout=20)
            if code == _REFUSED:
                said.append(text.strip())
            return code == 0

        try:
            self._until(f"the write {name}", seconds, attempt)
        finally:
            for text in sorted(set(said)):
                progress.say(f"  …  {name} was refused {said.count(text)} times: {text}")

    def _run_vm(self, leader: str) -> tuple[Machine, str]:
        # What is reserved on the leader lets the VM be placed on another machine.
        self._first.succeed(f"blixard vm create reserved --node {leader} --memory-mib 64 {GUEST}")
        began = time.monotonic()
        self._first.succeed(
            f"blixard vm run {VM} --cpus 1 --memory-mib 256 {GUEST}"
            f" --cmdline 'quiet blixard.name={VM}' --timeout {_BOOT_DEADLINE_SECONDS:.0f}"
        )
        self._report["vm_running_ms"] = _ms_since(began)
        self._first.succeed("blixard vm delete reserved")
        home = self._machines[self._shown(self._first)["node"]]
        up, line = self._guest_up(home, began)
        self._report["vm_userland_ms"] = round((up - began) * 1000)
        return home, line

    def _guest_up(self, home: Machine, after: float) -> tuple[float, str]:
        """When the guest's user space came up last, and what it said, once that is later than `after`."""
        command = f"journalctl --unit={UNIT} --output=json --grep=BLIXARD-GUEST-UP | tail -n 1"

        def look() -> tuple[float, str] | None:
            text = home.execute(command)[1].strip()
            entry = json.loads(text) if text else {"__MONOTONIC_TIMESTAMP": 0, "MESSAGE": ""}
            # The machines share the kernel, and so its clock.
            up = int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6
            return (up, entry["MESSAGE"]) if up > after else None

        return self._until("the guest is up", _BOOT_DEADLINE_SECONDS, look)

    def _shown(self, machine: Machine) -> dict[str, Any]:
        return json.loads(machine.succeed(f"blixard vm show {VM} --json"))

    def _vm(self, machine: Machine) -> dict[str, Any]:
        view = self._shown(machine)
        pid = int(machine.get_unit_property(UNIT, "MainPID"))
        return {"state": view["state"], "node": view["node"], "pid": pid}

    def _lose(self, leader: str, witness: Machine) -> str:
        began = time.monotonic()
        self._machines[leader].crash()
        self._write(witness, "after-the-crash", _FAILOVER_DEADLINE_SECONDS)
        self._report["leader_failover_ms"] = _ms_since(began)
        witness.succeed("blixard vm delete after-the-crash")
        return self._until(
            "a new leader", _FAILOVER_DEADLINE_SECONDS, lambda: self._other_leader(witness, leader)
        )

    def _lose_home(self, lost: Machine) -> tuple[Machine, str]:
        began = time.monotonic()
        lost.crash()
        asked = next(machine for machine in self._machines.values() if machine is not lost)

        def look() -> Machine | None:
            code, text = asked.execute(f"blixard vm show {VM} --json --timeout 2", timeout=10)
            view = json.loads(text) if code == 0 else {"node": lost.name}
            return None if view["node"] == lost.name else self._machines[view["node"]]

        home = self._until(f"{VM} is given to another machine", _VM_FAILOVER_DEADLINE_SECONDS, look)
        up, line = self._guest_up(home, began)
        self._report["vm_failover_ms"] = round((up - began) * 1000)
        return home, line

    def _bring_back(self, name: str) -> None:
        with progress.step(f"{name} comes back"):
            self._machines[name].connect()
            self._until("all nodes are members", _FORM_DEADLINE_SECONDS, self._formed)

    def _other_leader(self, witness: Machine, old: str) -> str | None:
        now = self._status(witness).get("leader")
        return now if now != old else None

    def restore(self) -> None:
        """Brings the crashed machine back, for whoever wants to play on."""
        self._bring_back(self._report["vm_node"])
        progress.say(_USE.format(vm=VM, home=self._report["vm_new_node"]))


def _ms_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _play(lab: Lab, layout: Layout, keep: bool, report: dict[str, Any], out) -> None:
    kept = False
    with lab.locked():
        lab.refuse_kept()
        try:
            began = time.monotonic()
            names = lab.create(cast.numbered(NODES))
            report["machines_ms"] = _ms_since(began)
            driver = Driver(lab, names, layout.root / "out", SilentLog())
            demo = Demo(driver, report, out)
            try:
                driver.start_all()
                demo.run()
                if keep:
                    demo.restore()
                    lab.keep()
                    kept = True
            except Exception:
                report["logs"] = str(lab.save_logs(names, "demo"))
                raise
        finally:
            if not kept:
                with progress.step("taking everything down"):
                    lab.remove()


def run(layout: Layout, arguments: argparse.Namespace) -> int:
    """Plays the demo; returns the exit code."""
    report: dict[str, Any] = {"ok": False, "setup_ms": arguments.setup_ms, "build_ms": arguments.build_ms}
    out = sys.stderr if arguments.json else sys.stdout
    began = time.monotonic()
    with reporting.broken_off(report):
        _play(Lab(layout), layout, arguments.keep, report, out)
        report["ok"] = True
    report["total_ms"] = _ms_since(began) + arguments.setup_ms + arguments.build_ms
    if not report["ok"]:
        progress.say(f"the demo failed: {report['reason']}")
        if "logs" in report:
            progress.say(f"journals and consoles: {report['logs']}")
    elif not arguments.json:
        figures = ", ".join(f"{key} {value}" for key, value in report.items() if key.endswith("_ms"))
        progress.say(f"done: {figures}")
    if arguments.json:
        print(json.dumps(report), flush=True)
    return 0 if report["ok"] else 1
