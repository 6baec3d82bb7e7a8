"""Loads of little files, and what they should make, as plain Python."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lake
from lake.etl import Load, LoadReport, load
from lake.run import LocalExecutor
from lake.run.events import Callback, Event, ignore
from lake.storage import Location

Row = Mapping[str, Any]


def json_lines(path: Path, rows: Iterable[Row | str]) -> Path:
    """Write rows as JSON lines; texts as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def run(root: Location, spec: Mapping[str, Any], job_id: str | None = "job", on_event: Callback = ignore) -> LoadReport:
    """Run a load in this process, and check that its counts add up."""
    executor = LocalExecutor(1)
    report = load(root, Load.model_validate(spec), executor=executor, job_id=job_id, on_event=on_event)
    assert report.read == report.written + report.filtered + report.duplicates + report.refused
    return report


def rows_of(root: Location, table: str) -> list[dict[str, Any]]:
    """All rows of a table, sorted by their first column."""
    found: list[dict[str, Any]] = lake.connect(root.uri, root.options).open_table(table).to_arrow().to_pylist()
    return sorted(found, key=lambda row: str(next(iter(row.values()))))


def refused_of(root: Location, table: str) -> set[tuple[str, int, str | None]]:
    """Of each refused row: the file's name, the row's number and the column."""
    return {(Path(r["source"]).name, r["row"], r["column"]) for r in rows_of(root, f"{table}__refused")}


class Heard(list[Event]):
    """A callback that keeps what it hears."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def keys(self, kind: type[Event]) -> set[str]:
        """Keys of the tasks of the events of one kind."""
        return {getattr(event, "key") for event in self if isinstance(event, kind)}  # noqa: B009
