"""Clustering as a job: by its file, on every engine; killed at each step and submitted again."""

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
from lake.analytics import ClusterReport
from lake.analytics import rounds as going
from lake.job import Run, open_job
from lake.run import TaskDone
from lake.storage import Files, Location
from tests.support.clusters import blobs, labels, make, rows
from tests.support.etl import Heard
from tests.support.raycluster import RayCluster

HOUSE = Path(__file__).parents[2]
ASKED: dict[str, Any] = {"clusters": 6, "balanced": 1.2, "arrange": 100, "rounds": 4, "job_id": "topics"}

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

# Dies after the n-th call of the function that it names, or before it.
_PROGRAM = """
import json, os, signal, sys
import lake
from lake.analytics import arrange, clustering, rounds
from lake.run import Ledger
rounds._FEWEST = 200

place, when, number, owner, name, asked = sys.argv[1:]
owner = eval(owner)
real, left = getattr(owner, name), [int(number)]

def dying(*given, **named):
    left[0] -= 1
    if when == "after" or left[0]:
        found = real(*given, **named)
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return found

setattr(owner, name, dying)
lake.connect(place)["t"].cluster(**json.loads(asked), on_event=lambda _: None)
"""
MOMENTS = [
    "after 1 rounds.Rounds.start",
    "after 5 Ledger.record",  # in the middle of the second round
    "before 2 rounds.priced",
    "before 1 rounds.quotas",
    "before 1 clustering.fill",
    "after 1 clustering.fill",
    "before 1 arrange.commit",
    "after 1 arrange.commit",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, int | None], ClusterReport]:
    """What a job gives that nobody interrupts."""
    table = make(lake.connect(tmp_path_factory.mktemp("whole")), "t", blobs(600))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(going, "_FEWEST", 200)
        report = table.cluster(**ASKED)
    return labels(table), report


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[dict[int, int | None], ClusterReport], moment: str
) -> None:
    when, number, what = moment.split()
    owner, _, name = what.rpartition(".")
    table = make(lake.connect(tmp_path), "t", blobs(600))
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path), when, number, owner, name, json.dumps(ASKED)]
    environment = {**os.environ, "PYTHONPATH": str(HOUSE)}
    done = subprocess.run(command, cwd=HOUSE, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert table.version == 4 + ("fill" in what and when == "after") + ("arrange" in what) + (
        moment == "after 1 arrange.commit"
    )
    table.append(rows([9000], blobs(1)))  # later than what the job reads
    monkeypatch.setattr(going, "_FEWEST", 200)
    heard = Heard()
    report = table.cluster(**ASKED, on_event=heard)
    ran = [(e.stage, e.key) for e in heard if isinstance(e, TaskDone)]
    if moment == "after 5 Ledger.record":
        assert {key for stage, key in ran if stage == "round-001"} == {"000002"}, "the others were done"
    assert not any(stage == "round-000" for stage, _ in ran) or "start" in moment
    assert labels(table) == whole[0] | {9000: None}
    plain = report.to_dict() | dict.fromkeys(("table", "labelled_version", "arranged_version", "seconds"))
    assert plain == whole[1].to_dict() | {name: plain[name] for name in ("table", "seconds")} | {
        "labelled_version": None,
        "arranged_version": None,
    }
    assert table.cluster(**ASKED).repeated
    verbs = [v.verb for v in table.versions()]
    assert (verbs.count("fill column"), verbs.count("arrange")) == (1, 1)
    files = Files(Location.of(tmp_path / "_jobs"))
    assert set(files.names()) == {"topics/t/asked.json", "topics/t/report.json"}
    assert not table.dataset.tags.list()


def done_by(place: Path, engine: str) -> tuple[dict[str, Any], dict[int, int | None]]:
    table = make(lake.connect(place), "t", blobs(20_000), missing=100)
    job = {"job": "cluster", "lake": str(place), "table": "t", "clusters": 12, "rounds": 4, "balanced": 1.25}
    (place / "job.yaml").write_text(yaml.safe_dump(job | {"arrange": 4000, "html": str(place / "sizes.html")}))
    run = Run("topics", engine, lambda _: None)
    report = open_job(place / "job.yaml").run(run)
    assert isinstance(report, ClusterReport)
    assert open_job(place / "job.yaml").run(run).repeated
    assert "<svg" in (place / "sizes.html").read_text()
    return report.to_dict() | {"seconds": 0, "table": ""}, labels(table)


@pytest.fixture(scope="module")
def locally(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[int, int | None]]:
    return done_by(tmp_path_factory.mktemp("local"), "local")


@pytest.mark.slow
def test_on_ray(locally: object, tmp_path: Path, on_ray: RayCluster) -> None:
    assert done_by(tmp_path, "ray") == locally


@pytest.mark.slow
def test_on_spark(locally: object, tmp_path: Path, spark: object) -> None:
    assert done_by(tmp_path, "spark") == locally


def test_the_job_of_the_house(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path / "lk")
    vectors = pa.array([[1.0, 0, 0, 0], [1, 0.01, 0, 0], [0, 1, 0, 0], [0, 1, 0.1, 0], None], pa.list_(pa.float32(), 4))
    embeddings = {"embedding": lake.Embedding(4, metric="cosine")}
    products = lk.create_table(
        "products", {"sku": list("abcde"), "embedding": vectors}, key="sku", embeddings=embeddings
    )
    environment = {**os.environ, "PYTHONPATH": str(HOUSE), "LAKE_ROOT": "lk", "DATE": "2026-01-02"}
    told = []
    for more in ([], ["--json"]):
        run = [sys.executable, str(HOUSE / "jobs/cluster.py"), str(HOUSE / "conf/cluster.yaml"), *more]
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert "5 rows = 4 in 2 clusters + 1 without a vector" in told[0]
    counts = json.loads(told[1])
    assert (counts["repeated"], counts["sizes"], counts["labelled"]) == (True, [2, 2], 4)
    found = {row["sku"]: row["cluster"] for row in products.to_arrow(["sku", "cluster"]).to_pylist()}
    assert found["a"] == found["b"] != found["c"] == found["d"]
    assert found["e"] is None
    assert "<svg" in (tmp_path / "clusters-2026-01-02.html").read_text()
