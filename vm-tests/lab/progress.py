"""What a person sees while something takes long: on stderr, so that stdout stays for results."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

_REDRAW_SECONDS = 0.2


def say(text: str) -> None:
    """One line for people."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Shows that `text` is being done, for how long, and how it ended."""
    terminal = sys.stderr.isatty()
    done = threading.Event()
    began = time.monotonic()

    def redraw() -> None:
        while not done.wait(_REDRAW_SECONDS):
            elapsed = f"{time.monotonic() - began:.0f} s"
            print(f"\r\033[K  …  {text} ({elapsed})", end="", file=sys.stderr, flush=True)

    painter = threading.Thread(target=redraw, daemon=True)
    if terminal:
        painter.start()
    else:
        say(f"  …  {text}")
    mark = "FAIL"
    try:
        yield
        mark = " ok "
    finally:
        done.set()
        if terminal:
            painter.join()
            print("\r\033[K", end="", file=sys.stderr)
        say(f"{mark} {text} ({time.monotonic() - began:.1f} s)")
