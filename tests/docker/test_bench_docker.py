"""`raftload bench --backend docker`, and bench after `cluster up`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.docker.conftest import Docker
from tests.support import command

pytestmark = pytest.mark.docker


def bench(engine: Docker, *words: str, operations: int) -> dict[str, Any]:
    """Run so many operations; return the result, the books of which are right."""
    done = command.run("bench", "--operations", str(operations), "--json", *words, cwd=engine.folder, **engine.env)
    assert done.returncode in (0, 3), done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["results"]["total"]["succeeded"] == operations
    assert result["books"]["writes_ok"] == result["books"]["revision_delta"]
    assert result["target"]["kind"] == "docker"
    return result


def test_a_cluster_made_for_the_run_is_removed_and_one_that_is_there_stays(engine: Docker) -> None:
    before = engine.everything()
    made = bench(engine, "--backend", "docker", "--workers", "2", operations=500)
    assert made["books"]["balanced"] is True
    assert len(made["target"]["members"]) == 3
    assert engine.everything() == before
    engine.run("up", "--nodes", "1")
    found = bench(engine, "--backend", "docker", "--workers", "1", operations=500)
    assert found["books"]["balanced"] is None
    bench(engine, "--workers", "1", operations=500)  # which finds it by itself
    assert engine.run("status").returncode == 0
