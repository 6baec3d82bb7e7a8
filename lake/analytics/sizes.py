"""What a clustering found and did, for people and for programs, with a picture of the sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from lake.analytics import picture

if TYPE_CHECKING:
    from rich.text import Text

_SHOWN = 200


@dataclass(frozen=True, kw_only=True)
class ClusterReport:
    """What was found and done: ``rows = sum(sizes) + without_vector``.

    Parameters
    ----------
    job : str
        The job's id.
    table : str
    version : int
        The version that was read, and whose rows are labelled.
    column : str
        Where the clusters are.
    metric : str
    rows : int
        Rows that passed the filter.
    without_vector : int
        Those among them that have none; they have no cluster.
    labelled : int
        Rows that got a cluster: the others have changed, or gone, since they were read.
    sizes : tuple of int
        Rows of each cluster.
    capacity : int or None
        How many rows a cluster may hold, where sizes are bounded.
    moved : int or None
        Rows that the bound has moved in the end, besides those that prices did.
    inertia : float
        The sum of the rows' distances from their centroids; smaller is tighter, and more clusters make it smaller.
    rounds : int
        Passes over the table.
    changed : int
        Rows that had another cluster in the round before the last.
    settled : bool
        Whether so few had that rounds came to an end by themselves; otherwise more of them would go on.
    labelled_version : int
        The version that holds the clusters.
    arranged_version : int or None
        The version whose rows are in the order of the clusters.
    seconds : float
        Wall time of this run.
    repeated : bool
        The job was done before; nothing was done now, and the counts are what it did then.
    """

    job: str
    table: str
    version: int
    column: str
    metric: str
    rows: int
    without_vector: int
    labelled: int
    sizes: tuple[int, ...]
    capacity: int | None
    moved: int | None
    inertia: float
    rounds: int
    changed: int
    labelled_version: int
    arranged_version: int | None
    settled: bool = True
    seconds: float = 0.0
    repeated: bool = False

    @property
    def clusters(self) -> int:
        """How many clusters there are."""
        return len(self.sizes)

    @property
    def clustered(self) -> int:
        """Rows that have a cluster."""
        return sum(self.sizes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __rich__(self) -> Text:
        from rich.text import Text  # who prints nothing need not load it

        return Text(str(self))

    def _lines(self) -> list[str]:
        done = " is done already" if self.repeated else ""
        lacking = f"{self.without_vector:,} without a vector"
        sizes = f"smallest {min(self.sizes):,}, median {median(self.sizes):,.0f}, largest {max(self.sizes):,}"
        if empty := sum(size == 0 for size in self.sizes):
            sizes += f"; {empty:,} are empty, since vectors coincide"
        if self.capacity is not None:
            sizes += f"; at most {self.capacity:,} allowed, {self.moved:,} rows moved for it"
        unsettled = "" if self.settled else ", not settled: more rounds would go on"
        lines = [
            f"{self.job}{done}: {self.table} version {self.version}",
            f"{self.rows:,} rows = {self.clustered:,} in {self.clusters:,} clusters + {lacking}",
            f"sizes: {sizes}",
            f"mean distance from the centroid ({self.metric}): {self.inertia / max(1, self.clustered):.4g}",
            f"{self.rounds} rounds, {self.changed:,} rows changed in the last{unsettled}; {self.seconds:.1f} s",
            f"column {self.column!r}: version {self.labelled_version}",
        ]
        if self.labelled < self.clustered:
            lines.append(f"{self.clustered - self.labelled:,} rows have changed or gone since they were read")
        if self.arranged_version is not None:
            lines.append(f"arranged by cluster: version {self.arranged_version}; indexes are to be built again")
        return lines

    def _repr_html_(self) -> str:
        sizes = sorted(self.sizes, reverse=True)
        shown = sizes if len(sizes) <= _SHOWN else [sizes[i * len(sizes) // _SHOWN] for i in range(_SHOWN)]
        bars = picture.columns(shown, self.capacity)
        title = f"Rows of each of the {len(sizes):,} clusters, the largest first"
        bound = "" if self.capacity is None else "; the line is the bound"
        return picture.page(self._lines(), [(title, f"Even heights are even clusters{bound}.", bars)])

    def save(self, path: str | Path) -> Path:
        """Write the report and its picture into an HTML file that needs nothing else."""
        return picture.save(path, f"{self.job}: clusters of {self.table}", self._repr_html_())
