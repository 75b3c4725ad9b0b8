"""Hears the guest of one hypervisor: the file of its heartbeats, opened in the machine and kept open."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import judge

#: How the lab's hypervisors are told where heartbeats go (machine_qemu.sh).
_OPTION = b"file,id=heartbeats,path="
#: More than is ever written between two looks; what a guest that floods says beyond it is read later.
_READ_BYTES = 65536
#: More than a heartbeat has.
_LINE_BYTES_MAX = 256


def _path(proc: Path, pid: int) -> Path | None:
    """Where the heartbeats are, in the file system of the hypervisor; nothing before it is one."""
    for word in (proc / str(pid) / "cmdline").read_bytes().split(b"\0"):
        if word.startswith(_OPTION):
            return proc / str(pid) / "root" / os.fsdecode(word.removeprefix(_OPTION)).lstrip("/")
    return None


class Listener:
    """What the guest of one hypervisor says, each line with the time at which it was read."""

    def __init__(self, proc: Path, copy: judge.Copy) -> None:
        self._proc = proc
        self._copy = copy
        self._file: int | None = None
        self._rest = b""
        #: Heard and not yet written down, by who the guest says that it is.
        self._heard: dict[tuple[str, str, int], tuple[list[float], float]] = {}
        self._garbled = 0

    def listen(self, now_ms: float) -> None:
        """Reads what came since the last look; also what a hypervisor said that has ended meanwhile."""
        if self._file is None:
            # It is not there before the hypervisor makes it.
            with contextlib.suppress(OSError):
                path = _path(self._proc, self._copy.pid)
                self._file = None if path is None else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if self._file is None:
            return
        *lines, self._rest = (self._rest + os.read(self._file, _READ_BYTES)).split(b"\n")
        for line in lines:
            self._take(line, now_ms)
        if len(self._rest) > _LINE_BYTES_MAX:
            self._rest = b""
            self._garbled += 1

    def _take(self, line: bytes, now_ms: float) -> None:
        try:
            vm, boot, node, up = line.decode("ascii").split(" ")
            said, up_s = (vm, node, int(boot)), float(up)
        except ValueError:
            self._garbled += 1
            return
        at_ms, _ = self._heard.setdefault(said, ([], 0.0))
        at_ms.append(round(now_ms, 1))
        self._heard[said] = (at_ms, up_s)

    def written(self) -> list[dict]:
        """What was heard since this was asked last, as the recorder writes it."""
        copy = self._copy
        named = [copy.vm, copy.node, copy.pid, copy.started_ticks]
        found: list[dict] = [
            {"heard": named, "said": [vm, node], "boot": boot, "up_s": up_s, "at_ms": at_ms}
            for (vm, node, boot), (at_ms, up_s) in self._heard.items()
        ]
        if self._garbled:
            found.append({"garbled": self._garbled})
        self._heard, self._garbled = {}, 0
        return found

    def close(self) -> None:
        """Ends it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
