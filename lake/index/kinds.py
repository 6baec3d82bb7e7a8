"""The kinds of index that Lance has: which columns each fits, and which parameters it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from lake.errors import InvalidInput
from lake.schema import Column, Role
from lake.schema.arrow import vector_layout

# Spellings that people and other tools use.
_ALIASES = {"BM25": "INVERTED", "TEXT": "INVERTED", "FTS": "INVERTED", "FULL_TEXT": "INVERTED", "GEO": "RTREE"}
_PARAMETER_ALIASES = {"num_partitions": "partitions", "num_sub_vectors": "sub_vectors", "bits": "num_bits"}

TOKENIZERS = ("simple", "whitespace", "raw", "ngram", "icu", "icu/split")


@dataclass(frozen=True)
class Parameter:
    """What values a parameter takes.

    Parameters
    ----------
    type : type
        ``int``, ``float``, ``bool``, ``str`` or ``list`` (of strings).
    least, most : float, optional
        Bounds of a number, inclusive.
    among : tuple, optional
        The legal values.
    """

    type: type[Any]
    least: float | None = None
    most: float | None = None
    among: tuple[Any, ...] = ()

    def accepts(self, value: Any) -> bool:
        """Tell whether a value is legal."""
        if self.type is float and type(value) is int:
            value = float(value)
        if type(value) is not self.type or (self.type is list and not all(type(v) is str for v in value)):
            return False
        if self.least is not None and value < self.least:
            return False
        return not (self.most is not None and value > self.most) and (not self.among or value in self.among)

    def __str__(self) -> str:
        if self.among:
            return "one of " + ", ".join(map(repr, self.among))
        if self.least is None:
            return {bool: "True or False", list: "a list of strings", str: "a string"}[self.type]
        number = "a whole number" if self.type is int else "a number"
        return f"{number} from {self.least:g}" + (f" to {self.most:g}" if self.most is not None else "")


_IVF = {"partitions": Parameter(int, 1, 1 << 20)}
_PQ = {"sub_vectors": Parameter(int, 1, 1 << 16), "num_bits": Parameter(int, among=(4, 8))}
_HNSW = {
    "m": Parameter(int, 2, 512),
    "ef_construction": Parameter(int, 2, 1 << 16),
    "max_level": Parameter(int, 1, 32),
}
_TEXT = {
    "with_position": Parameter(bool),
    "base_tokenizer": Parameter(str, among=TOKENIZERS),
    "language": Parameter(str),
    "max_token_length": Parameter(int, 1, 1 << 16),
    "lower_case": Parameter(bool),
    "stem": Parameter(bool),
    "remove_stop_words": Parameter(bool),
    "custom_stop_words": Parameter(list),
    "ascii_folding": Parameter(bool),
    "min_ngram_length": Parameter(int, 1, 64),
    "max_ngram_length": Parameter(int, 1, 64),
    "prefix_only": Parameter(bool),
}


@dataclass(frozen=True)
class Kind:
    """One kind of index.

    Parameters
    ----------
    name : str
        As Lance spells it when it builds.
    parameters : mapping of str to Parameter
        What can be chosen.
    defaults : mapping
        What is chosen when the caller says nothing, where that is not Lance's own choice or where Lance's
        choice must be known to compare a built index with its declaration.
    """

    name: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def vector(self) -> bool:
        """Whether it indexes vectors."""
        return self.name.startswith("IVF_")

    @property
    def pq(self) -> bool:
        """Whether it needs a product quantizer."""
        return self.name.endswith("_PQ")

    @property
    def residuals(self) -> bool:
        """Whether it quantises what is left of a vector after its centroid (but under dot)."""
        return self.pq or self.name.endswith("_RQ")

    @property
    def hnsw(self) -> bool:
        """Whether its partitions are graphs."""
        return "HNSW" in self.name

    @property
    def masks_together(self) -> bool:
        """Whether Lance masks dead entries by what all segments cover together, not segment by segment.

        An entry of an old segment then comes to life again as soon as a new segment covers the row's new
        value, so those old segments must go. Vector kinds, BTREE and the inexact kinds do not suffer.
        """
        return self.name in {"BITMAP", "LABEL_LIST", "INVERTED", "MINHASHLSH"}


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("IVF_FLAT", _IVF),
        Kind("IVF_PQ", _IVF | _PQ, {"num_bits": 8}),
        Kind("IVF_SQ", _IVF),
        Kind("IVF_RQ", {**_IVF, "num_bits": Parameter(int, 1, 9)}, {"num_bits": 5}),
        Kind("IVF_HNSW_FLAT", _IVF | _HNSW, {"m": 20, "ef_construction": 150}),
        Kind("IVF_HNSW_PQ", _IVF | _PQ | _HNSW, {"num_bits": 8, "m": 20, "ef_construction": 150}),
        Kind("IVF_HNSW_SQ", _IVF | _HNSW, {"m": 20, "ef_construction": 150}),
        Kind("BTREE"),
        Kind("BITMAP"),
        Kind("LABEL_LIST"),
        Kind("NGRAM"),
        Kind("ZONEMAP", {"rows_per_zone": Parameter(int, 1, 1 << 30)}),
        Kind(
            "BLOOMFILTER",
            {"number_of_items": Parameter(int, 1, 1 << 40), "probability": Parameter(float, 1e-9, 0.5)},
        ),
        Kind("RTREE", {"page_size": Parameter(int, 2, 1 << 20)}),
        Kind("INVERTED", _TEXT, {"with_position": True}),  # without positions there are no phrases
        Kind(
            "MINHASHLSH",
            {
                "num_hashes": Parameter(int, 1, 1 << 12),
                "num_bands": Parameter(int, 1, 1 << 12),
                "shingle_size": Parameter(int, 1, 64),
            },
            {"num_hashes": 128, "num_bands": 16, "shingle_size": 3},
        ),
    )
}


def kind_of(name: str) -> Kind:
    """Find a kind by a person's spelling, or raise `InvalidInput` with those that there are."""
    upper = name.upper().replace("-", "_") if isinstance(name, str) else ""
    kind = KINDS.get(_ALIASES.get(upper, upper))
    if kind is None:
        raise InvalidInput(f"no kind of index {name!r}; there are auto, {', '.join(map(str.lower, KINDS))}")
    return kind


def parameters_of(kind: Kind, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check parameters, and add the kind's defaults.

    Raises
    ------
    InvalidInput
        A parameter that the kind does not have, or a value that it does not take.
    """
    known = {_PARAMETER_ALIASES.get(name, name): value for name, value in given.items()}
    for name, value in known.items():
        legal = kind.parameters.get(name)
        if legal is None:
            choice = ", ".join(kind.parameters) or "none"
            raise InvalidInput(f"{kind.name} has no parameter {name!r}; it has {choice}")
        if not legal.accepts(value):
            raise InvalidInput(f"{kind.name}: {name}={value!r}; give {legal}")
    return dict(kind.defaults) | known


def fitting(column: Column) -> tuple[str, ...]:
    """Return the kinds that a column can have, the most usual first."""
    if column.role is Role.VECTOR:
        return _fitting_vector(column)
    if column.role is Role.GEO:
        return ("RTREE", "ZONEMAP") if pt.is_struct(column.type) else ("RTREE",)
    if column.role is Role.JSON:
        return ("INVERTED",)
    if column.role is Role.BLOB:
        return ()
    return _fitting_type(column.type)


def metrics_of(column: Column) -> tuple[str, ...]:
    """Return the metrics by which a vector column can be indexed."""
    layout = vector_layout(column.type)
    if layout is None:
        return ()
    element, _, many = layout
    if pt.is_uint8(element):
        return ("hamming",)
    return ("cosine",) if many else ("l2", "cosine", "dot")


def _fitting_vector(column: Column) -> tuple[str, ...]:
    layout = vector_layout(column.type)
    if layout is None or pt.is_int8(layout[0]):
        return ()
    if pt.is_uint8(layout[0]):
        return ("IVF_FLAT", "IVF_HNSW_FLAT")
    return tuple(name for name, kind in KINDS.items() if kind.vector)


def _fitting_type(kind: pa.DataType) -> tuple[str, ...]:
    if pt.is_string(kind) or pt.is_large_string(kind):
        return ("BTREE", "BITMAP", "INVERTED", "NGRAM", "ZONEMAP", "BLOOMFILTER", "MINHASHLSH")
    if pt.is_list(kind) or pt.is_large_list(kind):
        text = pt.is_string(kind.value_type) or pt.is_large_string(kind.value_type)
        scalar = text or pt.is_integer(kind.value_type) or pt.is_boolean(kind.value_type)
        return (("LABEL_LIST",) if scalar else ()) + (("INVERTED",) if text else ())
    if pt.is_boolean(kind) or pt.is_decimal(kind):
        return ("BTREE", "BITMAP", "ZONEMAP")
    number = pt.is_integer(kind) or pt.is_floating(kind)
    if number or pt.is_temporal(kind) or pt.is_binary(kind) or pt.is_large_binary(kind):
        return ("BTREE", "BITMAP", "ZONEMAP", "BLOOMFILTER")
    if pt.is_fixed_size_binary(kind):
        return ("BTREE", "BITMAP")
    return ("ZONEMAP",) if pt.is_dictionary(kind) else ()
