"""Slices and their rows: every format, what is no row, and the number of each row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.errors import InvalidInput, NotFound
from lake.etl import read, slices
from lake.etl.bisect import bad_rows
from lake.etl.read import Reader
from lake.etl.slices import of_files
from lake.etl.spec import Source
from lake.storage import Location


def source(*files: Path | str, **more: Any) -> Source:
    return Source.model_validate({"files": [str(f) for f in files], **more})


def names(found: list[slices.Slice]) -> list[str]:
    return [Path(s.name).name for s in found]


def read_all(given: Source, schema: pa.Schema | None = None, **more: Any) -> tuple[list[tuple[int, Any]], list[Any]]:
    """Return numbered rows, and what is malformed."""
    base = Location.of("/")
    reader = Reader(given, base, None, schema, **more)
    rows, odd = [], []
    for part in of_files(given, base):
        for chunk in reader.read(part):
            assert chunk.rows.num_rows == len(chunk.at)
            rows += list(zip(chunk.at.tolist(), chunk.rows.to_pylist(), strict=True))
            odd += [(bad.row, bad.text) for bad in chunk.malformed]
    return rows, odd


def test_paths_folders_and_patterns(tmp_path: Path) -> None:
    for name in (
        "b.csv",
        "a.csv",
        "deep/c.csv",
        "deep/er/d.csv",
        "_SUCCESS",
        ".hidden.csv",
        "_tmp/x.csv",
        "deep/e.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a\n1\n")
    base = Location.of("/")
    assert names(of_files(source(tmp_path / "*.csv"), base)) == ["a.csv", "b.csv"]
    assert names(of_files(source(tmp_path / "**/*.csv"), base)) == ["a.csv", "b.csv", "c.csv", "d.csv"]
    assert names(of_files(source(tmp_path / "deep/er"), base)) == ["d.csv"]
    assert names(of_files(source(tmp_path / "_tmp/x.csv", tmp_path / "a.csv"), base)) == ["x.csv", "a.csv"]
    assert names(of_files(source(tmp_path / "a.csv", tmp_path / "*.csv"), base)) == ["a.csv", "b.csv"]
    with pytest.raises(NotFound, match="no file matches"):
        of_files(source(tmp_path / "*.parquet"), base)
    with pytest.raises(InvalidInput, match=r"cannot tell the format of .*e.txt"):
        of_files(source(tmp_path / "deep"), base)


def test_parquet_is_cut_by_row_groups_and_rows_keep_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"n": range(1000), "m": range(1000)}), tmp_path / "a.parquet", row_group_size=100)
    monkeypatch.setattr(slices, "_SLICE_BYTES", 3000)
    given = source(tmp_path / "a.parquet", columns=["n"])
    parts = of_files(given, Location.of("/"))
    assert len(parts) > 3
    assert [g for part in parts for g in part.groups] == list(range(10))
    rows, _ = read_all(given)
    assert rows == [(n, {"n": n}) for n in range(1000)]


def test_csv_keeps_numbers_around_what_is_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks: the reader is ahead of what it has given out."""
    monkeypatch.setattr(read, "_BLOCK", 256)
    lines, good, bad = ["n,text"], [], []
    for n in range(500):
        if n % 7 == 3:
            lines.append(f"{n}")
            bad.append((n, f"{n}"))
        elif n % 50 == 0:
            lines.append(f'{n},"two\nlines, ""quoted"""')
            good.append((n, {"n": str(n), "text": 'two\nlines, "quoted"'}))
        else:
            lines.append(f"{n},t{n}")
            good.append((n, {"n": str(n), "text": f"t{n}"}))
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    schema = pa.schema({"n": pa.string(), "text": pa.string()})
    assert read_all(source(tmp_path / "a.csv"), schema) == (good, bad)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress("\n".join(lines).replace(",", ";").encode()))
    rows, odd = read_all(source(tmp_path / "b.csv.gz", delimiter=";"), schema)
    assert (len(rows), odd) == (len(good), bad)


def test_csv_without_value_is_null_and_bytes_that_are_no_text_are_no_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,\n2,NULL\n3,\xff\xfe\n4,x\n")
    schema = pa.schema({"a": pa.string(), "b": pa.string()})
    rows, odd = read_all(source(tmp_path / "a.csv", nulls=["", "NULL"]), schema)
    assert rows == [(0, {"a": "1", "b": None}), (1, {"a": "2", "b": None}), (3, {"a": "4", "b": "x"})]
    assert [row for row, _ in odd] == [2]


JSON = pa.schema({"a": pa.int64(), "b": pa.list_(pa.string())})


def test_json_lines_one_object_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "_BLOCK", 64)
    good = [(n, {"a": n, "b": [f"é{n}"]}) for n in range(100)]
    lines: list[bytes] = [json.dumps(row, ensure_ascii=False).encode() for _, row in good]
    odd = {
        7: b"nonsense",
        20: b'{"a": "text"}',
        21: b'{"a": 1} {"a": 2}',
        33: b'{"a": 1, "unknown": 2}',
        55: b'{"b": ["\xff"]}',
        56: b"[1, 2]",
    }
    for at, line in odd.items():
        lines[at] = line
    lines[60] = b""
    lines[61] = b"  "
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    rows, found = read_all(source(tmp_path / "a.jsonl"), JSON)
    assert rows == [(n, row) for n, row in good if n not in odd and n not in {60, 61}]
    assert found == [(n, line.decode(errors="replace")) for n, line in odd.items()]
    rows, found = read_all(source(tmp_path / "a.jsonl"), JSON, lenient=True)
    assert (33, {"a": 1, "b": None}) in rows
    assert 33 not in dict(found)


def test_a_file_that_is_not_of_its_format(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InvalidInput, match=r"cannot read .*a.parquet as Parquet"):
        of_files(source(tmp_path / "a.parquet"), Location.of("/"))
    (tmp_path / "a.csv.gz").write_bytes(b"not packed")
    with pytest.raises(Exception, match=r"cannot read .*a.csv.gz"):
        read_all(source(tmp_path / "a.csv.gz"), pa.schema({"a": pa.string()}))


@given(st.lists(st.booleans(), max_size=60))
def test_bad_rows_are_found_and_the_others_done_in_order(bad: list[bool]) -> None:
    def act(begin: int, end: int) -> list[int]:
        if any(bad[begin:end]):
            raise InvalidInput(f"{begin}")
        return list(range(begin, end))

    done, found = bad_rows(len(bad), act)
    assert [n for part in done for n in part] == np.flatnonzero(~np.array(bad, bool)).tolist()
    assert found == [(n, str(n)) for n in np.flatnonzero(bad).tolist()]
