"""Runs a story: fresh machines, the script, and afterwards nothing left but the logs of a failure."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import cast
import facts
import progress
from cluster import Lab
from driver import Driver
from errors import LabError
from layout import REPOSITORY, Layout
from telling import RequestedAssertionFailed

_STORIES = REPOSITORY / "vm-tests" / "stories"
#: What stands before every story.
COMMON = REPOSITORY / "vm-tests" / "common.py"
#: What a story lets one choose: it reads it from the environment, which the NixOS driver leaves as it is.
_SETTING = re.compile(r'os\.environ\.get\("STORY_([A-Z_]+)", ')


def names() -> list[str]:
    """The stories there are."""
    return sorted(path.stem for path in _STORIES.glob("*.py"))


def find(name: str) -> Path:
    """The script of a story: its name (with - or _), or a path."""
    for path in (Path(name), _STORIES / f"{name.replace('-', '_')}.py"):
        if path.is_file() and path != COMMON:
            return path
    known = ", ".join(names())
    raise LabError(f"there is no story {name!r}; there are: {known}")


def facts_of(script: Path) -> facts.Facts:
    """What a story says of itself."""
    return facts.read(script.read_text(), script.name)


def settings(source: str, words: Sequence[str]) -> dict[str, str]:
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


def script_frames(error: BaseException, scripts: list[Path]) -> str:
    """Where in the scripts it failed, without the harness' own frames."""
    lines = {str(script): script.read_text().splitlines() for script in scripts}
    shown = []
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename in lines:
            line = lines[frame.filename][(frame.lineno or 1) - 1].strip()
            shown.append(f"  {Path(frame.filename).name}:{frame.lineno}: {line}")
    return "\n".join(shown)


def run(
    layout: Layout,
    name: str,
    nodes: int | None = None,
    timeout: int | None = None,
    words: Sequence[str] = (),
) -> bool:
    """Runs one story, told `words` (`NAME=VALUE`); returns whether it passed.

    On its own machines, or on so many that are all listed; for as long as it says, or for `timeout` seconds.
    """
    script = find(name)
    scripts = [COMMON, script]
    said = facts_of(script)
    wanted = cast.numbered(nodes) if nodes else said.cast
    os.environ.update(settings(script.read_text(), words))
    lab = Lab(layout)
    began = time.monotonic()
    with lab.fresh(wanted) as machines:
        driver = Driver(lab, machines, layout.root / "out" / script.stem)
        try:
            with _deadline(timeout or 60 * said.minutes_max):
                driver.run(scripts)
        except Exception as error:
            if not isinstance(error, (RequestedAssertionFailed, AssertionError)):
                traceback.print_exc()
            progress.say(f"\nstory {script.stem} failed after {time.monotonic() - began:.1f} s:")
            progress.say(script_frames(error, scripts))
            progress.say(str(error))
            progress.say(f"journals and consoles: {lab.save_logs(machines, script.stem)}")
            return False
    progress.say(f"story {script.stem} passed in {time.monotonic() - began:.1f} s")
    return True


def run_all(layout: Layout) -> bool:
    """Runs every story, one after the other; returns whether all passed."""
    failed = [name for name in names() if not run(layout, name)]
    if failed:
        progress.say(f"{len(failed)} of {len(names())} stories failed: {', '.join(failed)}")
    else:
        progress.say(f"all {len(names())} stories passed")
    return not failed
