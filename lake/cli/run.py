"""The command that runs a job from its file."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer

from lake.cli.show import emit
from lake.errors import InvalidInput, JobError, MemoryExceeded
from lake.job import KINDS, Run, open_job
from lake.run import Callback, Progress, json_lines, tee

_INTERRUPTED = 130


def run(
    conf: Annotated[Path, typer.Argument(help="The job's YAML file.")],
    engine: Annotated[
        str | None, typer.Option(help="Where tasks run: local, ray, spark … instead of the file's.")
    ] = None,
    job_id: Annotated[str | None, typer.Option(help="The same id resumes a job, or finds that it is done.")] = None,
    events: Annotated[str | None, typer.Option(help="Write events as JSON lines to this file; '-' is stdout.")] = None,
    only: Annotated[str | None, typer.Option(help=f"Refuse other kinds of jobs: {', '.join(KINDS)}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run a job, such as etl, build_index or dedup, as its YAML file says."""
    job = open_job(conf, only)
    given = job_id or job.job_id
    name = given or f"{job.job.replace('_', '-')}-{uuid.uuid4().hex[:12]}"
    resume = f"run again with --job-id {name} to go on"
    with _listening(events) as on_event:
        try:
            report = job.run(Run(name, engine or job.engine, on_event))
        except KeyboardInterrupt:
            typer.echo(f"interrupted; {resume}", err=True)
            raise typer.Exit(_INTERRUPTED) from None
        except MemoryExceeded:  # it would come again
            raise
        except JobError as error:
            error.args = (f"{error}; {resume}", *error.args[1:])
            raise
    emit(report, as_json=as_json, data=report.to_dict())


@contextmanager
def _listening(events: str | None) -> Iterator[Callback]:
    """Show progress on a terminal, and write events where they are wanted."""
    with Progress() as progress:
        if events is None:
            yield progress
        elif events == "-":
            yield tee(progress, json_lines(sys.stdout))
        else:
            with _open(events) as stream:
                yield tee(progress, json_lines(stream))


def _open(path: str) -> TextIO:
    try:
        return Path(path).open("a", encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"--events {path}: {error}") from error
