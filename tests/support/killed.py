"""A job that is killed at a chosen moment: ``python -m tests.support.killed MOMENT CONF``, by a real SIGKILL."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from lake.cli import main
from lake.etl import loading
from lake.etl.plan import Plan
from lake.run import Ledger

MOMENTS = (
    "planned",
    "one task done",
    "tasks done",
    "refused rows committed",
    "rows committed",
    "report written",
)


def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _after(act: Callable[..., Any]) -> Callable[..., Any]:
    def called(*arguments: Any, **options: Any) -> Any:
        act(*arguments, **options)
        _die()

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
        setattr(owner, name, lambda files, keep=(): _die() if keep else None)
    else:
        setattr(owner, name, _after(getattr(owner, name)) if after else _die)


if __name__ == "__main__":
    arm(sys.argv[1])
    main(["run", *sys.argv[2:]])
