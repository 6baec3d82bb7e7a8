"""What tasks compare, and their receipts."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lance.fragment import FragmentMetadata

from lake.join.conditions import Conditions
from lake.join.partitions import Partitions
from lake.join.runs import Ordered
from lake.join.side import Side, Span
from lake.join.sort import Centroids
from lake.nearest.kernel import Ids
from lake.storage import Location
from lake.table.parts import Part, PartedWrite

Measured = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Comparison:
    """What the tasks of a join compare, and how.

    Parameters
    ----------
    left, right : Side
    k, metric, within
        See `lake.join.knn_join`.
    conditions : Conditions
    target : PartedWrite
        Where the result goes.
    folder : Location
        What tasks leave for each other.
    centroids : Centroids or None
        Of partitions; ``None`` where every row meets every row.
    runs : tuple of Ordered
    probes : int
        How many partitions each row of the left side looks into.
    sample : tuple of int
        Row ids: those look into all partitions besides, which tells the recall of the others.
    """

    left: Side
    right: Side
    k: int
    metric: str
    within: float | None
    conditions: Conditions
    target: PartedWrite
    folder: Location
    centroids: Centroids | None = None
    runs: tuple[Ordered, ...] = ()
    probes: int = 0
    sample: tuple[int, ...] = ()

    @property
    def ranges(self) -> int:
        """Ranges of the ids that count, those of several runs once."""
        return sum({run.live: run.ranges for run in self.runs}.values())

    def partitions(self) -> Partitions:
        """Open the partitions of the right side."""
        return Partitions(self.runs, self.folder, normalise=self.metric == "cosine")


@dataclass(frozen=True)
class OfBlock:
    """A task of a block of the left side.

    Parameters
    ----------
    what : Comparison
    spans : tuple of Span
        The rows of the block.
    number : int
        Of the block.
    """

    what: Comparison
    spans: tuple[Span, ...]
    number: int

    @property
    def key(self) -> str:
        """The number."""
        return f"{self.number:06d}"

    @property
    def rows(self) -> int:
        """How many it goes through."""
        return sum(held for _, _, held in self.spans)


@dataclass(frozen=True)
class Done:
    """The receipt of a task.

    Parameters
    ----------
    seconds : mapping of str to float
        By stage.
    part : Part or None
        The files of the result's rows.
    file : str
        What the task left for the next stage, in the job's folder.
    counts : tuple of int
        Rows that it has left: of `SendBlock` for each region, of `JoinPiece` those of the piece and of the sample.
    without : int
        Rows of the left side that have no vector.
    compared : int
        Pairs whose distance was computed, those of the sample left out.
    read_bytes : int
        Of vectors, of both sides.
    device : str
        Where they were compared.
    measured : tuple of (int, int)
        For each row of the sample, how many of its true neighbours it has found, and how many there are.
    """

    seconds: dict[str, float] = field(hash=False)
    part: Part | None = None
    file: str = ""
    counts: tuple[int, ...] = ()
    without: int = 0
    compared: int = 0
    read_bytes: int = 0
    device: str = ""
    measured: Measured = ()


def encode(done: Done) -> dict[str, Any]:
    """Turn a receipt into what JSON holds."""
    part = done.part and {"fragments": [f.to_json() for f in done.part.fragments], "rows": done.part.rows}
    return vars(done) | {"part": part}


def decode(data: dict[str, Any]) -> Done:
    """Turn what `encode` made back into a receipt."""
    part = data["part"]
    if part is not None:
        part = Part(tuple(FragmentMetadata.from_json(json.dumps(f)) for f in part["fragments"]), part["rows"])
    return Done(**(data | {"part": part, "counts": tuple(data["counts"])}))


def agreement(found: Ids, true: Ids) -> Measured:
    """Tell for each row how many of its true neighbours it has found, and how many there are."""
    return tuple(
        (len(np.intersect1d(mine[mine >= 0], best)), int((best >= 0).sum()))
        for mine, best in zip(found, true, strict=True)
    )


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Count the time since the last lap for a stage."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now
