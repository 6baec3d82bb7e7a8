"""What is made of rows, batch by batch, and which rows cannot be."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lake.errors import InvalidInput
from lake.etl.bisect import bad_rows
from lake.etl.spec import Transform
from lake.schema import Schema
from lake.schema.names import find
from lake.table.inputs import cast_column, check_columns
from lake.table.sql import sql_errors, whole
from lake.table.validate import Problem, Validator

_NUMBER = "__row"


@dataclass(frozen=True)
class Kept:
    """What became of a batch.

    Parameters
    ----------
    rows : pyarrow.RecordBatch
        Rows of the table.
    numbers : numpy.ndarray, shape (n,)
        Which rows of the batch they were.
    filtered : int
        Rows that did not match the filter.
    refused : list of Problem
        Rows that cannot be rows of the table, each named once.
    """

    rows: pa.RecordBatch
    numbers: npt.NDArray[np.int64]
    filtered: int
    refused: list[Problem]


@dataclass(frozen=True)
class Steps:
    """The steps of a transform, in their order.

    Parameters
    ----------
    spec : Transform
    types : pyarrow.Schema
        What each column is cast to, before the filter sees it.
    target : Schema, optional
        The table's; without it `outline` alone can be asked.
    written : pyarrow.Schema, optional
        The columns of the table that rows are made for.
    """

    spec: Transform
    types: pa.Schema
    target: Schema | None = None
    written: pa.Schema | None = None

    def outline(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Flatten and rename: what the columns are called from then on."""
        names, columns = _flat(batch, self.spec)
        names = [self.spec.rename.get(name, name) for name in names]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidInput(f"columns {twice} appear more than once; rename one of each")
        return pa.RecordBatch.from_arrays(columns, names=names)

    def selected(self, names: Sequence[str]) -> list[str]:
        """Return what is kept of some columns, in the order of the selection."""
        return list(names) if self.spec.select is None else [n for n in self.spec.select if n in names]

    def apply(self, batch: pa.RecordBatch) -> Kept:
        """Make rows of the table of a batch.

        Raises
        ------
        InvalidInput
            The batch has columns that the table lacks, or the filter is not legal.
        """
        assert self.target is not None  # noqa: S101  who applies has a table
        rows = _Rows(self.outline(batch))
        rows.cast(self.types)
        filtered = rows.filter(self.spec.filter)
        arrow = self.written or self.target.to_arrow()
        kept = rows.batch.select(self.selected(rows.batch.schema.names))
        check_columns(kept.schema, arrow, partial=True)
        rows.batch = kept
        rows.cast(arrow)
        rows.batch = _ordered(rows.batch, arrow)
        rows.check(Validator(self.target))
        return Kept(rows.batch, rows.numbers, filtered, rows.refused)


class _Rows:
    """A batch that loses rows, and knows which of the rows that it had are left."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch
        self.numbers = np.arange(batch.num_rows)
        self.refused: list[Problem] = []

    def cast(self, types: pa.Schema) -> None:
        """Cast the columns that a schema names; a value that cannot be cast refuses its row."""
        todo = [n for n in self.batch.schema.names if n in types.names]
        made: dict[str, list[pa.Array]] = {}
        found: list[Problem] = []
        for name in todo:
            target, column = types.field(name), self.batch.column(name)
            if column.type.equals(target.type):
                continue

            def act(begin: int, end: int, column: pa.Array = column, target: pa.Field = target) -> pa.Array:
                return cast_column(column.slice(begin, end - begin), target, begin)

            made[name], bad = bad_rows(len(column), act)
            found += [Problem(name, np.array([n]), why) for n, why in bad]
        keep = self._refuse(found)
        arrays = []
        for name in self.batch.schema.names:
            column = self.batch.column(name)
            if name in made:
                column = pa.concat_arrays(made[name]) if made[name] else pa.array([], types.field(name).type)
                lost = {int(p.rows[0]) for p in found if p.column == name}
                here = np.delete(keep, list(lost)) if lost else keep
                arrays.append(column if here.all() else column.filter(pa.array(here)))
            else:
                arrays.append(column if keep.all() else column.filter(pa.array(keep)))
        self.batch = pa.RecordBatch.from_arrays(arrays, names=self.batch.schema.names)

    def filter(self, expression: str | None) -> int:
        """Keep the rows that match; return how many did not."""
        if expression is None or not self.batch.num_rows:
            return 0
        matching = _matching(self.batch, expression)
        left: int = self.batch.num_rows - len(matching)
        if left:
            self.batch = self.batch.take(pa.array(matching))
            self.numbers = self.numbers[matching]
        return left

    def check(self, validator: Validator) -> None:
        """Drop the rows that the table refuses."""
        keep = self._refuse(validator.problems(self.batch))
        if not keep.all():
            self.batch = self.batch.filter(pa.array(keep))

    def _refuse(self, problems: Iterable[Problem]) -> npt.NDArray[np.bool_]:
        """Take note of bad rows, each once; return which rows of the batch stay. The caller drops the others."""
        keep = np.ones(self.batch.num_rows, bool)
        for problem in problems:
            rows = problem.rows[keep[problem.rows]]
            keep[rows] = False
            if len(rows):
                self.refused.append(problem._replace(rows=self.numbers[rows]))
        self.numbers = self.numbers[keep]
        return keep


def check_names(spec: Transform, given: Sequence[str], after: Sequence[str]) -> None:
    """Refuse steps that name columns which the source does not have.

    Parameters
    ----------
    given, after : sequence of str
        The columns before and after they are renamed.
    """
    for name in spec.rename:
        find(name, given, "rename: column")
    for step in ("cast", "select"):
        for name in getattr(spec, step) or ():
            find(name, after, f"{step}: column")


def check_filter(expression: str | None, types: pa.Schema) -> None:
    """Refuse a filter that is not legal for columns of some types, before there are rows."""
    if expression is not None:
        _matching(pa.RecordBatch.from_arrays([pa.nulls(1, field.type) for field in types], types.names), expression)


def flat_names(batch: pa.RecordBatch, spec: Transform) -> list[str]:
    """Return the names of a batch's columns once it is flat."""
    return _flat(batch, spec)[0]


def _flat(batch: pa.RecordBatch, spec: Transform) -> tuple[list[str], list[pa.Array]]:
    names: list[str] = []
    columns: list[pa.Array] = []
    wanted = batch.schema.names if spec.flatten is True else spec.flatten or ()
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for path, leaf in _leaves(name, column, spec.separator) if name in wanted else [(name, column)]:
            names.append(path)
            columns.append(leaf)
    return names, columns


def _leaves(name: str, column: pa.Array, separator: str) -> Iterator[tuple[str, pa.Array]]:
    if not pa.types.is_struct(column.type):
        yield name, column
        return
    for field_, inner in zip(column.type, column.flatten(), strict=True):
        yield from _leaves(f"{name}{separator}{field_.name}", inner, separator)


def _ordered(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Bring columns to a schema's order; those that are not there are null."""
    have = {name: batch.column(name) for name in batch.schema.names}
    arrays = [have[f.name] if f.name in have else pa.nulls(batch.num_rows, f.type) for f in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _matching(batch: pa.RecordBatch, expression: str) -> npt.NDArray[np.int64]:
    """Return the numbers of the rows that match, as Lance sees it: one SQL for filters on tables and on files.

    The columns pass through a dataset in memory, since Lance evaluates filters nowhere else.
    """
    columns = {n: c for n, c in zip(batch.schema.names, batch.columns, strict=True) if _comparable(c.type)}
    rows = pa.table(columns | {_NUMBER: np.arange(batch.num_rows)})
    with sql_errors(expression):
        dataset = lance.write_dataset(rows, f"memory://{uuid.uuid4().hex}", max_rows_per_file=len(rows))
        found = dataset.scanner(columns=[_NUMBER], filter=whole(expression, batch.schema.names)).to_table()
    numbers: npt.NDArray[np.int64] = np.sort(found[_NUMBER].to_numpy())
    return numbers


def _comparable(kind: pa.DataType) -> bool:
    return not (pa.types.is_fixed_size_list(kind) or isinstance(kind, pa.BaseExtensionType))
