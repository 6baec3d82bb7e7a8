"""Drift against plain computations in numpy: what is drift and what is not, and what is said of it."""

from __future__ import annotations

import itertools
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest
import yaml

import lake
from lake.analytics import DriftReport, drifting
from lake.analytics.growth import growths
from lake.analytics.twosample import compare
from lake.errors import InvalidInput, MemoryExceeded, NotFound
from lake.job import Run, open_job
from lake.run import TaskDone
from lake.storage import Files, Location
from tests.support.clusters import blobs, make, rows
from tests.support.etl import Heard
from tests.support.raycluster import RayCluster

HOUSE = Path(__file__).parents[2]
TOPICS = ["night", "noon", "rain", "snow", "wind"]

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def topics(lk: lake.Lake, name: str, counts: list[int], seed: int, missing: int = 0) -> lake.Table:
    """Rows of some topics, so many of each, in random order."""
    rng = np.random.default_rng(seed)
    centres = 3 * np.random.default_rng(5).standard_normal((len(TOPICS), 8))
    of = rng.permutation(np.repeat(np.arange(len(TOPICS)), counts))
    vectors = (centres[of] + rng.standard_normal((len(of), 8))).astype(np.float32)
    held = [None if missing and i % missing == 0 else v.tolist() for i, v in enumerate(vectors)]
    schema = lake.Schema(
        [lake.Column("id", int), lake.Column("topic", str), lake.Column("v", lake.Embedding(8, metric="l2"))], key="id"
    )
    data = {"id": np.arange(len(of)) + seed * 10_000, "topic": [TOPICS[t] for t in of]}
    table = lk.create_table(name, schema)
    table.append(pa.table(data | {"v": pa.array(held, pa.list_(pa.float32(), 8))}))
    return table


@pytest.mark.parametrize("seed", range(6))
def test_halves_of_one_table_do_not_differ(tmp_path: Path, seed: int) -> None:
    table = topics(lake.connect(tmp_path), "t", [200, 300, 100, 250, 150], seed)
    asked = {"before_where": "id % 2 = 0", "after_where": "id % 2 = 1", "permutations": 499, "seed": seed}
    report = table.drift(table, **asked, clusters=8)
    assert not report.drifted
    assert (report.grew, report.shrank) == ([], [])
    assert "no drift" in str(report)
    assert [s.rows_before for s in report.statistics] == [500] * 3


def test_a_topic_that_grew_is_found_and_named(root: Location) -> None:
    lk = lake.connect(root.uri, root.options)
    before = topics(lk, "a", [200, 200, 200, 200, 200], 1, missing=50)
    after = topics(lk, "b", [150, 150, 400, 150, 150], 2)
    report = after.drift(before, label="topic", clusters=5, sample=500)
    assert report.drifted
    first, *others = report.clusters
    assert first.name == "rain (100%)"
    assert (first.changed, first.after) == ("grew", 400)
    assert first.share_after == pytest.approx(0.4)
    assert first.low < 0.2 < first.high
    assert sorted(c.name.split()[0] for c in others) == ["night", "noon", "snow", "wind"]
    assert [c.name for c in report.grew] == ["rain (100%)"]
    assert [(s.name, s.p) for s in report.statistics][1] == ("MMD", 0.001), "the least that so many deals can tell"
    assert (report.rows_before, report.without_vector_before) == (1000, 20)
    assert sum(c.before for c in report.clusters) == 980, "all rows are counted, not the samples alone"
    assert re.search(r"1 of 5 clusters grew: rain \(100%\) \d+.\d% to 40.0%", str(report))
    assert not [n for n in Files(root).names() if n.startswith("_jobs/")]


def test_a_topic_that_moved_is_found_though_no_share_changed(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    before, after = topics(lk, "a", [200] * 5, 1), topics(lk, "b", [200] * 5, 2)
    moved = after.to_arrow(["id", "v"], "topic = 'noon'")
    turned = moved["v"].combine_chunks().flatten().to_numpy().reshape(-1, 8) + np.float32(1.5)
    version = after.version
    after.merge({"id": moved["id"], "v": turned}, mode="update")
    assert not after.at(version).drift(before, clusters=5).drifted
    report = after.drift(before, clusters=5)
    assert [s.name for s in report.statistics if s.p < report.threshold][:2] == ["centroid shift", "MMD"]
    assert after.drift(version, clusters=5).drifted, "two versions of one table"


@pytest.mark.parametrize("topic", [None, "rain"])
def test_rows_that_two_versions_share_do_not_hide_what_came(tmp_path: Path, topic: str | None) -> None:
    """In both samples they would be each other's nearest, whatever has come besides."""
    lk = lake.connect(tmp_path)
    table = topics(lk, "t", [200] * 5, 1)
    more = [50] * 5 if topic is None else [250 * (name == topic) for name in TOPICS]
    before = table.version
    table.append(topics(lk, "more", more, 2).to_arrow())
    report = table.drift(before, label="topic", clusters=5)
    assert report.drifted == (topic is not None)
    assert all((s.p < report.threshold) == (topic is not None) for s in report.statistics)
    one, other = report.statistics[0].rows_before, report.statistics[0].rows_after
    assert one + other == 1250, "each row stands in one sample"
    assert abs(one - 500) < 50
    same = table.drift(table.version, clusters=5)
    assert not same.drifted
    assert all(0.01 < s.p < 0.99 for s in same.statistics)


def plain_statistics(before: Any, after: Any, k: int) -> list[float]:
    """The statistics by their definitions, one pair after the other."""
    both = [*before.astype(np.float64), *after.astype(np.float64)]
    n, m = len(before), len(after)
    mean = sum(both) / len(both)
    spread = math.sqrt(sum(((x - mean) ** 2).sum() for x in both) / len(both))
    shift = np.linalg.norm(np.mean(after.astype(np.float64), 0) - np.mean(before.astype(np.float64), 0)) / spread
    apart = [[((x - y) ** 2).sum() for y in both] for x in both]
    median = np.median([apart[i][j] for i in range(n + m) for j in range(n + m) if i != j])
    kernel = [[math.exp(-d / (2 * median)) for d in row] for row in apart]
    xx = [kernel[i][j] for i, j in itertools.permutations(range(n), 2)]
    yy = [kernel[i][j] for i, j in itertools.permutations(range(n, n + m), 2)]
    xy = [kernel[i][j] for i in range(n) for j in range(n, n + m)]
    discrepancy = sum(xx) / len(xx) + sum(yy) / len(yy) - 2 * sum(xy) / len(xy)
    same = []
    for i in range(n + m):
        nearest = sorted((j for j in range(n + m) if j != i), key=lambda j: apart[i][j])[:k]
        same += [(j < n) == (i < n) for j in nearest]
    return [float(shift), discrepancy, sum(same) / len(same)]


@pytest.mark.parametrize(("n", "m", "k"), [(30, 30, 5), (17, 40, 3), (2, 9, 1)])
def test_statistics_are_what_they_are_defined_to_be(n: int, m: int, k: int) -> None:
    vectors = blobs(n + m, seed=n)
    vectors[n:] += np.float32(0.4)
    before, after = vectors[:n], vectors[n:]
    found = compare(before, after, k, 99, 0)
    assert [s.value for s in found] == pytest.approx(plain_statistics(before, after, k), rel=1e-9, abs=1e-12)
    dealt = np.random.default_rng(3).permutation(n + m)
    chance = [plain_statistics(vectors[np.roll(dealt, r)[:n]], vectors[np.roll(dealt, r)[n:]], k) for r in range(12)]
    for s, mean, deviation in zip(found, np.mean(chance, 0), np.std(chance, 0), strict=True):
        assert abs(s.chance - mean) < 3 * deviation + 1e-9
        assert sum(s.bins) == 99


def test_p_is_as_small_by_chance_as_it_says() -> None:
    """Of many pairs of samples of one kind, as many have a small p as p says."""
    pairs = [np.split(blobs(60, seed), 2) for seed in range(120)]
    found = np.array([[s.p for s in compare(one, other, 3, 39, 0)] for one, other in pairs])
    for p in found.T:
        assert 0.03 < (p <= 0.1).mean() < 0.2
        assert 0.35 < (p <= 0.5).mean() < 0.65


def test_shares_are_compared_by_the_binomial() -> None:
    counts = np.array([500, 300, 200]), np.array([440, 310, 250])
    found = {g.name: g for g in growths(*counts, ["a", "b", "c"], 0.05)}
    rng = np.random.default_rng(0)
    for at, name in enumerate("abc"):
        both = (counts[0][at] + counts[1][at]) / 2000
        dealt = np.diff(rng.binomial(1000, both, (200_000, 2)) / 1000).ravel()
        chance = float((np.abs(dealt) >= abs(found[name].share_after - found[name].share_before)).mean())
        assert found[name].p == pytest.approx(min(1.0, 3 * chance), rel=0.15, abs=0.01)
        seen = rng.binomial(1000, counts[1][at] / 1000, 200_000) - rng.binomial(1000, counts[0][at] / 1000, 200_000)
        low, high = np.quantile(seen / 1000, [0.025, 0.975])
        assert (found[name].low, found[name].high) == pytest.approx((low, high), abs=0.004)
    assert {name: g.changed for name, g in found.items()} == {"a": "shrank", "b": "", "c": "grew"}


def test_clusters_are_named_by_the_rows_nearest_their_centroids(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    vectors = np.array([[0, 0], [0, 1], [0, 2], [9, 9], [9, 10], [9, 11]], np.float32)
    keyed = lk.create_table("keyed", {"name": list("abcdef"), "v": vectors}, key="name")
    report = lake.drift(keyed, keyed, clusters=2, metric="l2", k=2)
    assert {frozenset(c.name.split(", ")) for c in report.clusters} == {frozenset("bac"), frozenset("edf")} or all(
        c.name[0] in "be" for c in report.clusters
    )
    plain = lk.create_table("plain", {"name": list("abcdef"), "v": vectors})
    report = lake.drift(plain, plain, clusters=2, metric="l2", k=2)
    assert sorted(c.name.split(",")[0] for c in report.clusters) == ["row 1", "row 4"]


def test_the_report_is_a_page_of_its_own(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path / "<&>")
    report = topics(lk, "b", [90, 90, 300, 90, 90], 2).drift(topics(lk, "a", [100] * 5, 1), clusters=4, label="topic")
    page = report.save(tmp_path / "drift.html").read_text()
    assert "<script" not in page
    assert not re.findall(r"(?:src|href|url)\s*[=(]", page)
    assert "color-scheme" in page
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 5
    drawn = [ET.fromstring(picture) for picture in pictures]
    assert len(drawn[0].findall(".//{*}circle")) == 2 * 4
    assert len(drawn[-1].findall(".//{*}circle")) == 2 * 300
    for picture in drawn:
        _, _, wide, tall = map(float, picture.attrib["viewBox"].split())
        for circle in picture.findall(".//{*}circle"):
            assert 0 <= float(circle.attrib["cx"]) <= wide
            assert 0 <= float(circle.attrib["cy"]) <= tall
    assert page.count("Smaller is less drift") == 3
    assert "&lt;&amp;&gt;" in page
    assert "Computed on 500 and 660 rows" in page


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "clusters": ({"clusters": 0}, "clusters=0: give a whole number"),
    "clusters many": ({"clusters": 1000}, "more than the rows of both samples"),
    "k": ({"k": 0}, "k=0"),
    "sample": ({"sample": 1}, "sample=1: give a whole number, 2 or more"),
    "permutations": ({"permutations": 20}, "nothing could be told at alpha=0.01; give 400"),
    "alpha": ({"alpha": 1.0}, "alpha=1.0: give a probability"),
    "seed": ({"seed": "x"}, "seed='x'"),
    "metric": ({"metric": "hamming"}, "metric='hamming'"),
    "column": ({"column": "w"}, "w"),
    "label": ({"label": "w"}, "w"),
    "where": ({"where": "kind >"}, "kind >"),
    "nothing before": ({"before_where": "id < 0"}, "before: 0 rows have a vector"),
    "memory": ({"memory": "1MiB"}, "need memory="),
    "job": ({"job_id": "a/b"}, "a/b"),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> lake.Table:
    return make(lake.connect(tmp_path_factory.mktemp("small")), "t", blobs(60))


@pytest.mark.parametrize("what", WRONG)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(small: lake.Table, what: str) -> None:
    asked, message = WRONG[what]
    with pytest.raises((InvalidInput, NotFound, MemoryExceeded), match=message):
        small.drift(small, **{"clusters": 3, "job_id": "j", **asked})
    root = Location.of(small.uri.rpartition("/")[0])
    assert not [name for name in Files(root).names() if not name.startswith("t.lance/")]


def test_sides_that_cannot_be_compared(tmp_path: Path, small: lake.Table) -> None:
    with pytest.raises(InvalidInput, match="give tables or snapshots, not list"):
        lake.drift(small, [])  # type: ignore[arg-type]
    other = lake.connect(tmp_path).create_table("o", {"id": [1, 2], "v": np.ones((2, 3), np.float32)}, key="id")
    with pytest.raises(InvalidInput, match="before has 3 dimensions, after 8"):
        small.drift(other)


_PROGRAM = """
import os, signal, sys
import lake
from lake.run import Ledger
from lake.analytics import drifting
drifting._BLOCK_ROWS = 100
real, left = Ledger.record, [3]

def dying(*given):
    real(*given)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

Ledger.record = dying
table = lake.connect(sys.argv[1])["t"]
table.drift(table, clusters=3, job_id="weekly", before_where="id < 200", on_event=lambda _: None)
"""


def test_killed_and_submitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make(lake.connect(tmp_path), "t", blobs(400))
    asked: dict[str, Any] = {"clusters": 3, "job_id": "weekly", "before_where": "id < 200"}
    environment = {**os.environ, "PYTHONPATH": str(HOUSE)}
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path)]
    done = subprocess.run(command, cwd=HOUSE, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    table.append(rows([9000], blobs(1)))
    monkeypatch.setattr(drifting, "_BLOCK_ROWS", 100)
    heard = Heard()
    report = table.drift(table, **asked, on_event=heard)
    assert len([e for e in heard if isinstance(e, TaskDone)]) == 2 + 4 - 3
    assert (report.rows_before, report.rows_after) == (200, 400), "it compares what it began to compare"
    again = table.drift(table, **asked)
    assert again.repeated
    assert again.to_dict() | {"repeated": False, "seconds": 0} == DriftReport.of(report.to_dict()).to_dict() | {
        "seconds": 0,
        "plane": again.to_dict()["plane"],
    }
    assert not table.dataset.tags.list()
    with pytest.raises(InvalidInput, match="begun with other parameters"):
        table.drift(table, **asked | {"clusters": 4})
    names = {name.rpartition("/")[2] for name in Files(Location.of(tmp_path / "_jobs")).names()}
    assert names == {"asked.json", "report.json"}


def done_by(place: Path, engine: str) -> dict[str, Any]:
    lk = lake.connect(place)
    topics(lk, "old", [500] * 5, 1, missing=40)
    topics(lk, "t", [400, 400, 900, 400, 400], 2)
    job = {"job": "drift", "lake": str(place), "table": "t", "before": "table:old", "clusters": 5, "label": "topic"}
    (place / "job.yaml").write_text(yaml.safe_dump(job | {"sample": 300, "html": str(place / "drift.html")}))
    run = Run("weekly", engine, lambda _: None)
    report = open_job(place / "job.yaml").run(run)
    assert isinstance(report, DriftReport)
    assert open_job(place / "job.yaml").run(run).repeated
    assert "rain" in (place / "drift.html").read_text()
    return report.to_dict() | {"seconds": 0, "before": "", "after": ""}


@pytest.fixture(scope="module")
def locally(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return done_by(tmp_path_factory.mktemp("local"), "local")


def test_the_job_tells_what_it_found(locally: dict[str, Any]) -> None:
    assert locally["drifted"]
    assert locally["clusters"][0]["name"].startswith("rain")


@pytest.mark.slow
def test_on_ray(locally: object, tmp_path: Path, on_ray: RayCluster) -> None:
    assert done_by(tmp_path, "ray") == locally


@pytest.mark.slow
def test_on_spark(locally: object, tmp_path: Path, spark: object) -> None:
    assert done_by(tmp_path, "spark") == locally


def test_the_job_of_the_house(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path / "lk")
    embeddings = {"embedding": lake.Embedding(4, metric="cosine")}
    first = {"sku": list("abcdefgh"), "embedding": np.eye(4, dtype=np.float32)[[0, 1] * 4]}
    products = lk.create_table("products", first, key="sku", embeddings=embeddings)
    more = [f"n{i}" for i in range(90)]
    products.append({"sku": more, "embedding": np.eye(4, dtype=np.float32)[[2] * 90]})
    environment = {**os.environ, "PYTHONPATH": str(HOUSE), "LAKE_ROOT": "lk", "DATE": "2026-01-02"}
    run = [sys.executable, str(HOUSE / "jobs/drift.py"), str(HOUSE / "conf/drift.yaml")]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "DRIFT" in done.stdout
    assert "version 1: 8 rows" in done.stdout
    assert (tmp_path / "drift-2026-01-02.html").exists()
    for at, other in ((1, "version 1"), (2, "version 2")):
        text = f"job: drift\nlake: {tmp_path}/lk\ntable: products\nclusters: 2\nbefore: {at}\nafter: {at}\n"
        (tmp_path / "other.yaml").write_text(text)
        report = open_job(tmp_path / "other.yaml").run(Run(f"at-{at}", "local", lambda _: None))
        assert isinstance(report, DriftReport)
        assert report.before == report.after
        assert other in report.after
