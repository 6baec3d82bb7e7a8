"""From a file to a job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lake.errors import InvalidInput
from lake.job.conf import Document
from lake.job.kinds import KINDS, Job


def open_job(path: str | Path, only: str | None = None, environment: Mapping[str, str] | None = None) -> Job:
    """Read and check a job's file.

    Parameters
    ----------
    path : str or Path
        Of the YAML file.
    only : str, optional
        The kind that it must be.
    environment : mapping, optional
        What ``${NAME}`` stands for; the process's own by default.

    Raises
    ------
    NotFound
        There is no such file.
    InvalidInput
        Something in it is wrong; the message names each place.
    """
    document = Document(path, environment)
    kind = document.values.get("job")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidInput(f"{document.where(('job',))}: give the kind of job, one of {', '.join(KINDS)}")
    if only is not None and kind != only:
        raise InvalidInput(f"{document.where(('job',))}: {kind} is run with jobs/{kind}.py, or with `lake run`")
    return document.parse(KINDS[kind])
