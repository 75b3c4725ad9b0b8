"""How a run that breaks off is told: its report says why, and is printed all the same."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

from errors import LabError
from telling import MachineError, RequestedAssertionFailed


@contextlib.contextmanager
def broken_off(report: dict[str, Any]) -> Iterator[None]:
    """Puts the reason into the report when what stands inside does not come to its end."""
    try:
        yield
    except KeyboardInterrupt:
        report["reason"] = "interrupted"
    except (LabError, MachineError, RequestedAssertionFailed) as error:
        report["reason"] = str(error)
    except Exception as error:
        traceback.print_exc()
        report["reason"] = f"{type(error).__name__}: {error}"
