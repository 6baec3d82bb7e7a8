"""Jobs that look at how a table's vectors are spread."""

from __future__ import annotations

from typing import Literal

from lake.analytics import ClusterReport, DriftReport, cluster, drift
from lake.errors import InvalidInput
from lake.job.common import Analysis, Run

_TABLE = "table:"


class Cluster(Analysis):
    """Cluster rows, and write each row's cluster into a column; see `lake.cluster`.

    Parameters
    ----------
    html : str, optional
        Where the report is written, with its picture, on the machine that runs the job.
    """

    job: Literal["cluster"]
    clusters: int
    column: str | None = None
    where: str | None = None
    metric: str | None = None
    balanced: bool | float = False
    into_column: str = "cluster"
    arrange: bool | int = False
    rounds: int = 20
    seed: int = 0
    html: str | None = None

    def run(self, run: Run) -> ClusterReport:
        """Do it."""
        asked = self.asked(run)
        del asked["html"]
        report = cluster(self.open().open_table(self.table), **asked)
        if self.html is not None:
            report.save(self.html)
        return report


class Drift(Analysis):
    """Tell whether a table's vectors differ from those before; see `lake.drift`.

    Parameters
    ----------
    table : str
        The table as it is after.
    before : int or str, optional
        A version, a tag or a time of the table, or the name of another one after ``table:``. The same version by
        default, for filters that differ.
    after : int or str, optional
        A version, a tag or a time of the table; the newest by default.
    html : str, optional
        Where the report is written, with its pictures, on the machine that runs the job.
    """

    job: Literal["drift"]
    before: int | str | None = None
    after: int | str | None = None
    column: str | None = None
    where: str | None = None
    before_where: str | None = None
    after_where: str | None = None
    metric: str | None = None
    label: str | None = None
    clusters: int = 20
    k: int = 10
    sample: int = 2000
    permutations: int = 999
    alpha: float = 0.01
    seed: int = 0
    html: str | None = None

    def run(self, run: Run) -> DriftReport:
        """Do it."""
        if self.before is None and self.before_where == self.after_where:
            raise InvalidInput("drift: both sides are the same rows; give before:, or before_where: and after_where:")
        lk = self.open()
        after = lk.open_table(self.table)
        after = after if self.after is None else after.at(self.after)
        before = after
        if isinstance(self.before, str) and self.before.startswith(_TABLE):
            before = lk.open_table(self.before.removeprefix(_TABLE))
        elif self.before is not None:
            before = lk.open_table(self.table).at(self.before)
        asked = self.asked(run)
        for name in ("before", "after", "html"):
            del asked[name]
        report = drift(before, after, **asked)
        if self.html is not None:
            report.save(self.html)
        return report
