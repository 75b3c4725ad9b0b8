"""Client load whose loss would be seen: writers that count, and remember up to where they were acknowledged.

Each writer has a VM of its own that never runs, and writes one number after the other into its spec, through
any machine that is up. A number that was acknowledged must be there for every read that begins afterwards,
on every machine, and nobody else writes it: what is less was lost, what is more was never asked for.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from driver import Machine
from errors import LabError

#: What a command of the load may take; the agent's own deadline comes before.
_COMMAND_SECONDS = 5
_PATIENCE_SECONDS = 15.0
_PAUSE_SECONDS = 0.25
#: A read follows each so many writes.
_WRITES_PER_READ = 4
_DONE, _REFUSED = 0, 1


@dataclass
class Tally:
    """What became of a writer's writes."""

    acknowledged: int = 0
    sent_again: int = 0
    refused: int = 0
    reads: int = 0
    #: What was read that cannot be, in words.
    lost: list[str] = field(default_factory=list)
    #: Longest time in which nothing was acknowledged, in milliseconds.
    longest_pause_ms: float = 0.0


class Writer:
    """One register and the thread that counts in it."""

    def __init__(self, name: str, machines: Callable[[], list[Machine]], seed: int) -> None:
        self.name = name
        self.tally = Tally()
        self._machines = machines
        self._random = random.Random(f"{seed} {name}")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._since = time.monotonic()

    def start(self) -> None:
        """Begins to count. The register's VM has to be there."""
        self._since = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Ends after the write that is under way."""
        self._ended.set()
        self._thread.join()

    def _command(self, command: str) -> tuple[int | None, str, str]:
        """Runs it on some machine that is up; no exit code when it did not come to an end."""
        machines = self._machines()
        if not machines:
            self._ended.wait(_PAUSE_SECONDS)
            return None, "", ""
        machine = self._random.choice(machines)
        # The machine may lose power at any moment.
        with contextlib.suppress(LabError, OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                machine.enter(["bash", "-c", command]),
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=_PATIENCE_SECONDS,
            )
            return done.returncode, done.stdout, f"{machine.name}: {done.stderr.strip()}"
        return None, "", ""

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(_PAUSE_SECONDS):
            number += 1
            if self._write(number):
                self.tally.acknowledged = number
                now = time.monotonic()
                pause_ms = (now - self._since) * 1000
                self.tally.longest_pause_ms = max(self.tally.longest_pause_ms, pause_ms)
                self._since = now
                if number % _WRITES_PER_READ == 0:
                    self.read()

    def _write(self, number: int) -> bool:
        attempt = 0
        while not self._ended.is_set():
            request = f"{self.name}-{number}-{attempt}"
            code, _, _ = self._command(
                f"blixard vm set {self.name} --cmdline count={number} --no-wait"
                f" --request-id {request} --timeout {_COMMAND_SECONDS}"
            )
            if code == _DONE:
                return True
            if code == _REFUSED:
                # A refusal is an outcome, the answer to its request id ever after.
                attempt += 1
                self.tally.refused += 1
            self.tally.sent_again += 1
            self._ended.wait(_PAUSE_SECONDS)
        return False

    def read(self) -> bool:
        """Reads once, after what was acknowledged; returns whether there was an answer."""
        expected = self.tally.acknowledged
        code, text, said = self._command(f"blixard vm list --json --timeout {_COMMAND_SECONDS}")
        if code != _DONE:
            return False
        self.tally.reads += 1
        listing = json.loads(text)
        found = [count(vm) for vm in listing["items"] if vm["name"] == self.name]
        # Without an acknowledgement the last write may have happened or not.
        if not listing["linearizable"] or not found or found[0] not in (expected, expected + 1):
            self.tally.lost.append(f"{self.name} was acknowledged {expected}, {said} read {found}")
        return True


def count(vm: dict) -> int:
    """The number in a register's spec; 0 before the first write."""
    words = vm["spec"].get("cmdline", "").partition("count=")[2].split()
    return int(words[0]) if words else 0
