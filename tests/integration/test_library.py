"""A benchmark from Python: the code of docs/python.md and of the package's docstring, as it stands there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jsonschema

import loadgen.run
from cluster.local.cluster import LocalCluster
from loadgen import schema
from tests.support import command

SECTION = (command.ROOT / "docs" / "python.md").read_text().partition("## A benchmark\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


def python(program: str, folder: Path, **env: str) -> str:
    """Run a program in a folder; return what it printed on stdout, and hold it to saying nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": str(command.ROOT), **env},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_benchmark_in_ten_lines(tmp_path: Path) -> None:
    assert len(BLOCKS[0].splitlines()) <= 10
    out = python(BLOCKS[0], tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert out == f"{result['results']['put']['latency']['p99_ms']:.2f} ms at p99: {result['verdict']}\n"
    jsonschema.validate(result, schema.load("result"))
    assert result["results"]["total"]["operations"] == 2000
    assert result["target"]["kind"] == "embedded"
    assert len(result["target"]["members"]) == 3
    assert [each["expression"] for each in result["thresholds"]] == ["total.success_rate >= 0.99"]
    assert result["run"]["command"] == []


def test_several_runs_one_after_the_other(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """What listened to the first run does not hear of the second, and counts nothing twice."""
    out = python(BLOCKS[1], tmp_path, ETCDCTL_ENDPOINTS=",".join(etcd_single.endpoints))
    assert out.splitlines() == ["the load has ended", "200 200 200 1", "the load has ended", "400 400 400 1"]
    for rate in (200, 400):
        result = json.loads((tmp_path / f"at-{rate}" / "result.json").read_text())
        assert result["problems"] == []
        assert result["books"]["writes_ok"] == result["results"]["put"]["succeeded"]
        assert result["generator"]["scheduled"] == rate


# Counts how often a result is judged and written.
COUNTED = """
from loadgen.result import gate
from loadgen.run import run_folder

calls, apply, write_json = [], gate.apply, run_folder.write_json
gate.apply = lambda *args: calls.append("judged") or apply(*args)
run_folder.write_json = lambda path, document: calls.append(path.name) or write_json(path, document)
"""


def test_the_docstrings_example_and_its_result_is_judged_and_written_once(
    etcd_single: LocalCluster, tmp_path: Path
) -> None:
    """Its cluster is at 127.0.0.1:2379; this one's port is another."""
    example = loadgen.run.__doc__
    assert example is not None
    code = textwrap.dedent(example[example.index("    from loadgen") : example.index("`Settings` is")])
    program = COUNTED + code.replace("127.0.0.1:2379", etcd_single.endpoints[0]) + "print(*calls)"
    first, calls = python(program, tmp_path).splitlines()
    assert re.fullmatch(r"\d+\.\d+ ms; (pass|fail|unknown)", first)
    assert calls == "run.json run.json judged result.json"


# What is handed to `bench`, and how what it raises begins.
CANNOT_BE = {
    "Plan(thresholds=('put.p99 < 5',))": "ThresholdError: ",
    "Plan(Settings(operations=5)), scenario='steps'": "SettingsError: scenario steps goes by time",
    "scenario='frobnicate'": "ScenarioError: ",
    "target=TargetOptions.at('127.0.0.1:1')": "UnreachableError: no endpoint answers",
    "target=TargetOptions.at('127.0.0.1:port')": "ValueError: ",
}


def test_what_cannot_be_is_an_exception(tmp_path: Path) -> None:
    """Each after the other in one process, which is none the worse for those before."""
    program = "from loadgen.run import Plan, Settings, TargetOptions, bench\n" + "".join(
        f"""
try:
    bench({arguments})
except Exception as failed:
    print(f"{{type(failed).__name__}}: {{failed}}")
else:
    print("nothing was raised")
"""
        for arguments in CANNOT_BE
    )
    raised = python(program, tmp_path).splitlines()
    for (arguments, error), line in zip(CANNOT_BE.items(), raised, strict=True):
        assert line.startswith(error), arguments
