"""``make bench``: every figure side by side with what a user would take instead, in one run.

Usage: ``python -m tests.bench [names …] [--rows N] [--json FILE]``. Names: import, append, memory, search, build, join,
kernel, join-scale, ray, spark, spark-build.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from tests.bench import (
    bench_append,
    bench_build,
    bench_import,
    bench_join,
    bench_join_scale,
    bench_kernel,
    bench_memory,
    bench_ray,
    bench_search,
    bench_spark,
    bench_spark_build,
)
from tests.bench.harness import Line, machine, show

_BENCHES = {
    "import": bench_import.run,
    "append": bench_append.run,
    "memory": bench_memory.run,
    "search": bench_search.run,
    "build": bench_build.run,
    "join": bench_join.run,
    "kernel": bench_kernel.run,
    "join-scale": bench_join_scale.run,
    "ray": bench_ray.run,
    "spark": bench_spark.run,
    "spark-build": bench_spark_build.run,
}


def main() -> None:
    """Run the benchmarks that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*_BENCHES, "all"], default="all")
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    facts = machine()
    lines: list[Line] = []
    for name in _BENCHES if "all" in arguments.names else arguments.names:
        with tempfile.TemporaryDirectory(prefix=f"lake-bench-{name}-") as folder:
            found = _BENCHES[name](Path(folder), arguments.rows)
        show(name, found)
        lines += found
    document = {"machine": facts, "results": [line.to_dict() for line in lines]}
    text = json.dumps(document, indent=1)
    if arguments.json:
        arguments.json.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
