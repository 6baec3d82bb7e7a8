"""Recall as a parameter of searches: calibrations, judged by brute force over all rows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

import lake
from lake.analytics import calibrate as measure
from lake.errors import Conflict, CorruptTable, InvalidInput, LakeError, NotFound, NotSupported
from lake.index import calibration, record
from lake.job import common
from lake.job.kinds import BuildIndex, Index
from lake.search import Coverage
from tests.support.duplicates import distances

Matrix = np.ndarray[Any, np.dtype[Any]]

ROWS, DIMENSION, PARTITIONS = 6000, 16, 48
KINDS: dict[str, dict[str, Any]] = {"ivf_flat": {}, "ivf_pq": {"sub_vectors": 8}}
METRICS = ("l2", "cosine", "dot")
TARGETS = (0.5, 0.9, 0.97)


def draw(rows: int, seed: int) -> Matrix:
    """Draw vectors from some broad, overlapping clumps."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, DIMENSION))
    points = centres[rng.integers(0, 40, rows)] + 0.8 * rng.standard_normal((rows, DIMENSION))
    return points.astype(np.float32)


def quiet(_: object) -> None:
    """Draw no progress."""


def make(place: Path, vectors: Matrix, metric: str = "l2", kind: str | None = "ivf_flat", **more: Any) -> lake.Table:
    table = lake.connect(place).create_table(
        "t",
        lake.Schema(
            [
                lake.Column("id", int),
                lake.Column("text", str),
                lake.Column("v", lake.Embedding(vectors.shape[1], metric=metric)),  # type: ignore[arg-type]
            ],
            key="id",
        ),
    )
    table.append({"id": np.arange(len(vectors)), "text": [f"word{i % 7}" for i in range(len(vectors))], "v": vectors})
    if kind is not None:
        table.create_index("v", kind, **{"partitions": PARTITIONS} | more)
        table.build(on_event=quiet)
    return table


def nearest(queries: Matrix, vectors: Matrix, metric: str, k: int = 10) -> list[set[int]]:
    """Compare all pairs."""
    q, x = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "cosine":
        q, x = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (q, x))
    found = -q @ x.T if metric != "l2" else (x * x).sum(1) - 2 * q @ x.T
    return [set(line.tolist()) for line in np.argsort(found, axis=1, kind="stable")[:, :k]]


def shares(table: lake.Table, queries: Matrix, truth: list[set[int]], recall: float) -> tuple[Matrix, Coverage]:
    """Return the share of the true ones that a search finds, by query, and what it covered."""
    result = table.search(vector=queries, k=10, columns=["id"], recall=recall)
    found = result.to_arrow()
    ids: list[set[int]] = [set() for _ in truth]
    for query, i in zip(found["_query"].to_pylist(), found["id"].to_pylist(), strict=True):
        ids[query].add(i)
    return np.array([len(a & b) / len(b) for a, b in zip(ids, truth, strict=True)]), result.coverage


@pytest.fixture(scope="module")
def vectors() -> Matrix:
    return draw(ROWS, 1)


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory, vectors: Matrix) -> lake.Table:
    """A calibrated table that no test changes."""
    table = make(tmp_path_factory.mktemp("flat"), vectors)
    table.calibrate(on_event=quiet)
    return table


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_queries_that_were_held_out_find_the_share_that_was_asked_for(
    tmp_path: Path, vectors: Matrix, kind: str, metric: str
) -> None:
    table = make(tmp_path, vectors, metric, kind, **KINDS[kind])
    many = 400 if kind == "ivf_flat" else 100  # true distances are computed for one query after the other
    told = table.calibrate(sample=many, on_event=quiet)
    assert [p.nprobe for p in told.points] == [min(2**i, PARTITIONS) for i in range(len(told.points))]
    assert (told.k, told.sample, told.rows, told.indexed) == (10, many, ROWS, ROWS)
    queries = draw(many, 2)
    truth = nearest(queries, vectors, metric)
    chosen = set()
    for target in TARGETS:
        point = next(p for p in told.points if p.recall >= target)
        found, coverage = shares(table, queries, truth, target)
        assert coverage.parts[0].partitions_probed == point.nprobe
        assert coverage.recall == point.recall >= target
        own = 1.96 * found.std(ddof=1) / len(found) ** 0.5
        assert point.low - own <= found.mean() <= point.high + own, (target, found.mean(), str(point))
        chosen.add(point.nprobe)
    assert len(chosen) > 1, "the targets are to tell apart"


@pytest.mark.parametrize("metric", METRICS)
def test_the_curve_counts_as_one_does_by_hand(tmp_path: Path, metric: str) -> None:
    vectors = draw(150, 3)
    table = make(tmp_path, vectors, metric, partitions=6)
    told = table.calibrate(sample=10_000, k=5, on_event=quiet)
    assert told.sample == 150
    found = distances(vectors.astype(np.float64), metric)
    np.fill_diagonal(found, np.inf)
    truth = [set(line[:5].tolist()) for line in np.argsort(found, axis=1)]
    for point in told.points:
        hits = []
        for i in range(150):
            near = {"column": "v", "q": vectors[i], "k": 6, "nprobes": point.nprobe}
            ids = [j for j in table.dataset.to_table(columns=["id"], nearest=near)["id"].to_pylist() if j != i][:5]
            hits.append(len(truth[i] & set(ids)) / 5)
        assert point.recall == pytest.approx(np.mean(hits), abs=1e-9), point.nprobe
        assert point.low <= point.recall <= point.high
    assert told.points[-1].recall == 1.0
    assert told.points[-1].low < 1.0, "that none of a sample was missed proves little"


def test_copies_of_a_row_serve_as_well_as_each_other(tmp_path: Path) -> None:
    vectors = np.repeat(draw(40, 4), 30, axis=0)
    told = make(tmp_path, vectors, partitions=8).calibrate(on_event=quiet)
    assert [p.recall for p in told.points] == [1.0]


def test_rows_without_a_vector_and_few_rows(tmp_path: Path) -> None:
    vectors = draw(60, 5)
    table = make(tmp_path, vectors, kind=None)
    table.update({"v": None}, where="id >= 12")
    table.create_index("v", "ivf_flat", partitions=3)
    table.build(on_event=quiet)
    told = table.calibrate(k=20, on_event=quiet)
    assert told.sample == 12, "each has 11 neighbours"
    assert told.points[-1].recall == 1.0


def test_what_is_not_measured_is_said(flat: lake.Table) -> None:
    query = draw(1, 6)[0]
    curve = calibration(flat.snapshot(), "v_idx")
    searches: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({}, ()),
        ({"where": "id % 2 = 0"}, ("without a filter",)),
        ({"k": 30, "offset": 5}, ("calibrate(k=35) would tell of more",)),
        ({"text": "word3", "where": "id > 7"}, ("without a filter",)),
        ({"group_by": "text", "k": 3}, ()),
        ({"vector": draw(3, 6)}, ()),
    ]
    for arguments, more in searches:
        if "text" in arguments:
            flat = _with_text(flat)
        asked: dict[str, Any] = {"vector": query, "recall": 0.9} | arguments
        part = flat.search(**asked).coverage.parts[0]
        expected = ", ".join(["256 of 6,000 rows as queries at version " + str(curve.version), *more])
        assert part.recall is not None
        assert part.notes[0].endswith(expected)
        assert part.notes[0].startswith(f"recall {part.recall:.3f} (")
        assert expected in str(flat.explain(**asked))


def _with_text(table: lake.Table) -> lake.Table:
    """Give a text index to a branch."""
    side = table.branch("words")
    side.create_index("text", "text")
    side.build(on_event=quiet)
    return side


def test_recall_of_one_and_tables_without_index_compare_every_row(
    tmp_path: Path, flat: lake.Table, vectors: Matrix
) -> None:
    queries = draw(20, 7)
    truth = nearest(queries, vectors, "l2")
    bare = make(tmp_path, vectors, kind=None)
    for table, target in ((flat, 1.0), (bare, 0.9)):
        found, coverage = shares(table, queries, truth, target)
        assert found.mean() == 1.0
        assert (coverage.rows_scanned, coverage.recall, coverage.exact) == (ROWS, 1.0, True)


def test_beyond_the_curve_whole_vectors_are_read_in_every_partition(tmp_path: Path, vectors: Matrix) -> None:
    table = make(tmp_path, vectors)
    told = table.calibrate(on_event=quiet)
    record(table.snapshot(), replace(told, points=told.points[:1]))
    coverage = table.search(vector=vectors[:2], recall=0.999).coverage
    assert coverage.exact
    assert coverage.recall == 1.0
    assert coverage.parts[0].partitions_probed == PARTITIONS


def test_codes_reach_what_they_reach_and_a_refine_reaches_more(tmp_path: Path, vectors: Matrix) -> None:
    table = make(tmp_path, vectors, kind="ivf_pq", sub_vectors=4)
    told = table.calibrate(refine=1, sample=60, on_event=quiet)
    assert told.best.recall < 0.9
    assert told.points[-1].nprobe == PARTITIONS or told.points[-1].recall <= told.points[-3].recall
    with pytest.raises(InvalidInput, match=rf"reached {told.best.recall:.3f} .* refine 1; .*refine=4\), or .*recall=1"):
        table.search(vector=vectors[0], recall=0.95)
    better = table.calibrate(refine=20, sample=60, on_event=quiet)
    assert better.best.recall > 0.95
    assert table.search(vector=vectors[0], recall=0.95).coverage.parts[0].refine == 20


def test_a_calibration_stays_while_rows_come_and_ends_with_the_index(tmp_path: Path, vectors: Matrix) -> None:
    table = make(tmp_path, vectors)
    before = table.version
    with pytest.raises(NotFound, match=r"no calibration of index 'v_idx'; call table.calibrate\('v_idx'\)"):
        table.search(vector=vectors[0], recall=0.9)
    table.calibrate(on_event=quiet)
    table.append({"id": [ROWS], "text": ["new"], "v": draw(1, 8)})
    told = table.search(vector=vectors[0], recall=0.9).coverage
    assert told.parts[0].notes[0].endswith("of 6,001 rows now")
    assert told.rows_scanned == 1
    table.build(on_event=quiet)
    table.compact()
    table.rename_columns({"v": "w"})
    assert table.search(vector=vectors[0], recall=0.9).coverage.recall == told.recall
    frozen = table.at(table.version)
    table.drop_index("v_idx")
    table.create_index("w", "ivf_flat", name="v_idx", partitions=PARTITIONS)
    assert table.search(vector=vectors[0], recall=0.9).coverage.exact, "nothing is built: a scan"
    table.build(on_event=quiet)
    with pytest.raises(NotFound, match="no calibration"):
        table.search(vector=vectors[0], recall=0.9)
    assert frozen.search(vector=vectors[0], recall=0.9).coverage.recall == told.recall
    with pytest.raises(NotFound, match=f"version {before} has no calibration"):
        table.at(before).search(vector=vectors[0], recall=0.9)
    with pytest.raises(InvalidInput, match="is pinned"):
        frozen.calibrate()


def test_an_index_of_another_maker_is_calibrated_and_told_from_a_new_one(tmp_path: Path, vectors: Matrix) -> None:
    table = make(tmp_path, vectors, kind=None)
    train: dict[str, Any] = {"column": "v", "index_type": "IVF_FLAT", "metric": "l2", "name": "theirs"}
    lance.dataset(table.uri).create_index(**train, num_partitions=20)
    with pytest.raises(NotFound, match=r"call table.calibrate\('theirs'\)"):
        table.explain(vector=vectors[0], recall=0.9)
    table.calibrate(on_event=quiet)
    assert table.search(vector=vectors[0], recall=0.9).coverage.index == "theirs"
    lance.dataset(table.uri).create_index(**train, num_partitions=21, replace=True)
    with pytest.raises(NotFound, match="'theirs' was trained anew since it was calibrated"):
        table.search(vector=vectors[0], recall=0.9)
    table.calibrate(on_event=quiet)
    assert table.search(vector=vectors[0], recall=0.9).coverage.parts[0].partitions == 21


def test_a_branch_has_a_calibration_of_its_own(tmp_path: Path, vectors: Matrix) -> None:
    table = make(tmp_path, vectors)
    side = table.branch("side")
    side.calibrate(on_event=quiet)
    assert side.search(vector=vectors[0], recall=0.9).coverage.recall is not None
    with pytest.raises(NotFound, match="no calibration"):
        table.search(vector=vectors[0], recall=0.9)


def test_the_same_calibration_again_changes_nothing(flat: lake.Table) -> None:
    before, held = flat.version, calibration(flat.snapshot(), "v_idx")
    assert flat.calibrate(on_event=quiet) == held
    assert flat.version == before


def test_killed_before_its_commit_it_leaves_nothing(tmp_path: Path, vectors: Matrix) -> None:
    table = make(tmp_path, vectors)
    files = sorted(tmp_path.rglob("*"))
    program = (
        "import os, signal, sys, lake\n"
        "from lake.analytics import calibrate\n"
        "room = sys.modules[calibrate.__module__]\n"
        "room.record = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "lake.connect(sys.argv[1]).open_table('t').calibrate(on_event=print)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert [f for f in sorted(tmp_path.rglob("*")) if f.is_file()] == [f for f in files if f.is_file()]
    table.calibrate(on_event=quiet)
    assert table.search(vector=vectors[0], recall=0.9).coverage.recall is not None


def _drop(table: lake.Table) -> None:
    table.drop_index("v_idx")


def _train(table: lake.Table) -> None:
    table.drop_index("v_idx")
    table.create_index("v", "ivf_flat", partitions=20)
    table.build(on_event=quiet)


@pytest.mark.parametrize("meanwhile", [_drop, _train])
def test_an_index_that_goes_while_it_is_measured_is_not_calibrated(
    tmp_path: Path, vectors: Matrix, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[lake.Table], None]
) -> None:
    table = make(tmp_path, vectors[:2000])
    room = sys.modules[measure.__module__]
    really = room.record

    def recorded(*given: Any) -> Any:
        meanwhile(table)
        return really(*given)

    monkeypatch.setattr(room, "record", recorded)
    with pytest.raises(Conflict, match="dropped or built anew while it was measured"):
        table.calibrate(on_event=quiet)
    assert not [key for key in table.dataset.config() if key.startswith("lake.recall")]


@pytest.mark.parametrize(
    ("text", "error", "problem"),
    [("{", CorruptTable, "cannot be read"), ('{"v": 1}', CorruptTable, "points"), ('{"v": 9}', NotSupported, "newer")],
)
def test_a_damaged_calibration_is_refused(tmp_path: Path, text: str, error: type[LakeError], problem: str) -> None:
    vectors = draw(300, 9)
    table = make(tmp_path, vectors, partitions=4)
    lance.dataset(table.uri).update_config({"lake.recall.v_idx": text})
    with pytest.raises(error, match=problem):
        table.search(vector=vectors[0], recall=0.9)


REFUSED: dict[str, tuple[dict[str, Any], type[LakeError], str]] = {
    "unknown": ({"index": "w_idx"}, NotFound, "no vector index 'w_idx' is built; there are v_idx"),
    "few": ({"sample": 5}, InvalidInput, "sample=5: give a whole number of 20 or more"),
    "no number": ({"sample": "many"}, InvalidInput, "sample='many'"),
    "none": ({"k": 0}, InvalidInput, "k=0: give a whole number"),
    "half": ({"k": 2.5}, InvalidInput, "k=2.5: give a whole number"),
    "too many": ({"k": 5000}, InvalidInput, "k=5000: give 1 to 999"),
    "refine": ({"refine": -1}, InvalidInput, "refine=-1"),
    "memory": ({"memory": "much"}, InvalidInput, "memory='much'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused(flat: lake.Table, case: str) -> None:
    arguments, error, problem = REFUSED[case]
    with pytest.raises(error, match=problem):
        flat.calibrate(**arguments, on_event=quiet)


def test_which_index_and_which_kinds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lk = lake.connect(tmp_path)
    columns = [lake.Column("id", int), lake.Column("v", lake.Embedding(8)), lake.Column("w", lake.Embedding(8))]
    table = lk.create_table("t", lake.Schema(columns, key="id"))
    table.append({"id": np.arange(400), "v": rng.random((400, 8), np.float32), "w": rng.random((400, 8), np.float32)})
    with pytest.raises(NotFound, match="no vector index is built; there are none"):
        table.calibrate()
    for column in "vw":
        table.create_index(column, "ivf_flat", partitions=4)
    table.build(on_event=quiet)
    with pytest.raises(InvalidInput, match="several vector indexes are built: v_idx, w_idx"):
        table.calibrate()
    assert table.calibrate("w_idx", on_event=quiet).index == "w_idx"
    codes = lk.create_table(
        "bits", lake.Schema([lake.Column("id", int), lake.Column("c", pa.list_(pa.uint8(), 4))], key="id")
    )
    codes.append({"id": np.arange(400), "c": rng.integers(0, 256, (400, 4), np.uint8)})
    codes.create_index("c", "ivf_flat", partitions=4)
    codes.build(on_event=quiet)
    with pytest.raises(InvalidInput, match="under hamming; recall is measured for float vectors"):
        codes.calibrate()


def test_a_build_job_calibrates_what_it_built(tmp_path: Path, vectors: Matrix) -> None:
    table = make(tmp_path, vectors, kind=None)
    job = BuildIndex(
        job="build_index",
        lake=str(tmp_path),
        table="t",
        indexes=(
            Index(column="v", kind="ivf_flat", parameters={"partitions": 20}),
            Index(column="text", kind="text"),
        ),
        calibrate=True,
    )

    def run(job_id: str) -> Any:
        return job.run(common.Run(job_id, "local", quiet))

    first = run("one")
    [told] = first.calibrations
    assert (told.index, told.rows) == ("v_idx", ROWS)
    assert "recall of the 10 nearest" in str(first)
    assert first.to_dict()["calibrations"][0]["points"]
    version = table.version
    assert (run("one").calibrations, run("two").calibrations, table.version) == ((), (), version)
    table.append({"id": [ROWS], "text": ["new"], "v": draw(1, 8)})
    assert [c.rows for c in run("three").calibrations] == [ROWS + 1]
    lance.dataset(table.uri).delete_config_keys(["lake.recall.v_idx"])
    assert len(run("three").calibrations) == 1, "killed between the commit of the build and that of the calibration"
