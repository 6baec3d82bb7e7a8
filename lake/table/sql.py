"""SQL expressions: what is refused before Lance sees it, names and values as SQL, errors that show the expression.

A filter is one expression of Lance's SQL: no subqueries, no statements, only scalar functions. Lance itself
reads too much as legal, and these silently mean something else than they say:

- what follows a complete expression is ignored: ``id = 1; drop table x``, ``id = 1 limit 5``, and
  ``delete("id = 1 adn kind = 2")`` would delete by ``id = 1``;
- double quotes make a *string*, so ``"name" = 'vim'`` compares two constants. Columns whose names need
  quoting take backticks: ```my column` > 3``.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from lance.commit import CommitConflictError

from lake.errors import CorruptTable, InvalidInput, LakeError, StorageError
from lake.table.damage import damaged, panicked

# Quoted strings and names whole, so that what is inside them counts for nothing.
_TOKENS = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|--[^\n]*|/\*.*?\*/|[();$?]", re.DOTALL)


class Sql(str):
    """A SQL expression over the table's columns, where a plain string would be a value."""

    __slots__ = ()


def whole(expression: str, columns: Collection[str] = ()) -> str:
    """Make Lance read all of an expression, or refuse it.

    In parentheses, text that follows the expression is a syntax error; and the parentheses of the expression
    itself must balance, or it could close ours.

    Parameters
    ----------
    expression : str
        A filter, or a value computed from columns.
    columns : collection of str
        The table's, of which none may stand in double quotes.

    Raises
    ------
    InvalidInput
        The expression is empty, has a ``;``, a comment, a placeholder or unbalanced parentheses, or has a column
        in double quotes.
    """
    if not isinstance(expression, str) or not expression.strip():
        raise InvalidInput(f"not a legal expression: {expression!r}; give SQL such as \"size > 3 AND kind = 'a'\"")
    return _whole(expression, frozenset(columns))


@functools.lru_cache(maxsize=1024)
def _whole(expression: str, columns: frozenset[str]) -> str:
    depth = 0
    for part in _TOKENS.findall(expression):
        depth += (part == "(") - (part == ")")
        if part in {";", "$", "?"} or part[:2] in {"--", "/*"} or depth < 0:
            raise InvalidInput(f"not a legal expression: {expression!r}: it ends at {part!r}; give one expression")
        if part[0] == '"' and part[1:-1] in columns:
            name = part[1:-1]
            raise InvalidInput(f"not a legal expression: {expression!r}: double quotes make a string; write `{name}`")
    if depth:
        raise InvalidInput(f"not a legal expression: {expression!r}: {depth} unclosed parentheses")
    return f"({expression})"


def both(*filters: str | None) -> str | None:
    """Join filters with AND."""
    given = [f for f in filters if f]
    return " AND ".join(f"({f})" for f in given) if len(given) > 1 else (given[0] if given else None)


def quote(name: str) -> str:
    """Quote a column's name, so that spaces, capitals and keywords mean themselves."""
    return "`" + name.replace("`", "``") + "`"


def literal(value: Any) -> str:
    """Write a value as SQL.

    Raises
    ------
    InvalidInput
        It has no exact form in SQL: NaN, infinity, or a type that filters do not compare.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, dt.datetime):
        return f"timestamp '{value.isoformat(sep=' ')}'"
    if isinstance(value, dt.date):
        return f"date '{value.isoformat()}'"
    raise InvalidInput(f"{value!r} ({type(value).__name__}) cannot be written in SQL; give text, a number or a date")


@contextmanager
def sql_errors(*expressions: str | None) -> Iterator[None]:
    """Turn Lance's complaints about an expression into `InvalidInput` that shows it."""
    try:
        yield
    except BaseException as error:
        # A panic of Lance's parser is not even an Exception.
        if isinstance(error, LakeError | CommitConflictError) or not (
            isinstance(error, ValueError | OSError) or panicked(error)
        ):
            raise
        shown = " / ".join(repr(str(e)) for e in expressions if e is not None) or "no expression"
        text = re.split(r", /(?:home|rustc)/", str(error), maxsplit=1)[0]
        if damaged(error):
            raise CorruptTable(f"a file of the table cannot be read: {text}") from error
        if "(IO)" in text or "not found in object store" in text.lower():
            raise StorageError(f"cannot read the table: {text}") from error
        raise InvalidInput(f"not a legal expression: {shown}: {text}") from error
