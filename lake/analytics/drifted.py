"""What a comparison of two sets of vectors found, for people and for programs, with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake.analytics import picture
from lake.analytics.growth import Growth
from lake.analytics.twosample import Statistic

if TYPE_CHECKING:
    from rich.text import Text

_MEANS = {
    "centroid shift": "How far the mean moved, as a multiple of the vectors' spread. Smaller is less drift.",
    "MMD": "How differently the two are spread, in place and in shape. Smaller is less drift; about 0 is none.",
    "neighbours of the same side": "The share of the nearest rows that come from a row's own side. Smaller is less "
    "drift; 1 is two sets that lie apart.",
}
_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """What was found.

    Parameters
    ----------
    job : str
        The job's id.
    before, after : str
        What was compared: tables, versions, filters.
    metric : str
    rows_before, rows_after : int
        Rows that passed the filters.
    without_vector_before, without_vector_after : int
        Those among them that have none; they take no part.
    statistics : tuple of Statistic
        Of samples: how many rows, what was seen, what chance gives.
    clusters : tuple of Growth
        Of all rows, by common centroids; those that changed most come first.
    threshold : float
        A smaller `p` is called drift: alpha, shared out among the three statistics and the clusters.
    plane : tuple of two lists of points
        Some rows of both samples, in the plane in which both together vary most.
    seconds : float
        Wall time of this run.
    repeated : bool
        The job was done before; this is what it told then.
    """

    job: str
    before: str
    after: str
    metric: str
    rows_before: int
    rows_after: int
    without_vector_before: int
    without_vector_after: int
    statistics: tuple[Statistic, ...] = field(repr=False)
    clusters: tuple[Growth, ...] = field(repr=False)
    threshold: float
    plane: tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]] = field(repr=False)
    seconds: float = 0.0
    repeated: bool = False

    @property
    def drifted(self) -> bool:
        """Whether anything is unlikely to be chance."""
        return any(s.p < self.threshold for s in self.statistics) or any(c.changed for c in self.clusters)

    @property
    def grew(self) -> list[Growth]:
        """The clusters whose share grew by more than chance."""
        return [c for c in self.clusters if c.changed == "grew"]

    @property
    def shrank(self) -> list[Growth]:
        """The clusters whose share shrank by more than chance."""
        return [c for c in self.clusters if c.changed == "shrank"]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> DriftReport:
        """Make it of what `to_dict` gave."""
        statistics = tuple(Statistic(**s | {"bins": tuple(s["bins"])}) for s in told["statistics"])
        clusters = tuple(Growth(**c) for c in told["clusters"])
        known = {name: value for name, value in told.items() if name != "drifted"}
        return cls(**known | {"statistics": statistics, "clusters": clusters})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self) | {"drifted": self.drifted}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __rich__(self) -> Text:
        from rich.text import Text  # who prints nothing need not load it

        return Text(str(self))

    def _lines(self) -> list[str]:
        done = " is done already" if self.repeated else ""
        lines = [
            f"{self.job}{done}: " + ("DRIFT" if self.drifted else "no drift"),
            f"before: {self.before}: {self.rows_before:,} rows, {self.without_vector_before:,} without a vector",
            f"after: {self.after}: {self.rows_after:,} rows, {self.without_vector_after:,} without a vector",
        ]
        for s in self.statistics:
            told = "drift" if s.p < self.threshold else "as by chance"
            lines.append(
                f"{s.name}: {s.value:.4g}, by chance {s.chance:.4g}, p = {s.p:.3g}: {told} "
                f"({s.rows_before:,} and {s.rows_after:,} rows)"
            )
        for verb, found in (("grew", self.grew), ("shrank", self.shrank)):
            names = "; ".join(f"{c.name} {c.share_before:.1%} to {c.share_after:.1%}" for c in found[:_LISTED])
            more = f"; {len(found) - _LISTED} more" if len(found) > _LISTED else ""
            lines.append(f"{len(found)} of {len(self.clusters)} clusters {verb}{': ' if names else ''}{names}{more}")
        lines.append(f"p below {self.threshold:.2g} is called drift; {self.seconds:.1f} s")
        return lines

    def _repr_html_(self) -> str:
        counted = (
            "Each dot is a share of all rows: blue before, orange after, with its 95% interval. ● marks what chance "
            f"does not explain. Counted on {self.rows_before:,} and {self.rows_after:,} rows."
        )
        shares = [
            (
                c.name,
                c.share_before,
                c.share_after,
                max(0.0, c.share_before + c.low),
                c.share_before + c.high,
                bool(c.changed),
            )
            for c in self.clusters
        ]
        sections = [("Clusters, those that changed most first", counted, picture.shifts(shares))]
        for s in self.statistics:
            means = (
                f"{_MEANS[s.name]} Columns: what chance gives; line: what was seen, p = {s.p:.3g}. "
                f"Computed on {s.rows_before:,} and {s.rows_after:,} rows."
            )
            sections.append((s.name[0].upper() + s.name[1:], means, picture.histogram(s.bins, s.low, s.high, s.value)))
        where = (
            f"{len(self.plane[0]):,} rows before (blue) and {len(self.plane[1]):,} after (orange), in the plane in "
            "which both together vary most. Where one colour is alone, rows came or went."
        )
        sections.append(("Where rows lie", where, picture.scatter(*self.plane)))
        return picture.page(self._lines(), sections)

    def save(self, path: str | Path) -> Path:
        """Write the report and its pictures into an HTML file that needs nothing else."""
        return picture.save(path, f"{self.job}: drift", self._repr_html_())
