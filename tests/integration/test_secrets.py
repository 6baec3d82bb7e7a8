"""The key to the store is in no message, no log and no file."""

from __future__ import annotations

import itertools
import pickle
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from lake.errors import LakeError
from lake.storage import Files, Location, probe
from lake.table import commit, compact, expire, history, merge, pins, rows, write
from lake.table.snapshot import Snapshot, open_head
from tests.support.proxy import Proxy, Rule
from tests.support.s3 import SECRET, free_port, options
from tests.support.tables import SCHEMA, make, pairs

pytestmark = pytest.mark.s3

TOKEN = "CANARY-session-token"


def with_token(location: Location, endpoint: str | None = None, **more: str) -> Location:
    given = options(endpoint, **more) if endpoint else {**location.options, **more}
    return Location.of(location.uri, {**given, "aws_session_token": TOKEN})


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


ACTS: list[Callable[[Location], object]] = [
    lambda t: write.create_table(t, SCHEMA),
    lambda t: write.append(t, None, pairs([1])),
    lambda t: merge.merge(t, None, pairs([1])),
    lambda t: rows.update(t, None, {"n": 1}),
    lambda t: rows.delete(t, None, "id = 1"),
    lambda t: history.versions(t, None),
    lambda t: history.resolve(t, None, "nope"),
    compact.compact,
    lambda t: Files(t).read("nope"),
    lambda t: Files(t).write("x", b""),
    lambda t: list(Files(t).names()),
]
FAST = {"client_max_retries": "0", "client_retry_timeout": "1s", "connect_timeout": "1s", "timeout": "1s"}


def test_errors_show_no_secret(
    bucket: Location,
    proxy: Proxy,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("INFO")
    table = make(bucket)
    nowhere = with_token(table, f"http://127.0.0.1:{free_port()}", **FAST)
    no_bucket = with_token(Location.of("s3://no-such-bucket/t.lance", bucket.options))
    denied = with_token(table, proxy.url, **FAST)
    for place in (nowhere, denied):  # the probe of a store that fails repeats itself for long
        probe._proven.add((place.options["aws_endpoint"], place.uri.split("/")[2]))
    proxy.arm(Rule("deny", "t.lance", method="GET|PUT|POST|HEAD|DELETE"))

    def error_of(case: tuple[Callable[[Location], object], Location]) -> LakeError | None:
        act, place = case
        try:
            act(place)
        except LakeError as error:
            return error
        return None

    with ThreadPoolExecutor(12) as pool:  # each retries for seconds
        found = pool.map(error_of, itertools.product(ACTS, (nowhere, no_bucket, denied)))
        errors = [error for error in found if error is not None]
    assert len(errors) > len(ACTS) * 2
    text = "\n".join(map(shown, errors)) + caplog.text + "".join(capfd.readouterr())
    assert "CANARY" not in text


def test_files_of_a_table_hold_no_secret(bucket: Location) -> None:
    table = with_token(make(bucket))
    merge.merge(table, None, pairs([1, 50], 7), commit_id="job")
    rows.update(table, None, {"n": 3}, "id = 2")
    rows.delete(table, None, "id = 3")
    history.tag(Snapshot(table, 1), "x")
    history.create_branch(Snapshot(table, 2), "y")
    with pins.pin(Snapshot(table, 1), job="job"):
        compact.compact(table)
        files = {name: Files(bucket).read(name) for name in Files(bucket).names()}
    assert len(files) > 15
    assert not [name for name, data in files.items() if b"CANARY" in data or SECRET.encode() in data]


def test_what_users_hold_prints_no_secret_and_pickles_it_for_workers(bucket: Location) -> None:
    table = with_token(make(bucket))
    receipt = write.append(table, None, pairs([50]))
    held = (
        table,
        Snapshot(table, 1),
        receipt,
        history.versions(table, None),
        expire.expire(table),
        commit.pinned(table),
    )
    assert "CANARY" not in repr(held) + str(held)
    sent: Snapshot = pickle.loads(pickle.dumps(Snapshot(table, 1)))
    assert sent.location.options == table.options
    assert open_head(sent.location).count_rows() == 21
