"""What ran where and when, and whether two copies of a VM ever ran at once: pure, over the recorder's lines.

A copy of a VM is one hypervisor process. It *ran* between two looks of the recorder when its virtual
processors got processor time in between: a hypervisor that is frozen, stopped, paused or not yet let go is
there and does not run. Times are milliseconds of the computer's CLOCK_MONOTONIC, which no machine of the lab
can change. Whatever a look cannot decide is decided against the product: a run begins with the look before
it was seen and ends with the look that saw it last, and pauses of a guest that idles belong to its run.

A second verdict, heartbeats.py, rests on what the guests say, and on nothing of this.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

#: A guest that idles gets processor time many times a second. Longer pauses part two runs.
PAUSE_MAX_MS = 2000.0


@dataclass(frozen=True, order=True)
class Copy:
    """One hypervisor process."""

    vm: str
    node: str
    pid: int
    #: When the kernel started the process, in its ticks: with the pid its name for ever.
    started_ticks: int


@dataclass(frozen=True)
class Run:
    """A time in which one copy ran."""

    copy: Copy
    from_ms: float
    to_ms: float


@dataclass(frozen=True)
class Overlap:
    """A time in which two copies of one VM ran."""

    first: Copy
    second: Copy
    from_ms: float
    to_ms: float

    @property
    def length_ms(self) -> float:
        """How long."""
        return self.to_ms - self.from_ms


@dataclass(frozen=True)
class Move:
    """A VM ended on one node, and came to run on another."""

    vm: str
    lost: Copy
    taken: Copy
    ended_ms: float
    began_ms: float


@dataclass(frozen=True)
class Heard:
    """Heartbeats of one guest that were heard one after the other."""

    #: Whose they are, by the hypervisor that they came through.
    copy: Copy
    #: Whose they are by the guest's own word: VM, node, and which boot of its disk.
    vm: str
    node: str
    boot: int
    #: Seconds since the guest booted, with the last of them.
    up_s: float
    #: When each was heard.
    at_ms: tuple[float, ...]


@dataclass
class Record:
    """What the recorder wrote so far."""

    runs: list[Run] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    #: Lines of guests that are no heartbeats.
    garbled: int = 0
    looks: int = 0
    #: The longest time between two looks: what is shorter than that may not have been seen.
    longest_blind_ms: float = 0.0
    #: The time of the last look.
    until_ms: float = 0.0


def read(lines: Iterable[str]) -> Record:
    """Reads the recorder's lines; a last one that is not whole yet is left out."""
    record = Record()
    for line in lines:
        if not line.endswith("\n"):
            break
        said = json.loads(line)
        if "ran" in said:
            record.runs.append(Run(Copy(*said["ran"]), said["from_ms"], said["to_ms"]))
        elif "heard" in said:
            by = (*said["said"], said["boot"], said["up_s"], tuple(said["at_ms"]))
            record.heard.append(Heard(Copy(*said["heard"]), *by))
        elif "garbled" in said:
            record.garbled += said["garbled"]
        else:
            record.looks += said["looks"]
            record.longest_blind_ms = max(record.longest_blind_ms, said["longest_blind_ms"])
            record.until_ms = said["until_ms"]
    record.runs = joined(record.runs)
    return record


def joined(runs: Iterable[Run], pause_max_ms: float = PAUSE_MAX_MS) -> list[Run]:
    """The runs in the order in which they began, each as long as it went on without a long pause."""
    whole: list[Run] = []
    for _, of_copy in itertools.groupby(sorted(runs, key=lambda run: (run.copy, run.from_ms)), _copy_of):
        before: Run | None = None
        for run in of_copy:
            if before is not None and run.from_ms - before.to_ms <= pause_max_ms:
                run = Run(run.copy, before.from_ms, max(before.to_ms, run.to_ms))
                whole.pop()
            whole.append(run)
            before = run
    return sorted(whole, key=lambda run: (run.from_ms, run.copy))


def _copy_of(run: Run) -> Copy:
    return run.copy


def by_vm(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each VM, in their order."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.copy.vm, []).append(run)
    return found


def overlaps(runs: Iterable[Run], is_touching_one: bool = False) -> list[Overlap]:
    """Where two copies of a VM ran at the same time; two runs that only touch do so if they are said to."""
    found = []
    for of_vm in by_vm(runs).values():
        for first, second in itertools.combinations(of_vm, 2):
            begin, end = max(first.from_ms, second.from_ms), min(first.to_ms, second.to_ms)
            if first.copy != second.copy and (begin < end or (is_touching_one and begin == end)):
                found.append(Overlap(first.copy, second.copy, begin, end))
    return sorted(found, key=lambda overlap: overlap.from_ms)


def moves(runs: Iterable[Run]) -> list[Move]:
    """Where a VM came to run on another node than the one where it ran last."""
    found = []
    for vm, of_vm in by_vm(runs).items():
        for before, after in itertools.pairwise(of_vm):
            if before.copy.node != after.copy.node:
                found.append(Move(vm, before.copy, after.copy, before.to_ms, after.from_ms))
    return sorted(found, key=lambda move: move.began_ms)


def longest_gap_ms(runs: Iterable[Run]) -> float:
    """The longest time in which no copy of a VM ran that had run before and did so again."""
    longest = 0.0
    for of_vm in by_vm(runs).values():
        end = of_vm[0].to_ms
        for run in of_vm[1:]:
            longest = max(longest, run.from_ms - end)
            end = max(end, run.to_ms)
    return longest


def verdict(record: Record) -> dict[str, Any]:
    """The whole record in a few numbers."""
    found = overlaps(record.runs)
    return {
        "copies": len({run.copy for run in record.runs}),
        "failovers": len(moves(record.runs)),
        "overlaps": len(found),
        "longest_overlap_ms": round(max((overlap.length_ms for overlap in found), default=0.0)),
        "longest_gap_ms": round(longest_gap_ms(record.runs)),
        "looks": record.looks,
        "longest_blind_ms": round(record.longest_blind_ms),
    }
