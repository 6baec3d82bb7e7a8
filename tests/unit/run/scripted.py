"""Tasks that behave as told. Workers import this module by name, so it is not a test module."""

import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from lake.errors import InvalidInput


class NeedsKeyword(Exception):
    """Pickles, and then cannot be unpickled: as many libraries' errors do."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class Planned(Exception):
    pass


def runs(folder: Path, key: str | None = None) -> int:
    """How many attempts were begun, counted where all processes see it."""
    return len(list(folder.glob(f"{key or '*'}.*.run")))


def until_begun(folder: Path, count: int, key: str | None = None) -> None:
    """Wait for so many attempts."""
    deadline = time.monotonic() + 60
    while runs(folder, key) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{runs(folder, key)} attempts began, not {count}")
        time.sleep(0.01)


@dataclass(frozen=True)
class Scripted:
    """Fails, or kills its process, at its first attempts; then returns its key's length.

    It ends neither way before so many attempts, of whatever tasks with the same folder, have begun.
    """

    key: str
    folder: str
    fails: int = 0
    kills: int = 0
    seconds: float = 0.0
    message: str = "as planned"
    after: int = 0

    def run(self) -> int:
        folder = Path(self.folder)
        attempt = runs(folder, self.key) + 1
        (folder / f"{self.key}.{attempt}.run").write_text(str(os.getpid()))
        until_begun(folder, self.after)
        time.sleep(self.seconds)
        if attempt <= self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if attempt <= self.fails:
            self.fail()
        return len(self.key)

    def fail(self) -> None:
        raise Planned(self.message)


@dataclass(frozen=True)
class Raises:
    """Always raises an error of the kind that is asked for."""

    key: str
    kind: str

    def run(self) -> int:
        if self.kind == "keyword":
            raise NeedsKeyword("no such code", code=7)
        if self.kind == "exit":
            sys.exit(3)
        if self.kind == "data":
            raise InvalidInput("row 7: NaN")
        raise ValueError(self.kind)


@dataclass(frozen=True)
class Waits:
    """Ends when `count` tasks with the same folder have begun: only if they run at the same time."""

    key: str
    folder: str
    count: int

    def run(self) -> int:
        folder = Path(self.folder)
        (folder / f"{self.key}.1.run").touch()
        until_begun(folder, self.count)
        return self.count


@dataclass(frozen=True)
class WaitsForCopy:
    """Ends when a copy of it has begun."""

    key: str
    folder: str

    def run(self) -> int:
        (Path(self.folder) / f"{self.key}.{uuid.uuid4().hex}.run").touch()
        until_begun(Path(self.folder), 2, self.key)
        return len(self.key)


@dataclass(frozen=True)
class Holds:
    """Does not pickle."""

    key: str
    function: Callable[[], int] = field(default=lambda: 1)

    def run(self) -> int:
        return self.function()


@dataclass(frozen=True)
class ReturnsLock:
    """Its receipt does not pickle."""

    key: str

    def run(self) -> object:
        return threading.Lock()


@dataclass(frozen=True)
class Environment:
    """Returns a variable of its process."""

    key: str

    def run(self) -> str | None:
        return os.environ.get(self.key)


@dataclass(frozen=True)
class Pid:
    key: str

    def run(self) -> int:
        return os.getpid()


@dataclass(frozen=True)
class KillsAncestor:
    """Kills, at its first attempt, the process that its own descends from, by so many generations."""

    key: str
    folder: str
    generations: int

    def run(self) -> int:
        folder = Path(self.folder)
        attempt = runs(folder, self.key) + 1
        (folder / f"{self.key}.{attempt}.run").touch()
        if attempt == 1:
            [*_, victim] = psutil.Process().parents()[: self.generations]
            victim.kill()
            time.sleep(60)
        return attempt


@dataclass(frozen=True)
class Loaded:
    """Tells whether its process has loaded a module."""

    key: str
    module: str

    def run(self) -> bool:
        return self.module in sys.modules


@dataclass(frozen=True)
class Threads:
    """Returns how many threads numpy's matrix products use."""

    key: str

    def run(self) -> int:
        import numpy as np
        from threadpoolctl import threadpool_info

        assert np.ones(2) @ np.ones(2) == 2
        (count,) = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
        return int(count)


@dataclass(frozen=True)
class Counted:
    """Says how many rows it goes through."""

    key: str
    rows: int

    def run(self) -> None:
        pass


@dataclass(frozen=True)
class Nothing:
    key: str

    def run(self) -> None:
        pass
