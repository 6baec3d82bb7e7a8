"""Deduplication as a job: by its file, on every engine; killed at each step and submitted again."""

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
from lake.analytics import DedupReport
from lake.job import Run, open_job
from lake.storage import Files, Location
from tests.support import duplicates as plain
from tests.support.duplicates import make, planted, same, told
from tests.support.raycluster import RayCluster

HOUSE = Path(__file__).parents[2]
WITHIN = 0.05
ASKED: dict[str, Any] = {"within": WITHIN, "k": 2, "into": "groups", "delete": True, "dry_run": False, "job_id": "tidy"}

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

# Dies after the function that it names, or before it.
_PROGRAM = """
import json, os, signal, sys
import lake
from lake.analytics import near, work

place, when, owner, name, asked = sys.argv[1:]
real = getattr(globals()[owner], name)

def dying(*given, **named):
    if when == "after":
        real(*given, **named)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(globals()[owner], name, dying)
lake.connect(place)["t"].dedup(**json.loads(asked), on_event=lambda _: None)
"""
MOMENTS = ["before near._join", "after near.knn.join", "before near.create_table", "after work.grouping.write"]
MOMENTS += ["before work.delete_unchanged", "after work.delete_unchanged"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_submitted_again(tmp_path: Path, moment: str) -> None:
    when, _, what = moment.partition(" ")
    owner, _, name = what.rpartition(".")
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "t", planted(700, 8))
    program = _PROGRAM.replace("globals()[owner]", owner)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), when, owner, name, json.dumps(ASKED)],
        cwd=HOUSE,
        env={**os.environ, "PYTHONPATH": str(HOUSE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    read = table.version - (moment == "after work.delete_unchanged")
    table.append(plain.columns([rows[0] | {"id": 9000}], 8))  # later than what the job reads
    groups = plain.groups(list(rows.values()), WITHIN, "l2")
    gone = {i for group in groups for i in group if i != min(group)}
    for again in (False, True):
        report = table.dedup(**ASKED, on_event=lambda _: None)
        assert report.repeated == again
        assert (report.version, report.rows, report.deleted, report.spared) == (read, 700, len(gone), 0)
        assert report.recall is not None
        assert report.rounds > 1
    assert set(table.to_arrow(["id"])["id"].to_pylist()) == set(rows) - gone | {9000}
    assert same(told(lk["groups"].to_arrow()), groups)
    assert lk["groups"].version == 1
    assert [v.verb for v in table.versions()].count("delete") == 1
    files = Files(Location.of(tmp_path / "_jobs"))
    assert set(files.names()) == {"tidy/t/asked.json", "tidy/t/report.json"}


@pytest.mark.parametrize("dry_run", [True, False])
def test_groups_whose_table_was_dropped_are_written_again(tmp_path: Path, dry_run: bool) -> None:
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "t", planted(300, 8))
    asked = {**ASKED, "dry_run": dry_run}
    first = table.dedup(**asked)
    lk.drop_table("groups")
    again = table.dedup(**asked)
    assert not again.repeated
    assert (again.duplicates, again.deleted, again.version) == (first.duplicates, first.deleted, first.version)
    assert same(told(lk["groups"].to_arrow()), plain.groups(list(rows.values()), WITHIN, "l2"))
    done = table.dedup(**ASKED)
    assert (done.deleted, done.repeated) == (first.duplicates, not dry_run)
    assert len(table) == 300 - first.duplicates


def conf(place: Path) -> Path:
    path = place / "dedup.yaml"
    job = {"job": "dedup", "lake": str(place), "table": "t", "within": WITHIN, "keep": "time desc", "into": "groups"}
    path.write_text(yaml.safe_dump(job | {"delete": True, "dry_run": False}))
    return path


def done_by(place: Path, engine: str) -> tuple[dict[str, Any], pa.Table, set[int]]:
    lk = lake.connect(place)
    table, _ = make(lk, "t", planted(1500, 8), missing=100)
    run = Run("tidy", engine, lambda _: None)
    report = open_job(conf(place)).run(run)
    assert isinstance(report, DedupReport)
    assert open_job(conf(place)).run(run).repeated
    counts = report.to_dict() | {"seconds": 0, "table": "", "into": ""}
    return counts, lk["groups"].to_arrow(), set(table.to_arrow(["id"])["id"].to_pylist())


@pytest.fixture(scope="module")
def locally(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], pa.Table, set[int]]:
    return done_by(tmp_path_factory.mktemp("local"), "local")


def test_counts_add_up(locally: tuple[dict[str, Any], pa.Table, set[int]]) -> None:
    counts, groups, left = locally
    assert counts["rows"] == 1500 == counts["kept"] + counts["duplicates"] + counts["without_vector"]
    assert counts["without_vector"] == 15
    assert len(left) == 1500 - counts["deleted"] == 1500 - counts["duplicates"]
    assert groups.num_rows == counts["groups"] + counts["duplicates"]


@pytest.mark.slow
def test_on_ray(locally: object, tmp_path: Path, on_ray: RayCluster) -> None:
    assert done_by(tmp_path, "ray") == locally


@pytest.mark.slow
def test_on_spark(locally: object, tmp_path: Path, spark: object) -> None:
    assert done_by(tmp_path, "spark") == locally


def test_the_job_of_the_house(tmp_path: Path) -> None:
    """A dry run by its program, and then the deletion, by the command and with the same id."""
    lk = lake.connect(tmp_path / "lk")
    vectors = pa.array([[1.0, 0, 0, 0], [1, 0.01, 0, 0], [0, 1, 0, 0], None], pa.list_(pa.float32(), 4))
    embeddings = {"embedding": lake.Embedding(4, metric="cosine")}
    rows = {"sku": list("abcd"), "added": [1, 2, 3, 4], "embedding": vectors}
    products = lk.create_table("products", rows, key="sku", embeddings=embeddings)
    text = (HOUSE / "conf/dedup.yaml").read_text()
    (tmp_path / "go.yaml").write_text(text.replace("dry_run: true", "dry_run: false"))

    def program(*command: str | Path) -> str:
        environment = {**os.environ, "PYTHONPATH": str(HOUSE), "LAKE_ROOT": "lk", "DATE": "2026-01-02"}
        run = [sys.executable, *map(str, command)]
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = program(HOUSE / "jobs/dedup.py", HOUSE / "conf/dedup.yaml")
    assert "dedup-2026-01-02: " in shown
    assert "nothing was deleted" in shown
    assert len(products) == 4
    [kept] = lk["products__duplicates-2026-01-02"].to_arrow(where="kept").to_pylist()
    assert (kept["sku"], kept["size"]) == ("b", 2)
    told = json.loads(program("-c", "from lake.cli import main; main()", "run", "go.yaml", "--json"))
    counts = {name: told[name] for name in ("rows", "kept", "duplicates", "without_vector", "deleted")}
    assert counts == {"rows": 4, "kept": 2, "duplicates": 1, "without_vector": 1, "deleted": 1}
    assert sorted(products.to_arrow(["sku"])["sku"].to_pylist()) == ["b", "c", "d"]
