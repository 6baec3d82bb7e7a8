"""The job ledger: receipts of finished tasks, so that a job that was interrupted does not repeat them.

A receipt is one small JSON file with a checksum, bound to the job's parameters. Nothing that is read back is
executed, and an entry that is torn or changed counts as not done.
"""

import hashlib
import json
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any, Generic, Protocol

from lake.errors import InvalidInput
from lake.run.events import Callback, EntryRefused, TaskSkipped, ignore
from lake.run.task import Executor, R, Stage, TaskResult, check_name

_JOB = "_job.json"  # no stage can have this name
_READERS = 16  # an object store takes its time for each file, and any number of files at a time
_GARBLED = (ValueError, TypeError, LookupError, AttributeError)


class Store(Protocol):
    """Small files under one place; `lake.storage.Files` is one. `read` is called from several threads."""

    def names(self, folder: str | None = None) -> Iterable[str]:
        """Yield the names of all files, or of those below a folder."""
        ...

    def read(self, name: str) -> bytes:
        """Return a whole file."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file."""
        ...


class Ledger(Generic[R]):
    """What a job has done so far.

    Parameters
    ----------
    store : Store
        Where its files lie: the job's own folder.
    job : str
        The job's id, for messages.
    encode, decode : callable
        A receipt to something that JSON can hold, and back. `decode` sees what was stored, so it checks it.
    fingerprint : str
        What the job is about to do (its parameters). A ledger of other parameters is refused. It is stored as it
        is: hash it where it could hold a secret.

    Raises
    ------
    InvalidInput
        If the ledger belongs to a job with the same id and other parameters.
    """

    def __init__(
        self,
        store: Store,
        job: str,
        encode: Callable[[R], Any],
        decode: Callable[[Any], R],
        fingerprint: str = "",
    ) -> None:
        self.job = job
        self._store = store
        self._encode = encode
        self._decode = decode
        self._fingerprint = fingerprint
        self._torn = not self._claim()

    def receipts(self, stage: str, on_event: Callback = ignore) -> dict[str, R]:
        """Return the receipts of a stage by task key; refused entries are reported to `on_event`."""
        if self._torn:
            self._torn = False
            on_event(EntryRefused(self.job, _JOB, "ValueError"))
        found: dict[str, R] = {}
        names = list(self._store.names(check_name("stage", stage)))
        with ThreadPoolExecutor(_READERS) as pool:
            for name, data in zip(names, pool.map(self._store.read, names), strict=True):
                try:
                    job, key, value = _open(data)
                    if job != self._fingerprint:
                        raise ValueError("recorded by a job with other parameters")
                    found[key] = self._decode(value)
                except _GARBLED as error:
                    on_event(EntryRefused(self.job, name, type(error).__name__))
        return found

    def record(self, stage: str, result: TaskResult[R]) -> None:
        """Note that a task is done."""
        name = hashlib.sha256(result.key.encode()).hexdigest()[:32]
        data = _seal(self._fingerprint, result.key, self._encode(result.value))
        self._store.write(f"{check_name('stage', stage)}/{name}.json", data)

    def clear(self) -> None:
        """Forget the job; its results are committed."""
        for name in list(self._store.names()):
            self._store.delete(name)

    def _claim(self) -> bool:
        """Write the job's entry, or compare with it; return whether it was absent or whole."""
        whole = True
        if _JOB in set(self._store.names()):
            try:
                known, _, _ = _open(self._store.read(_JOB))
            except _GARBLED:
                whole = False  # says nothing about the job; receipts carry the fingerprint too
            else:
                if known != self._fingerprint:
                    raise InvalidInput(
                        f"job {self.job!r} was begun with other parameters: finish it as it was, or choose another id"
                    )
                return True
        self._store.write(_JOB, _seal(self._fingerprint, "", None))
        return whole


def run_stage(
    executor: Executor, stage: Stage[R], ledger: Ledger[R] | None = None, on_event: Callback = ignore
) -> Generator[TaskResult[R], None, None]:
    """Run the tasks of a stage that the ledger does not hold yet; yield all results, recorded ones first.

    A receipt is recorded before it is yielded: what the caller has seen is never run again. Closing the
    generator cancels the rest.
    """
    done = {} if ledger is None else ledger.receipts(stage.name, on_event)
    left = []
    for task in stage.tasks:
        if task.key in done:
            on_event(TaskSkipped(stage.name, task.key))
            yield TaskResult(task.key, done[task.key], 0, 0.0)
        else:
            left.append(task)
    if not left:
        return
    with closing(executor.run(replace(stage, tasks=left), on_event)) as results:
        for result in results:
            if ledger is not None:
                ledger.record(stage.name, result)
            yield result


def _seal(job: str, key: str, value: Any) -> bytes:
    text = json.dumps({"job": job, "key": key, "value": value}, sort_keys=True)
    return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n".encode()


def _open(data: bytes) -> tuple[str, str, Any]:
    digest, _, text = data.decode().partition("\n")
    text = text.removesuffix("\n")
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise ValueError("the checksum differs")
    entry = json.loads(text)
    return entry["job"], entry["key"], entry["value"]
