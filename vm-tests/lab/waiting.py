"""Waiting for what one wants to see, and no longer than a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_Seen = TypeVar("_Seen")


def until(look: Callable[[bool], _Seen], seconds: float, pause: float = 0.02) -> _Seen:
    """Looks again and again until there is something to see, a last time after the deadline.

    `look` gets True for the last time. What it saw last is returned: nothing, if the time is over.
    """
    deadline = time.monotonic() + seconds
    while True:
        is_last = time.monotonic() >= deadline
        seen = look(is_last)
        if seen or is_last:
            return seen
        time.sleep(pause)
