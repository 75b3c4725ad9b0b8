"""What stories are told with: the log, retries, conditions that have to hold, and the ends of a story."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import progress
import waiting

DEFAULT_TIMEOUT_SECONDS = 900
#: Pause between two tries.
_RETRY_SECONDS = 1.0
_SHOWN_CHARACTERS = 300


class MachineError(Exception):
    """The machine itself did not do as told."""


class RequestedAssertionFailed(Exception):
    """What the story asserts does not hold."""


class Log:
    """What a story does, with its time, for people."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._depth = 0

    def log(self, message: str) -> None:
        """One line."""
        progress.say(f"{time.monotonic() - self._began:7.1f} {'  ' * self._depth}{message}")

    def info(self, message: str) -> None:
        """One line."""
        self.log(message)

    @contextlib.contextmanager
    def nested(self, message: str) -> Iterator[None]:
        """Whatever is logged inside belongs to `message`."""
        self.log(message)
        began = time.monotonic()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self.log(f"({message.splitlines()[0][:80]}: {time.monotonic() - began:.1f} s)")

    @contextlib.contextmanager
    def subtest(self, name: str) -> Iterator[None]:
        """A part of a story with a name of its own."""
        with self.nested(f"subtest: {name}"):
            yield


class SilentLog(Log):
    """For who says itself what it does."""

    def log(self, message: str) -> None:
        """Nothing."""


def retry(fn: Callable[[bool], bool], timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
    """Calls `fn` once a second until it is true; `fn` gets True for the last call, after the deadline."""
    if not waiting.until(fn, timeout_seconds, _RETRY_SECONDS):
        raise RequestedAssertionFailed(f"action timed out after {timeout_seconds} s")


def shorten(text: str) -> str:
    """Enough of `text` to recognise it."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN_CHARACTERS else flat[:_SHOWN_CHARACTERS] + " …"


class Watched(Protocol):
    """What looks at conditions before each command."""

    conditions: list[PollingCondition]


class PollingCondition:
    """Something that has to hold all the while a block runs; looked at before each command."""

    def __init__(
        self,
        condition: Callable[[], bool | None],
        machines: list[Watched],
        seconds_interval: float,
        description: str | None,
    ) -> None:
        self._condition = condition
        self._machines = machines
        self._interval = seconds_interval
        self._description = description or condition.__doc__ or condition.__name__
        self._last = float("-inf")
        self._checking = False

    def holds(self) -> bool:
        """Looks once."""
        self._checking = True
        try:
            return self._condition() in (None, True)
        finally:
            self._checking = False
            self._last = time.monotonic()

    def maybe_raise(self) -> None:
        """Looks when it is time to; raises when the condition does not hold."""
        due = not self._checking and time.monotonic() - self._last >= self._interval
        if due and not self.holds():
            raise RequestedAssertionFailed(f"polling condition failed: {self._description}")

    def wait(self, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        """Waits until the condition holds."""
        retry(lambda _last: self.holds(), timeout)

    def __enter__(self) -> None:
        for machine in self._machines:
            machine.conditions.append(self)

    def __exit__(self, *_: object) -> None:
        for machine in self._machines:
            machine.conditions.remove(self)
