"""A whole lab: its machines from the first mount to the last, and nothing of them left behind.

One lab for each target directory. Whoever changes it holds the lock; `state.json` says who that was, so that
what a killed run left is told apart from a lab that somebody left up on purpose.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import config
import guest
import mounts
import package
import progress
import rootfs
from cast import Cast
from cgroups import Groups
from container import Container
from errors import LabError
from layout import Layout
from network import Network

_PROGRAMS = ("dpkg-deb", "ip", "mmdebstrap", "mount", "nsenter", "systemd-nspawn", "zstd")


def check_host() -> None:
    """Refuses a machine that cannot run the lab, with the way out."""
    if os.geteuid() != 0:
        raise LabError("the lab makes mounts, namespaces and control groups: run it as root (sudo)")
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise LabError(f"missing here: {', '.join(missing)}; `cargo xtask setup` installs them")


class Lab:
    """The machines of one target directory."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._network = Network(layout.tag)
        self._groups = Groups(layout.tag)

    def container(self, node: str) -> Container:
        """The machine called `node`, running or not."""
        home = self._layout.machines / node
        namespace = self._network.namespace(node)
        console = self.console(node)
        return Container(node, self._layout.tag, home / "root", console, namespace, self._groups)

    def console(self, node: str) -> Path:
        """Everything the machine's systemd ever printed."""
        return self._layout.machines / node / "console.log"

    @property
    def tag(self) -> str:
        """The mark on the machines' groups."""
        return self._layout.tag

    def freeze(self, node: str, frozen: bool) -> None:
        """Stops every process of a machine, or lets them go on."""
        self._groups.freeze(node, frozen)

    @property
    def network(self) -> Network:
        """The cables."""
        return self._network

    def restore_address(self, node: str) -> None:
        """Gives a machine that is off the address it boots with, whatever was done to it: as NixOS does."""
        self._network.set_address(node, self.nodes().index(node) + 1)

    def nodes(self) -> list[str]:
        """The machines there are; empty when the lab is down."""
        return list(self._read_state().get("nodes", []))

    def is_kept(self) -> bool:
        """Whether the lab was left up on purpose."""
        return bool(self._read_state().get("kept"))

    def _read_state(self) -> dict:
        try:
            return json.loads(self._layout.state.read_text())
        except (OSError, ValueError):
            return {}

    def _write_state(self, nodes: list[str], kept: bool) -> None:
        partial = self._layout.state.with_suffix(".partial")
        partial.write_text(json.dumps({"nodes": nodes, "kept": kept, "owner": os.getpid()}))
        partial.rename(self._layout.state)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps others from changing the lab meanwhile."""
        self._layout.root.mkdir(parents=True, exist_ok=True)
        with self._layout.lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                owner = self._read_state().get("owner", "unknown")
                text = f"another run uses this lab (process {owner}); wait for it or end it"
                raise LabError(text) from None
            yield

    @contextlib.contextmanager
    def fresh(self, cast: Cast) -> Iterator[list[str]]:
        """Machines for one run, made anew, powered off, and gone with everything they made when it ends."""
        with self.locked():
            self.refuse_kept()
            try:
                yield self.create(cast)
            finally:
                self.remove()

    def refuse_kept(self) -> None:
        """Refuses to take away a lab that somebody left up."""
        if self.is_kept():
            raise LabError("a lab is up; take it down first: cargo xtask lab down")

    def create(self, cast: Cast, binary: Path | None = None) -> list[str]:
        """Makes the machines with everything but power. Removes what an earlier run left."""
        check_host()
        self.remove()
        names = cast.names
        self._layout.cache.mkdir(parents=True, exist_ok=True)
        root = rootfs.ensure(self._layout.cache)
        made = guest.ensure(self._layout.cache, root)
        self._write_state(names, kept=False)
        with progress.step(f"making {len(names)} machines"):
            program = binary or Path(os.environ.get("BLIXARD_LAB_BINARY", self._layout.binary))
            layer, owner = package.install(self._layout.package, root.tree, program, made)
            numbered = enumerate(names, start=1)
            members = [self._make_key(program, name, index, owner) for index, name in numbered]
            for member in members:
                self._furnish(member.name, members, cast)
                mounts.mount_overlay([layer, root.tree], self._layout.machines / member.name)
            self._network.create(names)
        return names

    def keep(self) -> None:
        """Leaves the lab up when the harness ends."""
        self._write_state(self.nodes(), kept=True)

    def _make_key(self, program: Path, name: str, index: int, owner: package.Owner) -> config.Member:
        data = self._layout.machines / name / "upper" / "var/lib/blixard"
        data.mkdir(parents=True)
        key = data / "node.key"
        argv = [str(program), "keygen", "--key-file", str(key)]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode != 0:
            raise LabError(f"`blixard keygen` failed: {done.stderr.strip()}")
        try:
            member = config.Member(name, index, config.endpoint_id(done.stdout))
        except ValueError as error:
            raise LabError(str(error)) from None
        data.chmod(0o700)
        for path in (data, key):
            os.chown(path, owner.uid, owner.gid)
        return member

    def _furnish(self, name: str, members: list[config.Member], cast: Cast) -> None:
        """Writes what makes a machine this node."""
        etc = self._layout.machines / name / "upper" / "etc"
        (etc / "blixard").mkdir(parents=True)
        (etc / "hostname").write_text(f"{name}\n")
        (etc / "hosts").write_text(config.hosts_file([member.name for member in members]))
        (etc / "machine-id").write_text(f"{secrets.token_hex(16)}\n")
        (etc / "blixard/config.toml").write_text(config.agent_config(name, members, cast))

    def remove(self) -> None:
        """Ends every machine and removes every mount, link and group, however far whoever made them got."""
        self._groups.remove()
        self._network.remove()
        mounts.unmount_below(self._layout.root)
        for name in self.nodes() or [entry.name for entry in self._machine_directories()]:
            with contextlib.suppress(OSError):
                os.rmdir(f"/run/systemd/nspawn/propagate/{self._layout.tag}-{name}")
        for directory in (self._layout.machines, self._layout.package):
            shutil.rmtree(directory, ignore_errors=True)
        self._layout.state.unlink(missing_ok=True)

    def _machine_directories(self) -> list[Path]:
        return list(self._layout.machines.glob("*/")) if self._layout.machines.is_dir() else []

    def save_logs(self, nodes: list[str], run: str) -> Path:
        """Keeps consoles and journals of a run that failed; returns where."""
        home = self._layout.logs / run
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for node in nodes:
            with contextlib.suppress(OSError):
                shutil.copyfile(self.console(node), home / f"{node}.console")
            journal = ["journalctl", "--directory=/var/log/journal", "--output=short-precise", "--no-pager"]
            root = self._layout.machines / node / "root"
            with (home / f"{node}.journal").open("wb") as out:
                subprocess.run(["chroot", str(root), *journal], stdout=out, stderr=subprocess.DEVNULL)
        return home
