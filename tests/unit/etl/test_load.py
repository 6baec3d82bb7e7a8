"""Loads, end to end in this process: what is read, made of it, refused, compared, written, and done once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lake
from lake.errors import InvalidInput, NotFound
from lake.etl import Source, plan
from lake.run import TaskDone, TaskSkipped
from lake.run.ledger import Ledger
from lake.storage import Files, Location
from tests.support.etl import Heard, json_lines, refused_of, rows_of, run
from tests.support.s3 import SECRET
from tests.support.tables import SCHEMA, pairs


@pytest.fixture
def here(tmp_path: Path) -> Location:
    return Location.of(tmp_path / "lake")


def test_every_step_in_its_order(tmp_path: Path, here: Location) -> None:
    rows: list[Any] = [
        {"id": "1", "maker": {"name": "x", "at": {"lat": 1.5}}, "price": "2.5", "day": "2026-01-02"},
        {"id": "2", "maker": {"name": "y", "at": None}, "price": "none", "day": "2026-01-02"},
        {"id": "3", "maker": None, "price": "7", "day": "2026-01-03"},
        {"id": "4", "maker": {"name": "z", "at": {"lat": 9.0}}, "price": "0.5", "day": None},
        "no row",
    ]
    spec = {
        "source": {"files": str(json_lines(tmp_path / "a.jsonl", rows)), "types": {"day": "string"}},
        "transform": {
            "flatten": True,
            "rename": {"maker_at_lat": "latitude"},
            "cast": {"id": "int64", "price": "float64", "day": "date32"},
            "filter": "price > 1 AND day IS NOT NULL",
            "select": ["id", "latitude", "maker_name"],
        },
        "into": {"table": "t", "key": "id", "roles": {"maker_name": "category"}},
    }
    report = run(here, spec)
    assert (report.read, report.written, report.filtered, report.refused) == (5, 2, 1, 2)
    assert rows_of(here, "t") == [
        {"id": 1, "latitude": 1.5, "maker_name": "x"},
        {"id": 3, "latitude": None, "maker_name": None},
    ]
    schema = lake.connect(here.uri).open_table("t").schema
    assert schema.key == ("id",)
    assert schema["maker_name"].role == "category"
    assert refused_of(here, "t") == {("a.jsonl", 1, "price"), ("a.jsonl", 4, None)}


def test_refused_rows_carry_reason_and_row(tmp_path: Path, here: Location) -> None:
    rows: list[Any] = [
        {"id": 1, "v": [1.0, 2.0]},
        {"id": 2, "v": [1.0]},
        {"id": 3, "v": [0.0, 0.0]},
        {"id": None, "v": [1.0, 1.0]},
        {"id": 5, "v": [1.0, None]},
        {"id": 6, "v": None},
    ]
    into = {"table": "t", "key": "id", "embeddings": {"v": {"dimension": 2, "metric": "cosine"}}}
    report = run(here, {"source": {"files": str(json_lines(tmp_path / "a.jsonl", rows))}, "into": into})
    assert rows_of(here, "t") == [{"id": 1, "v": [1.0, 2.0]}, {"id": 6, "v": None}]
    found = {r["row"]: r for r in rows_of(here, "t__refused")}
    assert report.refused == len(found) == 4
    assert {n: json.loads(r["data"]) for n, r in found.items()} == {n: rows[n] for n in (1, 2, 3, 4)}
    said = {1: "1 dimensions, not 2", 2: "zero vector", 3: "entity key", 4: "a null inside the vector"}
    assert all(text in found[n]["reason"] for n, text in said.items())
    assert {r["job"] for r in found.values()} == {"job"}


def test_not_a_number_is_refused_and_shown_as_text(tmp_path: Path, here: Location) -> None:
    vectors = pa.array([[1.0, float("nan")], [float("-inf"), 0.0], [1.0, 1.0]], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"id": [1, 2, 3], "v": vectors}), tmp_path / "a.parquet")
    run(here, {"source": {"files": str(tmp_path / "a.parquet")}, "into": {"table": "t"}})
    shown = [json.loads(r["data"])["v"] for r in rows_of(here, "t__refused")]
    assert sorted(shown, key=str) == [["-inf", 0.0], [1.0, "nan"]]


ENTRIES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=20)


@settings(max_examples=25)
@given(
    st.lists(ENTRIES, min_size=1, max_size=3),
    st.sampled_from(["append", "merge"]),
    st.sampled_from(["first", "last", ""]),
)
def test_against_a_dict(tmp_path_factory: pytest.TempPathFactory, files: list[Any], mode: str, keep: str) -> None:
    """Several files, in several partitions; the table holds a row of key 0 already."""
    folder = tmp_path_factory.mktemp("load")
    root = Location.of(folder / "lake")
    lake.connect(root.uri).create_table("t", SCHEMA, data=pairs([0], -1))
    for i, rows in enumerate(files):
        json_lines(folder / f"{i}.jsonl", [{"id": k, "n": n} for k, n in rows])
    spec: dict[str, Any] = {"source": {"files": str(folder / "*.jsonl")}, "into": {"table": "t", "mode": mode}}
    if keep:
        spec["deduplicate"] = {"keep": keep}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_PARTITION_BYTES", 40)
        report = run(root, spec)
    rows = [entry for file in files for entry in file]
    chosen: list[tuple[int, int]] = list(rows)
    if keep:
        chosen = list(dict(rows if keep == "last" else rows[::-1]).items())
    elif mode == "merge":
        chosen = [(k, n) for k, n in rows if [key for key, _ in rows].count(k) == 1]
    before = [] if mode == "merge" and 0 in dict(chosen) else [(0, -1)]
    found = sorted((r["id"], r["n"]) for r in rows_of(root, "t"))
    assert found == sorted([*before, *chosen])
    lost = len(rows) - len(chosen)
    assert (report.written, report.duplicates, report.refused) == (
        len(chosen),
        lost if keep else 0,
        0 if keep else lost,
    )


def test_order_by_decides_across_files(tmp_path: Path, here: Location) -> None:
    json_lines(tmp_path / "a.jsonl", [{"id": 1, "n": 5, "text": "newest"}, {"id": 2, "n": None, "text": "null"}])
    json_lines(tmp_path / "b.jsonl", [{"id": 1, "n": 4, "text": "older"}, {"id": 2, "n": 0, "text": "some"}])
    spec = {
        "source": {"files": [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]},
        "into": {"table": "t", "key": "id"},
        "deduplicate": {"order_by": "n"},
    }
    run(here, spec)
    assert [r["text"] for r in rows_of(here, "t")] == ["newest", "some"]


def test_a_merge_leaves_columns_alone_that_it_does_not_bring(tmp_path: Path, here: Location) -> None:
    table = lake.connect(here.uri).create_table("t", {"id": [1, 2], "a": ["x", "y"], "b": [1, 2]}, key="id")
    (tmp_path / "a.csv").write_text("id,b\n1,10\n3,30\n")
    run(here, {"source": {"files": str(tmp_path / "a.csv")}, "into": {"table": "t", "mode": "merge"}})
    assert sorted(table.to_arrow().to_pylist(), key=lambda r: r["id"]) == [
        {"id": 1, "a": "x", "b": 10},
        {"id": 2, "a": "y", "b": 2},
        {"id": 3, "a": None, "b": 30},
    ]


def test_csv_takes_the_types_of_the_table_or_of_the_load(tmp_path: Path, here: Location) -> None:
    """A postal code keeps its zero, though the first rows look like numbers."""
    (tmp_path / "a.csv").write_text("id,zip,n\n1,01234,1\n2,99999,2.5\n")
    spec = {
        "source": {"files": str(tmp_path / "a.csv"), "types": {"zip": "string"}},
        "transform": {"rename": {"zip": "code"}, "cast": {"n": "float32"}},
        "into": {"table": "t", "key": "id"},
    }
    run(here, spec)
    expected = [{"id": 1, "code": "01234", "n": 1.0}, {"id": 2, "code": "99999", "n": 2.5}]
    assert rows_of(here, "t") == expected
    spec["source"] = {"files": str(tmp_path / "a.csv")}
    spec["transform"] = {"rename": {"zip": "code"}}
    run(here, spec, "again")
    assert rows_of(here, "t") == [row for row in expected for _ in range(2)]


def test_a_table_at_a_version_as_a_source(here: Location) -> None:
    lk = lake.connect(here.uri)
    table = lk.create_table("s", SCHEMA, data=pairs(range(10)))
    table.append(pairs(range(10, 20)))
    table.tag("then")
    table.update({"n": 7}, where="id = 3")
    table.delete("id = 15")
    source = {"table": "s", "where": "id % 2 = 1", "columns": ["id", "n"]}
    run(here, {"source": source | {"version": "then"}, "into": {"table": "a", "key": "id"}})
    run(here, {"source": source | {"version": 1}, "into": {"table": "b"}})
    run(here, {"source": source | {"table": f"{here.uri}/s.lance"}, "into": {"table": "c"}})
    assert [r["id"] for r in lk["a"].to_arrow().to_pylist()] == list(range(1, 20, 2))
    assert [r["id"] for r in lk["b"].to_arrow().to_pylist()] == list(range(1, 10, 2))
    now = {r["id"]: r["n"] for r in lk["c"].to_arrow().to_pylist()}
    assert now == {n: 7 if n == 3 else 0 for n in range(1, 20, 2) if n != 15}


def test_a_job_that_is_done_does_nothing_and_says_what_it_did(tmp_path: Path, here: Location) -> None:
    file = json_lines(tmp_path / "a.jsonl", [{"id": 1}, {"id": "x"}, {"id": 2}])
    spec = {"source": {"files": str(file)}, "into": {"table": "t"}}
    first = run(here, spec)
    json_lines(file, [{"id": 3}])
    heard = Heard()
    again = run(here, spec, on_event=heard)
    assert again.repeated
    assert not first.repeated
    assert not heard
    assert again.to_dict() | {"seconds": 0, "repeated": False} == first.to_dict() | {"seconds": 0}
    assert [r["id"] for r in rows_of(here, "t")] == [1, 2]
    assert run(here, spec, "tomorrow").written == 1
    with pytest.raises(InvalidInput, match="begun with other parameters"):
        run(here, spec | {"transform": {"filter": "id > 1"}})
    lake.connect(here.uri).drop_table("t")
    assert run(here, spec).written == 1, "the table was dropped: there is something to do"


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_a_job_whose_folder_is_gone_is_known_by_the_history(tmp_path: Path, here: Location, mode: str) -> None:
    file = json_lines(tmp_path / "a.jsonl", [{"id": 1}, {"id": 2}])
    spec = {"source": {"files": str(file)}, "into": {"table": "t", "mode": mode, "key": "id"}}
    first = run(here, spec)
    shutil.rmtree(tmp_path / "lake" / "_jobs")
    again = run(here, spec)
    assert again.repeated
    assert again.version == first.version
    assert [r["id"] for r in rows_of(here, "t")] == [1, 2]


def test_files_of_several_formats_and_empty_ones(tmp_path: Path, here: Location) -> None:
    (tmp_path / "0.jsonl").write_text("")
    (tmp_path / "1.jsonl").write_text("\n  \n")
    pq.write_table(pa.table({"id": [1], "name": ["a"]}), tmp_path / "2.parquet")
    pq.write_table(
        pa.table({"id": pa.array([], pa.int64()), "name": pa.array([], pa.string())}), tmp_path / "3.parquet"
    )
    json_lines(tmp_path / "4.jsonl", [{"id": 2, "name": "b"}])
    spec = {"source": {"files": str(tmp_path / "?.*")}, "into": {"table": "t", "key": "id"}}
    assert run(here, spec).read == 2
    assert rows_of(here, "t") == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    (tmp_path / "5.csv").write_text("id,name\n3,c\n")
    with pytest.raises(InvalidInput, match="make two jobs"):
        run(here, spec, "k")
    with pytest.raises(NotFound, match="hold no rows"):
        run(here, spec | {"source": {"files": str(tmp_path / "[01].*")}}, "l")


def test_an_interrupted_job_goes_on_with_what_it_planned(
    tmp_path: Path, here: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4):
        json_lines(tmp_path / f"{n}.jsonl", [{"id": n}, {"id": "bad"}, {"id": n}])
    spec = {
        "source": {"files": str(tmp_path / "?.jsonl")},
        "into": {"table": "t", "key": "id"},
        "deduplicate": {},
    }
    record = Ledger.record
    done: list[str] = []

    def interrupt(self: Ledger[Any], stage: str, result: Any) -> None:
        record(self, stage, result)
        done.append(result.key)
        if len(done) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "record", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(here, spec)
    monkeypatch.undo()
    json_lines(tmp_path / "9.jsonl", [{"id": 9}])  # came later: it is for the next job
    heard = Heard()
    report = run(here, spec, on_event=heard)
    assert heard.keys(TaskSkipped) == set(done)
    assert not heard.keys(TaskDone) & set(done)
    assert (report.read, report.written, report.duplicates, report.refused, report.resumed) == (12, 4, 4, 4, 2)
    assert [r["id"] for r in rows_of(here, "t")] == [0, 1, 2, 3]
    assert len(rows_of(here, "t__refused")) == 4


def test_files_of_a_dropped_table_are_not_committed_to_its_successor(
    tmp_path: Path, here: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"source": {"files": str(json_lines(tmp_path / "a.jsonl", [{"id": 1}]))}, "into": {"table": "t"}}
    monkeypatch.setattr("lake.etl.loading._commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(here, spec)
    monkeypatch.undo()
    lk = lake.connect(here.uri)
    lk.drop_table("t")
    lk.create_table("t", pa.schema({"id": pa.int64()}))
    report = run(here, spec)
    assert (report.resumed, report.written) == (0, 1)
    assert rows_of(here, "t") == [{"id": 1}]


def test_too_many_refused(tmp_path: Path, here: Location) -> None:
    file = json_lines(tmp_path / "a.jsonl", [{"id": 1}, {"id": "x"}, {"id": "y"}, {"id": 2}, {"id": 3}])
    spec = {"source": {"files": str(file)}, "into": {"table": "t"}, "refused": {"at_most": 1, "table": "odd"}}
    for _ in range(2):
        with pytest.raises(InvalidInput, match="2 of 5 rows were refused"):
            run(here, spec)
    assert rows_of(here, "t") == []
    assert len(rows_of(here, "odd")) == 2
    assert run(here, spec | {"refused": {"table": "odd"}}).written == 3
    assert len(rows_of(here, "odd")) == 2


def test_nothing_to_write(tmp_path: Path, here: Location) -> None:
    spec = {
        "source": {"files": str(json_lines(tmp_path / "a.jsonl", [{"id": 1}]))},
        "into": {"table": "t", "key": "id"},
        "transform": {"filter": "id > 1"},
    }
    assert run(here, spec).filtered == 1
    assert run(here, spec).repeated
    assert rows_of(here, "t") == []


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "rename": ({"transform": {"rename": {"nme": "x"}}}, "rename: column 'nme'"),
    "select": ({"transform": {"select": ["nme"]}}, "select: column 'nme'"),
    "cast": ({"transform": {"cast": {"nme": "int64"}}}, "cast: column 'nme'"),
    "type": ({"transform": {"cast": {"name": "integer"}}}, "no type 'integer'"),
    "filter": ({"transform": {"filter": "id >"}}, "not a legal expression"),
    "twice": ({"transform": {"rename": {"name": "id"}}}, "more than once"),
    "order": ({"deduplicate": {"order_by": "x"}}, "deduplicate.order_by"),
    "key": ({"into": {"table": "there", "key": "name"}}, "its entity key is"),
    "unknown": ({"into": {"table": "there"}}, r"the table has no columns \['name'\]"),
    "no key": ({"into": {"table": "t", "mode": "merge"}}, "no entity key to merge by"),
    "types": ({"source": {"files": "a.jsonl", "types": {"x": "int64"}}}, "source.types"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_said_before_anything_is_written(
    case: str, tmp_path: Path, here: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    json_lines(tmp_path / "a.jsonl", [{"id": 1, "name": "a"}])
    lake.connect(here.uri).create_table("there", SCHEMA)
    change, message = WRONG[case]
    spec = {"source": {"files": "a.jsonl"}, "into": {"table": "new", "key": "id"}} | change
    with pytest.raises((InvalidInput, NotFound), match=message):
        run(here, spec)
    assert rows_of(here, "there") == []
    run(here, {"source": {"files": "a.jsonl"}, "into": {"table": "mended"}})  # the same job id, once it is right


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "give one of files, table, spark and ray, not none"),
        ({"files": "a", "table": "b"}, "give one of"),
        ({"files": "a", "where": "x"}, "where belongs to table"),
        ({"table": "a", "format": "csv"}, "format belongs to files"),
        ({"ray": {"paths": "x"}}, "ray: give read, one of Ray's readers"),
        ({"ray": {"read": "csv"}, "storage_options": {}}, "engines have stores of their own"),
    ],
)
def test_a_source_is_one_thing(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Source.model_validate(spec)


@pytest.mark.s3
def test_files_and_tables_on_s3(tmp_path: Path, bucket: Location) -> None:
    json_lines(tmp_path / "in/a.jsonl", [{"id": n, "n": n} for n in range(50)] + [{"id": "x", "n": 0}])
    pq.write_table(pa.table({"id": range(25, 75), "n": [1] * 50}), tmp_path / "in/b.parquet")
    for file in (tmp_path / "in").iterdir():
        Files(bucket).upload(file, f"in/{file.name}")
    for mode in ("append", "merge"):
        spec = {
            "source": {"files": f"{bucket.uri}/in"},
            "into": {"table": mode, "mode": mode, "key": "id"},
            "deduplicate": {"keep": "first"},
        }
        heard = Heard()
        report = run(bucket, spec, on_event=heard)
        assert {r["id"]: r["n"] for r in rows_of(bucket, mode)} == {n: n if n < 50 else 1 for n in range(75)}
        assert (report.read, report.duplicates, report.refused) == (101, 25, 1)
        assert SECRET not in str(heard) + repr(report)
    files = Files(bucket)
    assert not [name for name in files.names() if SECRET.encode() in files.read(name)]
