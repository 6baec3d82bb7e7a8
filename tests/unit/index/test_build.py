"""Builds: segments, one commit, increments, models that are shared, and values that moved."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from lake import index
from lake.errors import NotFound
from lake.index import plan
from lake.index.model import read_model
from lake.run import LocalExecutor
from lake.storage import Files, Location
from lake.table.commit import COMMIT_ID, transactions
from tests.unit.index.conftest import DIMENSION, Lake, Listener, Pair, make_lake, rows, vectors

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "vector": ("ivf_flat", {"partitions": 4}),
    "number": ("btree", {}),
    "category": ("bitmap", {}),
    "tags": ("label_list", {}),
    "text": ("inverted", {"stem": False}),
}


def declare_all(lake: Lake) -> None:
    for column, (kind, params) in KINDS.items():
        lake.declare(column, kind, **params)


def check_answers(lake: Lake) -> None:
    """Compare every index with brute force over the live rows."""
    table = lake.dataset.to_table(columns=["id", "vector", "category", "tags", "text"])
    ids = table["id"].to_numpy()
    matrix = np.concatenate([c.flatten().to_numpy() for c in table["vector"].chunks]).reshape(-1, DIMENSION)
    for target, salt in ((5, 0), (150, 0), (150, 1), (450, 2), (899, 0)):
        query = vectors([target], salt)[0]
        nearest = ids[np.argsort(((matrix - query) ** 2).sum(axis=1), kind="stable")[:10]]
        assert lake.near("vector", query) == nearest.tolist()
    values = sorted(set(table["category"].to_pylist()))
    for where in [f"category = '{v}'" for v in values] + [
        "number < 200",
        "number >= 1000000",
        "array_has_any(tags, ['t3-0'])",
        "array_has_any(tags, ['t3-1', 't2-1'])",
    ]:
        assert lake.ids(where) == lake.ids(where, scan=True), where
    texts = table["text"].to_pylist()
    for word in ("common0", "common1", "word7", "word150", "word1000150", "thing3"):
        expected = sorted(i for i, text in zip(ids.tolist(), texts, strict=True) if word in text.split())
        assert lake.words(word) == expected, word


def test_all_indexes_come_with_one_commit(lake_table: Lake) -> None:
    declare_all(lake_table)
    before = lake_table.head.version
    listener = Listener()
    report = lake_table.build(executor=Pair(), job_id="nightly", on_event=listener)
    assert report.version == lake_table.head.version == before + 1
    (made,) = transactions(lake_table.dataset, before)
    assert made[1][COMMIT_ID] == "nightly"
    assert len(listener.done()) == 2 * len(KINDS)
    assert listener.done("model") == [listener.done("model")[0]]
    assert all(i.segments == 2 and i.rows == 900 and i.bytes > 0 for i in report.indexes)
    assert lake_table.coverage().complete
    check_answers(lake_table)


def test_nothing_is_left_of_a_job_that_is_done(lake_table: Lake) -> None:
    declare_all(lake_table)
    lake_table.build(job_id="nightly")
    root = Location(str(Path(lake_table.location.uri).parent))
    assert list(Files(root).names("_jobs")) == []
    assert lake_table.dataset.tags.list() == {}


def test_a_job_that_is_done_does_nothing_again(lake_table: Lake) -> None:
    declare_all(lake_table)
    first = lake_table.build(job_id="nightly")
    lake_table.append(rows(range(900, 950)))
    again = lake_table.build(job_id="nightly")
    assert (again.repeated, again.version) == (True, first.version)
    assert "was done before" in str(again)


def test_new_fragments_get_segments_of_their_own_with_the_same_model(lake_table: Lake) -> None:
    lake_table.declare("vector", "ivf_pq", partitions=4, sub_vectors=4, num_bits=4)
    lake_table.declare("half", "ivf_rq", partitions=3)
    lake_table.declare("text", "bm25")
    lake_table.build(executor=Pair())
    before = {name: lake_table.segments(name) for name in ("vector_idx", "half_idx", "text_idx")}
    models = {name: read_model(lake_table.head, name) for name in ("vector_idx", "half_idx")}
    lake_table.append(rows(range(900, 1100)))
    assert {i.done for i in lake_table.build().indexes} == {"extended"}
    for name, old in before.items():
        now = lake_table.segments(name)
        assert old.items() < now.items()
        assert len(now) == len(old) + 1
        assert set().union(*now.values()) == {0, 1, 2, 3}
    for name, model in models.items():
        newest = max(lake_table.segments(name).items(), key=lambda s: max(s[1]))[0]
        statistics = lake_table.dataset.stats.index_stats(name)["indices"]
        (told,) = [s for s in statistics if s["uuid"] == newest]
        assert told["num_partitions"] == model.partitions
    assert models["vector_idx"].codebook is not None
    assert models["half_idx"].rotation is not None
    assert lake_table.near("vector", vectors([1050], 0)[0], refine_factor=20)[0] == 1050
    assert lake_table.near("half", vectors([1050], 0)[0].astype(np.float16), refine_factor=20)[0] == 1050


def test_values_that_moved_never_come_back_stale(lake_table: Lake) -> None:
    declare_all(lake_table)
    lake_table.build(executor=Pair())
    lake_table.upsert(rows(range(100, 200), salt=1))  # rows move to a new fragment
    check_answers(lake_table)
    report = {i.name: i.done for i in lake_table.build().indexes}
    # Lance masks what is dead in a bitmap or text segment by what all segments cover together.
    assert report == {
        "vector_idx": "extended",
        "number_idx": "extended",
        "category_idx": "rebuilt",
        "tags_idx": "rebuilt",
        "text_idx": "rebuilt",
    }
    assert lake_table.coverage().complete
    check_answers(lake_table)
    lake_table.update({"category": "'c9-9'"}, "id between 150 and 450")
    lake_table.delete("id % 10 = 3")
    check_answers(lake_table)
    lake_table.build()
    check_answers(lake_table)
    lake_table.compact()
    check_answers(lake_table)
    lake_table.append(rows(range(900, 950), salt=2))
    lake_table.upsert(rows(range(440, 460), salt=2))
    lake_table.build()
    assert lake_table.coverage().complete
    check_answers(lake_table)


def test_values_that_changed_in_place_never_come_back_stale(tmp_path: Path) -> None:
    lake = make_lake(Location.of(tmp_path / "t.lance"), columns=list(KINDS))
    declare_all(lake)
    lake.build()
    for column in ("category", "vector", "tags", "text", "number"):
        change = rows(range(100, 200), salt=1).select(["id", column])
        lance.dataset(lake.location.uri).merge_insert("id").when_matched_update_all().execute(change)
        check_answers(lake)
        lake.build()
        assert lake.coverage().complete
        check_answers(lake)


def test_an_index_that_differs_from_its_declaration_is_built_anew(lake_table: Lake) -> None:
    own = lance.dataset(lake_table.location.uri)
    own.create_index("vector", "IVF_FLAT", name="vector_idx", metric="cosine", num_partitions=2)
    own.create_scalar_index("number", "BITMAP", name="number_idx")
    own.create_scalar_index("text", "INVERTED", name="text_idx", with_position=False)
    lake_table.declare("vector", "ivf_flat", metric="l2")
    lake_table.declare("number", "btree")
    lake_table.declare("text", "bm25")
    report = lake_table.build()
    assert {i.name: i.done for i in report.indexes} == dict.fromkeys(
        ("vector_idx", "number_idx", "text_idx"), "rebuilt"
    )
    notes = {i.name: i.note for i in report.indexes}
    assert "IVF_FLAT cosine" in notes["vector_idx"]
    assert "BITMAP" in notes["number_idx"]
    assert "with_position" in notes["text_idx"]
    assert {i.kind for i in lake_table.coverage()} == {"IVF_FLAT", "BTREE", "INVERTED"}
    assert {i.done for i in lake_table.build().indexes} == {"up to date"}


def test_an_index_that_was_lost_is_built_again(lake_table: Lake) -> None:
    lake_table.declare("number")
    lake_table.build()
    lance.dataset(lake_table.location.uri).drop_index("number_idx")
    assert lake_table.coverage()["number_idx"].rows_missing == 900
    assert lake_table.build().indexes[0].done == "built"


def test_too_few_vectors_for_a_codebook(lake_table: Lake) -> None:
    lake_table.delete("id >= 400")
    lake_table.declare("vector", "ivf_pq", partitions=1000)
    (built,) = lake_table.build().indexes
    assert (built.kind, built.partitions) == ("IVF_FLAT", 400)
    assert "400 vectors are too few for a codebook, which needs 512" in built.note
    assert "400 partitions" in built.note
    assert lake_table.build().indexes[0].done == "up to date"
    lake_table.append(rows(range(1000, 1800)))
    (grown,) = lake_table.build().indexes
    assert (grown.kind, grown.done, grown.partitions) == ("IVF_PQ", "rebuilt", 1000)


def test_a_table_that_outgrew_its_partitions_is_trained_anew(lake_table: Lake) -> None:
    lake_table.declare("vector", "ivf_flat")
    first = lake_table.build().indexes[0]
    assert first.partitions == 900 // 64
    lake_table.append(rows(range(1000, 1300)))
    assert lake_table.build().indexes[0].done == "extended"
    lake_table.append(rows(range(2000, 4000)))
    (grown,) = lake_table.build().indexes
    assert (grown.done, grown.partitions) == ("rebuilt", 3200 // 64)
    assert "outgrown 14 partitions" in grown.note


def test_small_segments_are_built_together_when_there_are_many(
    lake_table: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "MOST_SMALL_SEGMENTS", 4)
    lake_table.declare("number")
    counts = []
    for number in range(6):
        lake_table.append(rows(range(1000 + 10 * number, 1010 + 10 * number)))
        lake_table.build()
        counts.append(len(lake_table.segments("number_idx")))
    assert counts == [1, 2, 3, 4, 1, 2]
    assert lake_table.coverage().complete
    assert lake_table.ids("number >= 1000") == list(range(1000, 1060))


def test_a_segment_of_mostly_deleted_rows_is_built_anew(lake_table: Lake) -> None:
    lake_table.declare("number")
    lake_table.build(executor=Pair())
    worn, kept = sorted(lake_table.segments("number_idx").items(), key=lambda s: min(s[1]))
    lake_table.delete("id < 250")
    assert lake_table.coverage()["number_idx"].rows_stale == 250
    lake_table.build()
    now = lake_table.segments("number_idx")
    assert kept[0] in now
    assert worn[0] not in now


def test_scalar_quantized_segments_stay_apart_and_keep_their_recall(tmp_path: Path) -> None:
    lake = make_lake(Location.of(tmp_path / "t.lance"), 3, 1000, ["vector"])
    lake.declare("vector", "ivf_sq", partitions=8)
    lake.build(executor=Pair())
    lake.append(rows(range(3000, 3500)).select(["id", "vector"]))
    lake.build(executor=Pair())
    assert len(lake.segments("vector_idx")) >= 3
    matrix = vectors(range(3500), 0)
    queries = vectors(range(40), 9)
    hits = 0
    for query in queries:
        true = np.argsort(((matrix - query) ** 2).sum(axis=1))[:10]
        hits += len(set(true.tolist()) & set(lake.near("vector", query)))
    assert hits / 400 > 0.95


def test_columns_with_nulls(tmp_path: Path) -> None:
    lake = make_lake(Location.of(tmp_path / "t.lance"), 2, 200)
    empty = rows(range(400, 500)).select(["id"])
    own = lance.dataset(lake.location.uri)
    own.insert(empty)  # a fragment without a single vector
    for column in ("vector", "many", "text", "tags", "number", "place", "category"):
        lake.declare(column)
    report = lake.build(executor=Pair())
    assert {i.done for i in report.indexes} == {"built"}
    assert lake.coverage().complete
    assert lake.near("vector", vectors([7], 0)[0])[0] == 7
    own = lance.dataset(lake.location.uri)
    own.insert(rows(range(500, 600)).select(["id"]))
    assert {i.done for i in lake.build().indexes} == {"extended"}
    assert lake.coverage().complete
    assert lake.near("vector", vectors([7], 0)[0])[0] == 7


def test_a_column_without_any_vector_waits(tmp_path: Path) -> None:
    location = Location.of(tmp_path / "t.lance")
    table = pa.table({"id": range(50), "vector": pa.nulls(50, pa.list_(pa.float32(), DIMENSION))})
    lance.write_dataset(table, location.uri, enable_stable_row_ids=True)
    lake = Lake(location)
    lake.declare("vector")
    (report,) = lake.build().indexes
    assert (report.done, report.note) == ("empty", "no values yet")
    lake.append(rows(range(100, 200)).select(["id", "vector"]))
    assert lake.build().indexes[0].done == "built"
    assert lake.near("vector", vectors([150], 0)[0])[0] == 150


def test_only_some_indexes(lake_table: Lake) -> None:
    declare_all(lake_table)
    report = lake_table.build(["number_idx"])
    assert [i.name for i in report.indexes] == ["number_idx"]
    with pytest.raises(NotFound, match="no index 'x' is declared; there are category_idx"):
        lake_table.build(["x"])


def test_worker_processes_build_the_same(lake_table: Lake) -> None:
    declare_all(lake_table)
    with LocalExecutor(2) as executor:
        report = lake_table.build(executor=executor)
    assert all(i.segments == 2 for i in report.indexes)
    check_answers(lake_table)


@pytest.mark.s3
def test_on_an_object_store(bucket: Location) -> None:
    lake = make_lake(bucket.join("t.lance"), 2, 200, list(KINDS))
    declare_all(lake)
    lake.build(executor=Pair())
    lake.append(rows(range(900, 950)).select(["id", *KINDS]))
    assert {i.done for i in lake.build().indexes} == {"extended"}
    assert lake.coverage().complete
    check_answers(lake)


def test_reports_print(lake_table: Lake) -> None:
    from rich.console import Console

    declare_all(lake_table)
    report = lake_table.build()
    console = Console(width=200, record=True)
    console.print(report)
    console.print(lake_table.coverage())
    text = console.export_text()
    assert "vector_idx" in text
    assert "IVF_FLAT x 4" in text
    assert "vector_idx: built, IVF_FLAT" in str(report)
    assert report.to_dict()["indexes"][0]["rows"] == 900
    assert index.coverage(lake_table.head).to_dict()["complete"] is True


def test_a_note_is_a_line_of_its_own() -> None:
    from rich.console import Console

    note = "a note that is longer than the table is wide, and that a caption would therefore wrap " * 2
    told = index.IndexReport("i", "c", "BTREE", "rebuilt", note.strip())
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(index.BuildReport("j", 2, (told,), 0.1))
    assert f"\ni: {note.strip()}\n" in console.export_text()
