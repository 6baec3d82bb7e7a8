"""A store that fails in the midst of a commit: reported truly, nothing lost, nothing doubled."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pytest

from lake.errors import AlreadyExists, CommitUnknown, LakeError, StorageError
from lake.storage import Files, Location, require_put_if_absent
from lake.table import columns, commit, compact, expire, history, write
from lake.table.snapshot import Snapshot, open_head
from lake.table.sql import Sql
from tests.support.proxy import Proxy, Rule
from tests.support.s3 import options
from tests.support.tables import SCHEMA, content, make, pairs
from tests.support.writer import VERBS, Op, State, Verb, persist, replay

pytestmark = pytest.mark.s3

PATIENT: dict[str, str] = {}
RAW = {"client_max_retries": "0", "client_retry_timeout": "1s", "timeout": "5s"}
HASTY = {"client_max_retries": "0", "client_retry_timeout": "1s", "timeout": "500ms"}
MANIFEST = r"/_versions/\d+\.manifest"
NEXT_MANIFEST = rf"/_versions/{2**64 - 1 - 3}\.manifest"  # of version 3


def through(proxy: Proxy, table: Location, more: dict[str, str] = PATIENT) -> Location:
    """Reach the same table by the proxy."""
    return Location.of(table.uri, options(proxy.url, **more))


def the_op(verb: Verb, n: int) -> Op:
    """The nth operation of a kind; each touches other rows, or gives them another value."""
    keys = {"append": (100 + n, 200 + n), "delete": (n,), "update": (1, 11), "overwrite": (300 + n,)}
    return Op(f"{verb}-{n}", verb, keys.get(verb, (15, 300 + n)), n)


@pytest.mark.parametrize(("action", "more"), [("lose", RAW), ("reset", RAW), ("error", PATIENT)])
@pytest.mark.parametrize("verb", VERBS)
def test_a_fault_at_each_put_of_a_commit(
    verb: Verb, action: str, more: dict[str, str], bucket: Location, proxy: Proxy
) -> None:
    table = make(bucket)
    faulty = through(proxy, table, more)
    tried: list[Op] = []
    acked: set[str] = set()
    for nth in itertools.count(1):
        op = the_op(verb, nth)
        proxy.arm(Rule(action, f"{bucket.uri[5:]}/t.lance/", nth=nth))
        before = dict(content(table))
        tried.append(op)
        try:
            receipt = op.run(faulty)
        except (CommitUnknown, StorageError):
            assert dict(content(table)) in (before, op.apply(before))
        else:
            acked.add(op.id)
            assert not receipt.repeated
            assert dict(content(table)) == op.apply(before)
        hits = proxy.hits
        op.run(table)  # by the same id: it is there now, once
        assert content(table) == sorted(op.apply(before).items())
        if not hits:
            break
    assert nth > 2, "there were puts to lose"
    replay(table, 2, tried, {op.id for op in tried})


@pytest.mark.parametrize("action", ["lose", "error", "reset", "deny"])
def test_a_fault_at_each_put_of_a_creation(action: str, bucket: Location, proxy: Proxy) -> None:
    for nth in itertools.count(1):
        table = bucket.join(f"{nth}.lance")
        faulty = through(proxy, table, RAW)
        require_put_if_absent(faulty)
        proxy.arm(Rule(action, "lance/", nth=nth))
        with contextlib.suppress(CommitUnknown, StorageError):
            receipt = write.create_table(faulty, SCHEMA, pairs([1, 2]), commit_id="mine")
            assert (receipt.version, receipt.inserted, content(table)) == (1, 2, [(1, 0), (2, 0)])
        hits = proxy.hits
        assert write.create_table(table, SCHEMA, pairs([1, 2]), commit_id="mine").version == 1
        assert content(table) == [(1, 0), (2, 0)]
        with pytest.raises(AlreadyExists):
            write.create_table(table, SCHEMA, pairs([1, 2]), commit_id="another's")
        if not hits:
            break
    assert nth > 2


OTHERS: dict[str, Callable[[Location], object]] = {
    "add": lambda t: columns.add_columns(t, None, {"x": pa.int64(), "y": Sql("n + 1")}),
    "drop": lambda t: columns.drop_columns(t, None, ["n"]),
    "rename": lambda t: columns.rename_columns(t, None, {"n": "m"}),
    "compact": compact.compact,
    "tag": lambda t: history.tag(Snapshot(t, 1), "x"),
    "branch": lambda t: history.create_branch(Snapshot(t, 1), "x"),
    "restore": lambda t: history.restore(t, None, Snapshot(t, 1), commit_id="mine"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_fault_at_each_put_of_other_changes(name: str, bucket: Location, proxy: Proxy) -> None:
    """What they do is done once or not at all; a repeat may find it there."""
    clean = make(bucket, "clean")
    OTHERS[name](clean)
    expected = shape(clean)
    for nth in itertools.count(1):
        table = make(bucket, f"t{nth}")
        proxy.arm(Rule("lose", f"t{nth}.lance/", nth=nth))
        try:
            OTHERS[name](through(proxy, table, RAW))
        except StorageError:
            with contextlib.suppress(AlreadyExists):
                OTHERS[name](table)
        assert shape(table) == expected
        if not proxy.hits:
            break
    assert nth > 1


def shape(table: Location) -> object:
    head = open_head(table)
    fields = [(f.name, f.type, f.nullable) for f in head.schema]
    return head.to_table().sort_by("id").to_pydict(), fields, set(history.tags(head)), set(head.branches.list())


@pytest.mark.parametrize(("looking", "copies"), [(True, 1), (False, 2)])
def test_without_the_look_for_our_own_id_rows_would_double(
    looking: bool, copies: int, bucket: Location, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests above can fail. (Lance looks too, three times: those looks fail here as well.)"""
    table = make(bucket)
    if not looking:
        monkeypatch.setattr(commit._Writer, "settle", lambda *_, **__: None)
    proxy.arm(Rule("error", MANIFEST, nth=1), Rule("deny", NEXT_MANIFEST, method="GET|HEAD", times=3))
    with contextlib.suppress(CommitUnknown):
        write.append(through(proxy, table, RAW), None, pairs([50]))
    assert content(table).count((50, 0)) == copies


@pytest.mark.parametrize(
    ("action", "share", "seed"), [("deny", 0.2, 1), ("lose", 0.05, 2), ("error", 0.1, 3), ("reset", 0.1, 4)]
)
def test_storms(action: str, share: float, seed: int, bucket: Location, proxy: Proxy) -> None:
    """A share of all requests fails; whatever is raised is the lake's, and the history stays serialisable."""
    table = make(bucket)
    faulty = through(proxy, table, RAW)
    proxy.arm(Rule(action, "t.lance", method="GET|PUT|POST|HEAD|DELETE", share=share, seed=seed))
    tried = [the_op(verb, n) for n in range(3) for verb in VERBS if verb != "overwrite"]
    acked: set[str] = set()
    for op in tried:
        try:
            acked.add(op.run(faulty).commit_id)
        except (CommitUnknown, StorageError):
            continue
    assert proxy.hits
    replay(table, 2, tried, acked)
    proxy.arm()
    for op in tried:
        persist(op, faulty)
    replay(table, 2, tried, {op.id for op in tried})


@pytest.mark.parametrize("verb", VERBS)
def test_a_put_that_is_still_under_way_never_lands_twice(verb: Verb, bucket: Location, proxy: Proxy) -> None:
    """The client gives up on a put, which the network delivers much later."""
    table = make(bucket)
    op = the_op(verb, 3)
    before = dict(content(table))
    proxy.arm(Rule("hold", MANIFEST, nth=1))
    receipt = persist(op, through(proxy, table, HASTY))
    assert dict(content(table)) == op.apply(before)
    proxy.release()
    other = Op("another", "append", (900,), 0)
    other.run(table)
    assert op.run(table).version == receipt.version
    replay(table, 2, [op, other], [op.id, other.id])


def test_what_nobody_can_tell_is_unknown_until_asked_again(bucket: Location, proxy: Proxy) -> None:
    """All manifest puts hang, so that even the fence cannot settle it."""
    table = make(bucket)
    op = the_op("append", 3)
    proxy.arm(Rule("hold", MANIFEST))
    with pytest.raises(CommitUnknown) as caught:
        op.run(through(proxy, table, HASTY))
    assert caught.value.commit_id == op.id
    proxy.release()
    persist(op, table)
    persist(op, table)
    assert [key for key, _ in content(table)].count(op.keys[0]) == 1


def test_a_creation_that_is_still_under_way_is_unknown(bucket: Location, proxy: Proxy) -> None:
    table = bucket.join("t.lance")
    require_put_if_absent(through(proxy, table))
    proxy.arm(Rule("hold", MANIFEST))
    with pytest.raises(CommitUnknown) as caught:
        write.create_table(through(proxy, table, HASTY), SCHEMA, pairs([1]), commit_id="mine")
    assert caught.value.commit_id == "mine"
    proxy.release()
    write.create_table(table, SCHEMA, pairs([1]), commit_id="mine")
    assert content(table) == [(1, 0)]


def test_a_stalled_committer_against_expiry(bucket: Location, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number was taken, expired, and is free again: its put succeeds, and yet it did not take effect."""
    monkeypatch.setattr(commit, "GRACE", timedelta(seconds=0.3))
    table = make(bucket)
    stalled = Op("stalled", "append", (777,), 0)
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(stalled.run(through(proxy, table)))
        except LakeError as error:
            outcome.append(error)

    proxy.arm(Rule("hold", MANIFEST))
    thread = threading.Thread(target=run)
    thread.start()
    proxy.wait()
    others = [Op(f"other-{i}", "append", (50 + i,), 0) for i in range(3)]
    for op in others:
        op.run(table)
    newest = open_head(table).version
    while newest - 1 in [v.version for v in history.versions(table, None)]:
        expire.expire(table, older_than=commit.GRACE, dry_run=False)
        time.sleep(0.05)
    proxy.release()
    thread.join()

    assert isinstance(outcome[0], CommitUnknown), outcome
    expected: State = dict.fromkeys([*range(20), 50, 51, 52], 0)
    assert dict(content(table)) == expected
    # Asked again it must not say that it is there: no later version was built on it.
    with pytest.raises(CommitUnknown, match="Look at the table"):
        stalled.run(table)
    replace(stalled, id="again").run(table)
    assert dict(content(table)) == expected | {777: 0}


def test_an_old_commit_is_known_after_the_versions_before_it_expired(
    root: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "GRACE", timedelta(0))
    table = make(root)
    ops = [the_op(verb, n) for n, verb in enumerate(VERBS) if verb != "overwrite"]
    for op in ops:
        op.run(table)
    for op in ops:
        number = op.run(table).version
        expire.expire(table, older_than=timedelta(0), keep=open_head(table).version - number + 1, dry_run=False)
        assert op.run(table).repeated, op


def test_a_store_without_put_if_absent_is_refused(bucket: Location, proxy: Proxy) -> None:
    from lake.errors import UnsafeStore
    from lake.storage import probe

    table = make(bucket)
    proxy.arm(Rule("strip"))
    faulty = through(proxy, table)
    before = set(Files(bucket).names())
    probe._proven.discard((proxy.url, bucket.uri.split("/")[2]))
    for act in (
        lambda: write.create_table(faulty.join("new.lance"), SCHEMA, pairs([1])),
        lambda: write.append(faulty, None, pairs([1])),
        lambda: the_op("merge", 1).run(faulty),
        lambda: the_op("update", 1).run(faulty),
        lambda: the_op("delete", 1).run(faulty),
        lambda: the_op("overwrite", 1).run(faulty),
        lambda: columns.add_columns(faulty, None, {"x": pa.int64()}),
    ):
        with pytest.raises(UnsafeStore, match="If-None-Match"):
            act()
    assert set(Files(bucket).names()) == before
