"""The machines' network: a bridge in a namespace of its own, and a namespace and a link for each machine.

Nothing of the network outside is touched: no address, no route, no firewall rule. The namespaces outlive a
machine's crash, as a cable does.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from errors import LabError
from layout import node_address

_NAMESPACES = Path("/run/netns")
_BRIDGE = "br0"
#: The machines' end of the cable, named as in NixOS tests.
INTERFACE = "eth1"


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Network:
    """What one lab has of network namespaces, found by their names."""

    def __init__(self, tag: str) -> None:
        self._switch = tag

    def namespace(self, node: str) -> Path:
        """The machine's namespace, as systemd-nspawn takes it."""
        return _NAMESPACES / f"{self._switch}-{node}"

    def create(self, nodes: list[str]) -> None:
        """Lays cables for `nodes`; the number in the list decides the address."""
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", _BRIDGE, "type", "bridge")
        _ip("-n", self._switch, "link", "set", _BRIDGE, "up")
        for index, node in enumerate(nodes, start=1):
            inside = self.namespace(node).name
            port = self._port(node)
            _ip("netns", "add", inside)
            cable = ("link", "add", port, "type", "veth", "peer", "name", INTERFACE, "netns", inside)
            _ip("-n", self._switch, *cable)
            _ip("-n", self._switch, "link", "set", port, "master", _BRIDGE, "up")
            self.set_address(node, index)
            _ip("-n", inside, "link", "set", INTERFACE, "up")

    def set_address(self, node: str, index: int) -> None:
        """Gives the machine the address of its number, and takes away any other."""
        inside = self.namespace(node).name
        _ip("-n", inside, "-4", "addr", "flush", "dev", INTERFACE)
        _ip("-n", inside, "addr", "add", f"{node_address(index)}/24", "dev", INTERFACE)

    def set_link(self, node: str, up: bool) -> None:
        """Plugs the machine's cable in, or pulls it out."""
        _ip("-n", self._switch, "link", "set", self._port(node), "up" if up else "down")

    def remove(self) -> None:
        """Removes whatever there is, also what an earlier run left."""
        if not _NAMESPACES.is_dir():
            return
        for entry in sorted(_NAMESPACES.iterdir()):
            if entry.name == self._switch or entry.name.startswith(f"{self._switch}-"):
                _ip("netns", "del", entry.name)

    @staticmethod
    def _port(node: str) -> str:
        return f"vb-{node}"
