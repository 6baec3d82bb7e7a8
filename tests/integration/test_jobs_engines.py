"""The same jobs on local processes, on Ray and on Spark: the same rows, the same counts, the same coverage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import lake
from lake import etl
from lake.etl import Load, LoadReport
from lake.job import Run, open_job
from lake.run import TaskDone
from lake.storage import Location
from tests.support.etl import Heard, json_lines, refused_of, rows_of
from tests.support.raycluster import RUNTIME_ENV, RayCluster
from tests.support.raycluster import environment as ray_environment
from tests.support.spark import submit

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HOUSE = Path(__file__).parents[2]
DIMENSION = 8
COUNTS = ("read", "written", "filtered", "duplicates", "refused")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parquet with vectors of NaN, and JSON lines that bring half of the keys again, some of them badly."""
    folder = tmp_path_factory.mktemp("inbox")
    rng = np.random.default_rng(7)
    for n in range(3):
        vectors = rng.random((400, DIMENSION), np.float32)
        vectors[::100] = np.nan
        columns = {
            "id": np.arange(n * 400, n * 400 + 400),
            "kind": [f"k{i % 5}" for i in range(400)],
            "v": pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), DIMENSION),
        }
        pq.write_table(pa.table(columns), folder / f"{n}.parquet", row_group_size=100)
    rows: list[Any] = [
        {"id": i, "kind": "new", "v": [float(i)] * (DIMENSION - (i % 50 == 1))} for i in range(1, 1200, 2)
    ]
    json_lines(folder / "more/z.jsonl", [*rows, "nothing"])
    return folder


def confs(place: Path, inbox: Path) -> tuple[Path, Path]:
    """Write the files of two jobs, in which nothing depends on the engine."""
    load = {
        "job": "etl",
        "job_id": "load",
        "lake": str(place / "lk"),
        "source": {"files": [f"{inbox}/more/*", f"{inbox}/*.parquet"]},
        "transform": {"filter": "id % 7 <> 0"},
        "deduplicate": {"keep": "first"},
        "into": {
            "table": "t",
            "mode": "merge",
            "key": "id",
            "embeddings": {"v": {"dimension": DIMENSION, "metric": "l2"}},
        },
    }
    build = {
        "job": "build_index",
        "job_id": "index",
        "lake": str(place / "lk"),
        "table": "t",
        "indexes": [
            {"column": "v", "kind": "ivf_flat", "parameters": {"partitions": 4}},
            {"column": "kind", "kind": "bitmap"},
        ],
    }
    paths = place / "etl.yaml", place / "build.yaml"
    for path, job in zip(paths, (load, build), strict=True):
        path.write_text(yaml.safe_dump(job))
    return paths


def rows_and_refused(place: Path) -> tuple[list[Any], set[Any]]:
    """What the table holds, and what was refused."""
    root = Location.of(place / "lk")
    return [(r["id"], r["kind"], tuple(r["v"])) for r in rows_of(root, "t")], refused_of(root, "t")


def outcome(place: Path) -> dict[str, Any]:
    """What the jobs have made, whoever ran them."""
    table = lake.connect(place / "lk").open_table("t")
    coverage = table.coverage()
    found = table.search(vector=[600.0] * DIMENSION, k=5, columns=["id"], nprobe=4)
    rows, refused = rows_and_refused(place)
    return {
        "rows": rows,
        "refused": refused,
        "complete": coverage.complete,
        "nearest": [r["id"] for r in found.to_pylist()],
    }


def both_jobs(place: Path, inbox: Path, engine: str) -> tuple[dict[str, Any], tuple[int, ...]]:
    place.mkdir()
    load, build = confs(place, inbox)
    heard = Heard()
    report = open_job(load).run(Run("load", engine, heard))
    assert isinstance(report, LoadReport)
    assert len(heard.keys(TaskDone)) > 4
    _compact(place, engine)
    open_job(build).run(Run("index", engine, heard))
    assert open_job(load).run(Run("load", engine, heard)).repeated
    return outcome(place), tuple(getattr(report, name) for name in COUNTS)


def _compact(place: Path, engine: str) -> None:
    """Bring some rows, which a merge has moved, back to the others."""
    path, heard = place / "compact.yaml", Heard()
    path.write_text(yaml.safe_dump({"job": "compact", "lake": str(place / "lk"), "deleted": 0.0}))
    table = lake.connect(place / "lk").open_table("t")
    table.merge(table.to_arrow(where="id < 20"))
    told = open_job(path).run(Run("compact", engine, heard)).to_dict()["tables"]["t"]["compacted"]
    assert (told["fragments_removed"], told["fragments_added"], len(heard.keys(TaskDone))) == (2, 1, 1)


@pytest.fixture(scope="module")
def locally(inbox: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], tuple[int, ...]]:
    return both_jobs(tmp_path_factory.mktemp("local") / "place", inbox, "local")


def test_what_is_expected(locally: tuple[dict[str, Any], tuple[int, ...]]) -> None:
    """Of the odd keys the JSON wins, where its vector is whole; a refused row gives way to one that is not."""
    made, counts = locally
    bad_json = {i for i in range(1, 1200, 2) if i % 50 == 1}
    bad_parquet = set(range(0, 1200, 100))
    kept = {i: "new" for i in range(1, 1200, 2) if i % 7 and i not in bad_json}
    kept |= {i: f"k{i % 400 % 5}" for i in range(1200) if i % 7 and i not in kept and i not in bad_parquet}
    assert {i: kind for i, kind, _ in made["rows"]} == kept
    # A vector of a wrong length cannot be cast, which comes before the filter; one of NaN is refused after it.
    filtered = len(range(0, 1200, 7)) + len([i for i in range(7, 1200, 14) if i not in bad_json])
    refused = 1 + len(bad_json) + len([i for i in bad_parquet if i % 7])
    assert counts == (1801, len(kept), filtered, 1801 - len(kept) - filtered - refused, refused)
    assert made["complete"]
    assert made["nearest"][0] in {599, 601}


def test_on_ray(locally: object, inbox: Path, tmp_path: Path, on_ray: RayCluster) -> None:
    assert both_jobs(tmp_path / "place", inbox, "ray") == locally


def test_on_spark(locally: object, inbox: Path, tmp_path: Path, spark: object) -> None:
    assert both_jobs(tmp_path / "place", inbox, "spark") == locally


def test_a_query_of_spark_is_a_source(tmp_path: Path, spark: SparkSession) -> None:
    """Its result is read by tasks of another engine, and is gone when the job is done."""
    spark.range(100).createOrReplaceTempView("numbers")
    load = Load.model_validate(
        {
            "source": {
                "spark": "SELECT id, concat('n', id) AS name, array(0.5F, 1F) AS v FROM numbers WHERE id % 2 = 0"
            },
            "transform": {"filter": "id < 50"},
            "into": {"table": "t", "key": "id", "embeddings": {"v": {"dimension": 2}}},
        }
    )
    root = Location.of(tmp_path / "lk")
    report = etl.load(root, load, executor="local", job_id="j")
    assert (report.read, report.written, report.filtered) == (50, 25, 25)
    found = sorted(rows_of(root, "t"), key=lambda row: int(row["id"]))
    assert found == [{"id": n, "name": f"n{n}", "v": [0.5, 1.0]} for n in range(0, 50, 2)]
    left = {path.name for path in (tmp_path / "lk/_jobs").rglob("*") if path.is_file()}
    assert left == {"_job.json", "report.json"}
    wrong = load.model_copy(update={"source": load.source.model_copy(update={"spark": "SELECT nope"})})
    with pytest.raises(lake.LakeError, match="nope"):
        etl.load(root, wrong, executor="local", job_id="k")


def test_a_dataset_of_ray_is_a_source(tmp_path: Path, on_ray: RayCluster) -> None:
    numbers = pa.table(
        {"id": range(50), "name": [f"n{i}" for i in range(50)], "v": [[0.5, float(i)] for i in range(50)]}
    )
    for part in range(2):
        pq.write_table(numbers.slice(25 * part, 25), tmp_path / f"{part}.parquet")
    asked: dict[str, Any] = {"read": "parquet", "paths": [str(tmp_path / f"{part}.parquet") for part in range(2)]}

    def load(**ray: Any) -> Load:
        into = {"table": "t", "key": "id", "embeddings": {"v": {"dimension": 2}}}
        return Load.model_validate({"source": {"ray": ray}, "transform": {"filter": "id < 30"}, "into": into})

    root = Location.of(tmp_path / "lk")
    report = etl.load(root, load(**asked), executor="local", job_id="j")
    assert (report.read, report.written, report.filtered) == (50, 30, 20)
    found = sorted(rows_of(root, "t"), key=lambda row: int(row["id"]))
    assert found == numbers.slice(0, 30).to_pylist()
    left = {path.name for path in (tmp_path / "lk/_jobs").rglob("*") if path.is_file()}
    assert left == {"_job.json", "report.json"}
    with pytest.raises(lake.errors.InvalidInput, match="'parket' is none of Ray's readers"):
        etl.load(root, load(read="parket", paths="x"), executor="local", job_id="k")
    with pytest.raises(lake.errors.InvalidInput, match="read_parquet refuses"):
        etl.load(root, load(read="parquet", nonsense=1), executor="local", job_id="k")


def test_by_spark_submit(locally: Any, inbox: Path, tmp_path: Path) -> None:
    conf, _ = confs(tmp_path, inbox)
    process = submit("local[2]", HOUSE / "jobs/etl.py", str(conf), "--engine", "spark", "--json")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert tuple(json.loads(out)[name] for name in COUNTS) == locally[1]
    assert rows_and_refused(tmp_path) == (locally[0]["rows"], locally[0]["refused"])


def test_by_ray_job_submit(locally: Any, inbox: Path, tmp_path: Path, ray_cluster: RayCluster) -> None:
    conf, _ = confs(tmp_path, inbox)
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", ray_cluster.jobs),
        *("--working-dir", str(HOUSE / "jobs"), "--runtime-env-json", json.dumps(RUNTIME_ENV)),
        *("--", "python", "etl.py", str(conf), "--engine", "ray", "--json"),
    ]
    done = subprocess.run(command, env=ray_environment(), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [report] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"job"')]
    assert tuple(report[name] for name in COUNTS) == locally[1]
    assert rows_and_refused(tmp_path) == (locally[0]["rows"], locally[0]["refused"])
