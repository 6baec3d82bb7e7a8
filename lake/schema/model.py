"""Columns from the annotations of a class.

>>> class Product(pydantic.BaseModel):
...     sku: Annotated[str, Role.KEY]
...     summary: Annotated[str, Role.DESCRIPTION]
...     price: float | None
...     attributes: dict[str, Any]
...     embedding: Annotated[list[float], Embedding(384, of="summary", metric="cosine")] | None
>>> Schema.from_model(Product)

A field without ``| None`` is not nullable. `typing.Annotated` carries a `Role`, an `Embedding`, a
`Derivation` or, for what Python cannot say, a pyarrow type; anything else in it is left to others.
"""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pyarrow as pa

from lake.errors import InvalidInput
from lake.schema.column import Column, Derivation, Embedding
from lake.schema.roles import Role


def columns(entity: type) -> list[Column]:
    """Give a column for each field of a class.

    Parameters
    ----------
    entity : type
        A pydantic model, whose field descriptions are kept; or any class with annotations.

    Raises
    ------
    InvalidInput
        The class has no fields, or an annotation has no Arrow type.
    """
    found = [_column(*member) for member in _members(entity)]
    if not found:
        raise InvalidInput(f"{entity!r} has no annotated fields; give a pydantic model or a dataclass")
    return found


def _members(entity: type) -> Iterator[tuple[str, Any, list[Any], str]]:
    # Known by its attribute, so that pydantic need not be imported.
    fields = getattr(entity, "model_fields", None)
    if fields is not None:
        for name, info in fields.items():
            yield name, info.annotation, list(info.metadata), info.description or ""
        return
    for name, hint in get_type_hints(entity, include_extras=True).items():
        yield name, hint, [], ""


def _column(name: str, hint: Any, extras: list[Any], description: str) -> Column:
    hint, nullable = _unwrap(hint, extras)
    embedding = _last(extras, Embedding)
    spec = _last(extras, pa.DataType)
    if spec is None and embedding is not None:
        spec = pa.list_(pa.float32(), embedding.dimension)
        if get_origin(hint) is list and get_origin(get_args(hint)[0]) is list:
            spec = pa.list_(spec)
    return Column(
        name,
        hint if spec is None else spec,
        _last(extras, Role),
        nullable=nullable,
        embedding=embedding,
        derivation=_last(extras, Derivation),
        description=description,
    )


def _unwrap(hint: Any, extras: list[Any]) -> tuple[Any, bool]:
    """Peel `Annotated` and ``| None`` off, in whatever order; collect what `Annotated` carries."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        extras.extend(arguments[1:])
        return _unwrap(arguments[0], extras)
    if origin in (Union, types.UnionType):
        rest = [a for a in arguments if a is not type(None)]
        if len(rest) == 1 and len(rest) < len(arguments):
            return _unwrap(rest[0], extras)[0], True
    return hint, False


def _last(extras: list[Any], kind: type) -> Any:
    return next((extra for extra in reversed(extras) if isinstance(extra, kind)), None)
