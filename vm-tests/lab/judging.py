"""The judge of a run: starts the recorder beside the machines, and says what it saw."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import heartbeats
import judge
import recorder
import waiting
from errors import LabError

_LOOK_DEADLINE_SECONDS = 20.0
#: More than the recorder writes in the time that counts as lately.
_TAIL_BYTES = 65_536
_LATELY_MS = 2000.0


class Judge:
    """Looks from outside which hypervisors run in the machines of one lab, once it is started."""

    def __init__(self, tag: str, path: Path) -> None:
        self._tag = tag
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begins a new record, and waits for the first look."""
        self.stop()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        argv = [sys.executable, "-B", recorder.__file__, self._tag, os.fspath(self._path)]
        # What is typed at the terminal is for the harness, which then ends the recorder.
        self._process = subprocess.Popen(argv, start_new_session=True)
        self.record()

    def stop(self) -> None:
        """Ends the record. What it says stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def record(self) -> judge.Record:
        """Everything up to this moment, or to the end of the record if that was before."""
        asked_ms = time.monotonic() * 1000

        def look(_last: bool) -> judge.Record | None:
            ended = self._process is None or self._process.poll() is not None
            lines = self._path.read_text().splitlines(keepends=True) if self._path.exists() else []
            record = judge.read(lines)
            return record if ended or record.until_ms >= asked_ms else None

        record = waiting.until(look, _LOOK_DEADLINE_SECONDS, pause=0.1)
        if record is None or record.looks == 0:
            raise LabError(f"the recorder saw nothing; its record is {self._path}")
        return record

    def verdict(self) -> dict[str, Any]:
        """What was seen so far, in a few numbers."""
        record = self.record()
        return judge.verdict(record) | heartbeats.verdict(record)

    def overlaps(self) -> list[judge.Overlap]:
        """Where two copies of a VM ran at once."""
        return judge.overlaps(self.record().runs)

    def heartbeat_overlaps(self) -> list[judge.Overlap]:
        """Where two copies of a VM beat at once."""
        return heartbeats.overlaps(self.record())

    def heard(self) -> set[tuple[str, str]]:
        """Which VMs were heard lately, each with its node: from the end of the record, so it costs little."""
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            # The first line may be half of one, and so may the last.
            lines = [line.decode() for line in file.readlines()[1:]]
            return heartbeats.heard_since(judge.read(lines), time.monotonic() * 1000 - _LATELY_MS)
        return set()

    def doubts(self) -> list[str]:
        """Why the heartbeats are not to be believed, in words."""
        record = self.record()
        return heartbeats.silent(record) + heartbeats.strange(record)

    def moves(self) -> list[judge.Move]:
        """Where a VM came to run on another node."""
        return judge.moves(self.record().runs)

    def runs(self, vm: str) -> list[judge.Run]:
        """When which copy of the VM ran, in order."""
        return judge.by_vm(self.record().runs).get(vm, [])
