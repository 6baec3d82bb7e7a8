"""A job that is stopped at a chosen moment: ``python -m tests.support.killed MOMENT CONF``.

By a real SIGKILL, or, where the variable ``HELD_BY`` names a file, once and until that file is removed again.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lake.cli import main
from lake.etl import loading
from lake.etl.plan import Plan
from lake.run import Ledger

HELD_BY = "HELD_BY"
MOMENTS = (
    "planned",
    "one task done",
    "tasks done",
    "refused rows committed",
    "rows committed",
    "report written",
)


def _stop() -> None:
    """Die, or wait once."""
    if HELD_BY not in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    held = Path(os.environ[HELD_BY])
    if held == Path(os.devnull):
        return
    os.environ[HELD_BY] = os.devnull
    held.touch()
    while held.exists():
        time.sleep(0.02)


def _with_stop(act: Callable[..., Any], after: bool) -> Callable[..., Any]:
    def called(*arguments: Any, **options: Any) -> Any:
        if not after:
            _stop()
        result = act(*arguments, **options)
        if after:
            _stop()
        return result

    return called


def arm(moment: str) -> None:
    """Let this process die at a moment of the load that it is about to run."""
    places: dict[str, tuple[Any, str, bool]] = {
        "planned": (Plan, "save", True),
        "one task done": (Ledger, "record", True),
        "tasks done": (loading, "_commit_refused", False),
        "refused rows committed": (loading, "_commit_refused", True),
        "rows committed": (loading, "_commit", True),
        "report written": (loading, "_clear", False),
    }
    owner, name, after = places[moment]
    if moment == "report written":  # the first clearing is of an empty folder
        setattr(owner, name, lambda files, keep=(): _stop() if keep else None)
    else:
        setattr(owner, name, _with_stop(getattr(owner, name), after))


if __name__ == "__main__":
    arm(sys.argv[1])
    main(["run", *sys.argv[2:]])
