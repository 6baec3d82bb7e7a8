"""What AUTO chooses, and that it says why."""

from __future__ import annotations

import math
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from lake.errors import InvalidInput
from lake.index import choose
from lake.index.kinds import KINDS
from lake.schema import Column, Role
from lake.storage import Location
from tests.unit.index.conftest import Lake, make_lake


@pytest.mark.parametrize(
    ("column", "kind", "why"),
    [
        ("id", "BTREE", "keys"),
        ("number", "BTREE", "ranges"),
        ("at", "BTREE", "ranges"),
        ("flag", "BITMAP", "bitmap"),
        ("category", "BITMAP", "5 values among 900 sampled rows"),
        ("label", "ZONEMAP", "dictionary"),
        ("text", "INVERTED", "BM25"),
        ("tags", "LABEL_LIST", "tags"),
        ("place", "RTREE", "areas"),
        ("facts", "INVERTED", "JSON"),
        ("code", "BTREE", "usual"),
        ("vector", "IVF_FLAT", "a scan is fast too"),
        ("bits", "IVF_FLAT", "scan"),
        ("many", "IVF_FLAT", "scan"),
    ],
)
def test_by_role(lake_table: Lake, column: str, kind: str, why: str) -> None:
    spec = lake_table.declare(column)
    assert spec.kind == kind
    assert why in spec.why
    assert lake_table.coverage()[f"{column}_idx"].why == spec.why


def test_what_cannot_be_indexed_says_so(lake_table: Lake) -> None:
    with pytest.raises(InvalidInput, match="'signed'.*cannot be indexed.*scans"):
        lake_table.declare("signed")


def test_a_category_of_many_values_is_a_tree(tmp_path: Path) -> None:
    table = pa.table({"id": range(3000), "c": [f"v{i}" for i in range(3000)]})
    dataset = lance.write_dataset(table, str(tmp_path / "t.lance"))
    assert choose.choose(dataset, Column("c", str, "category"))[0] == "BTREE"


def test_vectors_by_their_bytes(lake_table: Lake) -> None:
    class Large:
        """As much of a dataset as the choice needs."""

        def count_rows(self) -> int:
            return 100_000_000

    column = Column("v", pa.list_(pa.float32(), 384))
    kind, _, why = choose.choose(Large(), column)
    assert (kind, "143 GiB" in why) == ("IVF_PQ", True)
    binary = Column("b", pa.list_(pa.uint8(), 384))
    assert choose.choose(Large(), binary)[0] == "IVF_FLAT"


def test_partitions_follow_the_rows() -> None:
    flat, graph = KINDS["IVF_FLAT"], KINDS["IVF_HNSW_SQ"]
    assert [choose.partitions_for(flat, n) for n in (0, 100, 10_000, 500_000)] == [1, 1, 156, 1414]
    assert choose.partitions_for(flat, 10**8) == round(2 * math.sqrt(10**8))
    assert [choose.partitions_for(graph, n) for n in (1000, 5_000_000)] == [1, 4]


def test_an_empty_table_has_nothing_to_build(tmp_path: Path) -> None:
    lake = make_lake(Location.of(tmp_path / "t.lance"), 1, 1)
    lake.delete("true")
    for column in ("vector", "text", "category", "number"):
        lake.declare(column)
    version = lake.head.version
    report = lake.build()
    assert {i.done for i in report.indexes} == {"empty"}
    assert report.version == lake.head.version == version
    assert lake.coverage().complete


def test_roles_are_all_known() -> None:
    never = {Role.VECTOR, Role.BLOB, Role.OTHER}
    assert {role for role, _, _ in choose._BY_ROLE} | never == set(Role)
