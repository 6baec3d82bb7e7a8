"""Jobs that look at how a table's vectors are spread."""

from __future__ import annotations

from typing import Literal

from lake.analytics import ClusterReport, cluster
from lake.job.common import Analysis, Run


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
