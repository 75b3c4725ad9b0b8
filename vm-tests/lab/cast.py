"""The machines of a story: what machines.json says of it, and three listed ones where it says nothing.

NixOS tests read the same file, in cluster.nix.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from errors import LabError
from layout import REPOSITORY

TABLE = REPOSITORY / "vm-tests" / "machines.json"
MACHINES_MAX = 50

_KEYS = {"listed", "unlisted", "settings"}
_LISTED = ("n1", "n2", "n3")


@dataclass(frozen=True)
class Cast:
    """Which machines there are, which of them are in everybody's `members`, and what is set otherwise."""

    listed: tuple[str, ...] = _LISTED
    #: Without a list: they wait for a ticket.
    unlisted: tuple[str, ...] = ()
    #: For a machine: what its config.toml has otherwise.
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Every machine; its number in the list decides its address, as under NixOS."""
        return sorted((*self.listed, *self.unlisted), key=lambda name: (len(name), name))


def numbered(count: int) -> Cast:
    """The machines n1, n2 and so on, all listed."""
    if not 1 <= count <= MACHINES_MAX:
        raise LabError(f"a lab has 1 to {MACHINES_MAX} machines, not {count}")
    return Cast(tuple(f"n{index}" for index in range(1, count + 1)))


def read(table: str, story: str) -> Cast:
    """The machines of a story, in the text of machines.json."""
    said = json.loads(table).get(story, {})
    unknown = sorted(said.keys() - _KEYS)
    if unknown:
        raise LabError(f"machines.json: {story}: {', '.join(unknown)}: it has {', '.join(sorted(_KEYS))}")
    cast = Cast(
        tuple(said.get("listed", _LISTED)), tuple(said.get("unlisted", ())), said.get("settings", {})
    )
    names = cast.names
    for name in names:
        if names.count(name) > 1:
            raise LabError(f"machines.json: {story}: {name} is there twice")
    for name in cast.settings:
        if name not in names:
            raise LabError(f"machines.json: {story}: settings of {name}, which is no machine of it")
    return cast


def of_story(story: str) -> Cast:
    """The machines of a story."""
    return read(TABLE.read_text(), story)
