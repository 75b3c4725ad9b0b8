"""The machines of a story or of a lab to play with: three listed ones unless something else is said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from errors import LabError

MACHINES_MAX = 50

LISTED = ("n1", "n2", "n3")


@dataclass(frozen=True)
class Cast:
    """Which machines there are, which of them are in everybody's `members`, and what is set otherwise."""

    listed: tuple[str, ...] = LISTED
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
