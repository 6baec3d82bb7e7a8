"""What a join will do: which partitions it reads, how many tasks, what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from lake.errors import InvalidInput, MemoryExceeded
from lake.join.side import Side
from lake.join.source import Source, visited
from lake.nearest.kernel import METRICS

MOST_NEIGHBOURS = 1000
TRAINING_FLOP = 150e9  # a fraction of what an index is given: centroids of a join are used once
BASE_BYTES = 460 << 20  # the interpreter, its libraries and compiler, and what Lance holds while it reads and writes
_LEAST_ROWS = 256
_UNBROKEN = 8  # rows of a range of ids that live, about, until they are counted
_PROBES = 64  # what is reckoned with until a sample has told how many it takes
_REGIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SPREAD = 1.1  # regions more that a row looks into when they are halved, measured on text embeddings
# While a row of the right side is read and brought into bytes, so many pairs are compared; and to send a row of the
# left side, which is written, read, and compared in more places, takes as long as so many of those. Measured on files
# of this machine, and reckoned for stores from which each worker gets some 300 MB a second.
_PAIRS, _PAIRS_AFAR = 120, 800
_SENT, _SENT_AFAR = 10, 5


@dataclass(frozen=True)
class Cut:
    """How a join is cut into tasks; see `Plan`."""

    block_rows: int
    most_rows: int
    regions: int


@dataclass(frozen=True)
class Plan:
    """A join, every choice made.

    Parameters
    ----------
    left, right : Side
    k : int
    metric : str
    within : float or None
    recall : float or None
        The target; ``None`` if `probes` was given.
    probes : int or None
    source : Source
    left_rows, right_rows : mapping of int to int
        Rows by fragment, those without a vector among them.
    memory : int
        Bytes that each worker may hold.
    workers : int
    payload_bytes : int
        Of what the result takes of one row of the left side.
    conditions : int
        Comparisons of each pair.
    without_value : int
        Rows of the left side in which a column of the conditions is null.
    ranges : int or None
        Of the ids of rows in order that are alive and pass the filter, once they are counted; see `lake.join.living`.
    """

    left: Side
    right: Side
    k: int
    metric: str
    within: float | None
    recall: float | None
    probes: int | None
    source: Source
    left_rows: Mapping[int, int] = field(hash=False)
    right_rows: Mapping[int, int] = field(hash=False)
    memory: int = 1 << 30
    workers: int = 1
    payload_bytes: int = 0
    conditions: int = 0
    without_value: int = 0
    ranges: int | None = None

    @property
    def rows(self) -> tuple[int, int]:
        """Rows of the left and of the right side."""
        return sum(self.left_rows.values()), sum(self.right_rows.values())

    @property
    def visited(self) -> float:
        """The share of the right side that a row is expected to meet."""
        if self.source.how == "all":
            return 1.0
        if self.probes is not None:
            return min(1.0, self.probes / self.source.partitions)
        return visited(self.source.partitions)

    @property
    def flop(self) -> float:
        """Floating-point operations of the matrix products."""
        left, right = self.rows
        pairs = left * (right * self.visited + self.source.partitions)
        return 2.0 * self.left.dimension * (pairs + sum(self.source.loose.values()) * self.source.partitions)

    @property
    def training(self) -> float:
        """Floating-point operations of finding centroids, where no index has any: ten rounds of 64 points for each."""
        if self.source.how != "sort" or self.source.index is not None:
            return 0.0
        return min(TRAINING_FLOP, 10 * 64 * 2.0 * self.left.dimension * self.source.partitions**2)

    @property
    def read_bytes(self) -> int:
        """Bytes of vectors that all tasks read together."""
        left, right = self.rows
        sent = int(left * self.met(self.regions)) if self.regions > 1 else 0
        return 4 * self.left.dimension * (left + sent + right * (self.tasks // self.regions))

    @property
    def blocks(self) -> int:
        """Tasks that the left side is cut into."""
        return max(1, -(-self.rows[0] // self.block_rows))

    @property
    def block_rows(self) -> int:
        """Rows of the left side that a task begins with: all workers busy, and as much as memory allows."""
        return min(max(_LEAST_ROWS, -(-self.rows[0] // self.workers)), self.most_rows)

    @property
    def most_rows(self) -> int:
        """Rows of the left side that a task may hold."""
        vectors = (2 * 4 + 1) * self.left.dimension  # in floats, as they come and in their order, and in bytes
        found, routes = 24 * self.k, 24 * (self.probes or _PROBES)
        return self._fit(vectors + found + routes + 2 * self.payload_bytes + 64)

    @property
    def regions(self) -> int:
        """Groups of neighbouring partitions, whose tasks get the rows of the left side that look there.

        With 1, each task reads all that its block of the left side needs: the right side is read once for each block.
        With more it is read once in all, if what looks into a region fits into memory, and rows of the left side are
        moved instead. Whatever gives each worker less to do is chosen.
        """
        if self.source.how == "all":
            return 1
        return min((count for count in _REGIONS if count <= max(1, self.source.partitions // 4)), key=self._cost)

    def cut(self, probes: int, ranges: int) -> Cut:
        """Cut the join into tasks, once it is known how many partitions each row looks into, and which rows live."""
        known = replace(self, probes=probes or None, ranges=ranges)
        return Cut(known.block_rows, known.most_rows, known.regions)

    @property
    def here(self) -> bool:
        """Whether partitions are files of this machine: of the right side, or left by the job beside the left one."""
        side = self.left if self.source.how == "sort" else self.right
        return side.snapshot.location.scheme == "file"

    @property
    def tasks(self) -> int:
        """Tasks that compare rows."""
        return self.blocks if self.regions == 1 else self.regions * self._pieces(self.regions)

    def _cost(self, regions: int) -> float:
        """Tell what each worker has to do, in rows of the right side that are read and brought into bytes meanwhile."""
        left, right = self.rows
        tasks = self.blocks if regions == 1 else regions * self._pieces(regions)
        sent = left * self.met(regions) * (_SENT if self.here else _SENT_AFAR) if regions > 1 else 0
        read = right * (tasks // regions)
        pairs = left * right * self.visited / (_PAIRS if self.here else _PAIRS_AFAR)
        return (sent + read + pairs) / min(self.workers, tasks)

    def _pieces(self, regions: int) -> int:
        """Count the tasks of a region, each of which reads it."""
        return max(1, -(-int(self.rows[0] * self.met(regions) / regions) // self.most_rows))

    def met(self, regions: int) -> float:
        """Tell how many regions a row of the left side is expected to look into."""
        probes = self.probes or _PROBES
        anywhere = regions * probes / max(1, self.source.partitions)
        return min(regions, probes, max(1 + _SPREAD * float(np.log2(regions)), anywhere))

    @property
    def sort_rows(self) -> int:
        """Rows of the right side that one task sorts."""
        right = sum(self.source.loose.values())
        shared = max(_LEAST_ROWS, -(-right // self.workers))
        return min(shared, self._fit(5 * 4 * self.left.dimension + 64))

    def _fit(self, row_bytes: int) -> int:
        centroids = 4 * self.left.dimension * self.source.partitions * 2
        left, right = self.rows
        checks = 8 * (self.conditions + 1) * (left + right) if self.conditions else 0
        ranges = right // _UNBROKEN if self.ranges is None else self.ranges
        filtered = self.source.how == "index" or (self.source.how == "clusters" and self.right.where)
        fixed = BASE_BYTES + centroids + checks + (16 * ranges if filtered else 0)
        fixed += self.source.clusters.held_bytes if self.source.clusters is not None else 0
        room = self.memory - fixed
        if room < _LEAST_ROWS * row_bytes:
            least = fixed + _LEAST_ROWS * row_bytes
            raise too_little("a join of these tables needs", least, self.memory)
        return room // row_bytes


def too_little(what: str, least: int, given: int) -> MemoryExceeded:
    """Say how much memory a worker needs at least, as a caller would give it."""
    mib = 1 << 20
    return MemoryExceeded(f"{what} memory='{-(-least // mib)}MiB' at least, not {given // mib:,} MiB")


def check(
    left: Side, right: Side, *, k: int, metric: str, recall: float | None, probes: int | None, within: float | None
) -> None:
    """Refuse a join that makes no sense.

    Raises
    ------
    InvalidInput
    """
    for side in (left, right):
        side.check()
    if left.dimension != right.dimension:
        raise InvalidInput(
            f"the left column {left.column!r} has {left.dimension} dimensions, the right one {right.column!r} "
            f"{right.dimension}"
        )
    if metric not in METRICS:
        raise InvalidInput(f"metric={metric!r}: a join knows {', '.join(METRICS)}")
    _check_numbers(k, metric, recall, probes, within)


def _check_numbers(k: int, metric: str, recall: float | None, probes: int | None, within: float | None) -> None:
    for name, number in (("k", k), ("nprobe", probes)):
        if number is not None and type(number) is not int:
            raise InvalidInput(f"{name}={number!r}: give a whole number")
    if not 1 <= k <= MOST_NEIGHBOURS:
        raise InvalidInput(f"k={k}: give 1 to {MOST_NEIGHBOURS:,}")
    if within is not None and within <= 0 and metric != "dot":
        raise InvalidInput(f"within={within}: no {metric} distance is less; give one above 0")
    if recall is None and probes is None:
        raise InvalidInput("recall=None: give a share, or nprobe=")
    if isinstance(recall, bool | str) or (recall is not None and not 0 < recall <= 1):
        raise InvalidInput(f"recall={recall!r}: give a share above 0, and 1.0 for the exact join")
    if probes is not None and probes < 1:
        raise InvalidInput(f"nprobe={probes}: give 1 or more")
