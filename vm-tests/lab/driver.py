"""The NixOS test driver's Python API over the lab's machines, so that one script tests both.

Only what the stories need is here, with the names, arguments and meanings it has there. Where the two differ:
a machine is a container, so `crash` kills every process of it at once and keeps what the kernel had not yet
written.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import waiting
from cluster import Lab
from container import Container
from judging import Judge
from telling import (
    DEFAULT_TIMEOUT_SECONDS,
    Log,
    MachineError,
    PollingCondition,
    RequestedAssertionFailed,
    retry,
    shorten,
)

_READY_DEADLINE_SECONDS = 120.0
_READY_POLL_SECONDS = 0.1
_SHUTDOWN_DEADLINE_SECONDS = 180.0
#: `timeout` ends a command with this code.
_TIMED_OUT = 124
#: How long a command may overstay its own timeout before the harness stops waiting for its output.
_GRACE_SECONDS = 10


class Machine:
    """One machine of the lab."""

    def __init__(self, name: str, container: Container, lab: Lab, log: Log, out_dir: Path) -> None:
        self.name = name
        self.booted = False
        self.out_dir = out_dir
        self._container = container
        self._lab = lab
        self._log = log
        self._ready = False
        #: Looked at before each command.
        self.conditions: list[PollingCondition] = []

    # Power.

    def start(self, allow_reboot: bool = False) -> None:
        """Powers the machine on, unless it is; does not wait for it."""
        del allow_reboot
        if self.booted:
            return
        self.log("starting")
        self._lab.restore_address(self.name)
        self._container.start()
        self.booted = True
        self._ready = False

    def attach(self) -> None:
        """Takes a machine that an earlier command started."""
        self.booted = self._container.is_running()

    def connect(self) -> None:
        """Waits until the machine can be talked to."""
        self.start()
        if self._ready:
            return
        began = time.monotonic()
        probe = ["systemctl", "--quiet", "is-active", "sysinit.target", "dbus.socket"]

        def is_ready(_last: bool) -> bool:
            return subprocess.run(self._container.enter(probe), capture_output=True).returncode == 0

        if not waiting.until(is_ready, _READY_DEADLINE_SECONDS, _READY_POLL_SECONDS):
            raise MachineError(f"{self.name} did not boot; see {self._lab.console(self.name)}")
        self._ready = True
        self.log(f"up ({time.monotonic() - began:.1f} s)")

    def is_up(self) -> bool:
        """Whether it is on and can be talked to."""
        return self.booted and self._ready

    def shutdown(self) -> None:
        """Shuts the machine down in order and waits until it is off."""
        if not self.booted:
            return
        with self._nested("shut down"):
            self.connect()
            self._container.power_off(_SHUTDOWN_DEADLINE_SECONDS)
        self.booted = self._ready = False

    def crash(self) -> None:
        """Cuts the power."""
        if not self.booted:
            return
        self.log("crash")
        self._container.cut_power()
        self.booted = self._ready = False

    def reboot(self) -> None:
        """Shuts the machine down in order and starts it again."""
        self.shutdown()
        self.start()

    def wait_for_shutdown(self) -> None:
        """Waits until the machine is off by itself."""
        self._container.wait_until_off(DEFAULT_TIMEOUT_SECONDS)
        self.booted = self._ready = False

    def block(self) -> None:
        """Pulls the network cable."""
        self.log("network cable out")
        self._lab.network.set_link(self.name, up=False)

    def unblock(self) -> None:
        """Plugs the network cable in again."""
        self.log("network cable in")
        self._lab.network.set_link(self.name, up=True)

    # What the NixOS test driver does not have.

    def freeze(self) -> None:
        """Stops every process of the machine, and no clock: as a hypervisor that pauses a machine does."""
        self.log("frozen")
        self._lab.freeze(self.name, frozen=True)

    def thaw(self) -> None:
        """Lets the processes of a frozen machine go on."""
        self.log("thawed")
        self._lab.freeze(self.name, frozen=False)

    def enter(self, argv: list[str]) -> list[str]:
        """The command line that runs `argv` inside the machine, as root; raises when it is off."""
        return self._container.enter(argv)

    # Commands.

    def _run(self, command: str, timeout: float | None) -> subprocess.CompletedProcess[str]:
        self.connect()
        argv = ["bash", "-c", f"set -euo pipefail; {command}"]
        patience = None
        if timeout is not None:
            argv = ["timeout", str(timeout), *argv]
            patience = timeout + _GRACE_SECONDS
        argv = self._container.enter(argv)
        try:
            return subprocess.run(
                argv,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=patience,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(argv, _TIMED_OUT, "", f"no end within {patience} s")

    def _attempt(self, command: str, timeout: float | None) -> subprocess.CompletedProcess[str]:
        for condition in self.conditions:
            condition.maybe_raise()
        return self._run(command, timeout)

    def execute(
        self,
        command: str,
        check_return: bool = True,
        check_output: bool = True,
        timeout: int | None = DEFAULT_TIMEOUT_SECONDS,
    ) -> tuple[int, str]:
        """Runs `command` in a shell as root; returns its exit code and its stdout."""
        if not check_output:
            self.connect()
            argv = self._container.enter(["bash", "-c", f"set -euo pipefail; {command}"])
            null = subprocess.DEVNULL
            subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, start_new_session=True)
            return -2, ""
        done = self._attempt(command, timeout)
        return (done.returncode if check_return else -1), done.stdout

    def succeed(self, *commands: str, timeout: int | None = None) -> str:
        """Each command must end with exit code 0; returns their stdout."""
        output = ""
        for command in commands:
            self.log(f"must succeed: {shorten(command)}")
            done = self._attempt(command, timeout)
            if done.returncode != 0:
                raise RequestedAssertionFailed(self._failure(command, done))
            output += done.stdout
        return output

    def fail(self, *commands: str, timeout: int | None = None) -> str:
        """Each command must end with another exit code than 0; returns their stdout."""
        output = ""
        for command in commands:
            self.log(f"must fail: {shorten(command)}")
            done = self._attempt(command, timeout)
            if done.returncode == 0:
                raise RequestedAssertionFailed(f"{self.name}: command `{command}` unexpectedly succeeded")
            output += done.stdout
        return output

    def _failure(self, command: str, done: subprocess.CompletedProcess[str]) -> str:
        text = f"{self.name}: command `{command}` failed (exit code {done.returncode})"
        for stream in (done.stdout, done.stderr):
            if stream.strip():
                text += "\n" + stream.strip()
        return text

    def _wait(self, what: str, command: str, timeout: float, wanted: Callable[[int], bool]) -> str:
        last: list[subprocess.CompletedProcess[str]] = []

        def attempt(_last: bool) -> bool:
            last[:] = [self._attempt(command, timeout)]
            return wanted(last[0].returncode)

        with self._nested(f"waiting for {what}: {shorten(command)}"):
            try:
                retry(attempt, timeout)
            except RequestedAssertionFailed as error:
                raise RequestedAssertionFailed(f"{self._failure(command, last[0])}\n{error}") from None
        return last[0].stdout

    def wait_until_succeeds(self, command: str, timeout: int = DEFAULT_TIMEOUT_SECONDS) -> str:
        """Tries once a second until the command ends with exit code 0; returns the last stdout."""
        return self._wait("success", command, timeout, lambda code: code == 0)

    def wait_until_fails(self, command: str, timeout: int = DEFAULT_TIMEOUT_SECONDS) -> str:
        """Tries once a second until the command ends with another exit code than 0; returns its stdout."""
        return self._wait("failure", command, timeout, lambda code: code != 0)

    # Units, files, ports.

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        """Runs `systemctl q`; never raises."""
        if user is not None:
            q = f"--user --machine={shlex.quote(user)}@.host {q}"
        return self.execute(f"systemctl {q}")

    def start_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """Starts a unit; never raises."""
        return self.systemctl(f"start {jobname}", user)

    def stop_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """Stops a unit; never raises."""
        return self.systemctl(f"stop {jobname}", user)

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        """All properties of a unit."""
        code, lines = self.systemctl(f'--no-pager show "{unit}"', user)
        if code != 0:
            raise RequestedAssertionFailed(f'retrieving systemctl info for unit "{unit}" failed')
        return dict(line.split("=", 1) for line in lines.splitlines() if "=" in line)

    def get_unit_property(self, unit: str, property: str, user: str | None = None) -> str:
        """One property of a unit."""
        code, lines = self.systemctl(f'--no-pager show "{unit}" --property="{property}"', user)
        if code != 0 or "=" not in lines:
            raise RequestedAssertionFailed(f'retrieving property "{property}" of unit "{unit}" failed')
        return lines.strip().split("=", 1)[1]

    def wait_for_unit(
        self, unit: str, user: str | None = None, timeout: int = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        """Waits until the unit is active; raises at once when it failed, or will never be."""

        def is_active(_last: bool) -> bool:
            state = self.get_unit_property(unit, "ActiveState", user)
            if state == "failed":
                raise RequestedAssertionFailed(f'{self.name}: unit "{unit}" reached state "{state}"')
            if state == "inactive":
                _, jobs = self.systemctl("list-jobs --full 2>&1", user)
                state = self.get_unit_property(unit, "ActiveState", user)
                if "No jobs" in jobs and state == "inactive":
                    raise RequestedAssertionFailed(
                        f'{self.name}: unit "{unit}" is inactive and there are no pending jobs'
                    )
            return state == "active"

        with self._nested(f"waiting for unit {unit}"):
            retry(is_active, timeout)

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        """The unit must be in that state now."""
        state = self.get_unit_property(unit, "ActiveState")
        if state != require_state:
            raise RequestedAssertionFailed(f'{self.name}: unit "{unit}" is "{state}", not "{require_state}"')

    def wait_for_file(self, path: str, timeout: int = DEFAULT_TIMEOUT_SECONDS) -> None:
        """Waits until the file is there."""
        self._wait("file", f"test -e {shlex.quote(path)}", timeout, lambda code: code == 0)

    def wait_for_open_port(
        self, port: int, addr: str = "localhost", timeout: int = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        """Waits until somebody listens on the TCP port."""
        self._wait("open port", f"nc -z {addr} {port}", timeout, lambda code: code == 0)

    def wait_for_closed_port(
        self, port: int, addr: str = "localhost", timeout: int = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        """Waits until nobody listens on the TCP port."""
        self._wait("closed port", f"nc -z {addr} {port}", timeout, lambda code: code != 0)

    def wait_for_open_unix_socket(
        self, addr: str, is_datagram: bool = False, timeout: int = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        """Waits until somebody listens on the Unix socket."""
        flags = "-uU" if is_datagram else "-U"
        self._wait("socket", f"nc -z {flags} {shlex.quote(addr)}", timeout, lambda code: code == 0)

    def copy_from_host(self, source: str, target: str) -> None:
        """Copies a file or a directory into the machine."""
        self.succeed(f"mkdir -p $(dirname {shlex.quote(target)})")
        place = shlex.quote(target)
        if Path(source).is_dir():
            send, take = ["tar", "-C", source, "-c", "."], f"mkdir -p {place} && tar -C {place} -x"
        else:
            send, take = ["cat", source], f"cat > {place}"
        self._pipe(send, self._container.enter(["bash", "-c", take]), f"{source} to {target}")

    def copy_from_machine(self, source: str, target_dir: str = "") -> None:
        """Copies a file or a directory out of the machine, to `target_dir` below the run's output."""
        self.connect()
        home = self.out_dir / target_dir
        home.mkdir(parents=True, exist_ok=True)
        path = Path(source)
        send = self._container.enter(["tar", "-C", str(path.parent), "-c", path.name])
        self._pipe(send, ["tar", "-C", str(home), "-x"], f"{source} to {home}")

    def _pipe(self, send: list[str], take: list[str], what: str) -> None:
        with subprocess.Popen(send, stdout=subprocess.PIPE) as sender:
            done = subprocess.run(take, stdin=sender.stdout)
        if done.returncode != 0 or sender.returncode != 0:
            raise MachineError(f"{self.name}: could not copy {what}")

    # Words.

    def sleep(self, secs: int) -> None:
        """Sleeps inside the machine."""
        self.succeed(f"sleep {secs}")

    def log(self, message: str) -> None:
        """One line in the run's log."""
        self._log.log(f"{self.name}: {message}")

    def nested(self, message: str) -> contextlib.AbstractContextManager[None]:
        """Whatever is logged inside belongs to `message`."""
        return self._nested(message)

    def _nested(self, message: str) -> contextlib.AbstractContextManager[None]:
        return self._log.nested(f"{self.name}: {message}")

    def get_console_log(self) -> str:
        """What the machine's systemd printed so far."""
        return self._lab.console(self.name).read_text(errors="replace")

    def wait_for_console_text(self, regex: str, timeout: int | None = None) -> None:
        """Waits until the machine's console shows the text."""
        seconds = timeout or DEFAULT_TIMEOUT_SECONDS
        retry(lambda _last: re.search(regex, self.get_console_log()) is not None, seconds)


class Driver:
    """The machines of one run and the names a story finds."""

    def __init__(self, lab: Lab, nodes: list[str], out_dir: Path, log: Log | None = None) -> None:
        self.logger = log or Log()
        containers = [(node, lab.container(node)) for node in sorted(nodes)]
        self.machines = [Machine(node, each, lab, self.logger, out_dir) for node, each in containers]
        self.judge = Judge(lab.tag, out_dir / "record.jsonl")

    def start_all(self) -> None:
        """Powers every machine on."""
        for machine in self.machines:
            machine.start()

    def join_all(self) -> None:
        """Waits until every machine is off."""
        for machine in self.machines:
            machine.wait_for_shutdown()

    def polling_condition(
        self,
        fun_: Callable[[], bool | None] | None = None,
        *,
        seconds_interval: float = 2.0,
        description: str | None = None,
    ) -> Any:
        """Makes a condition of a function; a decorator with or without arguments."""

        def make(function: Callable[[], bool | None]) -> PollingCondition:
            return PollingCondition(function, self.machines, seconds_interval, description)

        return make if fun_ is None else make(fun_)

    def symbols(self) -> dict[str, Any]:
        """Everything a story may name."""
        named = {machine.name.replace("-", "_"): machine for machine in self.machines}
        if len(self.machines) == 1:
            named["machine"] = self.machines[0]
        return {
            "driver": self,
            "join_all": self.join_all,
            "judge": self.judge,
            "log": self.logger,
            "machines": self.machines,
            "polling_condition": self.polling_condition,
            "retry": retry,
            "start_all": self.start_all,
            "subtest": self.logger.subtest,
            "t": unittest.TestCase(),
            "Machine": Machine,
            **named,
        }

    def run(self, scripts: list[Path]) -> None:
        """Runs a story: its scripts one after the other, as if they were one text."""
        symbols = self.symbols()
        try:
            for script in scripts:
                code = compile(script.read_text(), str(script), "exec")
                exec(code, symbols, None)  # noqa: S102
        finally:
            self.judge.stop()
