"""The model that a table is compared with: rows as dicts, one state for each version, one line for each branch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

import lake
from lake.storage import Location

DIMENSION = 4
WORDS = ("amber", "birch", "cedar", "dune", "ember")
EXTRAS = ("first", "second")
INDEXES = {"vector_idx", "text_idx", "number_idx", "id_idx"}
Row = dict[str, Any]
Vector = npt.NDArray[np.float32]

ids = st.lists(st.integers(0, 60), min_size=1, max_size=25, unique=True)
seeds = st.integers(0, 2**31)


def make_vector(rng: np.random.Generator) -> Vector:
    # Few distinct places, so that updates move rows into and out of each other's neighbourhood.
    return (rng.integers(-3, 4, DIMENSION) + rng.random(DIMENSION) * 0.01 + 0.001).astype(np.float32)


def make_row(rng: np.random.Generator, key: int) -> Row:
    vector = make_vector(rng) if rng.random() < 0.9 else None
    words = rng.choice(WORDS, 2, replace=False)
    return {"id": key, "text": " ".join(words), "number": int(rng.integers(0, 10)), "vector": vector}


def make_rows(seed: int, keys: Iterable[int]) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [make_row(rng, key) for key in keys]


@dataclass(frozen=True)
class State:
    """What a version holds.

    Parameters
    ----------
    rows : dict
        Key to row, under the names that `make_row` uses; a value of an added column that a row lacks is null.
    number : str
        What the column "number" is called.
    extras : tuple of str
        Columns that were added.
    """

    rows: Mapping[int, Row]
    number: str = "number"
    extras: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        return {"id", "text", self.number, "vector", *self.extras}

    def with_rows(self, rows: Iterable[Row]) -> State:
        """Put rows in, or some columns of rows."""
        return replace(self, rows={**self.rows, **{r["id"]: {**self.rows.get(r["id"], {}), **r} for r in rows}})

    def columns(self, rows: Sequence[Row], names: Sequence[str] = ("id", "text", "number", "vector")) -> dict[str, Any]:
        """Give rows as the table wants them, which may call a column otherwise."""
        given = {"number": self.number}
        return {given.get(n, n): [as_plain(row[n]) for row in rows] for n in names}


def as_plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


@dataclass(frozen=True)
class Done:
    """A write with a commit id, to be repeated."""

    verb: str
    version: int
    data: Mapping[str, Any]


@dataclass
class Line:
    """The main line or a branch: a handle that lives as long as the example, and what it must show."""

    table: lake.Table
    state: State
    past: dict[int, State] = field(default_factory=dict)
    done: dict[str, Done] = field(default_factory=dict)


@dataclass(frozen=True)
class Tag:
    line: str | None
    version: int
    state: State


class Model(RuleBasedStateMachine):
    """Several lines of one table, of which one at a time is written to; the rules are in the mixins."""

    root: Location
    kind: str

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str | None, Line] = {}
        self.current: str | None = None
        self.bases: set[int] = set()  # versions of the main line at which branches began
        self.tags: dict[str, Tag] = {}
        self.count = 0
        self.checked: object = None

    @property
    def line(self) -> Line:
        return self.lines[self.current]

    @property
    def table(self) -> lake.Table:
        return self.line.table

    @property
    def state(self) -> State:
        return self.line.state

    @property
    def rows(self) -> Mapping[int, Row]:
        return self.line.state.rows

    def settle(self, state: State) -> None:
        """Remember what the newest version of the current line is to be."""
        self.line.state = state
        self.line.past[self.table.version] = state

    def fresh(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"
