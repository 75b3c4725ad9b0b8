"""Where the lab keeps things, and the names it gives to what it makes in the kernel.

Everything lies under the cargo target directory; everything made in the kernel (network namespaces, cgroups)
carries a tag derived from that directory. So two checkouts never touch each other's lab, and what a killed
run left behind can be found again from its names alone.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

#: Root of the repository.
REPOSITORY = Path(__file__).resolve().parents[2]

#: Where the guest's kernel and initramfs are found inside every machine (the same on NixOS).
GUEST_DIR = "/etc/blixard-guest"


def node_address(index: int) -> str:
    """Address of the machine number `index` (from 1)."""
    return f"10.77.0.{index}"


@dataclass(frozen=True)
class Layout:
    """The lab's files, below one directory."""

    target: Path

    @staticmethod
    def default() -> Layout:
        """The layout below cargo's target directory."""
        return Layout(Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")).resolve())

    @property
    def root(self) -> Path:
        """The lab's own directory."""
        return self.target / "lab"

    @property
    def cache(self) -> Path:
        """What is built once: the root file system and the guest, each under the hash of its recipe."""
        return self.root / "cache"

    @property
    def package(self) -> Path:
        """The overlay layer with blixard's own files, shared by all machines."""
        return self.root / "package"

    @property
    def machines(self) -> Path:
        """One directory for each machine: its overlay and its console."""
        return self.root / "machines"

    @property
    def logs(self) -> Path:
        """Journals and consoles kept of runs that failed."""
        return self.root / "logs"

    @property
    def state(self) -> Path:
        """Who uses the lab and what runs in it."""
        return self.root / "state.json"

    @property
    def lock(self) -> Path:
        """Held by whoever changes the lab."""
        return self.root / "lock"

    @property
    def binary(self) -> Path:
        """The agent as cargo's dev profile builds it."""
        return self.target / "debug" / "blixard"

    @property
    def tag(self) -> str:
        """The mark on everything this lab makes in the kernel."""
        return "blixard-lab-" + hashlib.sha256(str(self.root).encode()).hexdigest()[:6]
