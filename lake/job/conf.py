"""Configuration: one YAML file for each job, with the environment's values in it, and errors that name the place.

``${NAME}`` stands for a variable of the environment, ``${NAME:-default}`` for one that may be missing, ``$$`` for a
dollar. They are put into texts that YAML has been read into, so no value can change the file's structure. ``${DATE}``
is today's date in UTC, unless the environment has another. Nothing in a file is executed, and no error repeats a value.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lake.errors import InvalidInput, NotFound

M = TypeVar("M", bound=BaseModel)
Place = tuple[str | int, ...]

_DEPTH = 50
_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}|(?P<bad>\$\{[^}]*\}?)")


class _Loader(yaml.SafeLoader):
    """Reads on, off, yes, no as words, as YAML does since 1.2: `on` is a key of joins, NO a country."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if first not in "oOyYnN" or tag != "tag:yaml.org,2002:bool"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Document:
    """A YAML file, and at which line each of its values stands.

    Parameters
    ----------
    path : str or Path
    environment : mapping, optional
        The process's own by default.

    Raises
    ------
    NotFound
        There is no such file.
    InvalidInput
        It is not YAML, gives a key twice, or names a variable that is not set.
    """

    def __init__(self, path: str | Path, environment: Mapping[str, str] | None = None) -> None:
        self.path = Path(path)
        self._environment = {
            "DATE": f"{datetime.now(UTC):%Y-%m-%d}",
            **(os.environ if environment is None else environment),
        }
        self._lines: dict[Place, int] = {}
        try:
            text = self.path.read_text(encoding="utf-8")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise NotFound(f"there is no file {str(path)!r}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"cannot read {str(path)!r}: {error}") from error
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                self._note((), node)
            self.values = {} if node is None else self._filled((), loader.construct_document(node))
        except yaml.MarkedYAMLError as error:  # its text would quote the file
            mark = error.problem_mark or error.context_mark
            line = "" if mark is None else f":{mark.line + 1}"
            raise InvalidInput(f"{self.path}{line}: not YAML: {error.problem}") from None
        finally:
            loader.dispose()
        if not isinstance(self.values, dict):
            raise InvalidInput(f"{self.path}: give keys and values, such as `job: etl`")

    def parse(self, kind: type[M]) -> M:
        """Check the values.

        Raises
        ------
        InvalidInput
            With all that is wrong, each with its line and its key.
        """
        try:
            return kind.model_validate(self.values)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            said = [self._complaint(e["loc"], e["type"], e["msg"], kind) for e in found]
        raise InvalidInput("; ".join(dict.fromkeys(said)))  # outside of `except`: the cause holds the values

    def where(self, place: Place) -> str:
        """Name a place: file, line and key."""
        known = place
        while known not in self._lines and known:
            known = known[:-1]
        line = self._lines.get(known, 1)
        return f"{self.path}:{line}: " + ".".join(map(str, known))

    def _complaint(self, place: Place, problem: str, message: str, kind: type[BaseModel]) -> str:
        if problem == "extra_forbidden":
            names = _fields(kind, place[:-1])
            near = difflib.get_close_matches(str(place[-1]), names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
            return f"{self.where(place)}: unknown key; {hint}"
        if problem == "missing":
            return f"{self.where(place[:-1])}: the key {str(place[-1])!r} is missing".replace(": : ", ": ")
        return f"{self.where(place)}: {message.removeprefix('Value error, ')}".replace(": : ", ": ")

    def _note(self, place: Place, node: yaml.Node) -> None:
        """Note the lines of a value and of all within it."""
        if len(place) > _DEPTH:  # an alias within what it stands for
            raise InvalidInput(f"{self.path}:{node.start_mark.line + 1}: nested more than {_DEPTH} deep")
        self._lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                self._note((*place, i), item)
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if key.value in seen:
                    raise InvalidInput(f"{self.path}:{key.start_mark.line + 1}: {key.value!r} is given twice")
                seen.add(key.value)
                self._note((*place, key.value), value)
                self._lines[*place, key.value] = key.start_mark.line + 1

    def _filled(self, place: Place, value: Any) -> Any:
        """Put the environment's values in."""
        if isinstance(value, dict):
            return {k: self._filled((*place, k), v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._filled((*place, i), v) for i, v in enumerate(value)]
        return _VARIABLE.sub(lambda found: self._variable(place, found), value) if isinstance(value, str) else value

    def _variable(self, place: Place, found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        if found["bad"] is not None:
            raise InvalidInput(f"{self.where(place)}: write ${{NAME}} or ${{NAME:-default}}, or $$ for a dollar")
        value = self._environment.get(found["name"], found["default"])
        if value is None:
            raise InvalidInput(f"{self.where(place)}: the environment has no variable {found['name']}")
        return value


def _fields(kind: type[BaseModel], place: Place) -> list[str]:
    """Return the keys that a place of a configuration may have."""
    for part in place:
        field = kind.model_fields.get(str(part))
        inner = None if field is None else _model(field.annotation)
        kind = inner or kind
    return list(kind.model_fields)


def _model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _model(part))), None)
