"""Records, outside the lab's machines, which hypervisors run in them, and which of their guests say so.

The first is from the computer's process table, the second from the guests' heartbeats: two records that know
nothing of each other. A process of its own, so that nothing that the harness does makes it look later.

It sees what the kernel of the computer knows and asks nobody in a machine: not the agent, not systemd, not
the guest, not a journal that may be lost with its machine. A heartbeat comes straight from the guest, by way
of a port of its hypervisor, and gets the time of the look that finds it. judge.py reads what is written here.

    recorder.py TAG RECORD      looks at the machines whose groups lie below TAG, until it is ended
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import judge
from listening import Listener

LOOK_SECONDS = 0.03
#: How often it writes what it saw, also of runs that go on.
_WRITE_MS = 500.0
#: How long a new process may take to become the program that it is going to be.
_BECOMES_MS = 3000.0
#: What a virtual processor takes before its guest is let go: less than this.
STARTUP_NS = 20_000_000
_PRIORITY = -10


def copy_of(proc: Path, pid: int, tag: str) -> judge.Copy | None:
    """What the process is a copy of; nothing if it is no hypervisor of these machines."""
    home = proc / str(pid)
    words = (home / "cmdline").read_bytes().split(b"\0")
    names = [after for option, after in zip(words, words[1:]) if option == b"-name"]
    if not names or not names[0].startswith(b"guest="):
        return None
    vm = names[0].removeprefix(b"guest=").partition(b",")[0].decode()
    for line in (home / "cgroup").read_text().splitlines():
        _, found, below = line.partition(f":/{tag}/")
        if found:
            # The second field may hold spaces and brackets of its own.
            ticks = int((home / "stat").read_text().rpartition(")")[2].split()[19])
            return judge.Copy(vm, below.partition("/")[0], pid, ticks)
    return None


def virtual_processors(proc: Path, pid: int) -> list[Path]:
    """Where the kernel counts the time of the threads that run the guest."""
    found = []
    for task in (proc / str(pid) / "task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "comm").read_text().startswith("CPU "):
                found.append(task / "schedstat")
    return found


def used_ns(threads: list[Path]) -> int:
    """Processor time of the threads, in nanoseconds. Raises OSError when one is gone."""
    return sum(int(thread.read_text().split()[0]) for thread in threads)


@dataclass
class _Watched:
    copy: judge.Copy
    listener: Listener
    threads: list[Path] = field(default_factory=list)
    used_ns: int = STARTUP_NS
    #: The run that goes on: from, to.
    run: tuple[float, float] | None = None


class Recorder:
    """Looks, and says what it saw to `write`, one object at a time."""

    def __init__(self, proc: Path, tag: str, write: Callable[[dict], None]) -> None:
        self._proc = proc
        self._tag = tag
        self._write = write
        self._known: set[int] = set()
        #: When each process was seen first that may still become a hypervisor.
        self._young: dict[int, float] = {}
        self._watched: dict[int, _Watched] = {}
        self._last_ms: float | None = None
        self._written_ms = 0.0
        self._looks = 0
        self._longest_blind_ms = 0.0

    def look(self, now_ms: float) -> None:
        """Looks once, at this time."""
        last_ms = now_ms if self._last_ms is None else self._last_ms
        self._last_ms = now_ms
        self._looks += 1
        self._longest_blind_ms = max(self._longest_blind_ms, now_ms - last_ms)
        self._find(now_ms)
        for pid, watched in list(self._watched.items()):
            watched.listener.listen(now_ms)
            try:
                self._look_at(watched, last_ms, now_ms)
            except OSError:
                # It is gone, and may have run until a moment ago.
                if watched.run is not None and last_ms - watched.run[1] <= judge.PAUSE_MAX_MS:
                    watched.run = (watched.run[0], now_ms)
                self._close(watched)
                # It may have said something between the two.
                watched.listener.listen(now_ms)
                self._write_heard(watched)
                watched.listener.close()
                del self._watched[pid]
        if now_ms - self._written_ms >= _WRITE_MS:
            self.flush(now_ms)

    def _find(self, now_ms: float) -> None:
        pids = {int(name) for name in os.listdir(self._proc) if name.isdigit()}
        self._young |= dict.fromkeys(pids - self._known, now_ms)
        self._known = pids
        for pid, since_ms in list(self._young.items()):
            found = None
            with contextlib.suppress(OSError):
                found = copy_of(self._proc, pid, self._tag)
            if found is not None:
                self._watched[pid] = _Watched(found, Listener(self._proc, found))
            if found is not None or pid not in pids or now_ms - since_ms > _BECOMES_MS:
                del self._young[pid]

    def _look_at(self, watched: _Watched, last_ms: float, now_ms: float) -> None:
        if watched.used_ns == STARTUP_NS:
            # All of them are there before the guest is let go.
            watched.threads = virtual_processors(self._proc, watched.copy.pid)
        used = used_ns(watched.threads)
        if used <= watched.used_ns:
            return
        watched.used_ns = used
        if watched.run is not None and last_ms - watched.run[1] > judge.PAUSE_MAX_MS:
            self._close(watched)
        began_ms = last_ms if watched.run is None else watched.run[0]
        watched.run = (began_ms, now_ms)

    def _close(self, watched: _Watched) -> None:
        copy, (from_ms, to_ms) = watched.copy, watched.run or (0.0, 0.0)
        if from_ms < to_ms:
            named = [copy.vm, copy.node, copy.pid, copy.started_ticks]
            self._write({"ran": named, "from_ms": round(from_ms, 1), "to_ms": round(to_ms, 1)})
        watched.run = None

    def _write_heard(self, watched: _Watched) -> None:
        for said in watched.listener.written():
            self._write(said)

    def flush(self, now_ms: float) -> None:
        """Writes what was seen since it wrote last. A run that goes on continues where this part ends."""
        for watched in self._watched.values():
            goes_on = watched.run
            self._close(watched)
            if goes_on is not None:
                watched.run = (goes_on[1], goes_on[1])
            self._write_heard(watched)
        blind = {"looks": self._looks, "longest_blind_ms": round(self._longest_blind_ms, 1)}
        self._write(blind | {"until_ms": round(now_ms, 1)})
        self._written_ms, self._looks, self._longest_blind_ms = now_ms, 0, 0.0


def main(tag: str, record: Path) -> None:
    """Records until it is told to end, or until who started it is gone."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: ended.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    with record.open("w") as out:

        def write(said: dict) -> None:
            out.write(json.dumps(said) + "\n")
            out.flush()

        recorder = Recorder(Path("/proc"), tag, write)
        while not ended and os.getppid() == parent:
            recorder.look(time.monotonic() * 1000)
            time.sleep(LOOK_SECONDS)
        recorder.flush(time.monotonic() * 1000)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
