"""What the guests' heartbeats say of where VMs ran: pure, over the recorder's lines, a verdict of their own.

A guest beats ten times a second from when its init runs until it stands still or is gone. A copy is what the
guest says that it is, a VM on a node, and the hypervisor through which it was heard. Two copies of a VM whose
heartbeats come one between the other's ran at once: so did two that were heard in the same look, which cannot
tell which was first.
"""

from __future__ import annotations

import itertools
from typing import Any

import judge

#: A hypervisor that ran for so long and was never heard: then there is nothing here to judge by.
SILENT_MS = 20_000.0


def _copy_of(heard: judge.Heard) -> judge.Copy:
    return judge.Copy(heard.vm, heard.node, heard.copy.pid, heard.copy.started_ticks)


def runs(record: judge.Record) -> list[judge.Run]:
    """The times in which each copy beat, without long pauses, in the order in which they began."""
    return judge.joined(judge.Run(_copy_of(heard), at, at) for heard in record.heard for at in heard.at_ms)


def overlaps(record: judge.Record) -> list[judge.Overlap]:
    """Where two copies of a VM beat at once."""
    return judge.overlaps(runs(record), is_touching_one=True)


def heard_since(record: judge.Record, since_ms: float) -> set[tuple[str, str]]:
    """Which VMs beat since then, each with its node, by their own words."""
    return {(each.vm, each.node) for each in record.heard if each.at_ms[-1] >= since_ms}


def strange(record: judge.Record) -> list[str]:
    """Heartbeats that cannot be, in words: of another guest than its hypervisor's, or of an earlier time."""
    found = [f"{record.garbled} lines of guests are no heartbeats"] if record.garbled else []
    last: dict[judge.Copy, judge.Heard] = {}
    for heard in record.heard:
        copy, before = heard.copy, last.get(heard.copy)
        if (heard.vm, heard.node) != (copy.vm, copy.node):
            found.append(f"{copy.vm} on {copy.node} says that it is {heard.vm} on {heard.node}")
        elif before is not None and (heard.boot != before.boot or heard.up_s < before.up_s):
            found.append(f"{copy.vm} on {copy.node} booted again, in the same hypervisor")
        last[copy] = heard
    return found


def silent(record: judge.Record) -> list[str]:
    """Copies whose hypervisor ran for long and whose guest was never heard, in words."""
    ran: dict[judge.Copy, float] = {}
    for run in record.runs:
        ran[run.copy] = ran.get(run.copy, 0.0) + run.to_ms - run.from_ms
    heard = {each.copy for each in record.heard}
    return [
        f"{copy.vm} ran on {copy.node} for {length_ms / 1000:.0f} s and was never heard"
        for copy, length_ms in sorted(ran.items())
        if length_ms >= SILENT_MS and copy not in heard
    ]


def _longest_ms(times: dict[Any, list[float]]) -> float:
    spans = (after - before for each in times.values() for before, after in itertools.pairwise(sorted(each)))
    return max(spans, default=0.0)


def _first_after_ms(record: judge.Record) -> float:
    """The longest that a hypervisor ran before its guest was heard."""
    began: dict[judge.Copy, float] = {}
    for run in record.runs:
        began.setdefault(run.copy, run.from_ms)
    first: dict[judge.Copy, float] = {}
    for heard in record.heard:
        first.setdefault(heard.copy, heard.at_ms[0])
    return max((at_ms - began[copy] for copy, at_ms in first.items() if copy in began), default=0.0)


def verdict(record: judge.Record) -> dict[str, Any]:
    """All of them in a few numbers."""
    found = overlaps(record)
    by_vm: dict[str, list[float]] = {}
    by_copy: dict[judge.Copy, list[float]] = {}
    for heard in record.heard:
        by_vm.setdefault(heard.vm, []).extend(heard.at_ms)
        by_copy.setdefault(heard.copy, []).extend(heard.at_ms)
    return {
        "heartbeats": sum(map(len, by_copy.values())),
        "heartbeat_failovers": len(judge.moves(runs(record))),
        "heartbeat_overlaps": len(found),
        "longest_heartbeat_overlap_ms": round(max((each.length_ms for each in found), default=0.0)),
        "longest_heartbeat_gap_ms": round(_longest_ms(by_vm)),
        "longest_heartbeat_pause_ms": round(_longest_ms(by_copy)),
        "longest_until_heard_ms": round(_first_after_ms(record)),
        "silent_copies": len(silent(record)),
        "strange_heartbeats": len(strange(record)),
    }
