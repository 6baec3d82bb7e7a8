"""A lake on a folder and on a bucket: tables come, go, are renamed, indexed, searched and pinned."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import BaseModel

import lake
from lake.errors import AlreadyExists, InvalidInput, LakeError, NotFound, StorageError
from lake.run import LocalExecutor
from lake.storage import Files, Location
from tests.support import s3


@pytest.fixture
def lk(root: Location) -> lake.Lake:
    return lake.connect(root.uri, root.options)


def rows(ids: range) -> dict[str, Any]:
    rng = np.random.default_rng(ids.start)
    vectors = rng.standard_normal((len(ids), 8)).astype(np.float32)
    return {"id": list(ids), "text": [f"row number {i}" for i in ids], "vector": vectors}


def test_tables_come_and_go(lk: lake.Lake) -> None:
    assert lk.list_tables() == []
    assert "a" not in lk
    lk.create_table("a", rows(range(10)), key="id")
    lk.create_table("b.c-d_e", rows(range(5)), key="id")
    assert list(lk) == ["a", "b.c-d_e"]
    assert len(lk) == 2
    with pytest.raises(AlreadyExists, match="exists already"):
        lk.create_table("a", rows(range(10)))
    assert len(lk.create_table("a", rows(range(3)), exist_ok=True)) == 10
    lk.drop_table("a")
    assert list(lk) == ["b.c-d_e"]
    with pytest.raises(NotFound, match=r"no table 'a'; it has \['b.c-d_e'\]"):
        lk.open_table("a")
    with pytest.raises(NotFound):
        lk.drop_table("a")


def test_a_renamed_table_is_whole(lk: lake.Lake) -> None:
    table = lk.create_table("old", rows(range(300)), key="id")
    table.create_index("vector", "ivf_flat", partitions=2)
    with LocalExecutor(workers=1) as executor:
        table.build(executor=executor)
    table.tag("kept", 1)
    lk.create_table("taken", rows(range(1)))
    with pytest.raises(AlreadyExists):
        lk.rename_table("old", "taken")
    with pytest.raises(NotFound):
        lk.rename_table("nothing", "new")
    new = lk.rename_table("old", "new")
    assert sorted(lk) == ["new", "taken"]
    assert len(new) == 300
    assert new.coverage().complete
    assert new.at("kept").version == 1
    assert new.search(vector=np.ones(8), k=3).coverage.rows_indexed == 300
    assert new.append(rows(range(300, 310))).inserted == 10


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "_jobs",
        ".hidden",
        "a..b",
        "x.lance",
        "a b",
        "ä",
        "a\0b",
        "a" * 200,
        "CON:",
        "-a",
    ],
)
def test_hostile_names_are_refused(lk: lake.Lake, name: str) -> None:
    for call in (lk.open_table, lk.create_table, lk.drop_table):
        with pytest.raises(InvalidInput, match="table name"):
            call(name)
    assert lk.list_tables() == []


class Thing(BaseModel):
    id: int
    text: str
    score: float | None = None


def test_a_table_begins_with_a_schema_a_class_or_rows(lk: lake.Lake) -> None:
    schema = lake.Schema([lake.Column("id", int), lake.Column("v", lake.Embedding(4, metric="cosine"))], key="id")
    assert lk.create_table("schema", schema).schema == schema
    assert lk.create_table("class", Thing, key="id").schema.key == ("id",)
    assert len(lk.create_table("both", schema, data={"id": [1], "v": np.ones((1, 4))})) == 1
    inferred = lk.create_table("rows", {"id": [1, 2], "v": [[1.0, 2.0], [3.0, 4.0]]}).schema
    assert inferred["v"].type == pa.list_(pa.float32(), 2)
    with pytest.raises(InvalidInput, match="empty"):
        lk.create_table("nothing", [])
    with pytest.raises(InvalidInput, match="row 1"):
        lk.create_table("bad", schema, data={"id": [1, 2], "v": np.array([[1.0] * 4, [np.nan] * 4])})
    assert "bad" not in lk


def test_a_pinned_table_reads_its_version_and_refuses_writes(lk: lake.Lake) -> None:
    table = lk.create_table("t", rows(range(20)), key="id")
    before = datetime.now(UTC)
    table.append(rows(range(20, 30)))
    table.tag("thirty")
    table.delete("id < 10")
    assert [len(table.at(at)) for at in (1, 2, "thirty", before, before.isoformat())] == [20, 30, 30, 20, 20]
    pinned = table.at("thirty")
    for write in (
        lambda: pinned.append(rows(range(1))),
        lambda: pinned.delete("true"),
        lambda: pinned.merge(rows(range(1))),
        lambda: pinned.update({"text": "x"}),
        lambda: pinned.create_index("vector"),
        lambda: pinned.build(),
        lambda: pinned.compact(),
        lambda: pinned.expire(),
        lambda: pinned.restore(1),
        lambda: pinned.cluster(2),
        lambda: pinned.dedup(within=0.1, delete=True, dry_run=False),
    ):
        with pytest.raises(InvalidInput, match="pinned at version 2"):
            write()
    assert pinned.search(where="id = 5").coverage.version == 2
    with pytest.raises(NotFound):
        table.at(datetime.now(UTC) - timedelta(days=1))


def test_tables_and_lakes_travel_in_pickles(lk: lake.Lake) -> None:
    table = lk.create_table("t", rows(range(20)), key="id")
    table.append(rows(range(20, 30)))
    there = pickle.loads(pickle.dumps([lk, table, table.at(1), table.snapshot()]))
    assert [len(there[0]["t"]), len(there[1]), len(there[2]), there[3].version] == [30, 30, 20, 2]


def test_a_branch_goes_its_own_way(lk: lake.Lake) -> None:
    table = lk.create_table("t", rows(range(20)), key="id")
    trial = table.branch("trial")
    trial.append(rows(range(20, 25)))
    trial.delete("id = 0")
    assert (len(table), len(trial)) == (20, 24)
    assert len(lk.open_table("t", branch="trial")) == 24
    assert table.branches() == ["trial"]
    assert trial.search(vector=np.ones(8), k=100, columns=["id"]).coverage.rows == 24


def test_declared_indexes_come_and_go(lk: lake.Lake) -> None:
    table = lk.create_table("t", rows(range(300)), key="id")
    table.create_index("vector", "ivf_flat", partitions=2)
    table.create_index("text", "text")
    with pytest.raises(InvalidInput, match="vector_idx"):
        table.drop_columns(["vector"])
    with LocalExecutor(workers=1) as executor:
        table.build(executor=executor)
        table.rename_columns({"vector": "place"})
        assert table.search(vector=np.ones(8), k=3).coverage.index == "vector_idx"
        table.drop_index("vector_idx")
    assert table.search(vector=np.ones(8), k=3).coverage.index is None
    assert [spec.name for spec in table.indexes()] == ["text_idx"]
    table.drop_columns(["place"])
    assert table.schema.names == ("id", "text")


def test_reading(lk: lake.Lake) -> None:
    table = lk.create_table("t", rows(range(100)), key="id")
    assert table.count_rows("id % 2 = 0") == 50
    assert table.to_arrow(["text"], "id = 7").to_pydict() == {"text": ["row number 7"]}
    assert table.to_arrow(where="id < 0").num_rows == 0
    assert sum(batch.num_rows for batch in table.to_batches(["id"])) == 100
    assert list(table.to_pandas(["id"], "id > 97")["id"]) == [98, 99]
    with pytest.raises(NotFound, match="txt"):
        table.to_arrow(["txt"])
    with pytest.raises(InvalidInput):
        table.count_rows("id = 1 limit 5")
    assert "100 rows" in repr(table)
    assert (
        "<script"
        not in lk.create_table("u", lake.Schema([lake.Column("id", int, description="<script>")]))._repr_html_()
    )


def test_a_table_made_anew_under_an_old_name_is_another_table(lk: lake.Lake) -> None:
    old = lk.create_table("t", rows(range(20)), key="id")
    old.create_index("text", "text")
    with LocalExecutor(workers=1) as executor:
        old.build(executor=executor)
    assert len(old.search(text="row", k=50)) == 20
    pinned = old.at(1)
    lk.drop_table("t")
    new = lk.create_table("t", rows(range(100, 105)), key="id")
    new.create_index("text", "text")
    with LocalExecutor(workers=1) as executor:
        new.build(executor=executor)
    assert new.version == 3
    assert sorted(row["id"] for row in new.search(text="row", k=50)) == list(range(100, 105))
    assert new.at(1).to_arrow(["id"])["id"].to_pylist() == list(range(100, 105))
    assert new.coverage()["text_idx"].rows_covered == 5
    with pytest.raises(LakeError):
        pickle.loads(pickle.dumps(pinned)).to_arrow()


def test_a_folder_without_a_manifest_is_no_table(lk: lake.Lake, root: Location) -> None:
    lk.create_table("a", rows(range(3)), key="id")
    files = Files(root)
    files.write("killed.lance/data/x.lance", b"rows of a creator that was killed")
    files.write("ä.lance/_versions/1.manifest", b"somebody else's")
    if root.scheme == "file":
        files.write("staged.lance/_versions/1.manifest#1", b"a manifest that was never linked")
    assert lk.list_tables() == ["a"]
    for name in ("killed", "staged"):
        assert name not in lk
        with pytest.raises(NotFound, match="no table"):
            lk.open_table(name)
    assert len(lk.create_table("killed", rows(range(4)))) == 4
    assert lk.list_tables() == ["a", "killed"]


def test_a_table_that_cannot_be_opened_can_be_dropped(lk: lake.Lake, root: Location) -> None:
    lk.create_table("t", rows(range(3)))
    files = Files(root)
    for name in list(files.names("t.lance/_versions")):
        files.write(name if name.startswith("t.lance") else f"t.lance/_versions/{name}", b"\0" * 40)
    with pytest.raises(StorageError):
        lk.open_table("t")
    assert "t" in lk
    lk.drop_table("t")
    assert list(files.names("t.lance")) == []
    files.write("half.lance/data/x", b"perhaps somebody is creating it")
    for name in ("t", "half"):
        with pytest.raises(NotFound, match=f"no table '{name}'"):
            lk.drop_table(name)
    assert files.exists("half.lance/data/x")
    assert len(lk.create_table("t", rows(range(4)))) == 4


@pytest.mark.s3
def test_a_wrong_bucket_is_not_an_empty_lake(store: str) -> None:
    lk = lake.connect("s3://no-such-bucket/lake", s3.options(store))
    for ask in (lk.list_tables, lambda: "t" in lk, lambda: lk.open_table("t"), lambda: lk.drop_table("t")):
        with pytest.raises(StorageError, match="NoSuchBucket"):
            ask()


def test_rows_are_given_once(lk: lake.Lake) -> None:
    with pytest.raises(InvalidInput, match="rows are given twice"):
        lk.create_table("t", rows(range(3)), data=rows(range(3, 6)))
    assert len(lk.create_table("t", data=rows(range(3)))) == 3


def test_whoever_creates_second_opens(lk: lake.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lk.create_table("t", rows(range(3)))
    monkeypatch.setattr(lake.Lake, "__contains__", lambda *_: False)  # it was not there when the second one looked
    assert len(lk.create_table("t", rows(range(5)), exist_ok=True)) == 3
    with pytest.raises(AlreadyExists):
        lk.create_table("t", rows(range(5)))


def test_a_description_names_files_that_are_there(lk: lake.Lake, root: Location) -> None:
    table = lk.create_table("t", rows(range(300)), key="id")
    table.delete("id = 0")
    table.create_index("text", "text")
    branch = table.branch("trial")
    branch.append(rows(range(300, 305)))
    branch.delete("id = 7 or id = 301")
    with LocalExecutor(workers=1) as executor:
        branch.build(executor=executor)
    second = branch.branch("second")
    second.append(rows(range(400, 405)))
    second.create_index("vector", "ivf_flat")
    files = Files(root.join("t.lance"))
    for held in (table, table.at(1), branch, second):
        made = held.describe()
        named = [made.manifest, *(file.path for f in made.fragments for file in f.files)]
        named += [f.deletion_file for f in made.fragments if f.deletion_file]
        assert [name for name in named if not files.exists(name)] == []
        assert all(list(files.names(segment.path)) for segment in made.segments)
        assert sum(f.deleted > 0 for f in made.fragments) == sum(f.deletion_file is not None for f in made.fragments)
        assert all(name in repr(made) for name in named)
    assert branch.describe().manifest.startswith("tree/trial/_versions/")
    assert table.describe().segments == ()
    assert [i.name for i in table.describe().unbuilt] == ["text_idx"]
    assert "not built" in str(table.describe())
    assert "text_idx" in {segment.index for segment in branch.describe().segments}
    assert second.describe().to_dict()["unbuilt"] == [{"index": "vector_idx", "kind": "IVF_FLAT", "column": "vector"}]
