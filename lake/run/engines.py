"""Executors by name."""

from importlib import import_module
from importlib.metadata import entry_points

from lake.errors import InvalidInput
from lake.run.task import Executor

# Our own, with the extra that installs each; others register the entry point group "lake.executors".
_OWN = {"local": ("lake.run.local:LocalExecutor", "")}


def resolve(executor: str | Executor) -> Executor:
    """Return the executor that a name means; an executor means itself.

    Raises
    ------
    InvalidInput
        If nobody provides that name, or what it needs is not installed.
    """
    if not isinstance(executor, str):
        return executor
    if executor in _OWN:
        home, extra = _OWN[executor]
        module, _, name = home.partition(":")
        try:
            made: Executor = getattr(import_module(module), name)()
        except ImportError as error:
            raise InvalidInput(f"executor {executor!r} needs: pip install 'semlake[{extra}]' ({error})") from error
        return made
    for found in entry_points(group="lake.executors", name=executor):
        try:
            provided: Executor = found.load()()
        except ImportError as error:
            raise InvalidInput(f"executor {executor!r}, from {found.value}, cannot be imported: {error}") from error
        return provided
    raise InvalidInput(f"there is no executor {executor!r}; there are {sorted(_OWN)} and installed plug-ins")
