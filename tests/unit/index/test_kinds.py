"""Each kind on each type of column that it claims to fit: it builds in segments, is used, and answers truly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lake.errors import InvalidInput
from lake.index.kinds import KINDS, fitting, kind_of, metrics_of
from tests.unit.index.conftest import SCHEMA, Lake, Pair, vectors

VECTOR_COLUMNS = ("vector", "half", "double", "bits", "many")
PAIRS = [(column.name, kind) for column in SCHEMA for kind in fitting(column)]
FILTERS = {
    "id": "id < 310",
    "number": "number < 310",
    "ratio": "ratio < 310.5",
    "flag": "flag = true",
    "price": "price < 310",
    "day": "day < date '2000-03-01'",
    "at": "at < timestamp '2000-01-01 00:05:10'",
    "code": "code = X'333130'",
    "category": "category = 'c1-0'",
    "label": "label = 'c1-0'",
    "text": "text = 'word310 common0 thing2'",
    "tags": "array_has_any(tags, ['t3-0'])",
    "place": "st_intersects(place, st_geomfromtext('POLYGON((0 0, 50 0, 50 45, 0 45, 0 0))'))",
}


def query_for(column: str) -> Any:
    x = vectors([7], 0)[0]
    if column == "bits":
        return (np.abs(x) * 60).astype(np.uint8)
    if column == "many":
        return np.stack([x, x + 1])
    return x.astype({"half": np.float16, "double": np.float64}.get(column, np.float32))


def filter_for(column: str, kind: str) -> str:
    if kind == "NGRAM":
        return {"text": "contains(text, 'word31')", "category": "contains(category, 'c1-0')"}[column]
    if kind == "BLOOMFILTER":  # knows nothing of order
        where = FILTERS[column].replace(" < ", " = ")
        return where.replace("310.5", "310.0").replace("2000-03-01", "2000-02-01")
    return FILTERS[column]


@pytest.mark.parametrize(("column", "kind"), [p for p in PAIRS if p[0] in VECTOR_COLUMNS])
def test_a_vector_kind_builds_in_segments_and_finds_the_row(lake_table: Lake, column: str, kind: str) -> None:
    params: dict[str, Any] = {"partitions": 4}
    if "PQ" in kind:
        params |= {"num_bits": 4, "sub_vectors": 8}
    lake_table.declare(column, kind, name="i", **params)
    report = lake_table.build(executor=Pair())
    (built,) = report.indexes
    assert (built.done, built.kind, built.partitions, built.note) == ("built", kind, 4, "")
    assert lake_table.coverage()["i"].complete
    assert lake_table.coverage()["i"].segments == (1 if kind == "IVF_PQ" else 2)
    query = query_for(column)
    assert lake_table.uses("i", column, query=query)
    assert lake_table.near(column, query, 5, refine_factor=30)[0] == 7
    assert lake_table.build().indexes[0].done == "up to date"


@pytest.mark.parametrize(("column", "kind"), [p for p in PAIRS if p[0] not in VECTOR_COLUMNS])
def test_a_scalar_kind_builds_in_segments_and_filters_truly(lake_table: Lake, column: str, kind: str) -> None:
    lake_table.declare(column, kind, name="i")
    report = lake_table.build(executor=Pair())
    assert (report.indexes[0].done, report.indexes[0].kind) == ("built", kind)
    assert lake_table.coverage()["i"].kind == kind
    assert lake_table.coverage()["i"].segments == 2
    assert lake_table.build().indexes[0].done == "up to date"
    if kind == "MINHASHLSH":  # serves near-duplicate searches, no filter
        return
    if column == "facts":
        assert lake_table.words("n,number,310") == [310]
        return
    if kind == "INVERTED":
        everywhere = {"tags": "shared", "text": "common0", "category": "0"}[column]
        assert len(lake_table.words(everywhere)) == 900
        return
    where = filter_for(column, kind)
    if kind != "ZONEMAP" or column not in {"tags", "place"}:
        assert lake_table.uses("i", where=where)
    assert lake_table.ids(where) == lake_table.ids(where, scan=True) != []


def test_what_fits_no_kind() -> None:
    assert fitting(SCHEMA["signed"]) == ()


def test_metrics() -> None:
    assert metrics_of(SCHEMA["bits"]) == ("hamming",)
    assert metrics_of(SCHEMA["many"]) == ("cosine",)
    assert metrics_of(SCHEMA["half"]) == ("l2", "cosine", "dot")


@pytest.mark.parametrize(
    ("spelling", "kind"),
    [
        ("ivf_flat", "IVF_FLAT"),
        ("Btree", "BTREE"),
        ("bm25", "INVERTED"),
        ("text", "INVERTED"),
        ("label-list", "LABEL_LIST"),
    ],
)
def test_spellings(spelling: str, kind: str) -> None:
    assert kind_of(spelling) is KINDS[kind]


def test_an_unknown_kind_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInput, match="no kind of index 'faiss'.*ivf_flat"):
        kind_of("faiss")
