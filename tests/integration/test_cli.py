"""The command line: each command, JSON and for people, and errors without a traceback."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lake
from lake import sample
from lake.cli import main
from lake.cli.show import plain


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert ended.value.code == code, err
    return out if code == 0 or "--json" in arguments else err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    return json.loads(run(capsys, *arguments, "--json", code=code))


@pytest.fixture
def parquet(tmp_path: Path) -> str:
    path = tmp_path / "packages.parquet"
    import pyarrow.parquet as pq

    pq.write_table(sample.packages().slice(0, 1500), path)
    return str(path)


def test_from_files_to_answers(tmp_path: Path, parquet: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path / "lk")
    assert run_json(capsys, "ls", root) == []
    assert run_json(capsys, "ingest", root, "packages", parquet, "--key", "name")["inserted"] == 1500
    again = run_json(capsys, "ingest", root, "packages", parquet, "--merge", "--commit-id", "a")
    assert (again["updated"], again["inserted"]) == (1500, 0)
    assert run_json(capsys, "ingest", root, "packages", parquet, "--merge", "--commit-id", "a")["repeated"]
    [listed] = run_json(capsys, "ls", root)
    assert (listed["table"], listed["rows"], listed["key"]) == ("packages", 1500, "name")

    covered = run_json(capsys, "index", root, "packages", "embedding")
    assert covered["indexes"][0]["rows_covered"] == 1500
    run_json(capsys, "index", root, "packages", "summary", "--kind", "text")
    vector = tmp_path / "q.npy"
    np.save(vector, np.float32(sample.queries()["embedding"][0].as_py()))
    found = run_json(capsys, "search", root, "packages", "--vector", str(vector), "-k", "3", "--columns", "name")
    assert len(found["rows"]) == 3
    assert found["coverage"]["rows"] == 1500
    asked = ("search", root, "packages", "--vector", str(vector), "--recall", "0.9", "--explain")
    assert "calibrate" in run(capsys, *asked, code=3)
    measured = run_json(capsys, "index", root, "packages", "--calibrate")["calibration"]
    assert measured["index"] == "embedding_idx"
    assert measured["points"][-1]["recall"] >= 0.99, "with the most probes"
    assert "recall" in run(capsys, *asked)
    name = lake.connect(root)["packages"].to_arrow(["name"])["name"][7].as_py()
    found = run_json(capsys, "search", root, "packages", "--like", name, "-k", "2", "--columns", "name")
    assert name not in [row["name"] for row in found["rows"]]
    assert "BM25" in run(capsys, "search", root, "packages", "--text", "library", "--columns", "name", "--explain")

    taken_apart = run_json(capsys, "describe", root, "packages")
    assert taken_apart["rows"] == 1500
    assert {s["column"] for s in taken_apart["segments"]} == {"embedding", "summary"}
    assert run_json(capsys, "describe", root, "packages", "--at", "1")["version"] == 1
    assert [v["verb"] for v in run_json(capsys, "history", root, "packages")][-2:] == ["merge", "create"]
    assert run_json(capsys, "compact", root, "packages")["fragments_removed"] >= 0
    assert run_json(capsys, "expire", root, "packages", "--days", "1")["dry_run"]


@pytest.mark.parametrize("command", ["ls", "describe", "history", "index", "search"])
def test_people_see_tables(command: str, tmp_path: Path, parquet: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path / "lk")
    run(capsys, "ingest", root, "packages", parquet, "--key", "name")
    more = {"ls": [], "search": ["packages", "--where", "section = 'net'", "--columns", "name"]}
    shown = run(capsys, command, root, *more.get(command, ["packages"]))
    assert len(shown.splitlines()) > 2 or command == "index"
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["describe", "{root}", "nothing"], 3, "no table 'nothing'"),
        (["search", "{root}", "packages"], 2, "nothing to look for"),
        (["search", "{root}", "packages", "--where", "nope = 1"], 2, "nope"),
        (["search", "{root}", "packages", "--where", "section = 'net' adn 1"], 2, "adn"),
        (["search", "{root}", "packages", "--vector", "{root}/none.npy"], 2, "none.npy"),
        (["ingest", "{root}", "packages", "/no/such.parquet"], 2, "/no/such.parquet"),
        (["ingest", "{root}", "../x", "{root}"], 2, "table name"),
        (["describe", "{root}", "packages", "--at", "yesterday"], 3, "no tag 'yesterday'"),
        (["expire", "{root}", "packages", "--days", "0"], 2, "older_than"),
        (["expire", "{root}", "packages", "--days", "nan"], 2, "--days nan"),
        (["expire", "{root}", "packages", "--days", "1e12"], 2, "give a number of days"),
        (["expire", "{root}", "packages", "--days", "1e6"], 2, "give a number of days"),
        (["ingest", "{root}", "packages", "{root}", "--key", "section"], 2, "its entity key is ['name']"),
        (["ingest", "{root}", "new", "{root}", "--merge"], 2, "name its entity key with --key"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    arguments: list[str], code: int, says: str, tmp_path: Path, parquet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "lk")
    run(capsys, "ingest", root, "packages", parquet, "--key", "name")
    given = [a.format(root=root) for a in arguments]
    told = run(capsys, *given, code=code)
    assert says in told.replace("\n", " ")
    assert "Traceback" not in told
    if given != ["nonsense"]:
        assert set(run_json(capsys, *given, code=code)) == {"error", "message"}


def table_with_key(root: str, key: Any, values: Any) -> None:
    keys = {f"k{i}": column for i, column in enumerate(values)}
    vectors = np.eye(3, dtype=np.float32)
    lake.connect(root).create_table("t", {**keys, "v": vectors}, key=key)


@pytest.mark.parametrize(
    ("values", "like"),
    [
        ([[1, 2, 3]], "3"),
        ([["1", "2", "3"]], "3"),
        ([[date(2020, 1, day) for day in (1, 2, 3)]], "2020-01-03"),
        ([[1, 1, 2], ["a", "b", "a"]], '{"k0": 2, "k1": "a"}'),
    ],
    ids=["int", "text", "date", "two columns"],
)
def test_like_reads_the_key_as_its_column_has_it(
    values: list[list[Any]], like: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table_with_key(str(tmp_path), [f"k{i}" for i in range(len(values))], values)
    found = run_json(capsys, "search", str(tmp_path), "t", "--like", like)["rows"]
    assert len(found) == 2
    assert str(values[0][2]) not in {str(row["k0"]) for row in found}


@pytest.mark.parametrize(
    ("key", "like", "says"),
    [("k0", "three", "the key 'k0' is int64"), (None, "3", "no entity key"), (["k0", "k1"], "3", "2 columns")],
)
def test_like_that_is_no_key(
    key: Any, like: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table_with_key(str(tmp_path), key, [[1, 2, 3], [4, 5, 6]])
    assert says in run(capsys, "search", str(tmp_path), "t", "--like", like, code=2)


def test_one_bad_folder_does_not_hide_the_other_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path)
    table_with_key(root, "k0", [[1, 2, 3]])
    (tmp_path / "killed.lance" / "data").mkdir(parents=True)
    lake.connect(root).create_table("damaged", {"id": [1]})
    for manifest in (tmp_path / "damaged.lance" / "_versions").iterdir():
        manifest.write_bytes(b"\0" * 40)
    listed = {line["table"]: line for line in run_json(capsys, "ls", root)}
    assert set(listed) == {"t", "damaged"}
    assert (listed["t"]["rows"], "error" in listed["damaged"]) == (3, True)
    assert "damaged" in run(capsys, "ls", root)


def test_merging_into_a_new_table_looks_for_keys_given_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root, file = str(tmp_path / "lk"), str(tmp_path / "x.parquet")
    ingest = ("ingest", root, "t", file, "--merge", "--key", "id", "--commit-id", "a")
    pq.write_table(pa.table({"id": [1, 2, 2], "x": [1, 2, 3]}), file)
    run_json(capsys, *ingest, code=2)
    pq.write_table(pa.table({"id": [1, 2, 3], "x": [1, 2, 3]}), file)
    assert run_json(capsys, *ingest)["inserted"] == 3
    assert run_json(capsys, *ingest)["repeated"]
    file_again = ("ingest", root, "u", file, "--merge", "--key", "id")
    assert run_json(capsys, *file_again)["created"]
    assert lake.connect(root)["u"].schema.key == ("id",)


def test_json_is_strict() -> None:
    given = {"a": [float("nan"), 1.5, np.float32("inf")], 3: (np.array([1.0, np.nan]), date(2020, 1, 2), b"xy", None)}
    assert plain(given) == {"a": [None, 1.5, None], "3": [[1.0, None], "2020-01-02", "<2 bytes>", None]}


def test_json_has_no_nan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake.connect(str(tmp_path)).create_table("t", {"id": [1, 2], "x": [float("nan"), float("inf")]})
    told = run(capsys, "search", str(tmp_path), "t", "--where", "id > 0", "--json")
    assert [row["x"] for row in json.loads(told)["rows"]] == [None, None]
    assert "NaN" not in told
    assert "Infinity" not in told


def test_dropping_an_index_builds_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path)
    table = lake.connect(root).create_table("t", {"id": [1, 2], "text": ["a", "b"], "more": ["c", "d"]})
    table.create_index("text", "text")
    table.create_index("more", "text")
    left = run_json(capsys, "index", root, "t", "--drop", "more_idx")["indexes"]
    assert [(i["name"], i["segments"]) for i in left] == [("text_idx", 0)]
    left = run_json(capsys, "index", root, "t", "more", "--kind", "text", "--drop", "text_idx")["indexes"]
    assert [(i["name"], i["segments"] > 0) for i in left] == [("more_idx", True)]


def test_an_interrupted_build_says_how_to_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path)
    table = lake.connect(root).create_table("t", {"id": [1, 2], "text": ["a", "b"]})
    table.create_index("text", "text")
    jobs: list[str] = []

    def interrupted(_: lake.Table, *, executor: str, job_id: str) -> None:
        jobs.append(job_id)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lake.Table, "build", interrupted)
        told = run(capsys, "index", root, "t", code=130)
        run(capsys, "index", root, "t", "--job-id", "mine", code=130)
    assert jobs[1] == "mine"
    assert told == f"interrupted; run again with --job-id {jobs[0]} to resume\n"
    assert len(jobs[0]) == len("index-") + 12
    assert run_json(capsys, "index", root, "t", "--job-id", jobs[0])["complete"]
    assert "index-" in jobs[0]
