"""Tables as Ray datasets and Ray datasets into tables, on a real cluster, against plain Python."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
import ray
from ray.data._internal.object_extensions.arrow import ArrowPythonObjectArray, ArrowPythonObjectType

import lake
import lake_ray
from lake.errors import InvalidInput, NotFound
from lake.schema import Schema
from lake.storage import Files, Location
from lake.table import history
from lake.table.commit import COMMIT_ID, transactions
from lake.table.snapshot import open_head
from lake.table.write import append, create_table
from lake_ray.read import _divide
from tests.support.raycluster import RUNTIME_ENV, RayCluster, environment
from tests.support.raytasks import DyingSink, mark_of
from tests.support.s3 import ROOT
from tests.support.tables import SCHEMA, WIDE, content, data_files, make, pairs, wide
from tests.unit.index.conftest import SCHEMA as MANY_TYPES
from tests.unit.index.conftest import rows as of_many_types

pytestmark = [
    pytest.mark.slow,
    # Ray warns of itself.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore:Use 'expr' instead of 'fn'"),
]


@pytest.fixture(autouse=True, scope="module")
def _quiet(on_ray: RayCluster) -> None:
    ray.data.DataContext.get_current().enable_progress_bars = False


def collected(ds: ray.data.Dataset) -> pa.Table:
    """All rows of a dataset, in the order of their ids."""
    return pa.concat_tables(ray.get(ds.to_arrow_refs())).combine_chunks().sort_by("id")


def dataset(data: Any, blocks: int) -> ray.data.Dataset:
    """A dataset of so many blocks."""
    table = data if isinstance(data, pa.Table) else pa.table(data)
    step = -(-table.num_rows // blocks)
    return ray.data.from_arrow([table.slice(i * step, step) for i in range(blocks)])


def plain(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as plain Python; JSON as what it means."""
    return [row | {"facts": json.loads(row["facts"])} for row in table.to_pylist()]


def options(table: Location) -> dict[str, Any]:
    return {"storage_options": dict(table.options) or None}


def test_every_type_comes_through(root: Location) -> None:
    table = root.join("t.lance")
    given = of_many_types(range(60))
    create_table(table, MANY_TYPES)
    receipt = lake_ray.write_lake(dataset(given, 4), table.uri, **options(table))
    assert (receipt.inserted, receipt.version, receipt.repeated) == (60, 2, False)
    assert plain(open_head(table).to_table().sort_by("id")) == plain(given)
    ds = lake_ray.read_lake(table.uri, override_num_blocks=3, **options(table))
    got = collected(ds)
    assert plain(got) == plain(given)
    assert [t for t in got.schema.types if pa.types.is_fixed_size_list(t)], "vectors stay vectors"
    assert got.schema.types == given.schema.types


def test_a_version_columns_and_a_filter(tmp_path: Path) -> None:
    table = make(Location.of(tmp_path))
    snapshot = lake.Snapshot(table, 2)
    history.tag(snapshot, "gold")
    ds = lake_ray.read_lake(table.uri)
    append(table, None, pairs([100]))
    assert sorted(row["id"] for row in ds.take_all()) == list(range(20)), "the version of the call"
    assert lake_ray.read_lake(table.uri).count() == 21
    assert lake_ray.read_lake(table.uri, version=1).count() == 10
    assert lake_ray.read_lake(table.uri, version="gold").count() == 20
    some = lake_ray.read_lake(table.uri, ["id"], "id >= 8 and id < 12")
    assert collected(some).to_pylist() == [{"id": i} for i in (8, 9, 10, 11)]
    for wrong in ({"version": 9}, {"version": "silver"}, {"columns": ["nope"]}):
        with pytest.raises(NotFound):
            lake_ray.read_lake(table.uri, **wrong)
    for hostile in ("id = 1; drop table t", "id = 1) or (1 = 1", '"id" = 1', "id = 1 -- x", ""):
        with pytest.raises(InvalidInput, match="not a legal expression"):
            lake_ray.read_lake(table.uri, filter=hostile)
    with pytest.raises(NotFound, match="there is no table"):
        lake_ray.read_lake(str(tmp_path / "absent.lance"))


def test_counting_with_a_filter_counts(tmp_path: Path) -> None:
    """Ray counts by reading no columns at all, and loses the rows where it joins blocks without columns."""
    table = make(Location.of(tmp_path))
    assert lake_ray.read_lake(table.uri, filter="id >= 8").count() == 12
    assert lake_ray.read_lake(table.uri).select_columns(["n"]).count() == 20


def test_numpy_batches_hold_vectors_as_arrays_of_arrays(tmp_path: Path) -> None:
    table = Location.of(tmp_path / "t.lance")
    create_table(table, WIDE, wide(range(8)))
    batch = lake_ray.read_lake(table.uri).take_batch(8)
    assert batch["v"].dtype == object
    assert np.stack(batch["v"]).shape == (8, 4)


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    """Ray registers an Arrow type whose values are unpickled as they are read, from whoever wrote the file."""
    kind = ArrowPythonObjectType()
    nested = pa.ListArray.from_arrays([0, 1], ArrowPythonObjectArray.from_objects([{"x": 1}]))
    table = pa.table({"id": [1], "o": ArrowPythonObjectArray.from_objects([print]), "l": nested})
    assert table.schema.field("o").type == kind
    lance.write_dataset(table, str(tmp_path / "t.lance"), enable_stable_row_ids=True)
    with pytest.raises(InvalidInput, match=r"columns \['o', 'l'\] hold pickled Python objects"):
        lake_ray.read_lake(str(tmp_path / "t.lance"))
    assert lake_ray.read_lake(str(tmp_path / "t.lance"), ["id"]).take_all() == [{"id": 1}]


def test_large_fragments_are_cut_and_small_ones_gathered(tmp_path: Path) -> None:
    table = Location.of(tmp_path / "t.lance")
    create_table(table, SCHEMA, pairs(range(1000)))
    for start in range(1000, 1100, 10):
        append(table, None, pairs(range(start, start + 10)))
    lake.connect(tmp_path).open_table("t").delete("id % 7 = 3")
    left = [i for i in range(1100) if i % 7 != 3]
    for blocks in (1, 3, 8):
        ds = lake_ray.read_lake(table.uri, override_num_blocks=blocks)
        assert [row["id"] for row in sorted(ds.take_all(), key=lambda r: r["id"])] == left
        assert ds.count() == len(left)
        low = lake_ray.read_lake(table.uri, filter="id < 500 and n = 0", override_num_blocks=blocks)
        assert sorted(row["id"] for row in low.take_all()) == [i for i in left if i < 500]


@pytest.mark.parametrize("sizes", [[], [1], [5, 5, 5], [100], [1, 1, 50, 1, 1], [3] * 40, [64, 1, 64, 7], [10, 0, 3]])
@pytest.mark.parametrize("parts", [1, 2, 5, 13])
def test_each_row_is_in_one_part(sizes: list[int], parts: int) -> None:
    divided = _divide(list(enumerate(sizes)), parts)
    seen: list[tuple[int, int]] = []
    for runs in divided:
        for run in runs:
            for fragment in run.fragments:
                stop = sizes[fragment] if run.stop is None else run.stop
                seen += [(fragment, row) for row in range(run.start, stop)]
    assert sorted(seen) == [(f, row) for f, size in enumerate(sizes) for row in range(size)]
    assert len(seen) == len(set(seen))
    assert len(divided) <= 2 * parts + 1


def test_tables_without_rows_keep_their_columns(tmp_path: Path) -> None:
    table = Location.of(tmp_path / "t.lance")
    create_table(table, WIDE)
    ds = lake_ray.read_lake(table.uri)
    assert ds.schema().names == ["id", "name", "v"]
    assert ds.count() == 0
    receipt = lake_ray.write_lake(ds, table.uri)
    assert receipt.inserted == 0
    create_table(Location.of(tmp_path / "u.lance"), WIDE, wide(range(5)))
    none = lake_ray.read_lake(str(tmp_path / "u.lance"), filter="id > 100")
    assert none.materialize().schema().types[2] == pa.list_(pa.float32(), 4)


def test_blocks_are_gathered_into_one_fragment_and_one_commit(tmp_path: Path) -> None:
    table = make(Location.of(tmp_path))
    lake_ray.write_lake(dataset(pairs(range(100, 180)), 8), table.uri)
    head = open_head(table)
    assert (head.version, len(head.get_fragments())) == (3, 3)
    lake_ray.write_lake(dataset(pairs(range(200, 280)), 8), table.uri, fragment_bytes=400)
    head = open_head(table)
    assert head.version == 4
    assert 1 < len(head.get_fragments()) - 3 < 8
    assert content(table) == [(i, 0) for i in [*range(20), *range(100, 180), *range(200, 280)]]


def test_overwrite_and_new_tables(root: Location) -> None:
    table = root.join("t.lance")
    ds = dataset({"id": [1, 2, 3], "n": [4, 5, 6]}, 2)
    with pytest.raises(NotFound, match=r"create_table.*or give schema="):
        lake_ray.write_lake(ds, table.uri, **options(table))
    receipt = lake_ray.write_lake(ds, table.uri, schema=SCHEMA, commit_id="first", **options(table))
    assert (receipt.version, receipt.inserted) == (1, 3)
    assert Schema.decode(open_head(table).schema).key == ("id",)
    assert lake_ray.write_lake(ds, table.uri, schema=SCHEMA, commit_id="first", **options(table)).repeated
    more = dataset({"id": [7], "n": [8]}, 1)
    receipt = lake_ray.write_lake(more, table.uri, "overwrite", **options(table))
    assert (receipt.inserted, receipt.deleted) == (1, 3)
    assert content(table) == [(7, 8)]
    with pytest.raises(InvalidInput, match="mode 'upsert'"):
        lake_ray.write_lake(ds, table.uri, "upsert", **options(table))  # type: ignore[arg-type]


def test_merge_by_key(root: Location) -> None:
    table = make(root)
    ds = dataset(pairs([5, 15, 25, 35], 7), 3)
    receipt = lake_ray.write_lake(ds, table.uri, "merge", commit_id="m", **options(table))
    assert (receipt.inserted, receipt.updated, receipt.version) == (2, 2, 3)
    expected = dict.fromkeys(range(20), 0) | dict.fromkeys((5, 15, 25, 35), 7)
    assert dict(content(table)) == expected
    assert lake_ray.write_lake(ds, table.uri, "merge", commit_id="m", **options(table)).repeated
    with pytest.raises(InvalidInput, match="keys appear more than once"):
        lake_ray.write_lake(dataset(pairs([1, 1]), 2), table.uri, "merge", **options(table))
    none = ds.filter(lambda row: row["id"] < 0)
    assert lake_ray.write_lake(none, table.uri, "merge", **options(table)).rows == 0
    assert dict(content(table)) == expected


def test_vectors_that_were_computed_in_numpy(tmp_path: Path) -> None:
    table = Location.of(tmp_path / "t.lance")
    create_table(table, WIDE, wide(range(10)))

    def double(batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "v": np.stack(batch["v"]) * 2}

    before = open_head(table).to_table().sort_by("id")["v"].to_pylist()
    lake_ray.write_lake(lake_ray.read_lake(table.uri).map_batches(double), table.uri, "overwrite")
    after = open_head(table).to_table().sort_by("id")["v"].to_pylist()
    assert after == [[2 * x for x in vector] for vector in before]


def test_a_row_that_is_refused_leaves_nothing(root: Location) -> None:
    table = root.join("t.lance")
    create_table(table, WIDE, wide(range(10)))
    files, version = data_files(table), open_head(table).version
    bad = wide(range(100, 180))
    bad["v"][77, 2] = np.nan
    columns = {"id": bad["id"], "name": bad["name"], "v": list(bad["v"])}
    with pytest.raises(InvalidInput, match=r"column 'v', row 7: NaN or infinity.*embed it again$") as caught:
        lake_ray.write_lake(dataset(columns, 8), table.uri, fragment_bytes=1, **options(table))
    assert "UDF" not in str(caught.value)
    assert open_head(table).version == version
    assert data_files(table) <= files, "finished tasks' files are deleted"
    assert not list(Files(root).names("_jobs"))
    with pytest.raises(InvalidInput, match="column 'v', row 77: NaN"):
        lake_ray.write_lake(dataset(columns, 8), table.uri, "merge", **options(table))
    with pytest.raises(InvalidInput, match="the table has no columns"):
        lake_ray.write_lake(dataset({"id": [1], "x": [2]}, 1), table.uri, **options(table))


def test_a_write_task_that_died_after_its_upload_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make(Location.of(tmp_path))
    monkeypatch.setattr("lake_ray.write._LakeDatasink", DyingSink)
    receipt = lake_ray.write_lake(dataset(pairs(range(100, 180)), 8), table.uri, fragment_bytes=400)
    mark_of(table).unlink()  # it did die
    assert receipt.inserted == 80
    assert content(table) == [(i, 0) for i in [*range(20), *range(100, 180)]]
    named = {file.path for f in open_head(table).get_fragments() for file in f.metadata.files}
    assert {name.removeprefix("data/") for name in data_files(table)} == named, "nothing of the dead task is left"


_DRIVER = """
import os, sys, ray, pyarrow as pa, lake_ray
from lake.table.parts import PartedWrite
uri, address, when = sys.argv[1:]
commit = PartedWrite.commit
def killed(self, parts):
    if when == "after":
        commit(self, parts)
    os._exit(9)
if when != "never":
    PartedWrite.commit = killed
ray.init(address, runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}}, log_to_driver=False)
ds = ray.data.from_arrow(pa.table({"id": [100, 101], "n": [1, 1]}))
print(lake_ray.write_lake(ds, uri, commit_id="job").repeated)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_driver_that_is_killed_at_its_commit_and_run_again(tmp_path: Path, on_ray: RayCluster, when: str) -> None:
    table = make(Location.of(tmp_path))

    def drive(when: str) -> subprocess.CompletedProcess[str]:
        here = environment() | RUNTIME_ENV["env_vars"]
        command = [sys.executable, "-c", _DRIVER, table.uri, on_ray.address, when]
        return subprocess.run(command, cwd=ROOT, env=here, capture_output=True, text=True, check=False)

    killed = drive(when)
    assert killed.returncode == 9, killed.stderr
    assert len(content(table)) == (20 if when == "before" else 22)
    again = drive("never")
    assert again.stdout.splitlines()[-1] == str(when == "after"), again.stderr
    assert content(table) == [*((i, 0) for i in range(20)), (100, 1), (101, 1)]
    assert [p.get(COMMIT_ID) for _, p in transactions(open_head(table))].count("job") == 1


@pytest.mark.s3
def test_no_secret_is_shown(
    bucket: Location, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    table = make(bucket)
    ds = lake_ray.read_lake(table.uri, **options(table))
    shown = [repr(ds), str(ds), str(ds.schema())]
    ds.explain()
    lake_ray.write_lake(ds.filter(lambda row: row["id"] < 3), table.uri, **options(table))
    denied = dict(table.options) | {"aws_endpoint": "http://127.0.0.1:1", "client_max_retries": "0"}
    ds._logical_plan.dag.datasource._snapshot.location.options.update(denied)
    acts: list[Callable[[], object]] = [
        lambda: ds.take_all(),
        lambda: lake_ray.write_lake(dataset(pairs([1]), 1), table.uri, storage_options=denied | {"timeout": "1s"}),
        lambda: lake_ray.write_lake(dataset({"id": [None], "n": [1]}, 1), table.uri, **options(table)),
    ]
    for act in acts:
        with pytest.raises(Exception) as caught:  # noqa: PT011  whatever it is, it is not to show the key
            act()
        shown.append(str(caught.value) + repr(caught.value))
    assert "CANARY" not in "".join(shown) + caplog.text + "".join(capfd.readouterr())


@pytest.fixture(scope="module", autouse=True)
def _no_session_logs() -> Iterator[None]:
    """Ray Data logs each execution; the tests do not want to see it."""
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
