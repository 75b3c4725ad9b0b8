"""Installs blixard as a package would: files, users, directories, as one layer over the root file system."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import mounts
from errors import LabError
from guest import Guest
from layout import GUEST_DIR, REPOSITORY

_DIST = REPOSITORY / "agent" / "dist"
#: What the machines run as hypervisor, and where they find it before the real one.
_QEMU = Path(__file__).with_name("machine_qemu.sh")
_QEMU_PLACE = "usr/local/bin/qemu-system-x86_64"

#: Where the files of agent/dist go: directory there, directory in the machine.
DESTINATIONS = {
    "systemd": "usr/lib/systemd/system",
    "polkit": "usr/share/polkit-1/rules.d",
    "sysusers": "usr/lib/sysusers.d",
    "tmpfiles": "usr/lib/tmpfiles.d",
}

#: Run in the tree once the files are there, as a package's installation does. /run is filled at boot.
_AFTER_INSTALL = (
    ("systemd-sysusers", "blixard.conf"),
    ("systemd-tmpfiles", "--create", "--exclude-prefix=/run", "blixard.conf"),
    ("systemctl", "--quiet", "enable", "blixard.service"),
)
# In a mount namespace of its own, so that nothing has to be unmounted.
_CHROOT = 'mount -t proc proc "$1/proc" && exec chroot "$@"'


@dataclass(frozen=True)
class Owner:
    """A user of the machines, by numbers."""

    uid: int
    gid: int


def find_owner(passwd: str, user: str) -> Owner:
    """Reads `user` from the text of a passwd file."""
    for line in passwd.splitlines():
        fields = line.split(":")
        if fields[0] == user:
            return Owner(int(fields[2]), int(fields[3]))
    raise LabError(f"systemd-sysusers did not make the user {user}: is agent/dist/sysusers complete?")


def _copy(source: Path, destination: Path, mode: int) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)
    destination.chmod(mode)


def _link(source: Path, destination: Path) -> None:
    """The same file without its bytes twice; nobody writes to it."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, destination)
    except OSError:
        shutil.copyfile(source, destination)


def install(home: Path, rootfs: Path, binary: Path, guest: Guest) -> tuple[Path, Owner]:
    """Makes the layer anew under `home`; returns it and the user that the agent runs as."""
    if not binary.exists():
        raise LabError(f"there is no agent at {binary}; build it with: cargo build --package blixard")
    mounts.unmount_below(home)
    shutil.rmtree(home, ignore_errors=True)
    root = mounts.mount_overlay([rootfs], home)
    try:
        _copy(binary, root / "usr/bin/blixard", 0o755)
        _copy(_QEMU, root / _QEMU_PLACE, 0o755)
        for kind, destination in DESTINATIONS.items():
            files = [path for path in sorted((_DIST / kind).glob("*")) if path.is_file()]
            if not files:
                raise LabError(f"agent/dist/{kind} has no files to install")
            for file in files:
                _copy(file, root / destination / file.name, 0o644)
        for argv in _AFTER_INSTALL:
            enter = ["unshare", "--mount", "sh", "-c", _CHROOT, "sh", str(root)]
            done = subprocess.run([*enter, *argv], capture_output=True, text=True)
            if done.returncode != 0:
                raise LabError(f"{' '.join(argv)} failed in the machines' tree: {done.stderr.strip()}")
        owner = find_owner((root / "etc/passwd").read_text(), "blixard")
    finally:
        mounts.unmount_below(home)
    layer = home / "upper"
    for file in (guest.vmlinux, guest.initrd):
        _link(file, layer / GUEST_DIR.lstrip("/") / file.name)
    return layer, owner
