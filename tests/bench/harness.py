"""Paired timings, the machine's own limits, and how results are printed."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from lake.run import Executor, Stage, ignore
from tests.unit.run.scripted import Nothing


@dataclass(frozen=True)
class Line:
    """One comparison.

    Parameters
    ----------
    what : str
        What was measured.
    ours, theirs : float
        In `unit`.
    unit : str
        Of both.
    ratio : float
        As the bar states it.
    bar : str
        What was promised.
    note : str
        Recall, parameters, spread.
    """

    what: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    bar: str
    met: bool
    note: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return the fields, for JSON."""
        return asdict(self)


def paired(
    ours: Callable[[], object], theirs: Callable[[], object], runs: int, before: Callable[[], object] | None = None
) -> tuple[list[float], list[float]]:
    """Time two things in turn, the first to go alternating, so that drift of the machine hits both."""
    times: tuple[list[float], list[float]] = ([], [])
    for run in range(runs):
        for at in (0, 1) if run % 2 else (1, 0):
            if before is not None:
                before()
            started = time.perf_counter()
            (ours, theirs)[at]()
            times[at].append(time.perf_counter() - started)
    return times


def empty_task(executor: Executor, count: int) -> float:
    """Time tasks that do nothing; return milliseconds a task."""
    tasks = [Nothing(str(i)) for i in range(count)]
    started = time.perf_counter()
    assert len(list(executor.run(Stage("s", tasks), ignore))) == count
    return (time.perf_counter() - started) * 1000 / count


def ratio(first: list[float], second: list[float]) -> float:
    """Median of the pairwise ratios."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def spread(times: list[float]) -> str:
    """Say how noisy the machine was."""
    low, middle, high = min(times), statistics.median(times), max(times)
    noisy = " (noisy)" if high > 1.5 * low else ""
    return f"{low:.3g} to {high:.3g} s, median {middle:.3g}{noisy}"


def machine() -> dict[str, object]:
    """Describe the machine: cores, memory, sgemm, memory bandwidth, disk, versions."""
    flat = np.ones(64 << 20, np.float32)
    bandwidth = flat.nbytes / 1e9 / min(_time(lambda: np.dot(flat, flat)) for _ in range(3))
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": os.getloadavg()[0],
        "sgemm_gflops": round(sgemm(), 1),
        "read_gb_s": round(bandwidth, 1),
        "python": platform.python_version(),
        **{name: version(name) for name in ("pylance", "pyarrow", "numpy", "faiss-cpu", "lancedb", "semlake")},
    }


def sgemm(threads: int | None = None) -> float:
    """Measure what the cores multiply at their best, in GFLOP/s."""
    a = np.random.default_rng(0).standard_normal((2048, 2048), dtype=np.float32)
    with threadpool_limits(threads):
        return 2 * 2048**3 / 1e9 / min(_time(lambda: a @ a) for _ in range(5))


def _time(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def show(name: str, lines: list[Line]) -> None:
    """Print a benchmark's lines."""
    table = Table(title=name, title_justify="left")
    for heading in ("what", "ours", "theirs", "unit", "ratio", "bar", "", "note"):
        table.add_column(heading)
    for line in lines:
        table.add_row(
            line.what,
            f"{line.ours:.4g}",
            f"{line.theirs:.4g}",
            line.unit,
            f"{line.ratio:.2f}",
            line.bar,
            ("met" if line.met else "MISSED") if line.bar else "",
            line.note,
        )
    Console(width=160).print(table)
