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


# A member that ended is told of in the actors' record while that is open, and doubts the run afterwards.
_AFTERWARDS = """
import json, sys
from types import SimpleNamespace
from loadgen.chaos.campaign import Campaign

looks, when = 0, int(sys.argv[1])
told, doubts = [], []

def ended():
    global looks
    looks += 1
    said = {"member": "a", "said": "panic", "at_ns": 1, "by_itself": True, "started": True}
    return [said] if looks == when else []

campaign = Campaign.__new__(Campaign)
campaign._on, campaign._has_ended, campaign._hurried, campaign._error = None, False, False, None
campaign._say = lambda text: None
campaign._actors = SimpleNamespace(
    tell=lambda members, what, *more: told.append(what), end=lambda within_s: {"turns": {}, "problems": [], "bugs": []}
)
campaign._driver = SimpleNamespace(heal=dict, wait_healthy=lambda timeout_s: None, ended=ended)
campaign._master = SimpleNamespace(
    agree=lambda: 7, read_members=lambda revision: None, mark_restart=lambda member, ended_ns: None
)
campaign._session = SimpleNamespace(workers=[])
campaign.run = SimpleNamespace(doubt=doubts.append, lost=[])
campaign._ask_afterwards()
assert campaign._error is None, campaign._error
print(json.dumps([told, doubts]))
"""


@pytest.mark.parametrize(
    ("look", "told", "doubts"),
    [
        (1, ["ended", "started"], []),
        (2, ["ended", "started"], []),
        (3, [], ["a ended by itself after the load: panic"]),
        (4, [], []),
    ],
)
def test_a_member_that_ends_after_the_load_is_not_lost(look: int, told: list[str], doubts: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AFTERWARDS, str(look)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert json.loads(done.stdout) == [told, doubts]
