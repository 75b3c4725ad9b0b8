"""Runs a story: fresh machines, the script, and afterwards nothing left but the logs of a failure."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import progress
from cluster import Lab
from driver import Driver
from errors import LabError
from layout import REPOSITORY, Layout
from telling import RequestedAssertionFailed

DEFAULT_TIMEOUT_SECONDS = 1800
#: What a story lets one choose: it reads it from the environment, which the NixOS driver leaves as it is.
_SETTING = re.compile(r'os\.environ\.get\("STORY_([A-Z_]+)", ')


def find(name: str) -> Path:
    """The script of a story: its name (with - or _), or a path."""
    stories = REPOSITORY / "vm-tests"
    for path in (Path(name), stories / f"{name.replace('-', '_')}.py"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in stories.glob("*.py")))
    raise LabError(f"there is no story {name!r}; there are: {known}")


def settings(source: str, words: list[str]) -> dict[str, str]:
    """The environment for a story that is told `NAME=VALUE`; refuses names that the story does not read."""
    known = _SETTING.findall(source)
    chosen = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in known:
            raise LabError(f"--set {word}: this story takes {', '.join(known) or 'nothing'}, as NAME=VALUE")
        chosen[f"STORY_{name}"] = value
    return chosen


@contextlib.contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    def expire(_signal: int, _frame: object) -> None:
        raise LabError(f"the story did not end within {seconds} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def script_frames(error: BaseException, script: Path) -> str:
    """Where in the script it failed, without the harness' own frames."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(script)]
    lines = script.read_text().splitlines()
    shown = (f"  {script.name}:{frame.lineno}: {lines[(frame.lineno or 1) - 1].strip()}" for frame in frames)
    return "\n".join(shown)


def run(layout: Layout, name: str, nodes: int, timeout: int, words: list[str]) -> bool:
    """Runs one story, told `words` (`NAME=VALUE`); returns whether it passed."""
    script = find(name)
    os.environ.update(settings(script.read_text(), words))
    lab = Lab(layout)
    began = time.monotonic()
    with lab.fresh(nodes) as names:
        driver = Driver(lab, names, layout.root / "out" / script.stem)
        try:
            with _deadline(timeout):
                driver.run(script.read_text(), str(script))
        except Exception as error:
            if not isinstance(error, (RequestedAssertionFailed, AssertionError)):
                traceback.print_exc()
            progress.say(f"\nstory {script.stem} failed after {time.monotonic() - began:.1f} s:")
            progress.say(script_frames(error, script))
            progress.say(str(error))
            progress.say(f"journals and consoles: {lab.save_logs(names, script.stem)}")
            return False
    progress.say(f"story {script.stem} passed in {time.monotonic() - began:.1f} s")
    return True
