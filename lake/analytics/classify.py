"""`classify`: labels of rows that have none, by the labels of their nearest neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.analytics.analyse import Tables, analyse
from lake.analytics.joined import ByRow
from lake.analytics.neighbours import Analysis, How
from lake.analytics.reports import ClassifyReport
from lake.analytics.results import columns_of, fraction, slices, values_of, whole_number
from lake.analytics.votes import check_label, interval, vote
from lake.errors import InvalidInput
from lake.join.sampling import sample as drawn
from lake.run import Callback, Executor
from lake.schema import Column
from lake.table.sql import both, quote


def classify(
    table: Tables,
    *,
    label: str,
    into: str,
    labelled: Tables | None = None,
    k: int = 10,
    least: float = 0.5,
    sample: int = 500,
    column: str | None = None,
    where: str | None = None,
    labelled_where: str | None = None,
    metric: str | None = None,
    recall: float = 0.95,
    executor: str | Executor = "local",
    memory: int | str = "1GiB",
    job_id: str | None = None,
    on_event: Callback | None = None,
) -> ClassifyReport:
    """Give rows the label that most of their k nearest labelled rows have, nearer ones counting for more.

    A vote weighs one over the distance (Euclidean, under cosine that of the unit vectors); copies of a row decide
    alone. The accuracy is that of labels of the examples: it holds for other rows as far as they are alike, and
    examples that stand twice flatter it.

    Parameters
    ----------
    table : Table or Snapshot
        Without `labelled`: its rows whose label is null get one from those that have one.
    label : str
        A column of text, whole numbers, booleans or dates.
    into : str
        The table of results, which is made: the key (or ``row_id``), the label under its column's name, so that it can
        be merged into the table, confidence (its share of the votes), and ``runner_up``, the next label.
        Rows without a vector are not in it.
    labelled : Table or Snapshot, optional
        Another table to take labels from; then all rows of `table` get one.
    k : int
    least : float
        Rows of less confidence get no label, and stay in the result.
    sample : int
        Examples to measure the accuracy with, each compared with all others; 0 for none.
    column : str, optional
        The vectors, where a table has several; of both tables.
    where, labelled_where : str, optional
        SQL: only rows that pass get labels, and give them.
    metric : {"l2", "cosine"}, optional
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
        A parameter that makes no sense; no row has a label; NaN or infinity in a vector; a zero vector under cosine.
    AlreadyExists
        There is a table of the name `into`.
    """

    def find(work: Analysis) -> ClassifyReport:
        bar, size = fraction("least", least), whole_number("sample", sample, 0)
        snapshot, source = work.tables[0], work.tables[-1]
        known = check_label(source, label)
        unknown = where if labelled is not None else both(where, f"{quote(label)} IS NULL")
        side, examples = work.side(snapshot, unknown), work.side(source, labelled_where, label)
        plan = work.plan(side, examples)
        if plan.metric == "dot":
            raise InvalidInput("metric='dot': 1 - dot is no distance to weigh votes by; give 'cosine' or 'l2'")
        if not plan.rows[1]:
            raise InvalidInput(f"label={label!r}: no row of {source.location.uri} has a label; nothing to learn from")
        key = columns_of(snapshot)
        own = [Column(label, known.type), Column("confidence", pa.float32()), Column("runner_up", known.type)]
        target = work.target([*key, *own], len(key))
        counts: Counter[bool] = Counter()
        with work.begun():
            told = work.join("near", plan, apart=False)
            accuracy = _measured(work, examples, label, bar, size)
            work.write(target, _results(work, label, bar, counts))
        return ClassifyReport(
            job=work.kept.job,
            table=snapshot.location.uri,
            version=snapshot.version,
            rows=told.rows,
            without_vector=told.without_vector,
            k=k,
            recall=told.recall,
            source=told.source,
            into=target.location.uri,
            label=label,
            examples=plan.rows[1],
            labelled=counts[True],
            undecided=told.rows - told.without_vector - counts[True],
            least=bar,
            accuracy=accuracy,
        )

    asked = {"label": label, "least": least, "sample": sample, "where": where, "labelled_where": labelled_where}
    tables = [table] if labelled is None else [table, labelled]
    how = How(k, column, metric, recall, executor, memory, on_event)
    return analyse("classify", tables, asked, ClassifyReport, find, how=how, into=into, job_id=job_id)


def _results(work: Analysis, label: str, least: float, counts: Counter[bool]) -> Iterator[dict[str, Any]]:
    for lists in work.lists("near", [f"right_{label}"]):
        votes = vote(lists, lists.pairs[f"right_{label}"])
        sure = votes.confidence >= np.float32(least)
        counts.update(sure.tolist())
        labels = pc.if_else(pa.array(sure), votes.labels, None)
        own = {label: labels, "confidence": pa.array(votes.confidence), "runner_up": votes.runners_up}
        for some in slices(len(sure)):
            yield values_of(work.tables[0], lists.left[some]) | {name: held[some] for name, held in own.items()}


def _measured(work: Analysis, examples: ByRow, label: str, least: float, size: int) -> dict[str, float] | None:
    """Let the examples label a sample of themselves, each left out of its own votes."""
    if not size:
        return None
    chosen = drawn(examples, examples.fragments(), size)
    some = replace(examples, where=both(examples.where, f"_rowid IN ({','.join(map(str, chosen))})"))
    work.join("accuracy", work.plan(some, examples, recall=1.0), apart=True)
    known: Counter[Any] = Counter()
    decided = right = 0
    for lists in work.lists("accuracy", [f"left_{label}", f"right_{label}"]):
        votes = vote(lists, lists.pairs[f"right_{label}"])
        own = lists.pairs[f"left_{label}"].take(pa.array(lists.starts)).combine_chunks()
        sure = votes.confidence >= np.float32(least)
        decided += int(sure.sum())
        right += int((pc.equal(own, votes.labels).to_numpy(zero_copy_only=False) & sure).sum())
        known.update(own.to_pylist())
    if not decided:
        return None
    low, high = interval(right, decided)
    told = {"measured": right / decided, "low": low, "high": high, "sample": known.total(), "decided": decided}
    return told | {"baseline": known.most_common(1)[0][1] / known.total()}
