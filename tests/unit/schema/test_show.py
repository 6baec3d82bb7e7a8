import io
import subprocess
import sys

import pyarrow as pa
from rich.console import Console

from lake.schema import Column, Derivation, Embedding, Schema


def schema() -> Schema:
    return Schema(
        [
            Column("id", int),
            Column("body", str, "description", nullable=False, description="line\nbreak \x1b[31m[red]<b>"),
            Column("emb", Embedding(384, of="body", model="minilm", metric="cosine", normalized=True)),
            Column("tokens", pa.list_(pa.list_(pa.float16(), 8))),
            Column("label", dict, derivation=Derivation(("body", "id"), "classify", "2")),
        ],
        key="id",
    )


def test_plain() -> None:
    assert repr(schema()).splitlines() == [
        "name    type              role         meaning",
        "id      int64             key          entity key",
        "body    string not null   description  line break �[31m[red]<b>",
        "emb     float32[384]      vector       of body, by minilm, cosine, normalized",
        "tokens  list<float16[8]>  vector       cosine",
        "label   json              json         classify(body, id) version 2",
    ]


def test_composite_key() -> None:
    rows = Schema([Column("a", int), Column("b", int)], key=["b", "a"]).rows()
    assert [row[3] for row in rows] == ["entity key 2 of 2", "entity key 1 of 2"]


def test_html_escapes() -> None:
    page = schema()._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count("<tr>") == 6


def test_rich_shows_markup_as_text() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(schema())
    assert "[red]<b>" in console.export_text()


def test_import_is_light() -> None:
    code = "import sys, lake.schema; print({'lance', 'lancedb', 'pydantic', 'rich', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
