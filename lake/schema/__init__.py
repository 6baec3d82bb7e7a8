"""The semantic schema of a table: entity key, column roles, embeddings, derivations.

It lives in Arrow's metadata, and so in Lance's manifest: see `lake.schema.codec` for what survives there.
"""

from lake.schema.arrow import geo_point, points
from lake.schema.column import Column, Derivation, Embedding, Metric
from lake.schema.names import check_names
from lake.schema.roles import Role
from lake.schema.schema import Schema

__all__ = [
    "Schema",
    "Column",
    "Role",
    "Embedding",
    "Metric",
    "Derivation",
    "geo_point",
    "points",
    "check_names",
]
