"""Configuration: what a file says, what the environment says, and errors that name the place and no value."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import pytest

from lake.errors import InvalidInput, LakeError, NotFound
from lake.job import KINDS, Document, Etl, Run, open_job
from lake.run import ignore

HOUSE = Path(__file__).parents[3]
CANARY = "CANARY-5d1e"
GOOD = """\
job: etl
lake: ./lk
source:
  files: in.csv
into:
  table: t
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "job.yaml"


def opened(file: Path, text: str, **environment: str) -> Any:
    file.write_text(text)
    return open_job(file, environment=environment)


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_of_the_house_are_legal_and_have_a_program_each(kind: str) -> None:
    assert open_job(HOUSE / "conf" / f"{kind}.yaml", only=kind, environment={}).job == kind
    assert f'"--only", "{kind}"' in (HOUSE / "jobs" / f"{kind}.py").read_text()


def test_the_example_in_the_readme_is_legal(file: Path) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", (HOUSE / "README.md").read_text(), re.DOTALL)
    job = opened(file, text, AWS_SECRET_ACCESS_KEY=CANARY, DATE="2026-01-02")
    assert isinstance(job, Etl)
    assert (job.job_id, job.into.embeddings["embedding"].dimension) == ("etl-2026-01-02", 384)
    with pytest.raises(InvalidInput, match="transform.renam: unknown key; did you mean 'rename'?"):
        opened(file, text.replace("rename:", "renam:"), AWS_SECRET_ACCESS_KEY=CANARY)


def test_a_drift_of_a_table_against_itself_is_a_forgotten_key(file: Path) -> None:
    job = opened(file, "job: drift\nlake: ./nowhere\ntable: t\n")
    with pytest.raises(InvalidInput, match="give before:"):
        job.run(Run("weekly", "local", ignore))


def test_words_are_no_booleans(file: Path) -> None:
    join = {"job": "knn_join", "lake": ".", "left": "t", "into": "u"}
    text = "".join(f"{name}: {value}\n" for name, value in join.items()) + "on: left.a == right.a\nleft_where: NO\n"
    job = opened(file, text)
    assert (job.on, job.left_where) == (("left.a == right.a",), "NO")
    for word, meant in (("yes", True), ("true", True), ("off", False), ("False", False)):
        told = opened(file, f"job: dedup\nlake: .\ntable: t\nwithin: 0.1\ndelete: {word}\n")
        assert told.delete is meant


def test_the_environment_fills_texts_and_cannot_change_the_structure(file: Path) -> None:
    text = GOOD + (
        "job_id: load-${DATE}\n"
        "refused: {at_most: '${MOST}'}\n"
        "storage_options:\n  a: ${A}\n  b: '${B:-b: [1]}'\n  c: $${A}\n  d: x${A}y${A}\n"
    )
    job = opened(file, text, A="1\nlake: evil", MOST="7", DATE="2026-01-02")
    assert isinstance(job, Etl)
    a = "1\nlake: evil"
    assert job.storage_options == {"a": a, "b": "b: [1]", "c": "${A}", "d": f"x{a}y{a}"}
    assert (job.lake, job.job_id, job.refused.at_most) == ("./lk", "load-2026-01-02", 7)
    assert len(opened(file, GOOD + "job_id: ${DATE}\n").job_id) == len("2026-01-02")


WRONG = {
    "unknown": (GOOD + "enginee: ray\n", ":7: enginee: unknown key; did you mean 'engine'?"),
    "unknown inside": (GOOD.replace("files:", "fils:"), ":4: source.fils: unknown key; did you mean 'files'?"),
    "missing": (GOOD.replace("lake: ./lk\n", ""), "the key 'lake' is missing"),
    "missing inside": (GOOD.replace("table: t", "mode: merge"), ":5: into: the key 'table' is missing"),
    "kind": (
        GOOD.replace("etl", "elt"),
        ":1: job: give the kind of job, one of etl, build_index, compact, knn_join, dedup",
    ),
    "choice": (GOOD + "  mode: upsert\n", ":7: into.mode: Input should be 'append' or 'merge'"),
    "number": (GOOD + "refused:\n  at_most: -1\n", ":8: refused.at_most: Input should be greater than or equal to 0"),
    "rule": (GOOD.replace("files: in.csv", "version: 1"), ":3: source: give one of files, table, spark and ray"),
    "twice": (GOOD + "lake: x\n", ":7: 'lake' is given twice"),
    "variable": (
        GOOD + "storage_options:\n  key: ${NOPE}\n",
        ":8: storage_options.key: the environment has no variable",
    ),
    "braces": (GOOD + "engine: ${NOPE\n", ":7: engine: write ${NAME}"),
    "yaml": (GOOD + "engine: [ray\n", "not YAML"),
    "a list": ("- job: etl\n", "give keys and values"),
    "empty": ("", "give the kind of job"),
    "endless": (GOOD + "refused: &a\n  at_most: [*a]\n", "nested more than 50 deep"),
    "code": (GOOD + "engine: !!python/object/apply:os.system ['touch ran']\n", "not YAML: could not determine"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_name_the_place(case: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, message = WRONG[case]
    with pytest.raises(InvalidInput) as caught:
        opened(file, text)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_all_errors_are_told_at_once(file: Path) -> None:
    with pytest.raises(InvalidInput, match=r"source.fils: unknown key.*into: the key 'table' is missing"):
        opened(file, GOOD.replace("files", "fils").replace("table: t", "mode: append"))


@pytest.mark.parametrize(
    "text",
    [
        GOOD + "storage_options: ${SECRET}\n",
        GOOD + "storage_options:\n  key: ${SECRET}\nenginee: x\n",
        GOOD + "refused:\n  at_most: ${SECRET}\n",
        GOOD.replace("files: in.csv", "files: in.csv\n  storage_options: [${SECRET}]"),
        GOOD.replace("lake: ./lk", "lake: s3://user:${SECRET}@bucket/x"),
    ],
)
def test_no_error_and_no_repr_shows_a_secret(file: Path, text: str) -> None:
    try:
        job = opened(file, text, SECRET=CANARY)
        with pytest.raises(LakeError) as caught:
            job.open()
        error: BaseException = caught.value
    except LakeError as found:
        error = found
    assert CANARY not in "".join(traceback.format_exception(error)) + repr(error)


def test_a_job_prints_no_secret(file: Path) -> None:
    job = opened(file, GOOD + "storage_options:\n  key: ${SECRET}\n", SECRET=CANARY)
    assert job.storage_options == {"key": CANARY}
    assert CANARY not in repr(job) + str(job)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        Document(tmp_path / "x.yaml")
    with pytest.raises(InvalidInput, match="etl is run with jobs/etl.py"):
        open_job(HOUSE / "conf/etl.yaml", only="compact")
