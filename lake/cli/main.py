"""The program: commands, and errors as people want them."""

from __future__ import annotations

import json
import sys

import typer
from rich.console import Console
from rich.markup import escape

import lake
from lake.cli.commands import app
from lake.errors import CommitUnknown, Conflict, InvalidInput, LakeError, NotFound, TaskFailed

# For schedulers: what a retry would do. 0 is success, 1 any other failure.
_EXIT = ((InvalidInput, 2), (NotFound, 3), (Conflict, 4), (CommitUnknown, 5))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake is one line on stderr, never a traceback.

    Exit codes: 0 done, 1 failed, 2 wrong call or data, 3 not found, 4 conflict (try again), 5 unknown
    (repeat with the same commit id), 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments == ["--version"]:
            typer.echo(f"lake {lake.__version__}")
            return
        app(arguments, prog_name="lake")
    except LakeError as error:
        if "--json" in arguments:
            typer.echo(json.dumps({"error": type(error).__name__, "message": str(error)}))
        else:
            Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(exit_code(error))


def exit_code(error: BaseException) -> int:
    """Return what a scheduler is told: for a task that failed, what its own error means."""
    cause = error.__cause__ if isinstance(error, TaskFailed) and error.__cause__ is not None else error
    return next((code for kind, code in _EXIT if isinstance(cause, kind)), 1)
