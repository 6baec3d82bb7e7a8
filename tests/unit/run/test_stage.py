"""Stages refuse what could not run; events and executors have names."""

import io
import json
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from lake.errors import InvalidInput
from lake.run import (
    EntryRefused,
    Event,
    JobCommitted,
    LocalExecutor,
    Stage,
    StageDone,
    StageFailed,
    StageStarted,
    TaskDone,
    TaskRetried,
    TaskSkipped,
    TaskStarted,
    engines,
    json_lines,
    resolve,
    tee,
)
from lake.run.memory import available_bytes, cgroup_free, resident_bytes
from tests.unit.run.scripted import Nothing


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="stage 's': two tasks have the key 'b'"):
        Stage("s", [Nothing("a"), Nothing("b"), Nothing("b")])


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "_job.json", "a b", "a\n", "x" * 129, "ü"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="stage name"):
        Stage(name, [Nothing("a")])


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(InvalidInput, match="retries is -1"):
        Stage("s", [Nothing("a")], retries=-1)
    with pytest.raises(InvalidInput, match="memory_bytes is -1"):
        Stage("s", [Nothing("a")], memory_bytes=-1)


@pytest.mark.parametrize(
    "event",
    [
        StageStarted("s", 3, 2),
        TaskSkipped("s", "k"),
        TaskStarted("s", "k", 1),
        TaskRetried("s", "k", 1, "OSError"),
        TaskDone("s", "k", 2, 0.5),
        StageFailed("s", "k", 3, "OSError"),
        StageDone("s", 3, 1, 2.5),
        EntryRefused("j", "s/1.json", "ValueError"),
        JobCommitted("j", 7),
    ],
)
def test_events_are_lines_of_json(event: Event) -> None:
    stream = io.StringIO()
    seen: list[Event] = []
    tee(seen.append, json_lines(stream))(event)
    assert seen == [event]
    assert stream.getvalue().count("\n") == 1
    entry = json.loads(stream.getvalue())
    assert entry.pop("event") == type(event).__name__
    assert entry.pop("time").endswith("+00:00")
    assert entry == {name: value for name, value in vars(event).items() if name != "time"}


def test_time_is_utc() -> None:
    assert json.loads(JobCommitted("j", 1, time=0.25).to_json())["time"] == "1970-01-01T00:00:00.250+00:00"


def test_executors_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    own = LocalExecutor(1)
    assert resolve(own) is own
    assert isinstance(resolve("local"), LocalExecutor)
    with pytest.raises(InvalidInput, match="no executor 'dask'"):
        resolve("dask")
    monkeypatch.setitem(engines._OWN, "ray", ("lake_not_installed:Executor", "ray"))
    with pytest.raises(InvalidInput, match=r"pip install 'semlake\[ray\]'"):
        resolve("ray")


def test_plug_ins_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints(
        [
            EntryPoint("own", "lake.run.local:LocalExecutor", "lake.executors"),
            EntryPoint("broken", "not_installed_at_all:Executor", "lake.executors"),
        ]
    )
    monkeypatch.setattr(engines, "entry_points", points.select)
    assert isinstance(resolve("own"), LocalExecutor)
    with pytest.raises(InvalidInput, match="'broken', from not_installed_at_all:Executor, cannot be imported"):
        resolve("broken")


def test_the_room_imports_nothing_heavy() -> None:
    code = "import sys, lake.run; print(sorted({'lance', 'pyarrow', 'numpy', 'rich', 'ray'} & set(sys.modules)))"
    root = str(Path(__file__).parents[3])
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_memory_of_this_machine() -> None:
    assert 1 << 20 < resident_bytes() < available_bytes() + (1 << 40)
    assert available_bytes() > 1 << 20


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/pod/a", "pod", ("memory.max", "memory.current", "inactive_file")),
        ("4:memory:/pod/a", "memory/pod", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
        ("4:cpu,memory:/host/x", "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
    ],
)
def test_the_container_s_limit_counts(tmp_path: Path, line: str, folder: str, names: tuple[str, str, str]) -> None:
    limit, used, cached = names
    (tmp_path / "self").write_text(f"7:pids:/\n{line}\n")
    group = tmp_path / "root" / folder
    group.mkdir(parents=True)
    (group / limit).write_text("1000\n")
    (group / used).write_text("700\n")
    (group / "memory.stat").write_text(f"anon 600\n{cached} 100\n")
    assert list(cgroup_free(tmp_path / "self", tmp_path / "root")) == [400]
    (group / limit).write_text("max\n")
    assert list(cgroup_free(tmp_path / "self", tmp_path / "root")) == []
    assert list(cgroup_free(tmp_path / "absent", tmp_path / "root")) == []
