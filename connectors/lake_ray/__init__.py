"""Ray: the lake's tasks on a cluster, its tables as Ray datasets."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lake_ray.executor import RayExecutor as RayExecutor
    from lake_ray.read import read_lake as read_lake
    from lake_ray.write import write_lake as write_lake

# Ray Data takes seconds to import, which an executor does not need.
_HOMES = {"RayExecutor": "executor", "read_lake": "read", "write_lake": "write"}

__all__ = [*_HOMES]  # noqa: PLE0604  literal names, from the table above


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lake_ray' has no attribute {name!r}")
    return getattr(import_module(f"lake_ray.{_HOMES[name]}"), name)
