"""The ledger survives interruption and damage, and never trusts what it cannot check."""

from pathlib import Path

import pytest

from lake.errors import InvalidInput
from lake.run import (
    EntryRefused,
    Event,
    LocalExecutor,
    Stage,
    TaskDone,
    TaskResult,
    TaskSkipped,
    TaskStarted,
    run_stage,
)
from lake.storage import Location
from lake.storage.files import Files
from tests.unit.run.executor_suite import directory_ledger
from tests.unit.run.scripted import Scripted, runs


def _stage(folder: Path, count: int = 5) -> Stage[int]:
    folder.mkdir(exist_ok=True)
    return Stage("s", [Scripted(f"t{i}", str(folder)) for i in range(count)])


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The folder of a job whose five tasks are done."""
    folder = tmp_path / "job"
    list(run_stage(LocalExecutor(1), _stage(tmp_path / "work"), directory_ledger(folder, "parameters")))
    return folder


def _resume(job: Path, tmp_path: Path) -> list[Event]:
    events: list[Event] = []
    ledger = directory_ledger(job, "parameters")
    results = list(run_stage(LocalExecutor(1), _stage(tmp_path / "work"), ledger, events.append))
    assert sorted(r.key for r in results) == [f"t{i}" for i in range(5)]
    assert {r.value for r in results} == {2}
    return events


def test_what_is_done_is_not_repeated(job: Path, tmp_path: Path) -> None:
    events = _resume(job, tmp_path)
    assert {type(event) for event in events} == {TaskSkipped}
    assert runs(tmp_path / "work") == 5


def test_a_receipt_is_kept_before_it_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    results = run_stage(LocalExecutor(1), _stage(tmp_path / "work"), directory_ledger(folder))
    for result in results:
        assert result.key in directory_ledger(folder).receipts("s")
    first = run_stage(LocalExecutor(1), _stage(tmp_path / "more"), directory_ledger(tmp_path / "other"))
    key = next(first).key
    first.close()
    assert list(directory_ledger(tmp_path / "other").receipts("s")) == [key]


def test_entries_that_are_damaged_are_done_again_and_reported(job: Path, tmp_path: Path) -> None:
    first, second, third, *_ = sorted((job / "s").iterdir())
    first.write_bytes(first.read_bytes()[:-20])
    second.write_bytes(second.read_bytes().replace(b'"count": 2', b'"count": 3'))
    third.write_bytes(b"")
    events = _resume(job, tmp_path)
    refused = {event.name for event in events if isinstance(event, EntryRefused)}
    assert refused == {f"s/{path.name}" for path in (first, second, third)}
    assert len([event for event in events if isinstance(event, TaskDone)]) == 3
    assert runs(tmp_path / "work") == 8
    assert {type(event) for event in _resume(job, tmp_path)} == {TaskSkipped}, "mended"


def test_every_flipped_byte_is_noticed(job: Path) -> None:
    entry = min((job / "s").iterdir())
    whole = entry.read_bytes()
    expected = directory_ledger(job, "parameters").receipts("s")
    for place in range(len(whole)):
        entry.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = directory_ledger(job, "parameters").receipts("s")
        assert found.items() <= expected.items()
        assert len(found) == 4, f"byte {place}"


def test_nothing_that_is_read_is_executed(job: Path, tmp_path: Path) -> None:
    entry = min((job / "s").iterdir())
    entry.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "owned").encode() + b"'\ntR.")
    _resume(job, tmp_path)
    assert not (tmp_path / "owned").exists()


def test_a_receipt_that_cannot_be_decoded_is_done_again(job: Path, tmp_path: Path) -> None:
    ledger = directory_ledger(job, "parameters")
    ledger._encode = lambda count: ["another format", count]
    ledger.record("s", TaskResult("t0", 2, 1, 0.0))
    events = _resume(job, tmp_path)
    assert [event.key for event in events if isinstance(event, TaskStarted)] == ["t0"]


def test_other_parameters_are_refused(job: Path) -> None:
    with pytest.raises(InvalidInput, match="'job' was begun with other parameters"):
        directory_ledger(job, "others")


def test_receipts_of_other_parameters_are_never_used(job: Path) -> None:
    header = job / "_job.json"
    header.write_bytes(header.read_bytes()[:10])
    events: list[Event] = []
    assert directory_ledger(job, "others").receipts("s", events.append) == {}
    assert len(events) == 6, "the job's entry and five receipts"


def test_a_torn_job_entry_is_mended_and_reported(job: Path, tmp_path: Path) -> None:
    header = job / "_job.json"
    whole = header.read_bytes()
    header.write_bytes(whole[:10])
    events = _resume(job, tmp_path)
    assert [event.name for event in events if isinstance(event, EntryRefused)] == ["_job.json"]
    assert header.read_bytes() == whole
    assert runs(tmp_path / "work") == 5


def test_stages_are_apart_and_clearing_forgets(job: Path) -> None:
    ledger = directory_ledger(job, "parameters")
    assert ledger.receipts("other") == {}
    ledger.record("other", TaskResult("t0", 9, 1, 0.0))
    assert ledger.receipts("other") == {"t0": 9}
    assert ledger.receipts("s")["t0"] == 2
    ledger.clear()
    assert directory_ledger(job, "others").receipts("s") == {}


@pytest.mark.parametrize("key", ["../../up", "a/b", "", "ключ", "a\nb", "x" * 5000])
def test_any_key_will_do(tmp_path: Path, key: str) -> None:
    directory_ledger(tmp_path / "job").record("s", TaskResult(key, 1, 1, 0.0))
    assert directory_ledger(tmp_path / "job").receipts("s") == {key: 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job"]


def test_the_lake_s_own_files_are_a_store(root: Location) -> None:
    from lake.run import Ledger

    def ledger() -> Ledger[int]:
        return Ledger(Files(root.join("_jobs", "j")) if hasattr(root, "join") else Files(root), "j", int, int, "p")

    ledger().record("s", TaskResult("k", 3, 1, 0.0))
    assert ledger().receipts("s") == {"k": 3}
    ledger().clear()
    assert ledger().receipts("s") == {}
