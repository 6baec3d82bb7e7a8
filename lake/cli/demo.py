"""The demonstration: from nothing to a searched, versioned table."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import lake
from lake import sample
from lake.cli.show import emit, grid

_SHOW = ["name", "section", "summary"]


def run_demo(root: str, *, as_json: bool = False) -> None:
    """Create a lake with the sample table, index it, search it, and show what happened.

    Running it again begins anew.
    """
    started = time.monotonic()
    say = _say if not as_json else _quiet
    lk = lake.connect(root)
    if "packages" in lk:
        lk.drop_table("packages")
    rows = sample.packages()
    say(f"[bold]1. Create[/] a lake in {lk.uri} and load {rows.num_rows:,} Debian packages")
    embedding = lake.Embedding(384, of="summary", model="all-MiniLM-L6-v2", metric="cosine", normalized=True)
    roles = {"summary": "description", "section": "category"}
    packages = lk.create_table("packages", rows, key="name", roles=roles, embeddings={"embedding": embedding})
    packages.tag("loaded")
    say(packages.schema)

    say("\n[bold]2. Declare and build[/] a vector index and a text index")
    packages.create_index("embedding")
    packages.create_index("summary", "text")
    say(packages.build())
    say(packages.coverage())

    queries = {q["text"]: q["embedding"] for q in sample.queries().to_pylist()}
    text = "relational database server"
    searches: dict[str, dict[str, Any]] = {
        f"vector: {text!r}, embedded": {"vector": queries[text]},
        "filtered: the same, where section = 'python'": {"vector": queries[text], "where": "section = 'python'"},
        "text: 'music player'": {"text": "music player"},
        f"hybrid: {text!r} and the word 'postgresql'": {"vector": queries[text], "text": "postgresql"},
    }
    say("\n[bold]3. Search[/]; each answer says what it covered")
    found = {}
    for title, query in searches.items():
        result = packages.search(**query, k=5, columns=_SHOW)
        found[title] = {"rows": result.to_pylist(), "coverage": result.coverage.to_dict()}
        say(f"\n[cyan]{title}[/]")
        say(result)

    say("\n[bold]4. Change[/] some rows; searches see it at once, and every version stays")
    packages.merge({"name": ["vim", "a-package-of-mine"], "version": ["2:9.9", "1.0"]})
    packages.delete("section = 'games'")
    changed = packages.changes(since="loaded").counts()
    say(f"since the tag 'loaded': {changed}")
    versions = packages.versions()
    lines = [(v.version, f"{v.time:%H:%M:%S}", v.verb, v.rows, ", ".join(v.tags)) for v in versions]
    say(grid("history", ("version", "time (UTC)", "what", "rows", "tags"), lines))
    seconds = time.monotonic() - started
    say(_NEXT.format(root=root, seconds=seconds, lake=_command()))
    if as_json:
        data = {
            "root": lk.uri,
            "seconds": seconds,
            "searches": found,
            "changes": changed,
            "history": [v.to_dict() for v in versions],
        }
        emit(data, as_json=True)


_NEXT = """
[bold]Done in {seconds:.1f} s.[/] Try next:
  {lake} describe {root} packages
  {lake} search {root} packages --like vim --columns name,summary
  {lake} search {root} packages --text chess --columns name,summary
  {lake} history {root} packages
and open the same files with LanceDB, DuckDB or Lance: {root}/packages.lance"""


def _command() -> str:
    """Return how this program is called from here."""
    if shutil.which("lake"):
        return "lake"
    beside = Path(sys.executable).parent / "lake"
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)


def _say(what: Any) -> None:
    emit(what, as_json=False)


def _quiet(what: Any) -> None:
    pass
