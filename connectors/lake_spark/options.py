"""What ``.option(…)`` may say, checked: a name that is not known would be a wish that is silently not granted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

from lake.errors import InvalidInput

if TYPE_CHECKING:
    from lake.storage import Location
    from lake.table.snapshot import Snapshot

STORAGE = "storage."
READ = frozenset({"version", "tag", "time", "branch", "columns", "filter"})
CHANGES = frozenset({"changes", "since"})
WRITE = frozenset({"branch", "commit_id", "merge", "key", "overwrite_schema"})
CREATE = ("embedding.", "role.")
# Spark's own, which it hands on.
_SPARKS = frozenset({"path", "checkpointlocation", "queryname", "outputmode", "truncate"})


def check(options: Mapping[str, str], known: Iterable[str], prefixes: tuple[str, ...] = ()) -> None:
    """Refuse options that nobody would read.

    Raises
    ------
    InvalidInput
        With the nearest name that there is; no value is repeated.
    """
    known = sorted(known)
    for name in options:
        low = name.lower()
        if low not in known and low not in _SPARKS and not low.startswith((STORAGE, *prefixes)):
            near = get_close_matches(low, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)} and {STORAGE}…"
            raise InvalidInput(f"format('lake') has no option {name!r} here; {hint}")


def location(options: Mapping[str, str], given: Mapping[str, str]) -> Location:
    """Return where the table lies, with the store's options: those of the session, then those of this call."""
    from lake.storage import Location  # see lake_spark.source

    path = options.get("path")
    if not path:
        raise InvalidInput("format('lake') needs the table's URI, such as s3://bucket/lake/name.lance: .load(uri)")
    own = {name[len(STORAGE) :]: value for name, value in options.items() if name.lower().startswith(STORAGE)}
    base = Location.of(path, given)
    more = Location.of(path, own)  # in one spelling each, so that this call's options replace the session's
    return Location.of(path, {**base.options, **more.options})


def names(text: str | None) -> list[str] | None:
    """Parse a list of columns: ``a, b`` or, for names with commas, JSON."""
    if text is None:
        return None
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise InvalidInput(f"columns {text!r}: not a JSON list: {error}") from error
    else:
        found = [part.strip() for part in text.split(",") if part.strip()]
    if not found or not all(isinstance(name, str) for name in found):
        raise InvalidInput(f"columns {text!r}: name at least one, such as 'id, summary'")
    return list(dict.fromkeys(found))


def flag(options: Mapping[str, str], name: str) -> bool:
    """Parse a switch."""
    value = options.get(name, "false").lower()
    if value not in {"true", "false"}:
        raise InvalidInput(f"option {name!r} is {value!r}; give true or false")
    return value == "true"


def number(options: Mapping[str, str], name: str) -> int | None:
    """Parse a version."""
    value = options.get(name)
    if value is None:
        return None
    try:
        return int(value)
    except ValueError:
        raise InvalidInput(f"option {name!r} is {value!r}; give a whole number") from None


def version(options: Mapping[str, str], table: Location) -> Snapshot:
    """Pin the version that the options name, the newest one by default.

    Raises
    ------
    InvalidInput
        Several options name one.
    NotFound
        There is no such table, branch, version or tag.
    """
    from lake.table import history  # see lake_spark.source
    from lake.table.commit import pinned

    branch = options.get("branch")
    named = [name for name in ("version", "tag", "time") if name in options]
    if len(named) > 1:
        raise InvalidInput(f"options {named} each name a version: give one")
    if not named:
        return pinned(table, branch)
    wanted = number(options, "version")
    return history.resolve(table, branch, options[named[0]] if wanted is None else wanted)
