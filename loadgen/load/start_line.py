"""The common start of a run: where users get something ready first, all begin once the last one has it.

So a watch is confirmed before the first write that it is to see, whoever writes it, in whichever worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import gevent
import gevent.event

from loadgen.load import listening
from loadgen.load.protocol import GO, RANKS_OPTION, READY, Ready

if TYPE_CHECKING:
    from loadgen.load.locust_types import Environment, UserClass

# Users that hear nothing from their master for so long begin without it; the run is inconclusive then.
HOLD_S = 60.0
# Time for workers to make a schedule that all of them begin at one moment.
LEAD_NS = 250_000_000


def is_held(user_classes: Iterable[UserClass]) -> bool:
    """Return whether a scenario's users begin together."""
    return any(getattr(each, "holds_start", False) for each in user_classes)


class StartLine:
    """Where a worker's users wait for the start.

    Takes what to call, soon, when more of them are ready: it is given their number.
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._ready = 0
        self._tell = tell
        self._telling = False
        self._opened = gevent.event.Event()

    @property
    def is_open(self) -> bool:
        """Whether users begin at once."""
        return bool(self._opened.is_set())

    def wait(self) -> bool:
        """Count one more user as ready, and wait until all are; return whether the start came in time."""
        self._ready += 1
        if not self.is_open and not self._telling:
            self._telling = True
            gevent.spawn(self._tell_once)
        return bool(self._opened.wait(HOLD_S))

    def open(self) -> None:
        """Let the users begin."""
        self._opened.set()

    def _tell_once(self) -> None:
        """Tell of all that got ready in one turn of the event loop."""
        self._telling = False
        self._tell(self._ready)


class Starter:
    """The master's side: it opens the lines of all workers once the users of each are ready. Takes its environment.

    Attributes: ``opened_at``, when it did in the present run, in seconds of the monotonic clock; None before.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.opened_at: float | None = None
        self._whole: set[str] = set()
        self._lost: set[str] = set()
        listening.listen(environment.events.test_start, self._on_test_start)
        listening.handle(environment.runner, READY, self._on_ready)

    @property
    def holds(self) -> bool:
        """Whether the users of this scenario wait for the start."""
        return is_held(self._environment.user_classes)

    def lose(self, client_id: str) -> None:
        """Wait no more for a worker."""
        self._lost.add(client_id)
        self._open_if_ready()

    def _on_test_start(self, **_: object) -> None:
        self.opened_at = None
        self._whole, self._lost = set(), set()

    def _on_ready(self, client_id: str, ready: Ready) -> None:
        if ready["prefix"] != self._prefix:
            return
        if ready["ready"] >= ready["users"]:
            self._whole.add(client_id)
        self._open_if_ready()

    @property
    def _prefix(self) -> str:
        return str(vars(self._environment.parsed_options).get("key_prefix"))

    def _open_if_ready(self) -> None:
        sharing = set(str(vars(self._environment.parsed_options).get(RANKS_OPTION) or "").split(","))
        if self.opened_at is None and self._whole and self._whole >= sharing - self._lost:
            self.opened_at = time.monotonic()
            GO.send(self._environment.runner, {"prefix": self._prefix, "starts_at_ns": time.time_ns() + LEAD_NS})


def attach(environment: Environment) -> None:
    """Start the runs of plain Locust's master; a session of ours has its own `Starter`."""
    from locust.runners import MasterRunner

    if isinstance(environment.runner, MasterRunner) and not getattr(environment, "raftload_engine", None):
        Starter(environment)
