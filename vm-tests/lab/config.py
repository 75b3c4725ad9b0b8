"""The files that make a machine this node of this cluster: pure text, no effects."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from cast import Cast
from layout import node_address

PORT = 7431
#: What every node offers, so that a story knows what fits wherever it runs.
CPUS = 16
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


def agent_config(name: str, members: list[Member], cast: Cast) -> str:
    """The agent's configuration on the node `name`, one of `members`, which are all the machines."""
    settings: dict[str, Any] = {
        "node_name": name,
        "cluster_name": "lab",
        "port": PORT,
        # Hardware virtualization that can be opened need not work: the lab never counts on it.
        "vms": {"accel": "tcg"},
        "resources": {"cpus": CPUS, "memory_mib": MEMORY_MIB},
    }
    if name in cast.listed:
        settings["members"] = {
            member.name: {"endpoint_id": member.endpoint_id, "addresses": [member.address]}
            for member in members
            if member.name in cast.listed
        }
    else:
        settings["join"] = True
    return toml(merged(settings, cast.settings.get(name, {})))


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The settings with the changes, which may reach into tables."""
    result = dict(settings)
    for key, value in changes.items():
        table = result.get(key)
        both = isinstance(table, dict) and isinstance(value, dict)
        result[key] = merged(table, value) if both else value
    return result


def toml(settings: dict[str, Any], table: str = "") -> str:
    """Settings as a TOML file. JSON's strings, numbers, truths and lists of them are TOML's."""
    plain = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    text = f"\n[{table}]\n" if table and plain else ""
    text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in plain.items())
    for key, value in settings.items():
        if isinstance(value, dict):
            text += toml(value, f"{table}.{key}" if table else key)
    return text


def hosts_file(names: list[str]) -> str:
    """All nodes by name."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    lines += [f"{node_address(index)} {name}" for index, name in enumerate(names, start=1)]
    return "\n".join(lines) + "\n"
