"""Names of types, as people write them in YAML.

All that Arrow has an alias for (``int64``, ``double``, ``string``, ``date32``, ``timestamp[us]`` …), and
``timestamp[us, UTC]``, ``decimal(10, 2)``, ``list<string>``, ``float32[384]`` (a vector) and ``json``.
"""

from __future__ import annotations

import re

import pyarrow as pa

from lake.errors import InvalidInput

_LIST = re.compile(r"list<(.+)>")
_VECTOR = re.compile(r"(\w+)\[(\d+)\]")
_ZONED = re.compile(r"timestamp\[(s|ms|us|ns),\s*([\w/+:-]+)\]")
_DECIMAL = re.compile(r"decimal\((\d+),\s*(\d+)\)")


def as_type(text: str) -> pa.DataType:
    """Return the Arrow type that a name means.

    Raises
    ------
    InvalidInput
        It means none.
    """
    name = text.strip()
    try:
        if match := _LIST.fullmatch(name):
            return pa.list_(as_type(match[1]))
        if match := _VECTOR.fullmatch(name):
            return pa.list_(as_type(match[1]), int(match[2]))
        if match := _ZONED.fullmatch(name):
            return pa.timestamp(match[1], tz=match[2])
        if match := _DECIMAL.fullmatch(name):
            return pa.decimal128(int(match[1]), int(match[2]))
        return pa.json_() if name == "json" else pa.type_for_alias(name)
    except ValueError as error:
        raise InvalidInput(
            f"no type {text!r}; there are int64, float32, string, bool, date32, timestamp[us], timestamp[us, UTC], "
            "decimal(10, 2), list<string>, float32[384] (a vector), json …"
        ) from error
