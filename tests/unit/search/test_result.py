"""What a result is to a person and to other libraries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from lake.search import Query, Result, explain, search
from lake.search.result import shown
from lake.table.snapshot import Snapshot
from tests.unit.search.conftest import DIMENSION, ROWS, snapshot, vectors, write

Q = np.ones(DIMENSION)


@pytest.fixture
def result(partial: Snapshot) -> Result:
    return search(partial, Query(vector=Q, k=4, columns=["id", "text", "emb"]))


def test_conversions(result: Result) -> None:
    table = result.to_arrow()
    ids = table["id"].to_pylist()
    assert len(result) == 4
    assert [row["id"] for row in result] == [row["id"] for row in result.to_pylist()] == ids
    assert result.to_pandas()["id"].tolist() == ids
    assert result.to_polars()["id"].to_list() == ids
    assert pl.DataFrame(result)["id"].to_list() == ids
    assert pa.table(result).equals(table)


def test_coverage_travels_with_the_table(result: Result, tmp_path: Path) -> None:
    pq.write_table(result.to_arrow(), tmp_path / "r.parquet")
    kept = json.loads(pq.read_table(tmp_path / "r.parquet").schema.metadata[b"lake.coverage"])
    assert kept["version"] == result.coverage.version
    assert kept["complete"] is True
    assert kept["parts"][0]["rows_indexed"] == result.coverage.rows_indexed
    assert json.loads(result.to_pandas().attrs["lake.coverage"])["rows"] == result.coverage.rows


def test_prints(result: Result) -> None:
    text = repr(result)
    assert "_distance" in text
    assert f"… {DIMENSION}]" in text
    assert "by index emb_idx (IVF_FLAT, 16 of 40 partitions)" in " ".join(text.split())
    console = Console(width=60)
    with console.capture() as capture:
        console.print(result)
    assert "version" in capture.get()


def test_hostile_cells(tmp_path: Path) -> None:
    hostile = ["<script>alert(1)</script>", "[red]x[/red] [/]", "\x1b[31mred\x07", "x" * 500, "a\nb"]
    data = pa.table({"<b>name</b>": hostile, "n": range(5)})
    result = search(snapshot(write(tmp_path / "t.lance", data)), Query(where="n < 5"))
    page = result._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<b>" not in page
    text = repr(result)
    assert "[red]x[/red] [/]" in text
    assert "\x1b" not in text
    assert "x" * 100 not in text


def test_many_rows_are_cut(plain: Snapshot) -> None:
    page = search(plain, Query(where="true", k=None))._repr_html_()
    assert page.count("<tr>") == 21
    assert f"{ROWS - 20:,} more rows" in page


def test_shown() -> None:
    assert shown([0.5, 1.0, 2.0, 3.0]) == "[0.5, 1, 2, … 4]"
    assert shown(["a", "b"]) == "a, b"
    assert shown(None) == ""
    assert shown(b"abc") == "3 bytes"


def test_explain(partial: Snapshot) -> None:
    q = Query(vector=Q, text="kernel", where="rank < 5", within=9.0)
    text = str(explain(partial, q))
    for phrase in (
        f"open version {partial.version}",
        "keep the rows where rank < 5",
        "1,900 by index emb_idx (IVF_FLAT, 16 of 40 partitions)",
        "scanned",
        "reciprocal rank fusion",
        "return rows 1 to 10",
        "ANNSubIndex",
    ):
        assert phrase in text
    assert "take the best 1 of each group" in str(explain(partial, Query(vector=Q, group_by="group")))
    assert "LanceRead" in str(explain(partial, Query(where="id < 3", k=None)))


def drawn(result: Result, width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(result)
    return capture.get().splitlines()


def test_a_narrow_table_does_not_squeeze_the_caption(plain: Snapshot) -> None:
    result = search(plain, Query(where="id < 3", columns=["id"]))
    assert drawn(result, 120)[-1].startswith(f"version {plain.version} · 3,000 rows: 3,000 scanned · ")
    assert repr(result).splitlines()[-1] == str(result.coverage)


@pytest.mark.parametrize("width", [40, 80, 130, 400])
def test_columns_that_do_not_fit_are_counted(tmp_path: Path, width: int) -> None:
    names = [f"column_{i:02}" for i in range(20)]
    data = pa.table({name: ["some longer text"] * 3 for name in names} | {"emb": vectors(np.ones((3, 4), np.float32))})
    result = search(snapshot(write(tmp_path / "t.lance", data)), Query(vector=np.ones(4)))
    lines = drawn(result, width)
    assert max(map(len, lines)) <= width
    there = [name for name in names if name in lines[1]]
    assert there == names[: len(there)]
    assert len(there) >= min(width // 15 - 1, 20)
    assert "_distance" in lines[1]  # why the rows are in this order
    more = [line for line in lines if "more column" in line]
    assert more == ([f"… {20 - len(there)} more columns"] if len(there) < 20 else [])
    for whole in (repr(result), result._repr_html_()):
        assert all(name in whole for name in names)


def test_rows_by_number(result: Result) -> None:
    rows = result.to_pylist()
    assert [result[0], result[np.int64(3)], result[-1]] == [rows[0], rows[3], rows[-1]]
    for row in (4, -5):
        with pytest.raises(IndexError, match="of 4"):
            result[row]
