"""`mine`: hard negatives and hard positives to train an embedding with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lake.analytics.analyse import Tables, analyse
from lake.analytics.neighbours import Analysis, How
from lake.analytics.reports import MineReport
from lake.analytics.roles import rows_of, target_of
from lake.analytics.triplets import check_rule
from lake.analytics.votes import check_label
from lake.errors import InvalidInput
from lake.run import Callback, Executor


def mine(
    anchors: Tables,
    *,
    label: str,
    into: str,
    pool: Tables | None = None,
    k: int = 50,
    positives: int = 1,
    negatives: int = 3,
    margin: float | None = 0.0,
    relative: float = 0.0,
    skip: int = 0,
    columns: Sequence[str] = (),
    column: str | None = None,
    where: str | None = None,
    pool_where: str | None = None,
    metric: str | None = None,
    recall: float = 0.95,
    executor: str | Executor = "local",
    memory: int | str = "1GiB",
    job_id: str | None = None,
    on_event: Callback | None = None,
) -> MineReport:
    """Mine hard negatives and positives: of each anchor's k nearest, near ones of other labels, far ones of its own.

    The result has one row for each (anchor, positive, negative), which is what losses take (as the triplets of
    sentence-transformers' ``mine_hard_negatives``): select the three columns that you train with.

    A near row of another label may be a match that nobody labelled. So no row is taken for a negative that is nearer
    than the anchor's nearest positive, or not farther by a margin; anchors that have no positive among their k nearest
    have no triplets.

    Parameters
    ----------
    anchors : Table or Snapshot
    label : str
        A column of text, whole numbers, booleans or dates, of both tables. Rows without a label take no part.
    into : str
        The table of results, which is made: ``anchor_<key>``, ``positive_<key>``, ``negative_<key>`` (or
        ``…_row_id``), ``positive_distance``, ``negative_distance``, and `columns` under the same prefixes.
    pool : Table or Snapshot, optional
        Where positives and negatives are taken from; the table of the anchors by default.
    k : int
        Neighbours looked at. Labels of many rows need more, lest all be positives.
    positives, negatives : int
        How many to take for each anchor at most: the farthest of its label, the nearest of others; each with each.
    margin : float or None
        By how much a negative is farther from the anchor than its nearest positive, in the metric's distance;
        ``None`` for any distance.
    relative : float
        The same as a share of the distance of the nearest positive, added to the margin.
    skip : int
        Leave out so many of the nearest negatives.
    columns : sequence of str
        What the result carries of each of the three, such as the text that was embedded.
    column : str, optional
        The vectors, where a table has several; of both tables.
    where, pool_where : str, optional
        SQL: only rows that pass are anchors, and are taken.
    metric : {"l2", "cosine", "dot"}, optional
        The column's own by default.
    recall, executor, memory
        As `lake.knn_join` takes them. The driver holds no more than some neighbour lists at a time.
    job_id : str, optional
        The same id resumes a job that was interrupted, and does nothing after it was done.
    on_event : callable, optional
        Gets progress events; by default a live view is drawn on a terminal.

    Raises
    ------
    InvalidInput
        A parameter that makes no sense; NaN or infinity in a vector; a zero vector under cosine.
    AlreadyExists
        There is a table of the name `into`.
    """

    def find(work: Analysis) -> MineReport:
        rule = check_rule(positives, negatives, margin, relative, skip)
        if isinstance(columns, str):
            raise InvalidInput(f"columns={columns!r}: give a list")
        left, right = work.tables[0], work.tables[-1]
        kinds = [check_label(table, label).type for table in (left, right)]
        if kinds[0] != kinds[1]:
            raise InvalidInput(f"label={label!r}: {kinds[0]} and {kinds[1]} do not compare; cast one of the columns")
        plan = work.plan(work.side(left, where, label), work.side(right, pool_where, label))
        if plan.metric == "dot" and rule.relative:
            raise InvalidInput("relative= is a share of a distance, and 1 - dot is none; give margin=")
        target = target_of(work, columns)
        apart = (left.location.uri, left.branch) == (right.location.uri, right.branch)
        counts: Counter[str] = Counter()
        with work.begun():
            told = work.join("near", plan, apart=apart)
            work.write(target, rows_of(work, label, rule, columns, counts))
        return MineReport(
            job=work.kept.job,
            table=left.location.uri,
            version=left.version,
            rows=told.rows,
            without_vector=told.without_vector,
            k=k,
            recall=told.recall,
            source=told.source,
            into=target.location.uri,
            label=label,
            triplets=counts["triplets"],
            mined=counts["mined"],
            no_positive=told.rows - told.without_vector - counts["mined"] - counts["no_negative"],
            no_negative=counts["no_negative"],
            refused=counts["refused"],
        )

    asked = {"label": label, "positives": positives, "negatives": negatives, "margin": margin, "relative": relative}
    asked |= {"skip": skip, "columns": columns, "where": where, "pool_where": pool_where}
    tables = [anchors] if pool is None else [anchors, pool]
    how = How(k, column, metric, recall, executor, memory, on_event)
    return analyse("mine", tables, asked, MineReport, find, how=how, into=into, job_id=job_id)
