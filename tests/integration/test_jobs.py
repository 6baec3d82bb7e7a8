"""Jobs as schedulers run them: programs with exit codes, killed and resubmitted, from an installed wheel, by cron."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

import lake
from lake.etl import LoadReport
from lake.job import Run, open_job
from lake.run import TaskDone
from lake.storage import Files, Location
from tests.support.etl import Heard, json_lines, refused_of, rows_of
from tests.support.killed import HELD_BY, MOMENTS
from tests.support.proxy import Proxy, Rule
from tests.support.s3 import SECRET, options

HOUSE = Path(__file__).parents[2]
PRODUCTS: list[Any] = [
    {
        "sku": "a",
        "title": "lamp",
        "maker": {"name": "x"},
        "price": "2",
        "added": "2026-01-01",
        "embedding": [1, 0, 0, 0],
    },
    {
        "sku": "b",
        "title": "desk",
        "maker": {"name": "y"},
        "price": "?",
        "added": "2026-01-01",
        "embedding": [1, 0, 1, 0],
    },
    {"sku": "c", "title": "sofa", "maker": None, "price": "3", "added": "2026-01-01", "embedding": [1, 0, 0]},
    {
        "sku": "a",
        "title": "lamp, new",
        "maker": {"name": "x"},
        "price": "4",
        "added": "2026-01-02",
        "embedding": [1] * 4,
    },
    {"sku": "d", "title": "free", "maker": {"name": "z"}, "price": "0", "added": "2026-01-02", "embedding": [1] * 4},
    {"sku": "e", "title": "chair", "maker": {"name": "z"}, "price": "9", "added": "2026-01-02", "embedding": [2] * 4},
]


def program(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(HOUSE), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with an inbox, as `conf/` expects it."""
    json_lines(tmp_path / "inbox/a.jsonl", PRODUCTS)
    return tmp_path


def test_the_jobs_of_the_house_one_after_the_other(place: Path) -> None:
    """Load, index, compact: each a program, each with its file in conf/, each said to be done the second time."""

    def job(name: str, *more: str) -> subprocess.CompletedProcess[str]:
        done = program(HOUSE / f"jobs/{name}.py", HOUSE / f"conf/{name}.yaml", *more, cwd=place, LAKE_ROOT="lk")
        assert done.returncode == 0, done.stderr
        return done

    first = json.loads(job("etl", "--json").stdout)
    counts = {name: first[name] for name in ("read", "written", "filtered", "duplicates", "refused")}
    assert counts == {"read": 6, "written": 2, "filtered": 1, "duplicates": 1, "refused": 2}
    root = Location.of(place / "lk")
    assert {row["sku"]: row["title"] for row in rows_of(root, "products")} == {"a": "lamp, new", "e": "chair"}
    assert refused_of(root, "products") == {("a.jsonl", 1, "price"), ("a.jsonl", 2, "embedding")}
    assert "done already" in job("etl").stdout
    built = json.loads(job("build_index", "--json", "--events", "events.jsonl").stdout)
    assert [index["done"] for index in built["indexes"]] == ["built"] * 3
    events = [json.loads(line)["event"] for line in (place / "events.jsonl").read_text().splitlines()]
    assert events[0] == "StageStarted"
    assert events[-1] == "JobCommitted"
    table = lake.connect(place / "lk").open_table("products")
    assert table.coverage().complete
    assert "done before" in job("build_index").stdout
    lines = job("compact", "--json", "--events", "-").stdout.splitlines()
    assert set(json.loads(lines[-1])["tables"]) == {"products", "products__refused"}


def test_exit_codes(place: Path) -> None:
    (place / "wrong.yaml").write_text("job: etl\nlake: lk\nsource: {files: nope.csv}\ninto: {tabel: t}\n")
    (place / "absent.yaml").write_text("job: etl\nlake: lk\nsource: {files: nope/*.csv}\ninto: {table: t}\n")
    (place / "torn.parquet").write_bytes(b"PAR1")
    (place / "data.yaml").write_text("job: etl\nlake: lk\nsource: {files: '*.parquet'}\ninto: {table: t}\n")
    (place / "engine.yaml").write_text("job: build_index\nlake: lk\ntable: t\nengine: abacus\n")
    lake.connect(place / "lk").create_table("t", {"id": [1]}).create_index("id", "btree")

    def code(*arguments: str) -> int:
        done = program("-c", "from lake.cli import main; main()", "run", *arguments, cwd=place)
        assert "Traceback" not in done.stderr
        return done.returncode

    assert [code(f"{name}.yaml") for name in ("wrong", "absent", "data", "engine", "none")] == [2, 3, 2, 2, 3]
    done = program(HOUSE / "jobs/compact.py", HOUSE / "conf/etl.yaml", "--json", cwd=place)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"] == "InvalidInput"


def conf_of(place: Path, mode: str) -> Path:
    """A job of several files, in both ways of writing, with refused rows and duplicates."""
    for n in range(3):
        rows = [{"id": i, "n": n} for i in range(n * 5, n * 5 + 8)]
        json_lines(place / f"in/{n}.jsonl", [*rows, {"id": f"bad {n}", "n": n}])
    job = {
        "job": "etl",
        "job_id": "nightly",
        "lake": "lk",
        "source": {"files": "in/*.jsonl"},
        "into": {"table": "t", "mode": mode, "key": "id"},
    }
    if mode == "merge":
        job["deduplicate"] = {"keep": "last"}
    (place / "job.yaml").write_text(yaml.safe_dump(job))
    return place / "job.yaml"


@pytest.mark.parametrize("mode", ["append", "merge"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resubmitted_it_takes_effect_once(
    moment: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = conf_of(tmp_path, mode)
    killed = program("-m", "tests.support.killed", moment, conf, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    root = Location.of(tmp_path / "lk")
    all_rows = [(i, n) for n in range(3) for i in range(n * 5, n * 5 + 8)]
    expected = sorted(all_rows if mode == "append" else dict(all_rows).items())
    committed = moment in {"rows committed", "report written"}
    assert sorted((r["id"], r["n"]) for r in rows_of(root, "t")) == (expected if committed else []), "all or nothing"
    monkeypatch.chdir(tmp_path)
    reports = []
    for _ in range(2):
        heard = Heard()
        report = open_job(conf).run(Run("nightly", "local", heard))
        assert isinstance(report, LoadReport)
        reports.append(report)
        ran = {e.key for e in heard if isinstance(e, TaskDone) and e.stage == "read"}
        if moment not in {"planned", "one task done"}:
            assert not ran, "finished tasks are not repeated"
        if moment == "one task done" and not report.repeated:
            assert len(ran) == 2
    assert sorted((r["id"], r["n"]) for r in rows_of(root, "t")) == expected
    assert refused_of(root, "t") == {(f"{n}.jsonl", 8, None) for n in range(3)}
    assert len(rows_of(root, "t__refused")) == 3
    assert reports[0].repeated == (moment == "report written")
    assert reports[1].repeated
    assert {(r.read, r.written, r.duplicates, r.refused) for r in reports} == {
        (27, len(expected), 24 - len(expected), 3)
    }


@pytest.mark.parametrize("mode", ["append", "merge"])
@pytest.mark.parametrize("moment", ["planned", "one task done", "tasks done", "refused rows committed"])
def test_two_drivers_of_one_job_take_effect_once(
    moment: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is held at a moment while another, with the same job id, does it all; then the first goes on."""
    conf, held = conf_of(tmp_path, mode), tmp_path / "held"
    command = [sys.executable, "-m", "tests.support.killed", moment, str(conf)]
    here = {**os.environ, "PYTHONPATH": str(HOUSE), HELD_BY: str(held)}
    first = subprocess.Popen(command, cwd=tmp_path, env=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while not held.exists():
            assert first.poll() is None, first.communicate()[0].decode()
            time.sleep(0.02)
        monkeypatch.chdir(tmp_path)
        report = open_job(conf).run(Run("nightly", "local", Heard()))
        assert isinstance(report, LoadReport)
        root = Location.of(tmp_path / "lk")
        rows, refused = rows_of(root, "t"), rows_of(root, "t__refused")
        held.unlink()
        told = first.communicate(timeout=120)[0].decode()
    finally:
        first.kill()
        first.wait()
    assert first.returncode == 0, told
    all_rows = [(i, n) for n in range(3) for i in range(n * 5, n * 5 + 8)]
    expected = sorted(all_rows if mode == "append" else dict(all_rows).items())
    assert sorted((r["id"], r["n"]) for r in rows) == expected
    assert len(refused) == 3
    assert rows_of(root, "t") == rows
    assert rows_of(root, "t__refused") == refused
    again = open_job(conf).run(Run("nightly", "local", Heard()))
    assert isinstance(again, LoadReport)
    assert again.repeated
    assert (again.version, again.written, again.refused) == (report.version, report.written, report.refused)


@pytest.mark.parametrize(("days", "repeated"), [(5, False), (7, True)])
def test_what_expiry_may_have_removed_is_made_again(
    days: int, repeated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = conf_of(tmp_path, "append")
    assert program("-m", "tests.support.killed", "tasks done", conf, cwd=tmp_path).returncode == -signal.SIGKILL
    [path] = (tmp_path / "lk/_jobs/nightly").rglob("load.json")
    plan = json.loads(path.read_text())
    begun = datetime.fromisoformat(plan["begun"]) - timedelta(days=days)
    path.write_text(json.dumps(plan | {"begun": begun.isoformat()}))
    monkeypatch.chdir(tmp_path)
    heard = Heard()
    open_job(conf).run(Run("nightly", "local", heard))
    assert bool(heard.keys(TaskDone)) == repeated
    assert len(rows_of(Location.of(tmp_path / "lk"), "t")) == 24


@pytest.mark.s3
@pytest.mark.parametrize("landed", [False, True], ids=["the manifest is lost", "the manifest lands afterwards"])
def test_killed_while_it_commits_on_s3(landed: bool, tmp_path: Path, bucket: Location, proxy: Proxy) -> None:
    conf = conf_of(tmp_path, "append")
    job = yaml.safe_load(conf.read_text())
    given = {**options(proxy.url), "aws_secret_access_key": "${STORE_SECRET}"}
    conf.write_text(yaml.safe_dump(job | {"lake": bucket.uri, "storage_options": given, "source": {"files": "in/*"}}))
    lake.connect(bucket.uri, bucket.options).create_table("t", {"id": [-1], "n": [-1]}, key="id")
    proxy.arm(Rule("hold", "/t.lance/_versions", nth=1))
    command = [sys.executable, "-c", "from lake.cli import main; main()", "run", str(conf)]
    environment = {**os.environ, "STORE_SECRET": SECRET, "PYTHONPATH": str(HOUSE)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, text=True)
    assert proxy.wait(process)
    process.kill()
    process.wait()
    proxy.release(forward=landed)
    done = program(*command[1:], "--json", cwd=tmp_path, STORE_SECRET=SECRET)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    found = [(r["id"], r["n"]) for r in rows_of(bucket, "t")]
    assert sorted(found) == sorted([(-1, -1), *((i, n) for n in range(3) for i in range(n * 5, n * 5 + 8))])
    assert len(rows_of(bucket, "t__refused")) == 3
    files = Files(bucket)
    assert not [name for name in files.names() if SECRET.encode() in files.read(name)]


def test_the_lines_for_schedulers_in_the_readme_are_true(place: Path) -> None:
    """As cron runs it: by sh, with little in the environment; as Airflow does, on the same day."""
    text = (HOUSE / "README.md").read_text()
    [line] = re.findall(r"^\d+ \d+ \* \* \* +(.+)$", text, re.MULTILINE)
    assert "\\%" in line, "cron reads a bare % as the end of the line"
    [operator] = re.findall(r'bash_command="([^"]+)"', text)
    today = subprocess.run(["date", "+%F"], check=True, capture_output=True, text=True).stdout.strip()
    (place / "conf").symlink_to(HOUSE / "conf")
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(place)}
    told = []
    for command in (line.replace("\\%", "%"), operator.replace("{{ ds }}", today)):
        shell = ["sh", "-c", command.replace("/srv/lake", str(place))]
        told.append(subprocess.run(shell, env=environment, check=True, cwd="/", capture_output=True, text=True).stdout)
    assert "read" in (place / "jobs.log").read_text()
    assert f"etl-{today} is done already" in told[1]
    assert len(rows_of(Location.of(place / "demo-lake"), "products")) == 2
