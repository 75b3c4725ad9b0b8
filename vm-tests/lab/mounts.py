"""Overlay file systems: a writable root for each machine over the layers that all share."""

from __future__ import annotations

import subprocess
from pathlib import Path

from errors import LabError


def mount_overlay(lower: list[Path], home: Path) -> Path:
    """Mounts `lower` (topmost first) at `home`/root, for writes to `home`/upper. Returns the root."""
    upper, work, root = (home / name for name in ("upper", "work", "root"))
    for path in (*lower, upper, work):
        if any(mark in str(path) for mark in ",:\\"):
            raise LabError(f"a path with a comma, a colon or a backslash cannot be an overlay's: {path}")
    for directory in (upper, work, root):
        directory.mkdir(parents=True, exist_ok=True)
    layers = ":".join(str(path) for path in lower)
    options = f"lowerdir={layers},upperdir={upper},workdir={work}"
    done = subprocess.run(
        ["mount", "-t", "overlay", "-o", options, "overlay", str(root)], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise LabError(f"no overlay file system at {root}: {done.stderr.strip()}")
    return root


def mounted_below(directory: Path) -> list[Path]:
    """Every mount point at or below `directory`, innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(line.split()[4].encode().decode("unicode_escape"))
        if point == directory or directory in point.parents:
            found.append(point)
    return sorted(found, key=lambda point: len(point.parts), reverse=True)


def unmount_below(directory: Path) -> None:
    """Unmounts everything at or below `directory`."""
    for point in mounted_below(directory):
        if subprocess.run(["umount", str(point)], capture_output=True).returncode != 0:
            subprocess.run(["umount", "--lazy", str(point)], check=True)
