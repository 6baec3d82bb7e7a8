"""``import lake``, warm, in a process of its own."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.harness import Line

_BAR = 0.3


def run(folder: Path, rows: int) -> list[Line]:
    """Time ``import lake`` and the bare interpreter; and the first use, which loads Lance."""
    lines = []
    for what, code, bar in (("import lake", "import lake", _BAR), ("lake.connect", "import lake; lake.connect", None)):
        bare = statistics.median(_seconds("pass", folder) for _ in range(7))
        ours = statistics.median(_seconds(code, folder) for _ in range(7))
        note = "beyond the bare interpreter" if bar else "loads Lance, pandas and Arrow; no bar"
        met = bar is None or ours - bare <= bar
        lines.append(Line(what, ours - bare, bare, "s", ours / bare, f"<= {bar} s" if bar else "", met, note))
    return lines


def _seconds(code: str, folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)
    return time.perf_counter() - started
