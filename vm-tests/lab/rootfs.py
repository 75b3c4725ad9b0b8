"""The machines' root file system: Debian trixie, built once by mmdebstrap and shared by every machine.

The package of the guest's kernel is downloaded in the same go, by the new tree's own apt, so that it does not
depend on what Debian the machine outside is.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import progress
from errors import LabError

SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

#: What a machine has beside Debian's minimum.
PACKAGES = (
    "busybox-static",
    "dbus",
    "iproute2",
    "jq",
    "netcat-openbsd",
    "nftables",
    "polkitd",
    "procps",
    "qemu-system-x86",
    "systemd",
    "systemd-sysv",
)

#: Units that would only slow a machine down: consoles nobody sits at, timers of what lives for minutes.
MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "fstrim.timer",
    "getty.target",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-timesyncd.service",
)

_EXCLUDED_PATHS = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")

#: Finds the real package behind the metapackage, and downloads it without installing it.
_DOWNLOAD_KERNEL = (
    'chroot "$1" sh -euc "cd /tmp; apt-get -q download '
    "\\$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \\(linux-image-[^ ]*\\)$/\\1/p')\""
)


@dataclass(frozen=True)
class RootFs:
    """A finished root file system."""

    home: Path
    recipe: str

    @property
    def tree(self) -> Path:
        """The root directory; never written to."""
        return self.home / "tree"

    @property
    def kernel_package(self) -> Path:
        """The .deb of the guest's kernel."""
        return self.home / "kernel.deb"


def command(tree: Path, kernel_package: Path) -> list[str]:
    """The whole recipe, as one command line."""
    mask = "systemctl --quiet --root=\"$1\" mask " + " ".join(MASKED_UNITS)
    # With these two stamps systemd does not take the first start for an update of /usr, which costs seconds.
    stamp = 'touch "$1/etc/.updated" "$1/var/.updated"; mkdir -p "$1/var/log/journal"'
    hooks = (_DOWNLOAD_KERNEL, f'mv "$1"/tmp/linux-image-*.deb {kernel_package}', mask, stamp)
    return [
        "mmdebstrap",
        "--variant=minbase",
        f"--keyring={KEYRING}",
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude={path}" for path in _EXCLUDED_PATHS),
        *(f"--customize-hook={hook}" for hook in hooks),
        SUITE,
        str(tree),
        MIRROR,
    ]


def recipe_hash() -> str:
    """Names the recipe: whatever changes the result changes this."""
    text = "\0".join(command(Path("tree"), Path("kernel.deb")))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def ensure(cache: Path) -> RootFs:
    """Builds the root file system unless it is there. Throws away those of older recipes."""
    recipe = recipe_hash()
    root = RootFs(cache / f"root-{recipe}", recipe)
    if root.kernel_package.exists():
        return root
    for old in cache.glob("root-*"):
        shutil.rmtree(old)
    partial = RootFs(cache / f"root-{recipe}.partial", recipe)
    partial.home.mkdir(parents=True)
    log = cache / "mmdebstrap.log"
    with progress.step(f"building the machines' root file system ({SUITE})"), log.open("wb") as out:
        argv = command(partial.tree, partial.home / "kernel.deb")
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
            code = done.returncode
            raise LabError(f"mmdebstrap failed with exit code {code}; all of it is in {log}:\n{tail}")
    partial.home.rename(root.home)
    return root
