"""What all jobs have in common: what each is told, how it is run, what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import Field

from lake.catalog import Lake, connect
from lake.etl.spec import Spec
from lake.run import Callback


class Report(Protocol):
    """What a job did; rich prints it."""

    @property
    def repeated(self) -> bool:
        """Whether the job had been done before, so that nothing was done now."""
        ...

    def to_dict(self) -> Mapping[str, Any]:
        """Return it as plain data, for JSON."""
        ...


@dataclass(frozen=True)
class Run:
    """One run of a job.

    Parameters
    ----------
    job_id : str
        The same id again resumes the job, or finds that it is done.
    engine : str
        ``local``, ``ray``, ``spark``, a connection such as ``ray://host:10001``, or a plug-in's name.
    on_event : callable
        Gets progress events.
    """

    job_id: str
    engine: str
    on_event: Callback


class Common(Spec):
    """What every job is told.

    Parameters
    ----------
    lake : str
        The lake's root: a folder, or a URL such as ``s3://bucket/lake``.
    storage_options : mapping
        Of its store; secrets are best left in the environment, as ``${NAME}``. They never print.
    engine : str
        Where tasks run.
    job_id : str, optional
        The same id resumes a job, and does nothing after it was done; by default each run is a job of its own.
    """

    lake: str
    storage_options: Mapping[str, Any] = Field(default_factory=dict, repr=False)
    engine: str = "local"
    job_id: str | None = None

    def open(self) -> Lake:
        """Open the lake."""
        return connect(self.lake, self.storage_options)


class Analysis(Common):
    """What every analysis of a table is told.

    Parameters
    ----------
    table : str
    memory : int or str
        What each worker may hold.
    """

    table: str
    memory: int | str = "1GiB"

    def asked(self, run: Run) -> dict[str, Any]:
        """Return the arguments of the analysis, but for tables."""
        own = type(self).model_fields.keys() - Common.model_fields.keys() - {"job", "table"}
        given = {name: getattr(self, name) for name in own}
        return given | {"executor": run.engine, "job_id": run.job_id, "on_event": run.on_event}
