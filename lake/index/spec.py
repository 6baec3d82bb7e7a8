"""What a table's indexes are meant to be: specs, as they stand in the manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import lance

from lake.errors import AlreadyExists, CorruptTable, InvalidInput, NotSupported
from lake.index.kinds import KINDS, Kind, fitting, kind_of, metrics_of, parameters_of
from lake.schema import Column
from lake.schema.arrow import vector_layout

CONFIG = "lake.index."
CALIBRATION = "lake.recall."  # of what was built; under CONFIG every key is a declaration
VERSION = 1
_LONGEST_NAME = 128


@dataclass(frozen=True)
class IndexSpec:
    """A declared index: desired state, whether or not it has been built.

    Parameters
    ----------
    name : str
        Its name, in Lance too.
    column : str
        What is indexed; empty if that column was dropped since.
    kind : str
        A key of `lake.index.kinds.KINDS`.
    metric : str or None
        Of vector indexes; smaller distances are more similar under each.
    params : mapping
        Parameters of the kind.
    why : str
        Why it is of this kind.
    field_id : int
        Lance's id of the column, which a rename keeps.
    """

    name: str
    column: str
    kind: str
    metric: str | None
    params: Mapping[str, Any] = field(hash=False)
    why: str
    field_id: int

    @property
    def traits(self) -> Kind:
        """What is known of its kind."""
        return KINDS[self.kind]

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits: equal for specs that ask for the same index."""
        wish = [self.field_id, self.kind, self.metric, sorted(self.params.items())]
        return hashlib.sha256(json.dumps(wish).encode()).hexdigest()[:16]

    def difference(self, other: IndexSpec) -> str:
        """Name what differs from another spec, or return the empty string."""
        pairs = [
            ("column", self.column, other.column),
            ("kind", self.kind, other.kind),
            ("metric", self.metric, other.metric),
        ]
        names = sorted({*self.params, *other.params})
        pairs += [(name, self.params.get(name), other.params.get(name)) for name in names]
        return ", ".join(f"{what} {a!r} (not {b!r})" for what, a, b in pairs if a != b)

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain data."""
        return {
            "name": self.name,
            "column": self.column,
            "kind": self.kind,
            "metric": self.metric,
            "params": dict(self.params),
            "why": self.why,
        }

    def encode(self) -> str:
        """Return the value of the table's config key ``lake.index.<name>``."""
        return json.dumps({"v": VERSION, **self.to_dict(), "field": self.field_id}, sort_keys=True)


def make_spec(
    dataset: lance.LanceDataset,
    column: Column,
    kind: str,
    params: Mapping[str, Any],
    *,
    metric: str | None,
    name: str,
    why: str,
) -> IndexSpec:
    """Check a wish for an index, and complete it with defaults.

    Raises
    ------
    InvalidInput
        The kind does not fit the column, or the metric or a parameter is not legal for it.
    """
    traits = kind_of(kind)
    fits = fitting(column)
    if traits.name not in fits:
        possible = f"it can have {', '.join(map(str.lower, fits))}" if fits else "no kind of index fits it"
        raise InvalidInput(
            f"column {column.name!r} of type {column.type} and role {column.role.value!r} cannot have a "
            f"{traits.name} index; {possible}"
        )
    settled = parameters_of(traits, params)
    if traits.pq:
        settled["sub_vectors"] = _sub_vectors(column, settled.get("sub_vectors"))
    return IndexSpec(
        check_name(name),
        column.name,
        traits.name,
        _metric(column, traits, metric),
        settled,
        why,
        dict(field_ids(dataset))[column.name],
    )


def check_name(name: str) -> str:
    """Refuse an index name that could not be a config key."""
    if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
        raise InvalidInput(f"index name {name!r}: use 1 to {_LONGEST_NAME} printable characters")
    return name


def read_specs(dataset: lance.LanceDataset) -> dict[str, IndexSpec]:
    """Read the declared indexes of a dataset's version, by name.

    Raises
    ------
    CorruptTable
        A spec is damaged.
    NotSupported
        A newer lake wrote one.
    """
    columns = field_ids(dataset)
    return {
        key.removeprefix(CONFIG): _decode(key.removeprefix(CONFIG), text, columns)
        for key, text in sorted(dataset.config().items())
        if key.startswith(CONFIG)
    }


def configure(updates: Mapping[str, str | None]) -> lance.LanceOperation.UpdateConfig:
    """Set keys of the table's config; ``None`` removes one."""
    update = lance.LanceOperation.UpdateMap(updates=dict(updates), replace=False)
    return lance.LanceOperation.UpdateConfig(config_updates=update)


def field_ids(dataset: lance.LanceDataset) -> list[tuple[str, int]]:
    """Return the top-level columns' names and Lance's ids of them."""
    return [(f.name(), f.id()) for f in dataset.lance_schema.fields()]


def refuse_difference(wish: IndexSpec, there: IndexSpec) -> None:
    """Raise `AlreadyExists` if two specs of one name ask for different indexes."""
    if difference := wish.difference(there):
        raise AlreadyExists(
            f"index {wish.name!r} is declared already, and differs: {difference}; drop it first, or use another name"
        )


def _decode(name: str, text: str, columns: list[tuple[str, int]]) -> IndexSpec:
    try:
        data = json.loads(text)
        version = int(data["v"])
        if version > VERSION:
            raise NotSupported(f"index {name!r} was declared by a newer lake (format {version}); upgrade semlake")
        traits = KINDS[data["kind"]]
        spec = IndexSpec(
            name,
            _resolve(str(data["column"]), int(data["field"]), columns),
            traits.name,
            data["metric"],
            parameters_of(traits, data["params"]),
            str(data["why"]),
            int(data["field"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptTable(f"the declaration of index {name!r} in the manifest cannot be read: {error!r}") from error
    return replace(spec, field_id=dict(columns).get(spec.column, spec.field_id))


def _resolve(name: str, field_id: int, columns: list[tuple[str, int]]) -> str:
    """Find the column now: the id survives renames, the name survives an overwrite, which deals ids anew."""
    names, by_id = dict(columns), {i: n for n, i in columns}
    if by_id.get(field_id) == name or name not in names:
        return by_id.get(field_id, "")
    return name


def _metric(column: Column, traits: Kind, metric: str | None) -> str | None:
    if not traits.vector:
        if metric is not None:
            raise InvalidInput(f"a {traits.name} index has no metric; leave out metric={metric!r}")
        return None
    legal = metrics_of(column)
    default = column.embedding.metric if column.embedding else legal[0]
    chosen = metric.lower() if isinstance(metric, str) else default if default in legal else legal[0]
    if chosen not in legal:
        raise InvalidInput(
            f"column {column.name!r} of type {column.type} cannot be indexed by {metric!r}; "
            f"it can by {', '.join(legal)}"
        )
    return chosen


def _sub_vectors(column: Column, given: int | None) -> int:
    layout = vector_layout(column.type)
    dimension = layout[1] if layout else 0
    if given is not None:
        if dimension % given:
            raise InvalidInput(f"column {column.name!r}: sub_vectors={given} does not divide its dimension {dimension}")
        return given
    # Eight dimensions to a byte keep recall high with a refine; else the next finer division there is.
    for width in range(8, 0, -1):
        if dimension % width == 0 and dimension // width > 1:
            return dimension // width
    return 1
