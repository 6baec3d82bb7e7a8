"""Jobs that are interrupted, that fail in part, and whose table changes under them."""

from __future__ import annotations

import datetime as dt
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import lance
import pytest
from lance.dataset import Index

from lake import index
from lake.errors import Conflict, InvalidInput, MemoryExceeded, TaskFailed
from lake.index import segments
from lake.index.jobs import PLAN, job_folder
from lake.index.plan import memory_of
from lake.index.tasks import BuildSegment
from lake.run import Event, LocalExecutor, StageDone, StageFailed
from lake.storage import Files, Location
from lake.table import pins
from lake.table.commit import COMMIT_ID, transactions
from lake.table.compact import compact
from tests.unit.index.conftest import Lake, Listener, Pair, make_lake, rows, vectors
from tests.unit.index.test_build import check_answers, declare_all


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[BuildSegment], bool]], None]:
    """Make chosen tasks fail."""
    run = BuildSegment.run

    def arm(chosen: Callable[[BuildSegment], bool]) -> None:
        def fail(task: BuildSegment) -> Index:
            if chosen(task):
                raise OSError("the disk is full")
            return run(task)

        monkeypatch.setattr(BuildSegment, "run", fail)

    return arm


def test_a_receipt_survives_json(lake_table: Lake) -> None:
    for column, kind in (("vector", "IVF_FLAT"), ("number", "BTREE")):
        extra = {"num_partitions": 2, "ivf_centroids": vectors([1, 2], 0)} if kind == "IVF_FLAT" else {}
        made = lake_table.dataset.create_index_uncommitted(
            column, kind, name="i", replace=True, fragment_ids=[0, 2], **extra
        )
        back = segments.decode(json.loads(json.dumps(segments.encode(made))))
        assert set(back.fragment_ids) == {0, 2}
        ours, theirs = ({k: v for k, v in vars(i).items() if k != "fragment_ids"} for i in (back, made))
        assert ours == theirs


def test_a_killed_driver_resumes_without_repeating_what_was_done(lake_table: Lake) -> None:
    declare_all(lake_table)

    class Killed(BaseException):
        pass

    class Kill(Listener):
        """Ends the driver after three segments."""

        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if len(self.done()) == 4:  # the receipts of three are recorded
                raise Killed

    first = Kill()
    with pytest.raises(Killed):
        lake_table.build(executor=Pair(), job_id="nightly", on_event=first)
    lake_table.append(rows(range(900, 950)))  # the job goes on with the snapshot that it began with
    second = Listener()
    report = lake_table.build(executor=Pair(), job_id="nightly", on_event=second)
    assert set(second.skipped()) == set(first.done()[:3])
    assert not set(second.done()) & set(first.done()[:3])
    assert second.skipped("model")
    assert sum(i.resumed for i in report.indexes) == 3
    assert {i.rows for i in report.indexes} == {900}
    assert len([1 for _, p in transactions(lake_table.dataset) if p.get(COMMIT_ID) == "nightly"]) == 1
    check_answers(lake_table)
    assert lake_table.build(job_id="nightly").repeated


def test_a_job_that_resumes_after_its_commit_only_says_so(lake_table: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    declare_all(lake_table)

    def die(self: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lake.run.Ledger.clear", die)
        with pytest.raises(KeyboardInterrupt):
            lake_table.build(job_id="nightly")
    version = lake_table.head.version
    listener = Listener()
    report = lake_table.build(job_id="nightly", on_event=listener)
    assert report.repeated
    assert report.version == lake_table.head.version == version
    assert listener.done() == []
    assert list(Files(job_folder(lake_table.location, "nightly")).names()) == []


def test_a_failing_index_blocks_no_other(
    lake_table: Lake, failing: Callable[[Callable[[BuildSegment], bool]], None]
) -> None:
    declare_all(lake_table)
    with pytest.MonkeyPatch.context():
        failing(lambda task: task.spec.name == "text_idx" and 2 in task.fragments)
        with pytest.raises(index.BuildFailed, match="could not build 1 of 5 .*text_idx: the disk is full") as failure:
            lake_table.build(executor=Pair(), job_id="nightly")
    assert isinstance(failure.value.__cause__, TaskFailed)
    assert isinstance(failure.value.__cause__.__cause__, OSError)
    assert pickle.loads(pickle.dumps(failure.value)).report == failure.value.report
    done = {i.name: i.done for i in failure.value.report.indexes}
    assert done.pop("text_idx") == "failed"
    assert set(done.values()) == {"built"}
    covered = lake_table.coverage()
    assert not covered["text_idx"].built
    assert all(i.complete for i in covered if i.name != "text_idx")
    # The same job goes on with what failed, and repeats nothing.
    failing(lambda task: False)
    listener = Listener()
    report = lake_table.build(executor=Pair(), job_id="nightly", on_event=listener)
    assert [(i.name, i.done, i.resumed) for i in report.indexes] == [("text_idx", "built", 1)]
    assert len(listener.done()) == 1
    assert lake_table.coverage().complete
    check_answers(lake_table)


def test_a_job_of_another_table_is_refused(
    lake_table: Lake, failing: Callable[[Callable[[BuildSegment], bool]], None]
) -> None:
    lake_table.declare("number")
    failing(lambda task: True)
    with pytest.raises(index.BuildFailed):
        lake_table.build(job_id="nightly")
    folder = Files(job_folder(lake_table.location, "nightly"))
    moved = Files(job_folder(Location(lake_table.location.uri.replace("t.lance", "u.lance")), "nightly"))
    for name in list(folder.names()):
        folder.copy_to(moved, name)
    Path(lake_table.location.uri).rename(lake_table.location.uri.replace("t.lance", "u.lance"))
    other = Lake(Location(lake_table.location.uri.replace("t.lance", "u.lance")))
    with pytest.raises(InvalidInput, match="begun with other parameters"):
        other.build(job_id="nightly")


@pytest.mark.parametrize("job", ["", "../up", "a/b", "x" * 200])
def test_a_job_id_is_a_name(lake_table: Lake, job: str) -> None:
    with pytest.raises(InvalidInput, match="job name"):
        lake_table.build(job_id=job)


class Meddler(Listener):
    """Does something to the table between the segments and the commit, once."""

    def __init__(self, act: Callable[[], object], times: int = 1) -> None:
        super().__init__()
        self.act, self.times = act, times

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, StageDone) and event.stage == "segments" and self.times:
            self.times -= 1
            self.act()


def test_another_writers_compaction_costs_only_its_own_fragments(lake_table: Lake) -> None:
    declare_all(lake_table)
    lake_table.build(["number_idx"])
    lake_table.append(rows(range(900, 1200)))
    lake_table.append(rows(range(1200, 1500)))

    def rewrite() -> None:
        lake_table.compact()  # Lance's own: it knows nothing of pins

    report = lake_table.build(executor=Pair(), job_id="nightly", on_event=Meddler(rewrite))
    assert all("another writer rewrote" in i.note for i in report.indexes)
    assert lake_table.coverage().complete
    check_answers(lake_table)
    ids = [p.get(COMMIT_ID) for _, p in transactions(lake_table.dataset)]
    assert ids.count("nightly") <= 1
    assert ids.count("nightly.2") == 1


def test_segments_of_untouched_fragments_are_kept(lake_table: Lake) -> None:
    lake_table.declare("vector", "ivf_flat", partitions=4)
    change = rows([100, 101], salt=1).select(["id", "vector"])

    def touch() -> None:
        lance.dataset(lake_table.location.uri).merge_insert("id").when_matched_update_all().execute(change)
        lake_table.append(rows(range(900, 1000)))
        lake_table.delete("id >= 600 and id < 700")

    lake_table.build(executor=Pair(), on_event=Meddler(touch))
    lake_table.build()
    assert lake_table.coverage().complete
    assert lake_table.near("vector", vectors([100], 1)[0])[0] == 100
    assert 100 not in lake_table.near("vector", vectors([100], 0)[0], 3)


def test_a_table_that_never_rests_is_left_as_it_is(lake_table: Lake) -> None:
    lake_table.declare("number")

    def rewrite() -> None:
        lake_table.append(rows([int(lake_table.head.version) + 10_000]))
        lake_table.compact()

    with pytest.raises(Conflict, match="rewrote what was being indexed in each of 3 rounds") as conflict:
        lake_table.build(on_event=Meddler(rewrite, 99))
    assert conflict.value.ours == "build indexes"
    assert conflict.value.theirs.startswith("a writer outside the lake at version ")
    assert lake_table.ids("number < 10") == list(range(10))


def test_the_lakes_own_compaction_waits(lake_table: Lake) -> None:
    declare_all(lake_table)
    seen = []

    def try_to_compact() -> None:
        seen.append((compact(lake_table.location).fragments_removed, pins.fenced(lake_table.dataset)))

    report = lake_table.build(on_event=Meddler(try_to_compact))
    assert seen == [(0, {0, 1, 2})]
    assert {i.done for i in report.indexes} == {"built"}
    assert lake_table.coverage().complete
    assert compact(lake_table.location).fragments_removed == 3
    assert lake_table.coverage().complete
    check_answers(lake_table)


def test_appends_and_deletes_meanwhile_cost_nothing(lake_table: Lake) -> None:
    declare_all(lake_table)

    def write() -> None:
        lake_table.append(rows(range(900, 950)))
        lake_table.delete("id < 20")
        lake_table.upsert(rows(range(100, 110), salt=1))

    report = lake_table.build(executor=Pair(), on_event=Meddler(write))
    assert {i.done for i in report.indexes} == {"built"}
    assert all(not i.note for i in report.indexes)
    check_answers(lake_table)
    assert lake_table.coverage()["number_idx"].rows_missing == 60


def test_an_index_that_was_dropped_meanwhile_stays_dropped(lake_table: Lake) -> None:
    declare_all(lake_table)

    def drop() -> None:
        index.undeclare(lake_table.head, "number_idx")

    report = lake_table.build(on_event=Meddler(drop))
    (note,) = [i.note for i in report.indexes if i.name == "number_idx"]
    assert "dropped or declared otherwise meanwhile" in note
    assert not lake_table.segments("number_idx")
    assert lake_table.coverage().complete


def test_two_builds_at_once_cover_each_row_once(lake_table: Lake) -> None:
    declare_all(lake_table)
    lake_table.build(executor=Pair(), on_event=Meddler(lambda: lake_table.build(executor=Pair())))
    for name in (f"{column}_idx" for column in ("vector", "number", "category", "tags", "text")):
        covered = [f for fragments in lake_table.segments(name).values() for f in fragments]
        assert sorted(covered) == [0, 1, 2]
    check_answers(lake_table)


def test_an_index_too_large_for_memory_blocks_no_other(lake_table: Lake) -> None:
    lake_table.declare("vector", "ivf_flat", partitions=900)
    lake_table.declare("half", "ivf_flat", partitions=2)
    lake_table.declare("text", "bm25")
    small = memory_of(lake_table.declare("half", "ivf_flat", partitions=2), lake_table.head.schema)
    with pytest.raises(index.BuildFailed, match="could not build 2 of 3 ") as failure:
        lake_table.build(executor=LocalExecutor(1, memory_bytes=small))
    assert isinstance(failure.value.__cause__, MemoryExceeded)
    told = {i.name: (i.done, i.note) for i in failure.value.report.indexes}
    assert told.pop("half_idx") == ("built", "")
    assert all(done == "failed" and f"{small:,} are available" in note for done, note in told.values())
    assert {i.name for i in lake_table.coverage() if i.complete} == {"half_idx"}
    assert {i.done for i in lake_table.build().indexes} == {"built", "up to date"}


def test_what_the_ledger_holds_needs_no_memory(
    lake_table: Lake, failing: Callable[[Callable[[BuildSegment], bool]], None]
) -> None:
    spec = lake_table.declare("half", "ivf_flat", partitions=2)
    lake_table.declare("number")  # of a larger projection
    failing(lambda task: task.spec.name == "half_idx")

    class Killed(BaseException):
        pass

    def kill(event: Event) -> None:
        if isinstance(event, StageFailed):
            raise Killed

    with pytest.raises(Killed):
        lake_table.build(job_id="nightly", on_event=kill)
    failing(lambda task: False)
    small = LocalExecutor(1, memory_bytes=memory_of(spec, lake_table.head.schema))
    report = lake_table.build(job_id="nightly", executor=small)
    assert {i.name: (i.done, i.resumed) for i in report.indexes} == {
        "half_idx": ("built", 0),
        "number_idx": ("built", 1),
    }


def left_behind(lake: Lake) -> set[str]:
    """The jobs, and tables, of which files are left."""
    names = Files(Location(str(Path(lake.location.uri).parent))).names("_jobs")
    return {"/".join(name.split("/")[1:3]) for name in names}


def test_a_build_sweeps_what_failed_ones_have_left(
    lake_table: Lake, failing: Callable[[Callable[[BuildSegment], bool]], None]
) -> None:
    other = make_lake(Location(lake_table.location.uri.replace("t.lance", "u.lance")), 1, 100, ["number"])
    tables = {"t": lake_table, "u": other}
    failing(lambda task: True)
    for name, table in tables.items():
        table.declare("number")
        for job in ("a", "b"):
            with pytest.raises(index.BuildFailed):
                table.build(job_id=f"{job}{name}")
    # A job of the same id, and of nearly the same table; and what is none of ours.
    jobs = Files(Location(str(Path(lake_table.location.uri).parent)).join("_jobs"))
    for name in ("at/t2/plan.json", "at/note.txt", "torn/t/plan.json", "alien/t/plan.json", "alien/t/more"):
        jobs.write(name, b"{}" if "alien" in name else b"{")
    assert left_behind(lake_table) >= {"at/t", "bt/t", "au/u", "bu/u"}
    failing(lambda task: False)
    with pins.pin(lake_table.head, job="bt"):  # as if it ran
        lake_table.build()
    assert left_behind(lake_table) == {"bt/t", "au/u", "bu/u", "at/t2", "at/note.txt", "torn/t", "alien/t"}
    other.build()
    assert left_behind(lake_table) == {"bt/t", "at/t2", "at/note.txt", "torn/t", "alien/t"}


def test_while_an_index_is_not_complete_only_old_leavings_are_swept(
    lake_table: Lake, failing: Callable[[Callable[[BuildSegment], bool]], None]
) -> None:
    for column in ("number", "text", "category"):
        lake_table.declare(column)
    failing(lambda task: task.spec.name == "text_idx")
    for job in ("young", "old"):
        with pytest.raises(index.BuildFailed):
            lake_table.build(["text_idx"], job_id=job)
    files = Files(job_folder(lake_table.location, "old"))
    plan = json.loads(files.read(PLAN))
    long_ago = dt.datetime.now(dt.UTC) - pins.LEASE - dt.timedelta(minutes=1)
    files.write(PLAN, json.dumps(plan | {"begun": long_ago.isoformat()}).encode())
    with pytest.raises(index.BuildFailed):
        lake_table.build(job_id="nightly")
    assert left_behind(lake_table) == {"young/t", "nightly/t"}
    failing(lambda task: False)
    lake_table.build(job_id="nightly")
    assert left_behind(lake_table) == set()
