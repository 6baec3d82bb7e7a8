"""Peak memory of appending a stream four times larger than the budget, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.bench.harness import Line

_BUDGET = 1 << 30
_BAR = 1.3

_PROGRAM = """
import json, sys
import numpy as np, pyarrow as pa, lake

def batches(total):
    base = np.random.default_rng(0).standard_normal((8192, 384), dtype=np.float32)
    for first in range(0, total // (384 * 4), 8192):
        vectors = pa.FixedSizeListArray.from_arrays(pa.array((base + first).ravel()), 384)
        yield pa.record_batch({"id": np.arange(first, first + 8192), "vector": vectors})

schema = lake.Schema([lake.Column("id", int), lake.Column("vector", lake.Embedding(384))], key="id")
table = lake.connect(sys.argv[1]).create_table("stream", schema)
receipt = table.append(batches(int(sys.argv[2])))
# Not ru_maxrss, which begins at the memory of the process that started this one.
peak = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
print(json.dumps({"peak": peak, **receipt.to_dict()}))
"""


def run(folder: Path, rows: int) -> list[Line]:
    """Append 4 GiB from a generator; the rows argument does not matter."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(folder), str(4 * _BUDGET)], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    peak = found["peak"] / 2**30
    note = f"{found['inserted']:,} rows, {found['bytes'] / 2**30:.1f} GiB written in {found['seconds']:.1f} s"
    return [Line("peak memory of appending 4 GiB", peak, 1.0, "GiB", peak, f"<= {_BAR} GiB", peak <= _BAR, note)]
