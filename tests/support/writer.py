"""Writes with ids of their own: done to a table, done to a plain dict, and replayed from the history.

``python -m tests.support.writer`` reads a location and a list of operations from its input, does them one after
the other, and prints the id of each that was acknowledged. So it can be run many times at once, and be killed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from lake.errors import CommitUnknown, Conflict, LakeError
from lake.storage import Location, probe
from lake.table import history, merge, rows, write
from lake.table.receipt import Receipt
from tests.support.s3 import BUCKET, ROOT
from tests.support.tables import content, download, pairs

State = dict[int, int]
Verb = Literal["append", "merge", "insert", "update", "delete", "overwrite"]
VERBS: tuple[Verb, ...] = ("append", "merge", "insert", "update", "delete", "overwrite")


@dataclass(frozen=True)
class Op:
    """One write: ``keys`` get the value ``n``."""

    id: str
    verb: Verb
    keys: tuple[int, ...]
    n: int

    def run(self, table: Location) -> Receipt:
        """Do it to a table of `tests.support.tables.SCHEMA`."""
        data, where = pairs(self.keys, self.n), f"id in ({','.join(map(str, self.keys))})"
        match self.verb:
            case "append":
                return write.append(table, None, data, commit_id=self.id)
            case "merge":
                return merge.merge(table, None, data, commit_id=self.id)
            case "insert":
                return merge.merge(table, None, data, mode="insert", commit_id=self.id)
            case "update":
                return rows.update(table, None, {"n": self.n}, where, commit_id=self.id)
            case "delete":
                return rows.delete(table, None, where, commit_id=self.id)
            case "overwrite":
                return write.overwrite(table, None, data, commit_id=self.id)

    def apply(self, state: State) -> State:
        """Do it to a dict."""
        new = dict.fromkeys(self.keys, self.n)
        match self.verb:
            case "append" | "merge":
                return state | new
            case "insert":
                return new | state
            case "update":
                return state | {k: self.n for k in self.keys if k in state}
            case "delete":
                return {k: v for k, v in state.items() if k not in new}
            case "overwrite":
                return new


def replay(table: Location, start: int, tried: Iterable[Op], acked: Collection[str]) -> State:
    """Check the history after version ``start`` against a dict, version by version; return the last state.

    Each acknowledged operation is there exactly once, each other one at most once, versions are contiguous,
    and each holds what the operations up to it, one after the other, make of the start.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _replay(download(table, Path(folder)), start, {op.id: op for op in tried}, acked)


def _replay(table: Location, start: int, by_id: Mapping[str, Op], acked: Collection[str]) -> State:
    versions = sorted((v for v in history.versions(table, None) if v.version >= start), key=lambda v: v.version)
    assert [v.version for v in versions] == list(range(start, start + len(versions)))
    state = dict(content(table, version=start))
    seen: list[str] = []
    for version in versions[1:]:
        if version.commit_id in by_id:
            seen.append(version.commit_id)
            state = by_id[version.commit_id].apply(state)
        assert content(table, version=version.version) == sorted(state.items()), (version, by_id.get(version.commit_id))
    assert len(seen) == len(set(seen)), "applied twice"
    # An operation that found nothing to do makes no version.
    assert set(acked) <= set(seen) | {op.id for op in by_id.values() if op.verb in ("insert", "update", "delete")}
    return state


def start(table: Location, ops: Iterable[Op]) -> subprocess.Popen[str]:
    """Begin to do operations in a process of its own."""
    order = {"uri": table.uri, "options": dict(table.options), "ops": [asdict(op) for op in ops]}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.writer"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    return process


def finish(process: subprocess.Popen[str]) -> list[Receipt]:
    """Wait for a process; return its receipts."""
    out, err = process.communicate()
    assert process.returncode in (0, -9), err
    return [Receipt(**json.loads(line)) for line in out.splitlines() if line.endswith("}")]


def persist(op: Op, table: Location, attempts: int = 20) -> Receipt:
    """Repeat an operation as the errors say, until it is acknowledged or refused for good."""
    for _ in range(attempts):
        try:
            return op.run(table)
        except (CommitUnknown, Conflict):
            continue
    raise AssertionError(f"{op} was never acknowledged")


def _main() -> None:
    order = json.loads(sys.stdin.readline())
    table = Location.of(order["uri"], order["options"])
    probe._proven.add((table.options.get("aws_endpoint", ""), BUCKET))  # the probe has its own test, and takes a second
    for given in order["ops"]:
        op = Op(**given)
        op = replace(op, keys=tuple(op.keys))
        try:
            receipt = op.run(table)
        except LakeError as error:
            print(f"{op.id}: {error!r}", flush=True)
        else:
            print(json.dumps(receipt.to_dict()), flush=True)


if __name__ == "__main__":
    _main()
