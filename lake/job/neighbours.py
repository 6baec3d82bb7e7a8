"""Jobs that look at the neighbours of a table's rows."""

from __future__ import annotations

from typing import Literal

from lake.analytics import ClassifyReport, MineReport, OutlierReport, classify, mine, outliers
from lake.etl.spec import Names
from lake.job.common import Analysis, Common, Run
from lake.join import Forecast, JoinReport, knn_join


class KnnJoin(Common):
    """Find, for every row of one table, its nearest rows of another; see `lake.knn_join`.

    Parameters
    ----------
    left : str
        A table.
    right : str, optional
        Another one; by default the same, of which no row is its own neighbour.
    into : str
        The table of the result.
    dry_run : bool
        Only tell what would be done.
    """

    job: Literal["knn_join"]
    left: str
    into: str
    right: str | None = None
    k: int = 10
    left_column: str | None = None
    right_column: str | None = None
    left_where: str | None = None
    right_where: str | None = None
    left_columns: Names = ()
    right_columns: Names = ()
    metric: str | None = None
    within: float | None = None
    on: Names = ()
    recall: float = 0.95
    nprobe: int | None = None
    apart: bool | None = None
    memory: int | str = "1GiB"
    dry_run: bool = False

    def run(self, run: Run) -> JoinReport | Forecast:
        """Do it."""
        lk = self.open()
        left = lk.open_table(self.left)
        right = left if self.right is None else lk.open_table(self.right)
        own = type(self).model_fields.keys() - Common.model_fields.keys() - {"job", "left", "right"}
        given = {name: getattr(self, name) for name in own}
        joined = knn_join(left, right, **given, executor=run.engine, job_id=run.job_id, on_event=run.on_event)
        report: JoinReport | Forecast = joined if self.dry_run else joined.report
        return report


class Outliers(Analysis):
    """Score rows by their distance to their neighbours; see `lake.outliers`."""

    job: Literal["outliers"]
    into: str
    k: int = 10
    score: str = "kth"
    share: float = 0.01
    column: str | None = None
    where: str | None = None
    metric: str | None = None
    recall: float = 0.95

    def run(self, run: Run) -> OutlierReport:
        """Do it."""
        return outliers(self.open().open_table(self.table), **self.asked(run))


class Classify(Analysis):
    """Give rows the labels of their neighbours; see `lake.classify`.

    Parameters
    ----------
    labelled : str, optional
        The table to take labels from.
    """

    job: Literal["classify"]
    label: str
    into: str
    labelled: str | None = None
    k: int = 10
    least: float = 0.5
    sample: int = 500
    column: str | None = None
    where: str | None = None
    labelled_where: str | None = None
    metric: str | None = None
    recall: float = 0.95

    def run(self, run: Run) -> ClassifyReport:
        """Do it."""
        lk = self.open()
        labelled = None if self.labelled is None else lk.open_table(self.labelled)
        return classify(lk.open_table(self.table), **self.asked(run) | {"labelled": labelled})


class Mine(Analysis):
    """Mine hard negatives and positives; see `lake.mine`.

    Parameters
    ----------
    table : str
        Of the anchors.
    pool : str, optional
        The table to take positives and negatives from.
    """

    job: Literal["mine"]
    label: str
    into: str
    pool: str | None = None
    k: int = 50
    positives: int = 1
    negatives: int = 3
    margin: float | None = 0.0
    relative: float = 0.0
    skip: int = 0
    columns: Names = ()
    column: str | None = None
    where: str | None = None
    pool_where: str | None = None
    metric: str | None = None
    recall: float = 0.95

    def run(self, run: Run) -> MineReport:
        """Do it."""
        lk = self.open()
        pool = None if self.pool is None else lk.open_table(self.pool)
        return mine(lk.open_table(self.table), **self.asked(run) | {"pool": pool})
