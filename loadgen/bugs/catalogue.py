"""All scenarios, by the issue of their bug."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from cluster.base.errors import UsageError
from cluster.base.known_bugs import BUGS
from loadgen.bugs import scenarios
from loadgen.bugs.scenario import Scenario


@cache
def catalogue() -> dict[str, Scenario]:
    """Return the scenarios of all modules of ``loadgen.bugs.scenarios``, in the order of the table of known bugs."""
    found: dict[str, Scenario] = {}
    for module in pkgutil.iter_modules(scenarios.__path__):
        for each in importlib.import_module(f"{scenarios.__name__}.{module.name}").SCENARIOS:
            assert each.issue not in found, f"two scenarios of {each.issue}"
            found[each.issue] = each
    order = [bug.issue for bug in BUGS]
    return {issue: found[issue] for issue in sorted(found, key=order.index)}


def select(names: list[str]) -> list[Scenario]:
    """Take issues as people write them, such as ``20693``, ``#20693`` or ``etcd#20693``; return their scenarios.

    All for none. Raises UsageError.
    """
    everything = catalogue()
    by_name = {issue.lower(): each for issue, each in everything.items()}
    asked = []
    for name in names:
        issue = name.lower().removeprefix("etcd").removeprefix("#")
        if issue not in by_name:
            # Of faults and actors a list with commas is taken.
            repeat = "--only takes one bug, and may be repeated; " if "," in name else ""
            raise UsageError(f"no bug {name!r} is known; {repeat}`raftload bugs --list` prints those that are")
        asked.append(by_name[issue])
    return [each for each in everything.values() if not names or each in asked]
