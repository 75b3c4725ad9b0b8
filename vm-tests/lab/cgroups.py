"""A control group for each machine, so that their systemds never meet and a crash leaves nobody alive."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import waiting
from errors import LabError

_MOUNT = Path("/sys/fs/cgroup")
_KILL_DEADLINE_SECONDS = 20.0
_FREEZE_DEADLINE_SECONDS = 10.0


def _hierarchies() -> list[Path]:
    """Where groups are made: in cgroup v2, and in the hybrid layout in the v1 hierarchy named systemd too."""
    if (_MOUNT / "cgroup.controllers").exists():
        return [_MOUNT]
    found = [root for root in (_MOUNT / "unified", _MOUNT / "systemd") if root.is_dir()]
    if not found:
        raise LabError(f"the lab needs cgroup v2, alone or beside v1: there is none under {_MOUNT}")
    return found


class Groups:
    """The groups of one lab, found by their name."""

    def __init__(self, tag: str) -> None:
        self._roots = [root / tag for root in _hierarchies()]

    def create(self, node: str) -> list[Path]:
        """Makes the machine's groups; returns the files into which a process writes its pid to join."""
        for root in self._roots:
            (root / node).mkdir(parents=True, exist_ok=True)
            self._delegate(root)
        return [root / node / "cgroup.procs" for root in self._roots]

    @staticmethod
    def _delegate(root: Path) -> None:
        # With what the outside gives and no more: limits inside are best effort.
        with contextlib.suppress(OSError):
            controllers = (root / "cgroup.controllers").read_text().split()
            (root / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))

    def processes(self, node: str) -> set[int]:
        """Everything that lives in the machine's groups."""
        found: set[int] = set()
        for root in self._roots:
            # Groups come and go meanwhile; the walk passes over those that are gone.
            for directory, _, _ in os.walk(root / node):
                with contextlib.suppress(OSError):
                    found.update(int(pid) for pid in Path(directory, "cgroup.procs").read_text().split())
        return found

    def freeze(self, node: str, frozen: bool) -> None:
        """Stops everything in the machine's groups, or lets it go on, and waits until that is so."""
        home = next((root / node for root in self._roots if (root / node / "cgroup.freeze").exists()), None)
        if home is None:
            raise LabError(f"there is no group of {node} that can be frozen")
        (home / "cgroup.freeze").write_text(str(int(frozen)))
        wanted = f"frozen {int(frozen)}\n"

        def is_so(_last: bool) -> bool:
            return wanted in (home / "cgroup.events").read_text()

        if not waiting.until(is_so, _FREEZE_DEADLINE_SECONDS, pause=0.001):
            raise LabError(f"{node} did not become {wanted.strip()}")

    def kill(self, node: str) -> None:
        """Kills everything in the machine's groups at once, and waits until it is gone."""
        if not waiting.until(lambda _last: not self._kill_once(node), _KILL_DEADLINE_SECONDS):
            raise LabError(f"processes of {node} do not die: {sorted(self.processes(node))}")

    def _kill_once(self, node: str) -> set[int]:
        """Kills everything, and says who was still there."""
        for root in self._roots:
            with contextlib.suppress(OSError):
                (root / node / "cgroup.kill").write_text("1")
        alive = self.processes(node)
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return alive

    def prune(self, node: str) -> None:
        """Removes the empty groups that a dead machine left, so that it can start anew."""
        for root in self._roots:
            self._remove_tree(root / node)

    def remove(self) -> None:
        """Kills and removes everything, also what an earlier run left."""
        present = [root for root in self._roots if root.is_dir()]
        for node in {entry.name for root in present for entry in root.iterdir() if entry.is_dir()}:
            self.kill(node)
        for root in present:
            self._remove_tree(root)

    @staticmethod
    def _remove_tree(root: Path) -> None:
        if not root.is_dir():
            return
        for directory, _, _ in os.walk(root, topdown=False):
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(directory)
