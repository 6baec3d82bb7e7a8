"""The wheel holds the package, its sample and its types, works from another folder, and shadows nothing of a user's."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

HOUSE = Path(__file__).parents[2]


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(HOUSE)]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 12 << 20
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lake", "lake_ray", "lake_spark", "semlake"}
    assert {"lake/py.typed", "lake/sample/packages.parquet", "lake/sample/LICENSE.md"} <= set(names)

    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("MINE = True\n")
    program = (
        "import sys; sys.path.insert(0, 'site')\n"
        "import jobs, lake\n"
        "assert jobs.MINE and lake.__file__.startswith(sys.argv[1]), lake.__file__\n"
        "from lake import sample\n"
        "t = lake.connect('lk').create_table('p', sample.packages(), key='name')\n"
        "assert len(t) == 8000 and len(t.search(where=\"section = 'net'\", k=3)) == 3\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=tmp_path)

    (tmp_path / "in.csv").write_text("id,name\n1,a\nx,b\n3,c\n4,d\n")
    source = "source: {files: in.csv, types: {id: int64}}"
    (tmp_path / "load.yaml").write_text(f"job: etl\nlake: lk\n{source}\ninto: {{table: t, key: id}}\n")
    program = (
        "import sys; sys.path.insert(0, 'site')\n"
        "import jobs, lake\n"
        "from lake.cli import main\n"
        "from lake.etl import loading\n"
        "loading._SMALL = 0  # in worker processes\n"
        "assert jobs.MINE and lake.__file__.startswith(sys.argv[1]), lake.__file__\n"
        "main(['run', 'load.yaml', '--json'])\n"
    )
    job = [sys.executable, "-c", program, str(tmp_path)]
    told = subprocess.run(job, check=True, cwd=tmp_path, capture_output=True, text=True).stdout
    assert [json.loads(told)[name] for name in ("read", "written", "refused")] == [4, 3, 1]
