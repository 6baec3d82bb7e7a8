"""Declaring indexes, and taking declarations back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import lance

from lake.errors import InvalidInput, NotFound
from lake.index.choose import choose
from lake.index.segments import built_indexes, removal
from lake.index.spec import CALIBRATION, CONFIG, IndexSpec, configure, make_spec, read_specs, refuse_difference
from lake.table.commit import commit
from lake.table.snapshot import Snapshot, open_head


def declare(
    snapshot: Snapshot,
    column: str,
    kind: str = "auto",
    *,
    metric: str | None = None,
    name: str | None = None,
    **parameters: Any,
) -> IndexSpec:
    """Declare an index in the manifest of the newest version; nothing is built yet.

    Declaring the same index again does nothing.

    Parameters
    ----------
    snapshot : Snapshot
        The table; AUTO looks at its rows.
    column : str
        What to index.
    kind : str
        ``"auto"``, or a kind of `lake.index.kinds.KINDS` in any case; ``bm25`` and ``text`` mean ``inverted``.
    metric : str, optional
        Of vector indexes: the embedding's own by default.
    name : str, optional
        ``<column>_idx`` by default.
    **parameters
        Of the kind, see `lake.index.kinds`; ``partitions=``, ``sub_vectors=``, ``with_position=`` …

    Raises
    ------
    InvalidInput
        The kind does not fit the column, or a metric or parameter is not legal.
    NotFound
        No such column.
    AlreadyExists
        A different index of that name is declared; the message names the difference.
    """
    if not isinstance(kind, str):
        raise InvalidInput(f"kind={kind!r}: give the kind's name, or 'auto'")
    found = snapshot.schema.column(column)
    name = f"{column}_idx" if name is None else name
    why = "as declared"
    if kind.lower() == "auto":
        there = read_specs(snapshot.dataset).get(name)
        if there is not None and there.column == column and not parameters and metric in {None, there.metric}:
            return there  # what AUTO chose at first stands, though the table may have grown
        kind, chosen, why = choose(snapshot.dataset, found)
        parameters = chosen | parameters
    spec = make_spec(snapshot.dataset, found, kind, parameters, metric=metric, name=name, why=why)

    def operation(head: lance.LanceDataset) -> lance.LanceOperation.UpdateConfig | None:
        there = read_specs(head).get(spec.name)
        if there is None:
            return configure({CONFIG + spec.name: spec.encode()})
        refuse_difference(spec, there)
        return None

    commit(snapshot.location, snapshot.branch, operation, verb="declare index")
    return spec


def undeclare(snapshot: Snapshot, name: str) -> int:
    """Take back a declaration, and drop what was built; return the version.

    Raises
    ------
    NotFound
        No index of that name is declared or built.
    """
    location, branch = snapshot.location, snapshot.branch
    head = open_head(location, branch)
    known = {**built_indexes(head), **read_specs(head)}
    if name not in known:
        raise NotFound(f"no index {name!r}; there are {', '.join(known) or 'none'}")

    def withdraw(newest: lance.LanceDataset) -> lance.LanceOperation.UpdateConfig | None:
        gone = [key for key in (CONFIG + name, CALIBRATION + name) if key in newest.config()]
        return configure(dict.fromkeys(gone)) if gone else None

    def drop(newest: lance.LanceDataset) -> lance.LanceOperation.CreateIndex | None:
        built = built_indexes(newest).get(name)
        if built is None:
            return None
        gone = [removal(built, segment) for segment in built.segments]
        return lance.LanceOperation.CreateIndex(new_indices=[], removed_indices=gone)

    # In this order a build that runs meanwhile finds its index unwanted.
    commit(location, branch, withdraw, verb="drop index")
    return commit(location, branch, drop, verb="drop index").version


def redeclare(before: Snapshot, after: Snapshot) -> None:
    """Declare again what a restore took back with the old manifest, where the columns are there."""
    there = {field.id() for field in after.dataset.lance_schema.fields()}
    lost = {
        CONFIG + name: spec.encode()
        for name, spec in read_specs(before.dataset).items()
        if name not in read_specs(after.dataset) and spec.field_id in there
    }
    if lost:
        commit(after.location, after.branch, lambda _: configure(lost), verb="declare index")


def declared(snapshot: Snapshot) -> list[IndexSpec]:
    """Return the declared indexes of a snapshot, by name."""
    return list(read_specs(snapshot.dataset).values())


def require_unindexed(snapshot: Snapshot, columns: Collection[str]) -> None:
    """Refuse to lose a column that an index is declared on.

    Raises
    ------
    InvalidInput
        Naming the indexes to drop first.
    """
    holding = [spec for spec in declared(snapshot) if spec.column in columns]
    if holding:
        named = ", ".join(f"{spec.name!r} on {spec.column!r}" for spec in holding)
        raise InvalidInput(f"these columns are indexed: {named}; drop the indexes first")
