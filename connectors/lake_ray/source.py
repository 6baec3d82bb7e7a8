"""What Ray Data reads as a table of the lake: what a load reads, wherever its tasks run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import ray

from lake.errors import InvalidInput
from lake.schema import Schema
from lake.storage import Location
from lake_ray.write import write_lake

_READ = "read_"


def keep(source: Mapping[str, Any], location: Location) -> None:
    """Read a dataset on the cluster that this process is connected to, or a new one, and keep its rows in a table.

    Parameters
    ----------
    source : mapping
        ``read`` names one of Ray's readers, such as ``avro`` for `ray.data.read_avro`; the others are its arguments.

    Raises
    ------
    InvalidInput
        There is no such reader, it refuses its arguments, or what it reads has no columns of Arrow's types.
    """
    arguments = dict(source)
    name = str(arguments.pop("read", ""))
    reader = getattr(ray.data, _READ + name, None)
    if reader is None:
        known = ", ".join(each.removeprefix(_READ) for each in dir(ray.data) if each.startswith(_READ))
        raise InvalidInput(f"source.ray: read: {name!r} is none of Ray's readers; they are {known}")
    try:
        dataset = reader(**arguments)
        schema = dataset.schema()
    except (TypeError, ValueError, OSError, ImportError) as error:
        raise InvalidInput(f"source.ray: {_READ}{name} refuses {sorted(arguments)}: {error}") from error
    columns = pa.schema(_field(name, kind) for name, kind in zip(schema.names, schema.types, strict=True))
    # Whether lists of floats are vectors is for the table to say that the load writes.
    made = Schema.from_arrow(columns, roles={field.name: "other" for field in columns if _is_undecided(field.type)})
    write_lake(dataset, location.uri, schema=made, storage_options=dict(location.options))


def _field(name: str, kind: object) -> pa.Field:
    if not isinstance(kind, pa.DataType) or isinstance(kind, pa.ExtensionType):
        raise InvalidInput(f"source.ray: column {name!r} holds {kind}, which is none of Arrow's own types")
    return pa.field(name, kind)


def _is_undecided(kind: pa.DataType) -> bool:
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(listed and pa.types.is_floating(kind.value_type))
