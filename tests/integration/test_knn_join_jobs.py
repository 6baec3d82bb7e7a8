"""Joins as jobs: the same rows on every engine; killed and submitted again, one result and no task twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import lake
from lake.errors import AlreadyExists, InvalidInput
from lake.join import knn
from lake.run import Event, LocalExecutor, StageStarted, TaskDone, TaskRetried, TaskSkipped, TaskStarted, ignore
from lake.schema import Schema
from tests.support.raycluster import RayCluster
from tests.support.wide import Wide

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ORDER = [("left_id", "ascending"), ("rank", "ascending")]
HOUSE = Path(__file__).parents[2]


def tables(place: Path, left: int = 2000, right: int = 3000) -> lake.Lake:
    """Two tables; of the right one some rows are indexed, some moved, some new."""
    lk = lake.connect(place)
    rng = np.random.default_rng(5)
    for name, rows in (("left", left), ("right", right)):
        schema = lake.Schema([lake.Column("id", int), lake.Column("vector", lake.Embedding(16))], key="id")
        table = lk.create_table(name, schema)
        for start in range(0, rows, 1000):
            vectors = pa.array(rng.standard_normal(16_000).astype(np.float32))
            ids = pa.array(np.arange(start, start + 1000))
            table.append(pa.table({"id": ids, "vector": pa.FixedSizeListArray.from_arrays(vectors, 16)}))
            if start == 1000 and name == "right":
                table.create_index("vector", "ivf_flat", partitions=16)
                table.build(executor=LocalExecutor(1), on_event=lambda _: None)
        table.delete("id % 10 = 3")
    return lk


def joined(lk: lake.Lake, executor: Any, into: str) -> pa.Table:
    found = lk.open_table("left").knn_join(
        lk.open_table("right"), 6, recall=0.9, into=into, executor=executor, on_event=lambda _: None
    )
    assert found.report.tasks == 2
    assert found.report.regions == (2 if lk.open_table("right").version > 20 else 1)
    return lk.open_table(into).to_arrow().sort_by(ORDER)


@pytest.fixture(scope="module", params=[(2000, 3000), (1000, 30_000)], ids=["blocks", "regions"])
def lk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> lake.Lake:
    return tables(tmp_path_factory.mktemp("joins"), *request.param)


@pytest.fixture(scope="module")
def locally(lk: lake.Lake) -> pa.Table:
    with LocalExecutor(2) as executor:
        return joined(lk, executor, "local")


def joined_with_all(lk: lake.Lake, executor: Any) -> pa.Table:
    """Another metric than the index's, conditions, a bound, filters, and columns that are carried."""
    found = lk.open_table("left").knn_join(
        lk.open_table("right"),
        6,
        metric="cosine",
        recall=0.9,
        within=0.6,
        on=["left.id >= right.id"],
        left_where="id % 2 = 0",
        right_where="id % 3 <> 0",
        right_columns=["vector"],
        executor=executor,
        on_event=lambda _: None,
    )
    rows = found.to_arrow().sort_by(ORDER)
    assert 1000 < rows.num_rows < 6 * lk.open_table("left").count_rows("id % 2 = 0")
    return rows


@pytest.fixture(scope="module")
def locally_with_all(lk: lake.Lake) -> pa.Table:
    with LocalExecutor(2) as executor:
        return joined_with_all(lk, executor)


@pytest.mark.slow
def test_on_ray(lk: lake.Lake, locally: pa.Table, locally_with_all: pa.Table, on_ray: RayCluster) -> None:
    from lake_ray import RayExecutor

    assert joined(lk, RayExecutor(), "ray").equals(locally)
    assert joined_with_all(lk, RayExecutor()).equals(locally_with_all)


@pytest.mark.slow
def test_on_spark(lk: lake.Lake, locally: pa.Table, locally_with_all: pa.Table, spark: Any) -> None:
    from lake_spark import SparkExecutor

    assert joined(lk, SparkExecutor(spark, workers=2), "spark").equals(locally)
    assert joined_with_all(lk, SparkExecutor(spark, workers=2)).equals(locally_with_all)


def test_workers_are_killed(lk: lake.Lake, locally_with_all: pa.Table) -> None:
    """As both tasks begin: at the second time the first one at least is at work."""
    retried: list[TaskRetried] = []

    class Killing(LocalExecutor):
        def run(self, stage: Any, on_event: Any = ignore) -> Any:
            def hear(event: Any) -> None:
                if isinstance(event, TaskStarted) and event.stage == "join" and event.attempt == 1:
                    for worker in multiprocessing.active_children():
                        worker.kill()
                if isinstance(event, TaskRetried):
                    retried.append(event)
                on_event(event)

            return super().run(stage, hear)

    with Killing(2) as executor:
        assert joined_with_all(lk, executor).equals(locally_with_all)
    assert {event.stage for event in retried} == {"join"}


_PROGRAM = """
import os, signal, sys
import lake
from lake.run import JobCommitted, TaskDone
from tests.support.wide import Wide

heard = []

def listen(event):
    name = f"{type(event).__name__} {getattr(event, 'stage', '')}".strip()
    heard.append(name)
    if heard.count(sys.argv[2]) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

lk = lake.connect(sys.argv[1])
lk.open_table("left").knn_join(
    lk.open_table("right"), 6, recall=0.9, into="near", executor=Wide(int(sys.argv[3])), memory="600MiB",
    job_id="nightly", on_event=listen,
)
"""
STAGES = ["sort", "sample", "send", "join", "merge"]


@pytest.mark.parametrize(
    ("moment", "regions"),
    [
        *((moment, 1) for moment in ("TaskDone sort", "StageDone sample", "StageStarted join", "StageDone join")),
        *(
            (moment, 4)
            for moment in ("TaskDone send", "StageDone send", "TaskDone join", "StageDone join", "StageDone merge")
        ),
        ("JobCommitted", 1),
        ("JobCommitted", 4),
    ],
)
def test_killed_and_submitted_again(tmp_path: Path, moment: str, regions: int) -> None:
    times = 2 if regions > 1 and moment.startswith("TaskDone") else 1
    lk = tables(tmp_path, *((2000, 3000) if regions == 1 else (700, 16_000)))
    with LocalExecutor(1) as executor:
        wanted = lk.open_table("left").knn_join(
            lk.open_table("right"), 6, recall=0.9, into="wanted", executor=executor, on_event=lambda _: None
        )
    killed = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path), moment, str(regions), str(times)],
        cwd=HOUSE,
        env={**os.environ, "PYTHONPATH": str(HOUSE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert ("near" in lk) == (moment == "JobCommitted"), "all or nothing"
    events: list[Event] = []
    left, right = lk.open_table("left"), lk.open_table("right")
    for _ in range(2):
        report = left.knn_join(
            right,
            6,
            recall=0.9,
            into="near",
            executor=Wide(regions),
            memory="600MiB",
            job_id="nightly",
            on_event=events.append,
        ).report
    assert report.repeated
    if moment != "JobCommitted":  # then the report died with the driver
        assert (report.pairs, report.left_rows) == (wanted.report.pairs, wanted.report.left_rows)
        assert report.recall == wanted.report.recall
    near, true = (lk.open_table(name).to_arrow().sort_by(ORDER) for name in ("near", "wanted"))
    assert near.equals(true)
    assert len(lk.open_table("near").versions()) == 1
    assert wanted.report.pairs == len(near)
    skipped = [(event.stage, event.key) for event in events if isinstance(event, TaskSkipped)]
    again = [(event.stage, event.key) for event in events if isinstance(event, TaskDone)]
    assert not set(skipped) & set(again), "what was done is not done again"
    if moment != "JobCommitted":
        assert report.regions == regions
        kind, stage = moment.split()
        stages = [name for name in STAGES if regions > 1 or name not in {"send", "merge"}]
        before = stages[: stages.index(stage) + (kind == "StageDone")]
        begun = {stage} if times > 1 else set()  # who hears of a task that is done comes before the ledger
        assert {name for name, _ in skipped} == set(before) | begun
        assert not {name for name, _ in again} & set(before)
    left_over = {path.name for path in (tmp_path / "_jobs").rglob("*") if path.is_file()}
    assert left_over <= {"asked.json", "report.json"}, "nothing else is left"


def test_a_job_keeps_to_what_it_was_asked_and_what_it_read(tmp_path: Path) -> None:
    lk = tables(tmp_path)
    left, right = lk.open_table("left"), lk.open_table("right")

    def join(k: int) -> Any:
        return left.knn_join(right, k, into="near", executor=LocalExecutor(1), job_id="nightly", on_event=ignore)

    class Stopped(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, TaskDone):
            raise Stopped

    with pytest.raises(AlreadyExists):
        left.knn_join(right, 3, into="right", executor=LocalExecutor(1), job_id="nightly", on_event=ignore)
    with pytest.raises(Stopped):
        left.knn_join(right, 3, into="near", executor=LocalExecutor(1), job_id="nightly", on_event=stop)
    made = knn.result_schema
    with pytest.MonkeyPatch.context() as patch:  # files that are there hold the columns in another order
        patch.setattr(knn, "result_schema", lambda plan: Schema(made(plan).columns[::-1], key=made(plan).key))
        with pytest.raises(InvalidInput, match="begun with other parameters"):
            join(3)
    before = len(left)
    left.delete("id < 100")  # the job goes on with the version that it was begun with
    with pytest.raises(InvalidInput, match="begun with other parameters"):
        join(4)
    assert join(3).report.left_rows == before
    with pytest.raises(InvalidInput, match="begun with other parameters"):
        join(4)
    assert join(3).report.repeated


def test_a_job_of_arrays_is_known_by_what_they_hold(tmp_path: Path) -> None:
    right = tables(tmp_path).open_table("right")
    asked = np.random.default_rng(0).standard_normal((20, right.schema.column("vector").type.list_size))
    done = [right.knn_join(asked, 2, into="near", job_id="nightly", on_event=ignore).report for _ in range(2)]
    assert [report.repeated for report in done] == [False, True]
    assert done[0].pairs == done[1].pairs == 2 * len(right)
    for other in (asked[:5], asked * 2):
        with pytest.raises(InvalidInput, match="begun with other parameters"):
            right.knn_join(other, 2, into="near", job_id="nightly", on_event=ignore)


@pytest.mark.parametrize("regions", [1, 4])
def test_a_job_goes_on_with_other_workers_and_more_memory(tmp_path: Path, regions: int) -> None:
    lk = tables(tmp_path, *((2000, 3000) if regions == 1 else (700, 16_000)))
    left, right = lk.open_table("left"), lk.open_table("right")
    asked: dict[str, Any] = {"recall": 0.9, "job_id": "nightly", "into": "near"}
    wanted = left.knn_join(right, 6, recall=0.9, executor=LocalExecutor(1), on_event=ignore).to_arrow()

    class Stopped(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage == "join":
            raise Stopped

    with pytest.raises(Stopped):
        left.knn_join(right, 6, executor=Wide(regions), memory="700MiB", on_event=stop, **asked)
    events: list[Event] = []
    report = left.knn_join(right, 6, executor=Wide(2), memory="2GiB", on_event=events.append, **asked).report
    assert report.regions == regions, "it goes on as it began"
    assert {event.stage for event in events if isinstance(event, TaskSkipped)} >= {"sort"}
    assert lk.open_table("near").to_arrow().sort_by(ORDER).equals(wanted.sort_by(ORDER))
