"""Scenarios by name or path: the locustfiles of this package, and anybody's own."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import locustfiles
from cluster.base.errors import UsageError

if TYPE_CHECKING:
    from loadgen.load.locust_types import UserClass

# Scenarios that go by time and not by a number of operations, and for how long where nobody says.
BY_TIME = {"steps": "60s"}
# The operation types of the scenarios that do not go by --mix: known here without an import of Locust.
TYPES = {
    "consistency": (
        "put", "get", "range", "delete", "txn", "lease_grant", "lease_keepalive", "lease_revoke", "refusal",
    ),
    "get": ("get",),
    "kubernetes": ("create", "update", "delete", "get", "list", "lease_grant", "watch"),
    "lease": ("lease_grant", "lease_keepalive", "lease_revoke"),
    "put": ("put",),
    "range": ("range",),
    "txn": ("txn",),
    "watch": ("put", "watch"),
}  # fmt: skip


class ScenarioError(UsageError):
    """There is no such scenario, or its file cannot be used: one line that says so."""


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the option that names a scenario."""
    group.add_argument(
        "--scenario", default="kv", metavar="NAME|FILE",
        help=f"kind of load: {', '.join(names())}, or the path of a locustfile (default: kv)",
    )  # fmt: skip


def names() -> list[str]:
    """Return the names of the scenarios that come with raftload."""
    return sorted(module.name for module in pkgutil.iter_modules(locustfiles.__path__))


def check(scenario: str) -> str:
    """Return the scenario's short name. Raises ScenarioError; imports nothing."""
    if scenario in names():
        return scenario
    path = Path(scenario)
    if path.suffix == ".py" and path.is_file():
        return path.stem
    raise ScenarioError(f"there is no scenario {scenario!r}: name one of {', '.join(names())}, or a locustfile's path")


def types(scenario: str, mix: Iterable[str]) -> Collection[str] | None:
    """Return the operation types that a scenario runs; None for one of somebody's own, whose classes tell.

    Takes the types of `--mix`.
    """
    return TYPES.get(scenario, tuple(mix)) if scenario in names() else None


def describe(scenario: str, mix: str) -> str:
    """Return what a scenario runs, in words: `--mix`, or its own types."""
    return ", ".join(TYPES[scenario]) if scenario in TYPES else mix


def types_of(user_classes: Iterable[UserClass], mix: Iterable[str]) -> Collection[str] | None:
    """Return the operation types that users record, those of the run's mix among them; None where it cannot be told.

    It cannot of users that are not EtcdUser's, or that have tasks of their own.
    """
    found = dict.fromkeys(mix)
    for user in user_classes:
        beside = getattr(user, "beside_mix", None)
        if beside is None or [getattr(task, "__name__", "") for task in user.tasks] != ["operate"]:
            return None
        found |= dict.fromkeys(beside)
    return tuple(found)


def user_classes(scenario: str) -> list[UserClass]:
    """Return the Locust user classes of a scenario. Imports Locust. Raises ScenarioError."""
    from locust.util.load_locustfile import is_user_class, load_locustfile

    if check(scenario) == scenario:
        module = importlib.import_module(f"locustfiles.{scenario}")
        found = [item for item in vars(module).values() if is_user_class(item)]
    else:
        try:
            classes, shapes = load_locustfile(str(Path(scenario).resolve()))
        except Exception as error:
            raise ScenarioError(f"{scenario} cannot be loaded: {type(error).__name__}: {error}") from error
        if shapes:
            # Its users come and go at any time, where those of a run share one number of operations or one schedule.
            raise ScenarioError(
                f"{scenario}: {type(shapes[0]).__name__} is a LoadTestShape, which raftload does not follow; for a "
                "rate over time give --stages or --step, for users in steps take --scenario steps, or run it with "
                "plain locust"
            )
        found = list(classes.values())
    if not found:
        raise ScenarioError(f"{scenario} has no user class that is not abstract")
    return found
