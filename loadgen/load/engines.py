"""The choice between the two engines of the load path, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from loadgen.engine import built
from loadgen.history.operation import IN_MIX
from loadgen.load.settings import UNIQUE_VALUE_BYTES, Settings, SettingsError
from loadgen.load.workload import filler, share

if TYPE_CHECKING:
    from loadgen.engine.engine import Engine
    from loadgen.load.locust_types import UserClass

COMPILED: Final = "compiled"
PYTHON: Final = "python"
# What the core does in the place of these; a scenario that has one of its own runs on the Python engine.
_REPLACED = (
    "operate", "operate_once", "do", "put", "get", "txn", "wait_time", "wait", "start", "stop", "run", "on_start",
    "on_stop", "make_ready", "holds_start",
)  # fmt: skip
# The core numbers keys in 4 bytes; its table of revisions, which transactions compare with, has 8 bytes for each key.
_MOST_KEYS, _MOST_COMPARED_KEYS = (1 << 32) - 1, 1 << 24


def python_because(user_classes: Sequence[UserClass], settings: Settings) -> str:
    """Return why a load runs on the Python engine, empty where it can run on the compiled one.

    What is known at the start of each worker alone, such as listeners, `choose` looks at.
    """
    if settings.engine == PYTHON:
        return "--engine python"
    if missing := built.missing():
        return missing
    if settings.transport != "grpc":
        return f"--transport {settings.transport}"
    if others := [f for f in settings.mix if f not in IN_MIX]:
        return f"operations of the scenario's own: {', '.join(others)}"
    most = _MOST_COMPARED_KEYS if "txn" in settings.mix else _MOST_KEYS
    if settings.key_space > most:
        return f"more than {most:,} keys"
    for user in user_classes:
        if own := _own(user):
            return f"{getattr(user, '__name__', 'the scenario')} has its own {own}"
    return ""


def choose(user_classes: Sequence[UserClass], settings: Settings, *, heard: bool, sinks: bool) -> str:
    """Return why this worker takes the Python engine, empty where it takes the compiled one.

    ``heard``: somebody listens to Locust's request event; ``sinks``: somebody wants to see each operation. Raises
    SettingsError where the compiled one is asked for and cannot be.
    """
    reason = python_because(user_classes, settings)
    if not reason and heard:
        reason = "a listener of Locust's request event"
    if not reason and sinks:
        reason = "a record of each operation"
    if reason and settings.engine == COMPILED:
        raise refused(reason)
    return reason


def make(settings: Settings, rank: int, workers: int) -> Engine:
    """Return the compiled engine of a worker's part in a run; it does nothing before `Engine.begin`."""
    from loadgen.engine.engine import Engine, Plan

    quota, _ = share(settings.operations, workers, rank)
    return Engine(
        Plan(
            types=tuple(settings.mix),
            prefix=settings.prefix,
            digits=settings.digits,
            key_space=settings.key_space,
            value_size=settings.value_size,
            filler=filler(settings.seed, settings.value_size - UNIQUE_VALUE_BYTES),
            serializable=settings.read_consistency == "serializable",
            timeout_ns=int(settings.timeout_s * 1e9),
            quota=quota if rank < workers else 0,
            owing=len(settings.mix),
            closed_loop=settings.schedule() is None,
        )
    )


def refused(reason: str) -> SettingsError:
    """Return the error for a load that the compiled engine is asked for and that it cannot run."""
    return SettingsError(f"--engine compiled cannot run this load: {reason}; give --engine auto", option="--engine")


def _own(user: UserClass) -> str:
    """Return what a class has of its own that the core would pass by; empty for nothing.

    Whoever is no `EtcdUser` has an ``operate`` of its own.
    """
    from loadgen.load.user import EtcdUser

    plain: Any = EtcdUser
    return next((name for name in _REPLACED if getattr(user, name, None) is not getattr(plain, name, None)), "")
