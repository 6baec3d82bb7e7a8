"""What ``import lake`` may load, and which room may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lake

HOUSE = Path(lake.__file__).parent
# Ground floor first; a room imports from its own floor's room and from the floors below.
FLOORS = [
    {"errors", "storage"},
    {"schema", "run"},
    {"table", "nearest"},
    {"index"},
    {"search", "etl", "join"},
    {"analytics"},
    {"anatomy"},
    {"handle", "catalog", "sample"},
    {"job"},
    {"cli"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def loaded_by(code: str) -> set[str]:
    program = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_import_lake_loads_no_engine_and_no_heavy_library() -> None:
    loaded = loaded_by("import lake")
    assert not loaded & {"pyspark", "ray", "torch", "lance", "lancedb", "pandas", "polars", "pyarrow", "numpy"}


def test_using_the_lake_loads_no_engine() -> None:
    assert not loaded_by("import lake; lake.connect; lake.Table") & {
        "pyspark",
        "ray",
        "torch",
        "lancedb",
        "polars",
        "rich",
    }


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=lambda p: str(p.relative_to(HOUSE)))
def test_a_room_imports_only_from_below(path: Path) -> None:
    room = path.relative_to(HOUSE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for name in imports(ast.parse(path.read_text())):
        other = name.split(".")[1] if name.startswith("lake.") else None
        if other is not None and other != room:
            assert FLOOR[other] <= FLOOR[room], f"{path.name} of {room} imports {name}"
            assert FLOOR[other] < FLOOR[room] or {room, other} <= {"handle", "catalog", "sample", "errors", "storage"}


def imports(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            base = node.module
            found += [f"{base}.{alias.name}" for alias in node.names] if base == "lake" else [base]
    return [name for name in found if name.split(".")[0] == "lake" and name.count(".") and name.split(".")[1] in FLOOR]


def test_every_public_name_is_there() -> None:
    for name in lake.__all__:
        assert getattr(lake, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lake.nothing
