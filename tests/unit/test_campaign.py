"""What a campaign notes of a fault whose round the end of the load has cut short."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.command import ROOT

# In a process of its own, since a campaign imports Locust.
_SETTLE = """
import json, sys
from types import SimpleNamespace
from cluster.faults.kinds import KINDS
from loadgen.chaos.campaign import Campaign
from loadgen.chaos.fault_stats import FaultRound

noted = []
campaign = Campaign.__new__(Campaign)
campaign._actors, campaign._has_ended = None, False
campaign._driver = SimpleNamespace(heal=dict, wait_healthy=lambda timeout_s: None)
campaign._held = SimpleNamespace(members=[SimpleNamespace(name=name) for name in ("a", "b")])
campaign._master = SimpleNamespace(
    mark_fault=lambda phase, fault, names: noted.append([phase, fault, *names]),
    mark_restart=lambda member: noted.append(["restart", member]),
)
campaign._on = FaultRound(1, "kill-random", "", members=tuple(sys.argv[1:]), began_ns=1), KINDS["kill"]
campaign._settle()
campaign._settle()
print(json.dumps(noted))
"""


@pytest.mark.parametrize(("members", "started"), [(["a"], ["a"]), ([], ["a", "b"])])
def test_a_fault_that_the_end_cuts_short_is_healed_in_the_history_too(members: list[str], started: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SETTLE, *members], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert json.loads(done.stdout) == [["heal", "kill-random", *members], *(["restart", name] for name in started)]
