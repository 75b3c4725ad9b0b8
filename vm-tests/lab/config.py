"""The files that make a machine this node of this cluster: pure text, no effects."""

from __future__ import annotations

import re
from dataclasses import dataclass

from layout import node_address

PORT = 7431
#: What every node offers, so that a story knows what fits wherever it runs.
CPUS = 8
MEMORY_MIB = 4096

_ENDPOINT_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Member:
    """A node as the others know it."""

    name: str
    index: int
    endpoint_id: str

    @property
    def address(self) -> str:
        """Where its agent listens."""
        return f"{node_address(self.index)}:{PORT}"


def endpoint_id(keygen_output: str) -> str:
    """The id in what `blixard keygen` printed; raises ValueError when there is none."""
    text = keygen_output.strip()
    if not _ENDPOINT_ID.fullmatch(text):
        raise ValueError(f"`blixard keygen` did not print an endpoint id but {text!r}")
    return text


def agent_config(name: str, members: list[Member]) -> str:
    """The agent's configuration on the node `name`."""
    lines = [
        f'node_name = "{name}"',
        'cluster_name = "lab"',
        f"port = {PORT}",
        "",
        "[vms]",
        "# Hardware virtualization that can be opened need not work: the lab never counts on it.",
        'accel = "tcg"',
        "",
        "[resources]",
        f"cpus = {CPUS}",
        f"memory_mib = {MEMORY_MIB}",
    ]
    for member in members:
        lines += [
            "",
            f"[members.{member.name}]",
            f'endpoint_id = "{member.endpoint_id}"',
            f'addresses = ["{member.address}"]',
        ]
    return "\n".join(lines) + "\n"


def hosts_file(names: list[str]) -> str:
    """All nodes by name."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    lines += [f"{node_address(index)} {name}" for index, name in enumerate(names, start=1)]
    return "\n".join(lines) + "\n"


def node_names(count: int) -> list[str]:
    """The names of `count` nodes."""
    return [f"n{index}" for index in range(1, count + 1)]
