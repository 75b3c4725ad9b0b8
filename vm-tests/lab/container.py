"""One machine as a systemd-nspawn container: start, enter, power off, cut off.

The container's root, network namespace and control group are made outside and outlive it, so that a machine
that was killed boots again with the disk it had.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import waiting
from cgroups import Groups
from errors import LabError

_SHELL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LEADER_DEADLINE_SECONDS = 20.0
#: How systemd as PID 1 is asked for a clean power-off (systemd(1), "SIGRTMIN+4").
_POWER_OFF = signal.SIGRTMIN + 4
# Joins the groups, then becomes what the remaining arguments say.
_JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1"; shift; done; shift; exec "$@"'


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_init(pid: int) -> bool:
    """Whether the process is the first of a pid namespace of its own."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                return len(numbers) > 1 and numbers[-1] == "1"
    return False


def _has_started_systemd(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "systemd" in os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    return False


class Container:
    """A machine's processes; at most one start of it at a time."""

    def __init__(
        self, name: str, tag: str, root: Path, console: Path, namespace: Path, groups: Groups
    ) -> None:
        self._name = name
        self._machine = f"{tag}-{name}"
        self._root = root
        self._console = console
        self._namespace = namespace
        self._groups = groups
        self._process: subprocess.Popen[bytes] | None = None
        self._leader: int | None = None

    def _argv(self) -> list[str]:
        return [
            "systemd-nspawn",
            "--quiet",
            f"--directory={self._root}",
            f"--machine={self._machine}",
            f"--hostname={self._name}",
            "--register=no",
            "--keep-unit",
            f"--network-namespace-path={self._namespace}",
            "--capability=CAP_NET_ADMIN",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--console=read-only",
            "--boot",
        ]

    def start(self) -> None:
        """Powers the machine on; returns before it is up."""
        self._leader = None
        self._groups.prune(self._name)
        joins = [str(path) for path in self._groups.create(self._name)]
        with self._console.open("ab") as console:
            self._process = subprocess.Popen(
                ["sh", "-c", _JOIN, "sh", *joins, "--", *self._argv()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                # A Ctrl-C at the terminal is for the harness, which then ends the machines in order.
                start_new_session=True,
            )

    def is_running(self) -> bool:
        """Whether any process of the machine is left."""
        if self._process is not None:
            self._process.poll()
        return bool(self._groups.processes(self._name))

    def leader(self) -> int:
        """The pid, outside, of the machine's PID 1."""
        if self._leader is not None and _is_init(self._leader):
            return self._leader
        # One that has ended starts no more.
        waiting.until(lambda _last: self._find_leader() or self._has_ended(), _LEADER_DEADLINE_SECONDS)
        if self._leader is None:
            raise LabError(f"machine {self._name} did not start; its console is in {self._console}")
        return self._leader

    def _find_leader(self) -> bool:
        members = self._groups.processes(self._name)
        # The first process of the payload is a child of nspawn, which is in the same group.
        inits = (pid for pid in members if _is_init(pid) and _has_started_systemd(pid))
        self._leader = next((pid for pid in inits if self._is_payload(pid, members)), None)
        return self._leader is not None

    def _has_ended(self) -> bool:
        if self._process is None:
            return not self.is_running()
        return self._process.poll() is not None

    @staticmethod
    def _is_payload(pid: int, members: set[int]) -> bool:
        return any(pid in _children(parent) for parent in members)

    def enter(self, argv: list[str]) -> list[str]:
        """The command line that runs `argv` inside the machine, as root."""
        namespaces = ["-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        terminal = os.environ.get("TERM", "dumb")
        environment = ["env", "-i", f"PATH={_SHELL_PATH}", "HOME=/root", "LANG=C.UTF-8", f"TERM={terminal}"]
        nsenter = shutil.which("nsenter") or "nsenter"
        return [nsenter, "-t", str(self.leader()), *namespaces, "--", *environment, *argv]

    def power_off(self, timeout: float) -> None:
        """Asks the machine to shut down and waits until it has."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.leader(), _POWER_OFF)
        self.wait_until_off(timeout)

    def wait_until_off(self, timeout: float) -> None:
        """Waits until no process of the machine is left."""
        if not waiting.until(lambda _last: not self.is_running(), timeout):
            raise LabError(f"machine {self._name} did not shut down within {timeout:.0f} s")
        self._reap()

    def cut_power(self) -> None:
        """Kills everything in the machine, at once."""
        self._groups.kill(self._name)
        self._reap()

    def _reap(self) -> None:
        self._leader = None
        if self._process is not None:
            self._process.wait()
            self._process = None
