"""What a story says of itself: TOML in its first lines, each behind "# ", before its description.

    # kind = "members"                      what it is about; one story of each kind is in `cargo xtask test`
    # tested = true                         whether that is this one; `cargo xtask lab all` runs every story
    # minutes_max = 30                      how long it may take
    # listed = ["n1", "n2"]                 machines in everybody's `members`; n1, n2, n3 unless said
    # unlisted = ["n4"]                     machines without a list, which wait for a ticket
    # settings.n1.voter_lost_after_s = 6    what a machine's config.toml has otherwise

Adding a story is adding its file: vm-tests/default.nix and xtask read the same lines.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass

from cast import LISTED, Cast
from errors import LabError

_REQUIRED = {"kind": str, "tested": bool, "minutes_max": int}
_MACHINES = {"listed": list, "unlisted": list, "settings": dict}


@dataclass(frozen=True)
class Facts:
    """What a story says of itself."""

    kind: str
    #: Whether `cargo xtask test` runs it.
    tested: bool
    minutes_max: int
    cast: Cast


def _toml(source: str, story: str) -> str:
    lines = source.partition('"""')[0].splitlines()
    for line in lines:
        if not line.startswith("# "):
            raise LabError(f"{story}: {line!r} stands before its description: only lines behind '# ' do")
    return "\n".join(line.removeprefix("# ") for line in lines)


def read(source: str, story: str) -> Facts:
    """Reads what the text of a story says of it."""
    try:
        said = tomllib.loads(_toml(source, story))
    except tomllib.TOMLDecodeError as error:
        raise LabError(f"{story}: its first lines are no TOML: {error}") from error
    known = _REQUIRED | _MACHINES
    for key, value in said.items():
        if key not in known:
            raise LabError(f"{story}: {key}: a story says {', '.join(known)}")
        if type(value) is not known[key]:
            raise LabError(f"{story}: {key} = {value!r} is no {known[key].__name__}")
    missing = [key for key in _REQUIRED if key not in said]
    if missing:
        raise LabError(f"{story}: it does not say {', '.join(missing)}")
    return Facts(said["kind"], said["tested"], said["minutes_max"], _cast(said, story))


def _cast(said: dict, story: str) -> Cast:
    cast = Cast(
        tuple(said.get("listed", LISTED)), tuple(said.get("unlisted", ())), said.get("settings", {})
    )
    names = cast.names
    for name in names:
        if names.count(name) > 1:
            raise LabError(f"{story}: {name} is there twice")
    for name in cast.settings:
        if name not in names:
            raise LabError(f"{story}: settings of {name}, which is no machine of it")
    return cast
