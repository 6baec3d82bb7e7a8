"""Outliers, labels and triplets as jobs: by their files, on every engine; killed at each step and submitted again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

import lake
from lake.job import Run, open_job
from lake.storage import Files, Location
from tests.support.neighbours import clumps, make
from tests.support.raycluster import RayCluster

HOUSE = Path(__file__).parents[2]
ASKED: dict[str, dict[str, Any]] = {
    "outliers": {"k": 5, "recall": 0.8, "share": 0.02},
    "classify": {"k": 5, "recall": 0.8, "label": "kind"},
    "mine": {"k": 20, "recall": 0.8, "label": "kind", "columns": ["text"]},
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

# Dies after the n-th call of the function that it names, or before it.
_PROGRAM = """
import json, os, signal, sys
from importlib import import_module
import lake

place, kind, when, module, name, calls, asked = sys.argv[1:]
owner, left = import_module(module), int(calls)
*inner, name = name.split(".")
for part in inner:
    owner = getattr(owner, part)
real = getattr(owner, name)

def dying(*given, **named):
    global left
    left -= 1
    if when == "after" or left:
        done = real(*given, **named)
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

setattr(owner, name, dying)
getattr(lake.connect(place)["t"], kind)(**json.loads(asked), on_event=lambda _: None)
"""
MOMENTS = [
    ("outliers", "after", "lake.join.knn", "join", 1),
    ("outliers", "before", "lake.analytics.neighbours", "join", 2),
    ("classify", "after", "lake.join.knn", "join", 2),
    ("classify", "before", "lake.table.parts", "PartedWrite.commit", 3),
    ("mine", "after", "lake.analytics.neighbours", "Analysis.write", 1),
    ("mine", "after", "lake.join.folder", "JobFolder.finish", 1),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: f"{m[0]}-{m[1]}-{m[3]}-{m[4]}")
def test_killed_and_submitted_again(tmp_path: Path, moment: tuple[str, str, str, str, int]) -> None:
    kind, when, module, name, calls = moment
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "t", *clumps(1300, 6), missing=50, blank=2)
    asked = ASKED[kind] | {"into": "told", "job_id": "nightly"}
    getattr(table, kind)(**asked | {"into": "wanted", "job_id": None}, on_event=lambda _: None)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path), kind, when, module, name, str(calls), json.dumps(asked)],
        cwd=HOUSE,
        env={**os.environ, "PYTHONPATH": str(HOUSE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert ("told" in lk) == (name in ("Analysis.write", "JobFolder.finish") and when == "after"), "all or nothing"
    table.delete("id < 500")  # later than what the job reads
    for again in (name == "JobFolder.finish", True):
        report = getattr(table, kind)(**asked, on_event=lambda _: None)
        assert report.repeated == again
        assert report.rows == (len(rows) if kind == "outliers" else len(rows) // 2)
    assert lk["told"].to_arrow() == lk["wanted"].to_arrow()
    assert lk["told"].version == 1
    if name == "Analysis.write":  # what was committed is not written again
        files = [len(list((tmp_path / f"{into}.lance/data").iterdir())) for into in ("told", "wanted")]
        assert files[0] == files[1]
    names = set(Files(Location.of(tmp_path / "_jobs")).names())
    assert names == {"nightly/t/asked.json", "nightly/t/report.json"}


Done = dict[str, tuple[dict[str, Any], pa.Table]]


def done_by(place: Path, engine: str) -> Done:
    """Run all three by their files, each twice."""
    lk = lake.connect(place)
    make(lk, "t", *clumps(1500, 6), missing=100, blank=2)
    found = {}
    for kind, asked in ASKED.items():
        path = place / f"{kind}.yaml"
        path.write_text(yaml.safe_dump({"job": kind, "lake": str(place), "table": "t", "into": f"{kind}_of"} | asked))
        run = Run(f"nightly-{kind}", engine, lambda _: None)
        report = open_job(path).run(run)
        assert report.to_dict()["recall"] is not None, "there is something to approximate"
        assert open_job(path).run(run).repeated
        found[kind] = (report.to_dict() | {"seconds": 0, "table": "", "into": ""}, lk[f"{kind}_of"].to_arrow())
    return found


@pytest.fixture(scope="module")
def locally(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return done_by(tmp_path_factory.mktemp("local"), "local")


def test_counts_add_up(locally: Done) -> None:
    for kind, parts in (
        ("outliers", ["scored"]),
        ("classify", ["labelled", "undecided"]),
        ("mine", ["mined", "no_positive", "no_negative"]),
    ):
        told, rows = locally[kind]
        assert told["rows"] == sum(told[part] for part in [*parts, "without_vector"])
        assert len(rows) == told["triplets"] if kind == "mine" else told["rows"] - told["without_vector"]


@pytest.mark.slow
def test_on_ray(locally: Done, tmp_path: Path, on_ray: RayCluster) -> None:
    assert done_by(tmp_path, "ray") == locally


@pytest.mark.slow
def test_on_spark(locally: Done, tmp_path: Path, spark: object) -> None:
    assert done_by(tmp_path, "spark") == locally


def test_the_jobs_of_the_house(tmp_path: Path) -> None:
    """Each by its program and its file in conf/, and again by the command."""
    vectors = pa.array(
        [[1.0, 0, 0, 0], [1, 0.01, 0, 0], [1, 0.02, 0, 0], [0, 1, 0, 0], None], pa.list_(pa.float32(), 4)
    )
    rows = {"sku": list("abcde"), "title": list("ABCDE"), "maker": ["x", "x", None, "y", "y"], "embedding": vectors}
    embeddings = {"embedding": lake.Embedding(4, metric="cosine")}
    lk = lake.connect(tmp_path / "lk")
    lk.create_table("products", rows, key="sku", embeddings=embeddings)

    def program(*command: str | Path) -> str:
        environment = {**os.environ, "PYTHONPATH": str(HOUSE), "LAKE_ROOT": "lk", "DATE": "2026-01-02"}
        run = [sys.executable, *map(str, command)]
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = (HOUSE / "conf/knn_join.yaml").read_text().replace("# dry_run: true", "dry_run: true")
    (tmp_path / "dry.yaml").write_text(told)
    shown = program(HOUSE / "jobs/knn_join.py", tmp_path / "dry.yaml")
    assert "join 4 x 4 rows, 4 dimensions, cosine, k=5, recall=0.95" in shown
    assert json.loads(program(HOUSE / "jobs/knn_join.py", tmp_path / "dry.yaml", "--json"))["tasks"] == 1
    assert lk.list_tables() == ["products"]
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        "knn_join": (
            "4 x 4 rows, 1 without a vector, 1 left out for null in a condition",
            {"left_sku": "d", "right_sku": "b", "rank": 0, "right_maker": "x"},
        ),
        "outliers": ("5 rows = 4 scored + 1 without a vector", {"sku": "a", "rank": 0, "flagged": True}),
        "classify": ("1 rows = 1 labelled + 0 undecided", {"sku": "c", "maker": "x", "runner_up": "y"}),
        "mine": ("4 anchors = 2 mined + 1 without a positive", {"anchor_title": "A", "negative_title": "D"}),
    }
    made = {
        "knn_join": "products__near-",
        "outliers": "products__outliers-",
        "classify": "products__makers-",
        "mine": "products__triplets-",
    }
    for kind, (counts, row) in wanted.items():
        shown = program(HOUSE / f"jobs/{kind}.py", HOUSE / f"conf/{kind}.yaml")
        assert f"{kind.replace('_', '-')}-2026-01-02: " in shown
        assert counts in shown
        found = lk[f"{made[kind]}2026-01-02"].to_arrow().to_pylist()
        assert row in [{name: one[name] for name in row} for one in found]
    command = ("-c", "from lake.cli import main; main()", "run", HOUSE / "conf/mine.yaml", "--json")
    assert json.loads(program(*command))["repeated"]
