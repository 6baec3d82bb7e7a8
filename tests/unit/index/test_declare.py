"""Declarations: what is refused, what the manifest holds, what survives."""

from __future__ import annotations

import json

import lance
import pyarrow as pa
import pytest

from lake import index
from lake.errors import AlreadyExists, CorruptTable, InvalidInput, NotFound, NotSupported
from lake.index.spec import read_specs
from tests.unit.index.conftest import Lake, rows


def test_a_declaration_comes_back_equal(lake_table: Lake) -> None:
    spec = lake_table.declare("vector", "ivf_pq", metric="cosine", partitions=8, sub_vectors=4)
    assert read_specs(lake_table.dataset) == {"vector_idx": spec}
    assert index.declared(lake_table.head) == [spec]
    assert spec.params == {"partitions": 8, "sub_vectors": 4, "num_bits": 8}
    assert spec.why == "as declared"


def test_declaring_the_same_again_does_nothing(lake_table: Lake) -> None:
    first = lake_table.declare("vector", "ivf_flat", partitions=8)
    version = lake_table.head.version
    assert lake_table.declare("vector", "IVF_FLAT", num_partitions=8) == first
    assert lake_table.head.version == version


def test_a_different_index_of_the_same_name_is_refused_and_the_difference_named(lake_table: Lake) -> None:
    lake_table.declare("vector", "ivf_flat", partitions=8)
    with pytest.raises(AlreadyExists, match="partitions 16 \\(not 8\\)"):
        lake_table.declare("vector", "ivf_flat", partitions=16)
    with pytest.raises(AlreadyExists, match="metric 'dot' \\(not 'l2'\\)"):
        lake_table.declare("vector", "ivf_flat", partitions=8, metric="dot")


def test_the_metric_is_the_embeddings_own(lake_table: Lake) -> None:
    assert lake_table.declare("double", "ivf_flat").metric == "cosine"
    assert lake_table.declare("bits", "ivf_flat").metric == "hamming"
    assert lake_table.declare("many", "ivf_flat").metric == "cosine"
    assert lake_table.declare("number", "btree").metric is None


@pytest.mark.parametrize(
    ("column", "kind", "more", "message"),
    [
        ("number", "ivf_flat", {}, "'number' of type int64 and role 'number' cannot have a IVF_FLAT.*btree, bitmap"),
        ("vector", "btree", {}, "it can have ivf_flat, ivf_pq"),
        ("signed", "ivf_flat", {}, "no kind of index fits it"),
        ("bits", "ivf_pq", {}, "it can have ivf_flat, ivf_hnsw_flat"),
        ("vector", "ivf_flat", {"metric": "hamming"}, "cannot be indexed by 'hamming'; it can by l2, cosine, dot"),
        ("many", "ivf_flat", {"metric": "l2"}, "it can by cosine"),
        ("number", "btree", {"metric": "l2"}, "a BTREE index has no metric"),
        ("vector", "ivf_flat", {"sub_vectors": 4}, "IVF_FLAT has no parameter 'sub_vectors'; it has partitions"),
        ("vector", "ivf_pq", {"sub_vectors": 5}, "sub_vectors=5 does not divide its dimension 16"),
        ("vector", "ivf_flat", {"partitions": 0}, "partitions=0; give a whole number from 1"),
        ("vector", "ivf_flat", {"partitions": True}, "partitions=True"),
        ("vector", "ivf_pq", {"num_bits": 7}, "give one of 4, 8"),
        ("text", "bm25", {"base_tokenizer": "x"}, "give one of 'simple'"),
        ("text", "bm25", {"custom_stop_words": [1]}, "give a list of strings"),
        ("text", "bm25", {"name": "a\nb"}, "printable"),
        ("text", "magic", {}, "no kind of index 'magic'"),
    ],
)
def test_what_is_refused(lake_table: Lake, column: str, kind: str, more: dict[str, object], message: str) -> None:
    version = lake_table.head.version
    with pytest.raises(InvalidInput, match=message):
        lake_table.declare(column, kind, **more)
    assert lake_table.head.version == version


def test_an_unknown_column_is_refused(lake_table: Lake) -> None:
    with pytest.raises(NotFound, match="did you mean 'vector'"):
        lake_table.declare("vectr")


def test_undeclaring_drops_what_was_built(lake_table: Lake) -> None:
    lake_table.declare("number")
    lake_table.build()
    assert lake_table.segments("number_idx")
    version = index.undeclare(lake_table.head, "number_idx")
    assert version == lake_table.head.version
    assert not lake_table.segments("number_idx")
    assert index.declared(lake_table.head) == []
    with pytest.raises(NotFound, match="no index 'number_idx'"):
        index.undeclare(lake_table.head, "number_idx")


def test_undeclaring_drops_an_index_that_was_made_without_the_lake(lake_table: Lake) -> None:
    lance.dataset(lake_table.location.uri).create_scalar_index("number", "BTREE", name="foreign")
    index.undeclare(lake_table.head, "foreign")
    assert not lake_table.segments("foreign")


def test_a_rename_keeps_the_index(lake_table: Lake) -> None:
    lake_table.declare("number")
    lake_table.build()
    lance.dataset(lake_table.location.uri).alter_columns({"path": "number", "name": "count"})
    assert index.declared(lake_table.head)[0].column == "count"
    lake_table.append(rows([5000]).rename_columns([n if n != "number" else "count" for n in rows([1]).column_names]))
    assert lake_table.build().indexes[0].done == "extended"
    assert lake_table.coverage()["number_idx"].column == "count"
    assert lake_table.ids("count = 5000") == [5000]


def test_an_overwrite_that_deals_ids_anew_keeps_the_declaration_with_its_column(lake_table: Lake) -> None:
    lake_table.declare("number")
    table = rows([1, 2, 3]).select(["number", "id"])
    lance.write_dataset(table, lake_table.location.uri, mode="overwrite", enable_stable_row_ids=True)
    assert index.declared(lake_table.head)[0].column == "number"
    assert lake_table.build().indexes[0].done == "built"
    assert lake_table.ids("number = 2") == [2]


def test_a_dropped_column_leaves_a_declaration_that_says_so(lake_table: Lake) -> None:
    lake_table.declare("number")
    lake_table.declare("id")
    lance.dataset(lake_table.location.uri).drop_columns(["number"])
    assert [spec.column for spec in index.declared(lake_table.head)] == ["id", ""]
    with pytest.raises(index.BuildFailed, match="number_idx.*its column was dropped; drop the index") as failure:
        lake_table.build()
    assert {i.name: i.done for i in failure.value.report.indexes} == {"id_idx": "built", "number_idx": "failed"}
    index.undeclare(lake_table.head, "number_idx")
    lake_table.build()


def test_columns_that_are_indexed_are_kept(lake_table: Lake) -> None:
    lake_table.declare("number")
    index.require_unindexed(lake_table.head, ["id", "text"])
    with pytest.raises(InvalidInput, match="'number_idx' on 'number'"):
        index.require_unindexed(lake_table.head, ["number"])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", CorruptTable),
        ("[]", CorruptTable),
        (
            json.dumps({"v": 1, "kind": "NONE", "column": "id", "field": 0, "metric": None, "params": {}, "why": ""}),
            CorruptTable,
        ),
        (json.dumps({"v": 99}), NotSupported),
    ],
)
def test_a_damaged_declaration_is_named(lake_table: Lake, text: str, error: type[Exception]) -> None:
    lance.dataset(lake_table.location.uri).update_config({"lake.index.odd": text})
    with pytest.raises(error, match="'odd'"):
        index.declared(lake_table.head)


def test_auto_keeps_what_it_chose_at_first(lake_table: Lake) -> None:
    first = lake_table.declare("vector")
    lake_table.append(rows(range(5000, 5100)))
    assert lake_table.declare("vector") == first


def test_an_index_on_a_branch(lake_table: Lake) -> None:
    from lake.table.commit import pinned

    lake_table.declare("vector", "ivf_flat", partitions=4)
    lake_table.build()
    lance.dataset(lake_table.location.uri).create_branch("dev")
    dev = pinned(lake_table.location, "dev")
    lance.write_dataset(rows(range(900, 1000)), dev.dataset, mode="append")
    dev = pinned(lake_table.location, "dev")
    index.declare(dev, "text", "bm25")
    report = index.build(pinned(lake_table.location, "dev"))
    assert {i.name: (i.done, i.note) for i in report.indexes} == {
        "vector_idx": ("extended", ""),
        "text_idx": ("built", ""),
    }
    covered = index.coverage(pinned(lake_table.location, "dev"))
    assert covered.complete
    assert covered["vector_idx"].segments == 2
    found = pinned(lake_table.location, "dev").dataset.scanner(full_text_query="word950", columns=["id", "_score"])
    assert found.to_table()["id"].to_pylist() == [950]
    assert set(lake_table.coverage()) == {lake_table.coverage()["vector_idx"]}
    assert pa.compute.max(lake_table.dataset.to_table(columns=["id"])["id"]).as_py() == 899
