"""One trial of a scenario on one etcd, in a process of its own, and what came of it.

The process ends when its stdin does, so that nothing is left of it where its starter is gone; the members go with it.
It reads an order, one JSON object, and writes one `Outcome` as JSON; where a bug of ours ends it, with 70, what that is
in one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from cluster.base import exits
from cluster.base.binary import EtcdBinary
from cluster.base.errors import ClusterError, RaftloadError
from cluster.base.etcd_errors import KINDS
from cluster.base.verdict import Verdict
from loadgen.bugs.catalogue import catalogue
from loadgen.bugs.scenario import CannotTryError, Scenario
from loadgen.bugs.stage import Stage, end_commands
from loadgen.check import report
from loadgen.check.rules import Result
from loadgen.client.call import KILLED
from loadgen.history.calls import Call, has_calls, read_calls
from loadgen.wire import Code

_NO_ANSWER = (Code.DEADLINE_EXCEEDED.name, Code.UNAVAILABLE.name)
# What a member answers, beside etcd's own errors; "refused" it is of a watch.
_REFUSALS = {code.name for code in Code} - {*_NO_ANSWER} | {"refused"}


class Found(enum.StrEnum):
    """What a trial has shown."""

    AFFECTED = "affected"
    NOT_AFFECTED = "not affected"
    NOT_SHOWN = "not shown"
    NOT_TRIED = "could not be tried"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial.

    Attributes:
        found: see Found.
        seconds: how long it took.
        tries: on how many clusters.
        rule: the guarantee that broke; None where none did.
        violation: how, in words; None likewise.
        reason: why it could not be tried; None where it was.
    """

    found: Found
    seconds: float
    tries: int
    rule: str | None = None
    violation: str | None = None
    reason: str | None = None


def run(
    scenario: Scenario, binary: EtcdBinary, folder: Path, *, seconds: float | None = None, seed: int = 1
) -> Outcome:
    """Try a scenario on an etcd.

    Takes the folder to record in, with a run folder for each try, how long it may take in all (None: the scenario's own
    limit), and the seed of what is random. Raises nothing for what the scenario or the cluster do.
    """
    limit_s = scenario.limit_s if seconds is None else seconds
    began = time.monotonic()
    tries, spent_s, longest_s = 0, 0.0, 0.0
    outcome = Outcome(Found.NOT_TRIED, 0.0, 0, reason="there was no time")
    # The last try is the last that is likely to end in time.
    while not tries or (not scenario.certain and spent_s + longest_s < limit_s):
        tries += 1
        outcome = _once(scenario, binary, folder / f"try-{tries}", limit_s - spent_s, seed + tries - 1)
        before_s, spent_s = spent_s, time.monotonic() - began
        longest_s = max(longest_s, spent_s - before_s)
        if outcome.found in (Found.AFFECTED, Found.NOT_TRIED):
            break
    return dataclasses.replace(outcome, seconds=spent_s, tries=tries)


def _once(scenario: Scenario, binary: EtcdBinary, folder: Path, seconds: float, seed: int) -> Outcome:
    try:
        with Stage(folder, binary, scenario.cluster, seconds=seconds, seed=seed) as stage:
            scenario.run(stage)
        _, checked = report.found(folder)
        calls = read_calls(folder).calls if has_calls(folder) else ()
    except (CannotTryError, RaftloadError, OSError) as error:
        return _not_tried(str(error) or type(error).__name__)
    results = {result.rule: result for result in checked.results}
    return verdict(scenario, results, calls)


def verdict(scenario: Scenario, results: dict[str, Result], calls: Sequence[Call] = ()) -> Outcome:
    """Return what the results of the check, by rule, say of a scenario's bug, and the calls that the scenario made."""
    named = [results[rule] for rule in scenario.breaks if rule in results]
    for result in named:
        for finding in result.findings:
            if scenario.is_shown_by(finding):
                return Outcome(Found.AFFECTED, 0.0, 1, rule=result.rule, violation=finding.text)
    if not any(result.judged and result.verdict in (Verdict.PASS, Verdict.FAIL) for result in named):
        why = "; ".join(f"{result.rule}: {result.reason or 'nothing was judged'}" for result in named)
        return _not_tried(f"the scenario tested nothing: {why or 'its rules were not checked'}")
    others = [result.rule for result in results.values() if result.findings]
    reason = f"broken in another way: {', '.join(others)}" if others else None
    if scenario.certain and (lost := _lost(scenario, calls)):
        why = ", ".join(dict.fromkeys(f"{call.method} at {call.member} ({call.error})" for call in lost))
        return _not_tried(f"no answer to {why}{f'; {reason}' if reason else ''}")
    return Outcome(Found.NOT_AFFECTED if scenario.certain else Found.NOT_SHOWN, 0.0, 1, reason=reason)


def _lost(scenario: Scenario, calls: Sequence[Call]) -> list[Call]:
    """Return the calls without an answer that the scenario needed: a slow machine, or a member that is gone."""
    made = [(call.method, call.request) for call in calls if call.ok]
    return [
        call for call in calls
        if _has_no_answer(call) and call.method not in scenario.unanswered and (call.method, call.request) not in made
    ]  # fmt: skip


def _has_no_answer(call: Call) -> bool:
    if call.ok or call.error == KILLED:  # given up by the scenario itself
        return False
    kind = KINDS.get(call.error)
    return kind.codes[0] in _NO_ANSWER if kind else call.error not in _REFUSALS


def _not_tried(reason: str) -> Outcome:
    return Outcome(Found.NOT_TRIED, 0.0, 1, reason=" ".join(reason.split()))


class Order(TypedDict):
    """What a trial is to do; ``etcd`` are the fields of an `EtcdBinary`, ``seconds`` None the scenario's own limit."""

    issue: str
    etcd: dict[str, str]
    folder: str
    seconds: float | None
    seed: int


def main() -> int:
    """Do what the order on stdin says. Returns the exit code."""
    try:
        outcome = _ordered()
    except Exception as error:  # what a cluster does is an outcome
        traceback.print_exc()
        print(exits.describe(error), flush=True)
        return exits.code_of(error)
    print(json.dumps(dataclasses.asdict(outcome)), flush=True)
    return 0


def _ordered() -> Outcome:
    order: Order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_starter, daemon=True).start()
    return run(
        catalogue()[order["issue"]], EtcdBinary(**order["etcd"]), Path(order["folder"]), seconds=order["seconds"],
        seed=order["seed"],
    )  # fmt: skip


def _end_with_starter() -> None:
    """End this process where its starter has: the keeper of its members sees it, and ends these."""
    with contextlib.suppress(OSError):
        while os.read(0, 1):  # a thread that waits in sys.stdin would hold up the end of the interpreter
            pass
    end_commands()
    os._exit(ClusterError.exit_code)


if __name__ == "__main__":
    sys.exit(main())
