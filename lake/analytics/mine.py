"""`mine`: hard negatives and hard positives to train an embedding with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lake.analytics.neighbours import Analysis, How, Tables, analyse
from lake.analytics.results import columns_of, slices, values_of, whole_number
from lake.analytics.told import NeighbourReport
from lake.analytics.triplets import Rule, triplets
from lake.analytics.votes import check_label
from lake.errors import InvalidInput
from lake.run import Callback, Executor
from lake.schema import Column
from lake.table.parts import PartedWrite
from lake.table.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class MineReport(NeighbourReport):
    """What was found: ``rows = mined + no_positive + no_negative + without_vector``.

    Parameters
    ----------
    label : str
    triplets : int
        Rows of the result.
    mined : int
        Anchors that have triplets.
    no_positive, no_negative : int
        Anchors that have none: no row of their label is among the k nearest, or none of another that is far enough.
    refused : int
        Neighbours of another label that were too near to be taken for negatives.
    """

    label: str
    triplets: int
    mined: int
    no_positive: int
    no_negative: int
    refused: int

    def found(self) -> list[str]:
        """Say what was found, in lines."""
        counts = (
            f"{self.rows:,} anchors = {self.mined:,} mined + {self.no_positive:,} without a positive + "
            f"{self.no_negative:,} without a negative + {self.without_vector:,} without a vector"
        )
        return [
            counts,
            f"{self.triplets:,} triplets; {self.refused:,} neighbours of another {self.label!r} were too near",
        ]


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
        rule = _rule(positives, negatives, margin, relative, skip)
        if isinstance(columns, str):
            raise InvalidInput(f"columns={columns!r}: give a list")
        left, right = work.tables[0], work.tables[-1]
        kinds = [check_label(table, label).type for table in (left, right)]
        if kinds[0] != kinds[1]:
            raise InvalidInput(f"label={label!r}: {kinds[0]} and {kinds[1]} do not compare; cast one of the columns")
        plan = work.plan(work.side(left, where, label), work.side(right, pool_where, label))
        if plan.metric == "dot" and rule.relative:
            raise InvalidInput("relative= is a share of a distance, and 1 - dot is none; give margin=")
        target = _target(work, columns)
        apart = (left.location.uri, left.branch) == (right.location.uri, right.branch)
        counts: Counter[str] = Counter()
        with work.begun():
            told = work.join("near", plan, apart=apart)
            work.write(target, _results(work, label, rule, columns, counts))
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


def _rule(positives: int, negatives: int, margin: float | None, relative: float, skip: int) -> Rule:
    for name, number in (("margin", margin), ("relative", relative)):
        if number is None and name == "margin":
            continue
        if isinstance(number, bool | str) or not isinstance(number, float | int | np.number) or not number >= 0:
            raise InvalidInput(f"{name}={number!r}: give a distance, 0 or more")
    return Rule(
        whole_number("positives", positives),
        whole_number("negatives", negatives),
        None if margin is None else float(margin),
        float(relative),
        whole_number("skip", skip, 0),
    )


def _target(work: Analysis, columns: Sequence[str]) -> PartedWrite:
    """Begin to write the result: keys of all three, distances, and what else is carried."""
    keys, more = list[Column](), list[Column]()
    for role, table in _roles(work):
        key = columns_of(table, role)
        keys += key
        more += columns_of(table, role, columns)[len(key) :]
    own = [Column("positive_distance", pa.float32()), Column("negative_distance", pa.float32())]
    return work.target([*keys, *own, *more], len(keys))


def _roles(work: Analysis) -> tuple[tuple[str, Snapshot], ...]:
    anchors, pool = work.tables[0], work.tables[-1]
    return ("anchor_", anchors), ("positive_", pool), ("negative_", pool)


def _results(
    work: Analysis, label: str, rule: Rule, columns: Sequence[str], counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    left, right = f"left_{label}", f"right_{label}"
    for lists in work.lists("near", [left, right]):
        found = triplets(lists, lists.pairs[left], lists.pairs[right], rule)
        counts.update(triplets=len(found.anchors), mined=found.mined, no_negative=found.no_negative)
        counts.update(refused=found.refused)
        for some in slices(len(found.anchors)):
            values: dict[str, Any] = {
                "positive_distance": pa.array(found.positive_distances[some]),
                "negative_distance": pa.array(found.negative_distances[some]),
            }
            ids = (found.anchors, found.positives, found.negatives)
            for (role, table), of in zip(_roles(work), ids, strict=True):
                values |= values_of(table, of[some], role, columns)
            yield values
