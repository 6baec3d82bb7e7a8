"""Executors by name, by a cluster's address, by an engine's session."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from lake.errors import InvalidInput
from lake.run.local import LocalExecutor
from lake.run.task import Executor

# Our own, with the extra that installs each; others register the entry point group "lake.executors".
_OWN = {
    "local": ("lake.run.local:LocalExecutor", ""),
    "ray": ("lake_ray.executor:RayExecutor", "ray"),
    "spark": ("lake_spark.executor:SparkExecutor", "spark"),
}
# Who runs a query, or reads a dataset, and keeps its rows in a table, for loads.
_KEEPERS = {"spark": ("lake_spark.query:keep", "spark"), "ray": ("lake_ray.source:keep", "ray")}
# Addresses that begin so are the engine's.
_SCHEMES = {"ray": "ray", "sc": "spark", "spark": "spark"}


def resolve(executor: Any) -> Executor:
    """Return the executor that a name, a cluster's address or a session means; an executor means itself.

    Parameters
    ----------
    executor : str, Executor or SparkSession
        ``"local"``, ``"ray"``, ``"spark"``, or a plug-in's name; ``"ray://host:10001"``, ``"spark://host:7077"`` or
        ``"sc://host:15002"``; a Spark session, classic or of Spark Connect.

    Raises
    ------
    InvalidInput
        If nobody provides that name, or what it needs is not installed.
    """
    if not isinstance(executor, str):
        is_spark = type(executor).__module__.startswith("pyspark.")
        if not is_spark and not callable(getattr(executor, "run", None)):
            raise InvalidInput(
                f"executor={executor!r}: give a name, such as 'ray', or lake.run.LocalExecutor(workers=2)"
            )
        own: Executor = _make("spark", executor) if is_spark else executor
        return own
    if executor in _OWN:
        return _make(executor)
    scheme, _, rest = executor.partition("://")
    if rest and scheme in _SCHEMES:
        return _make(_SCHEMES[scheme], executor)
    for found in entry_points(group="lake.executors", name=executor):
        try:
            provided: Executor = found.load()()
        except ImportError as error:
            raise InvalidInput(f"executor {executor!r}, from {found.value}, cannot be imported: {error}") from error
        return provided
    raise InvalidInput(f"there is no executor {executor!r}; there are {sorted(_OWN)} and installed plug-ins")


@contextmanager
def engage(
    executor: str | Executor, *, little: bool = False, local: Callable[[], LocalExecutor] = LocalExecutor
) -> Iterator[Executor]:
    """Choose where tasks run; worker processes that are begun for it end with the block.

    Parameters
    ----------
    executor : str or Executor
        As `resolve` takes it.
    little : bool
        There is less to do than it takes to start processes, so ``"local"`` means this one.
    local : callable
        What ``"local"`` means otherwise.
    """
    if executor == "local":
        chosen: Executor = LocalExecutor(1) if little else local()
    else:
        chosen = resolve(executor)
    try:
        yield chosen
    finally:
        if isinstance(chosen, LocalExecutor) and chosen is not executor:
            chosen.close()


def keeper(engine: str) -> Callable[[Any, Any], None]:
    """Return what runs a query or reads a dataset in an engine, and keeps its rows in a table at a location.

    Raises
    ------
    InvalidInput
        If what it needs is not installed.
    """
    found: Callable[[Any, Any], None] = _load(engine, *_KEEPERS[engine])
    return found


def _make(name: str, *arguments: Any) -> Executor:
    made: Executor = _load(name, *_OWN[name])(*arguments)
    return made


def _load(name: str, home: str, extra: str) -> Any:
    module, _, kind = home.partition(":")
    try:
        return getattr(import_module(module), kind)
    except ImportError as error:
        raise InvalidInput(f"executor {name!r} needs: pip install 'semlake[{extra}]' ({error})") from error
