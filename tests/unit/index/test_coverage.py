"""Coverage against plain counts."""

from __future__ import annotations

import io
import time
from datetime import timedelta

import lance
import pytest

from lake import index
from tests.unit.index.conftest import Lake, Pair, rows


def test_before_a_build_everything_is_missing(lake_table: Lake) -> None:
    lake_table.declare("vector", "ivf_flat", partitions=4)
    (told,) = lake_table.coverage()
    assert (told.rows_covered, told.rows_missing, told.rows_stale) == (0, 900, 0)
    assert (told.built, told.complete, told.age, told.built_version) == (False, False, None, None)
    assert (told.kind, told.metric, dict(told.params)) == ("IVF_FLAT", "l2", {"partitions": 4})


def test_rows_are_counted_as_a_scan_counts_them(lake_table: Lake) -> None:
    lake_table.delete("id in (1, 2, 3)")
    lake_table.declare("number")
    at = lake_table.head.version
    lake_table.build(executor=Pair())
    assert lake_table.coverage()["number_idx"].rows_stale == 0  # deleted before it was built
    lake_table.append(rows(range(900, 1000)))
    lake_table.delete("id >= 500 and id < 540")
    lake_table.upsert(rows(range(590, 600), salt=1))
    told = lake_table.coverage()["number_idx"]
    assert told.rows_covered + told.rows_missing == lake_table.coverage().rows == lake_table.dataset.count_rows()
    assert told.rows_missing == lake_table.dataset.count_rows("id >= 900 or (id >= 590 and id < 600)")
    assert told.rows_stale == 50
    assert told.built_version == at
    assert told.age is not None
    assert timedelta(0) <= told.age < timedelta(minutes=5)
    assert told.segments == 2
    assert told.bytes == sum(
        d.total_size_bytes for d in lake_table.dataset.describe_indices() if d.name == "number_idx"
    )
    assert not told.complete
    assert not lake_table.coverage().complete


def test_an_index_that_was_made_without_the_lake_is_shown_as_such(lake_table: Lake) -> None:
    lance.dataset(lake_table.location.uri).create_scalar_index("number", "BTREE", name="foreign")
    told = lake_table.coverage()["foreign"]
    assert (told.declared, told.kind, told.column, told.complete) == (False, "BTREE", "number", True)
    assert lake_table.coverage().complete
    assert lake_table.build().indexes == ()
    assert lake_table.segments("foreign")


def test_it_is_cheap_and_kept(lake_table: Lake) -> None:
    for column in ("vector", "number", "text"):
        lake_table.declare(column)
    lake_table.build()
    head = lake_table.head
    assert index.coverage(head) is index.coverage(head)
    started = time.perf_counter()
    for _ in range(100):
        index.coverage(head)
    assert time.perf_counter() - started < 0.1


def test_an_unknown_name(lake_table: Lake) -> None:
    with pytest.raises(KeyError):
        lake_table.coverage()["x"]


def test_another_index_than_the_declared_one_is_missing(lake_table: Lake) -> None:
    own = lance.dataset(lake_table.location.uri)
    own.create_index("vector", "IVF_FLAT", name="vector_idx", metric="cosine", num_partitions=2)
    own.create_scalar_index("text", "INVERTED", name="text_idx", with_position=False)
    lake_table.declare("vector", "ivf_flat", metric="l2")
    lake_table.declare("text", "bm25")
    table = lake_table.coverage()
    for name, reason in (("vector_idx", "it is IVF_FLAT cosine of vector"), ("text_idx", "other with_position")):
        told = table[name]
        assert (told.rows_covered, told.rows_missing, told.complete, told.built) == (0, 900, False, True)
        assert reason in told.why
    assert not table.complete
    lake_table.build()
    assert lake_table.coverage().complete
    assert {told.why for told in lake_table.coverage()} == {"as declared"}


def test_what_waits_for_more_vectors_is_as_declared(lake_table: Lake) -> None:
    lake_table.delete("id >= 600")
    lake_table.update({"vector": "NULL"}, "id >= 400")  # too few vectors for a codebook, though not too few rows
    lake_table.declare("vector", "ivf_pq")
    assert lake_table.build().indexes[0].kind == "IVF_FLAT"
    (told,) = lake_table.coverage()
    assert (told.kind, told.complete, told.why) == ("IVF_FLAT", True, "as declared")


def test_it_prints_as_a_table(lake_table: Lake) -> None:
    from rich.console import Console

    lake_table.declare("vector", "ivf_flat", partitions=4)
    lake_table.declare("number")
    lake_table.build(["number_idx"])
    title, heading, *lines = str(lake_table.coverage()).splitlines()
    assert title == f"version {lake_table.head.version}, 900 rows"
    assert heading.split() == ["index", "kind", "covered", "missing", "stale", "segments", "MiB", "age"]
    assert [line.index("IVF_FLAT l2" if "vector" in line else "BTREE") for line in lines] == [heading.index("kind")] * 2
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(lake_table.coverage())
    assert "\nnumber_idx: numbers are filtered by ranges and values\n" in console.export_text()
