"""Three machines (or more) with systemd on a network of their own, to run blixard in."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import cast
import chaos
import demo
import lease_cost
import measure
import progress
import story
from cluster import Lab, check_host
from driver import Driver
from errors import LabError
from layout import Layout
from telling import MachineError

INTERRUPTED = 130
_PR_SET_PDEATHSIG = 1


def _cast(arguments: argparse.Namespace) -> cast.Cast:
    if arguments.story:
        return story.facts_of(story.find(arguments.story)).cast
    return cast.numbered(arguments.nodes)


def _up(layout: Layout, arguments: argparse.Namespace) -> int:
    lab = Lab(layout)
    with lab.locked():
        lab.refuse_kept()
        done = False
        try:
            driver = Driver(lab, lab.create(_cast(arguments)), layout.root / "out")
            driver.start_all()
            for machine in driver.machines:
                machine.connect()
            lab.keep()
            done = True
        finally:
            if not done:
                lab.remove()
    progress.say("the lab is up; try: cargo xtask lab exec n1 -- blixard status")
    return 0


def _down(layout: Layout, _arguments: argparse.Namespace) -> int:
    lab = Lab(layout)
    with lab.locked(), progress.step("taking the lab down"):
        lab.remove()
    return 0


def _status(layout: Layout, _arguments: argparse.Namespace) -> int:
    lab = Lab(layout)
    nodes = lab.nodes()
    if not nodes:
        print("the lab is down")
        return 1
    for node in nodes:
        container = lab.container(node)
        print(f"{node}\t{'running' if container.is_running() else 'off'}")
    return 0


def _machine(layout: Layout, node: str):
    lab = Lab(layout)
    if node not in lab.nodes():
        known = ", ".join(lab.nodes()) or "none, the lab is down"
        raise LabError(f"there is no machine {node!r}; there are: {known}")
    machines = Driver(lab, lab.nodes(), layout.root / "out").machines
    machine = next(machine for machine in machines if machine.name == node)
    machine.attach()
    return machine, lab.container(node)


def _exec(layout: Layout, arguments: argparse.Namespace) -> int:
    machine, container = _machine(layout, arguments.node)
    if not machine.booted:
        raise LabError(f"{arguments.node} is off; start it with: cargo xtask lab start {arguments.node}")
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    return subprocess.run(container.enter(command or ["bash", "-l"])).returncode


def _power(layout: Layout, arguments: argparse.Namespace) -> int:
    machine, _ = _machine(layout, arguments.node)
    getattr(machine, arguments.verb)()
    if arguments.verb == "start":
        machine.connect()
    return 0


def _run(layout: Layout, arguments: argparse.Namespace) -> int:
    passed = story.run(layout, arguments.story, arguments.nodes, arguments.timeout, arguments.settings)
    return 0 if passed else 1


def _all(layout: Layout, _arguments: argparse.Namespace) -> int:
    return 0 if story.run_all(layout) else 1


def _logs(layout: Layout, arguments: argparse.Namespace) -> int:
    machine, container = _machine(layout, arguments.node)
    if not machine.booted or arguments.console:
        print(machine.get_console_log(), end="")
        return 0
    return subprocess.run(container.enter(["journalctl", "--no-pager", *arguments.options])).returncode


def _demo(layout: Layout, arguments: argparse.Namespace) -> int:
    return demo.run(layout, arguments)


def _chaos(layout: Layout, arguments: argparse.Namespace) -> int:
    return chaos.run(layout, arguments)


def _measure(layout: Layout, arguments: argparse.Namespace) -> int:
    return measure.run(layout, arguments)


def _lease_cost(layout: Layout, arguments: argparse.Namespace) -> int:
    return lease_cost.run(layout, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cargo xtask lab", description=__doc__)
    parser.add_argument("--die-with-parent", action="store_true", help=argparse.SUPPRESS)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, action, text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text)
        verb.set_defaults(action=action, verb=name)
        return verb

    up = add("up", _up, "start machines and leave them running")
    up.add_argument("--nodes", type=int, default=3)
    up.add_argument("--story", help="the machines of this story instead")
    add("down", _down, "end all machines and remove what they made")
    add("status", _status, "which machines there are")
    enter = add("exec", _exec, "run a command in a machine; a shell without one")
    enter.add_argument("node")
    enter.add_argument("command", nargs=argparse.REMAINDER)
    for name, text in (
        ("start", "power a machine on"),
        ("shutdown", "shut a machine down in order"),
        ("crash", "cut a machine's power"),
        ("block", "pull a machine's network cable"),
        ("unblock", "plug a machine's network cable in"),
    ):
        add(name, _power, text).add_argument("node")
    run = add("run", _run, "run a story of vm-tests/stories/ on fresh machines")
    run.add_argument("story")
    run.add_argument("--nodes", type=int, help="so many, all listed, instead of the story's own machines")
    run.add_argument("--timeout", type=int, help="seconds, instead of what the story says of itself")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="NAME=VALUE",
        help="what the story lets one choose, as KILLS=1000 of store_kills; several times for several",
    )
    add("all", _all, "run every story, one after the other")
    logs = add("logs", _logs, "a machine's journal")
    logs.add_argument("node")
    logs.add_argument("--console", action="store_true", help="what its systemd printed instead")
    logs.add_argument("options", nargs=argparse.REMAINDER, help="for journalctl, after --")
    chaos.add_arguments(add("chaos", _chaos, "what `cargo xtask chaos` runs"))
    measured = add("measure", _measure, "how long VMs take to end, and to go on, when a node is lost")
    measure.add_arguments(measured)
    lease_cost.add_arguments(add("lease-cost", _lease_cost, "what leases cost agents, by the number of VMs"))
    demo.add_arguments(add("demo", _demo, "what `cargo xtask demo` shows"))
    return parser


def _on_signal(number: int, _frame: object) -> None:
    # The first one unwinds and cleans up; more of them would only leave things lying about.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def _die_with_parent() -> None:
    # What the parent started for its own ends ends with it, in order.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> int:
    """Runs one command; returns the exit code."""
    arguments = _parser().parse_args()
    os.umask(0o022)
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, _on_signal)
    if arguments.die_with_parent:
        _die_with_parent()
    try:
        check_host()
        return arguments.action(Layout.default(), arguments)
    except KeyboardInterrupt as interrupt:
        progress.say(f"interrupted ({interrupt})")
        return INTERRUPTED
    except (LabError, MachineError) as error:
        progress.say(f"error: {error}")
        return 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
