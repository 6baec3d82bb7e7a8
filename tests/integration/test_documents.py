"""README, notebooks and the demonstration do what they say."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nbclient import NotebookClient

from lake.cli import main

HOUSE = Path(__file__).parents[2]


def test_the_example_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (HOUSE / "README.md").read_text(), re.DOTALL)
    assert blocks
    space: dict[str, object] = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), space)


def test_the_commands_in_the_readme_exist() -> None:
    text = (HOUSE / "README.md").read_text()
    makefile = (HOUSE / "Makefile").read_text()
    targets = set(re.findall(r"^make (\w+)", text, re.MULTILINE))
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_commands_of_the_program_in_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^lake (.+)$", (HOUSE / "README.md").read_text(), re.MULTILINE)
    commands = [shlex.split(line, comments=True) for line in lines]
    assert {command[0] for command in commands} >= {"ls", "describe", "ingest", "search", "index", "history", "compact"}
    pq.write_table(pa.table({"name": ["vim", "semlake"], "version": ["9.9", "0.1"]}), "more.parquet")
    for command in (["demo", "./demo-lake"], *commands):
        with pytest.raises(SystemExit) as ended:
            main(command)
        told = capsys.readouterr()
        assert ended.value.code == 0, (command, told.err)
        assert told.out.strip(), command


@pytest.mark.parametrize("path", sorted((HOUSE / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)  # Spark takes the python3 that it finds first
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit notebooks without outputs"
    here = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=250, startup_timeout=120, resources=here).execute()
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert pictures


def test_the_demonstration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # it begins anew
        with pytest.raises(SystemExit) as ended:
            main(["demo", str(tmp_path / "demo"), "--json"])
        assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = [row["name"] for row in next(iter(told["searches"].values()))["rows"]]
    assert "postgresql" in names
    assert all(len(found["rows"]) == 5 for found in told["searches"].values())
    assert told["changes"]["insert"] == 1
    assert told["changes"]["update"] == 1
    assert told["changes"]["delete"] > 100
