"""Index builds on a Ray cluster: equal to local ones, through killed workers and drivers, from another folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import lake
from lake.index.jobs import job_folder
from lake.run import LocalExecutor
from lake.storage import Files, Location
from lake.table.commit import COMMIT_ID, transactions
from lake_ray import RayExecutor
from tests.support.raycluster import RUNTIME_ENV, RayCluster, environment
from tests.support.raytasks import DyingSegment, mark_of
from tests.support.s3 import ROOT

pytestmark = pytest.mark.slow

ROWS, FRAGMENTS, DIMENSION = 4_000, 4, 16


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small tables be divided into several segments."""
    monkeypatch.setattr("lake.index.plan._TASK_ROWS", 500)


def make(root: Location) -> lake.Table:
    """A table of several fragments, with three indexes declared."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((ROWS, DIMENSION), dtype=np.float32)
    data = pa.table(
        {
            "id": np.arange(ROWS),
            "text": [f"word{i % 97} thing{i % 7}" for i in range(ROWS)],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION),
        }
    )
    step = ROWS // FRAGMENTS
    table = lake.connect(root.uri, root.options).create_table("t", data.slice(0, step), key="id")
    for start in range(step, ROWS, step):
        table.append(data.slice(start, step))
    table.create_index("id", "BTREE")
    table.create_index("text", "INVERTED")
    table.create_index("vector", "IVF_FLAT", partitions=8, metric="l2")
    return table


def segments(table: lake.Table) -> dict[str, list[tuple[tuple[int, ...], int]]]:
    """The fragments and rows of each segment, by index."""
    found = {}
    for described in table.dataset.describe_indices():
        found[described.name] = sorted(
            (tuple(sorted(s.fragment_ids)), len(s.fragment_ids) * ROWS // FRAGMENTS) for s in described.segments
        )
    return found


def answers(table: lake.Table) -> list[Any]:
    """What some searches find."""
    queries = np.random.default_rng(5).standard_normal((5, DIMENSION), dtype=np.float32)
    near = [table.search(q, k=10, nprobe=8, columns=["id"]).to_arrow()["id"].to_pylist() for q in queries]
    words = sorted(table.search(text="word13", k=200, columns=["id"]).to_arrow()["id"].to_pylist())
    return [near, words, table.count_rows("id >= 100 and id < 130")]


def brute(table: lake.Table) -> list[Any]:
    """The same by NumPy and plain Python."""
    rows = table.to_arrow()
    matrix = np.stack(rows["vector"].to_numpy(zero_copy_only=False))
    ids = rows["id"].to_numpy()
    queries = np.random.default_rng(5).standard_normal((5, DIMENSION), dtype=np.float32)
    near = [ids[np.argsort(((matrix - q) ** 2).sum(1), kind="stable")[:10]].tolist() for q in queries]
    words = sorted(r["id"] for r in rows.select(["id", "text"]).to_pylist() if "word13" in r["text"].split())
    return [near, words, 30]


def check(table: lake.Table, job: str) -> None:
    """Compare with brute force; nothing is visible that does not belong there."""
    assert table.coverage().complete
    assert answers(table) == brute(table)
    assert [p.get(COMMIT_ID) for _, p in transactions(table.dataset)].count(job) == 1
    assert list(Files(job_folder(table.snapshot().location, job)).names()) == []
    named = {str(s.uuid) for d in table.dataset.describe_indices() for s in d.segments}
    there = {name.split("/")[1] for name in Files(table.snapshot().location).names("_indices")}
    assert named <= there, "each segment that the manifest names has its files"


def test_a_build_on_ray_equals_a_local_one(root: Location, on_ray: RayCluster) -> None:
    far = make(root.join("ray"))
    report = far.build(executor="ray", job_id="nightly")
    assert {i.done for i in report.indexes} == {"built"}
    check(far, "nightly")
    near = make(root.join("local"))
    with LocalExecutor(2) as executor:
        near.build(executor=executor, job_id="nightly")
    assert segments(far) == segments(near)
    assert any(len(found) > 1 for found in segments(far).values()), "several tasks"
    assert answers(far) == answers(near)
    assert far.build(executor=RayExecutor(), job_id="nightly").repeated


def test_a_worker_that_is_killed_after_its_work(
    tmp_path: Path, on_ray: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make(Location.of(tmp_path))
    monkeypatch.setattr("lake.index.work.BuildSegment", DyingSegment)
    report = table.build(executor=RayExecutor(), job_id="nightly")
    mark_of(table.snapshot().location).unlink()  # it did die
    assert {i.done for i in report.indexes} == {"built"}
    monkeypatch.undo()
    check(table, "nightly")


_DRIVER = """
import os, sys, ray, lake
from lake.index import plan
from lake.run import JobCommitted, TaskDone
plan._TASK_ROWS = 500
uri, address, when = sys.argv[1:]
done = []
def hear(event):
    if isinstance(event, TaskDone) and event.stage == "segments":
        done.append(event.key)
    # Each is recorded once those that end with it were heard of: of two workers, all but the last two.
    if (when == "before" and len(done) == 5) or (when == "after" and isinstance(event, JobCommitted)):
        os._exit(9)
ray.init(address, runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}}, log_to_driver=False)
report = lake.connect(uri).open_table("t").build(executor="ray", job_id="nightly", on_event=hear)
print(sum(i.resumed for i in report.indexes))
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_driver_that_is_killed_and_run_again(tmp_path: Path, on_ray: RayCluster, when: str) -> None:
    table = make(Location.of(tmp_path))

    def drive(when: str) -> subprocess.CompletedProcess[str]:
        here = environment() | RUNTIME_ENV["env_vars"]
        command = [sys.executable, "-c", _DRIVER, str(tmp_path), on_ray.address, when]
        return subprocess.run(command, cwd=ROOT, env=here, capture_output=True, text=True, check=False)

    killed = drive(when)
    assert killed.returncode == 9, killed.stderr
    assert bool(table.coverage().complete) == (when == "after")
    again = drive("never")
    assert again.returncode == 0, again.stderr
    assert int(again.stdout.split()[-1]) >= 3, "what was done is not done again"
    check(table, "nightly")


_JOB = """
import sys, numpy as np, ray, jobs, lake, lake_ray
from lake import sample
assert jobs.MINE, "the user's own folder of that name"
assert "py_modules" in lake.__file__, lake.__file__
ray.init(log_to_driver=False)
lk = lake.connect(sys.argv[1])
table = lk.create_table("p", sample.packages(), key="name")
table.create_index("embedding", partitions=4)
print(table.build(executor="ray"))

def shout(batch):
    import lake
    assert "py_modules" in lake.__file__, lake.__file__
    return {"name": np.char.upper(batch["name"].astype(str)), "version": batch["version"]}

loud = lake_ray.read_lake(table.uri, ["name", "version"]).map_batches(shout)
receipt = lake_ray.write_lake(loud, lk.uri + "/loud.lance", schema=lake.Schema(
    [lake.Column("name", str), lake.Column("version", str)], key="name"))
print("ROWS", receipt.inserted)
"""


def test_a_job_submitted_from_another_folder_brings_the_wheel(tmp_path: Path, ray_cluster: RayCluster) -> None:
    house = tmp_path / "house"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    (house / "jobs").mkdir(parents=True)
    (house / "jobs" / "__init__.py").write_text("MINE = True\n")
    (house / "job.py").write_text(_JOB)
    carried = json.dumps({"py_modules": [str(wheel)]})
    ray = shutil.which("ray", path=str(Path(sys.executable).parent))
    assert ray is not None
    submit = [ray, "job", "submit", "--address", ray_cluster.jobs, "--working-dir", ".", "--runtime-env-json", carried]
    command = [*submit, "--", "python", "job.py", str(tmp_path / "lake")]
    done = subprocess.run(command, cwd=house, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "ROWS 8000" in done.stdout
    lk = lake.connect(tmp_path / "lake")
    assert lk["p"].coverage().complete
    assert sorted(lk["loud"].to_arrow()["name"].to_pylist()) == sorted(
        name.upper() for name in lk["p"].to_arrow(["name"])["name"].to_pylist()
    )
