"""The actors of a chaos run, from the side of the campaign: which there are, and their process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cluster.base import processes
from cluster.base.errors import UsageError
from cluster.base.processes import python_path
from loadgen.chaos.actor_kinds import KINDS

if TYPE_CHECKING:
    from loadgen.chaos.actor_process import Done, Order, Told

ALL = "all"
# With which Python ends a process whose error nobody catches.
_RAISED = 1


def parse(text: str, *, ours: bool) -> tuple[str, ...]:
    """Take names as people write them, ``members,leaders`` or ``all``; return them in order, each once.

    ``ours`` is whether the cluster was made for the run; on another one ``all`` are those that may be there. Raises
    UsageError.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    allowed = [kind.name for kind in KINDS.values() if ours or kind.anywhere]
    for name in names:
        if name != ALL and name not in KINDS:
            raise UsageError(f"no actor {name!r}; there are {', '.join(KINDS)}, and {ALL}")
        if name != ALL and not ours and not KINDS[name].anywhere:
            raise UsageError(
                f"the actor {name} is for clusters that raftload made for the run; on this one there may be "
                + ", ".join(allowed)
            )
    return tuple(name for name in allowed if ALL in names or name in names)


class Actors:
    """The process of a run's actors. Takes the run folder, whose history it adds to, the members' client URLs by name,
    the prefix of the run's keys, the seed, and which actors there are. To be ended by ``end``.

    Attributes:
        log: the file that holds the tracebacks of its bugs.
    """

    def __init__(
        self, folder: Path, members: Mapping[str, str], prefix: bytes, seed: int, actors: Sequence[str]
    ) -> None:
        order: Order = {
            "folder": str(folder.absolute()), "members": dict(members), "prefix": prefix.decode("ascii"), "seed": seed,
            "actors": list(actors),
        }  # fmt: skip
        self.log = folder / "logs" / "actors.log"
        with self.log.open("wb") as log:
            # A Ctrl-C at the terminal is for the command alone, which ends it.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", "from loadgen.chaos.actor_process import serve; serve()"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONPATH": python_path()},
            )  # fmt: skip
        self._say(order)

    def tell(self, members: Sequence[str], what: str, said: str = "", at_ns: int = 0) -> None:
        """Tell it what was done to members, or what they did; see ``MemberEvent``. At 0 is now."""
        for member in members:
            told: Told = {"member": member, "what": what, "said": said, "at_ns": at_ns or time.perf_counter_ns()}
            self._say(told)

    def end(self, within_s: float) -> Done:
        """Have it end its turns and its records, within so many seconds.

        Returns what came of it; a problem where it was killed, a bug where an error of ours has ended it.
        """
        processes.close_stdin(self._process)
        out: IO[bytes] | None = self._process.stdout
        assert out is not None
        processes.wait(self._process, within_s)
        with out:
            said = out.read()
        try:
            done: Done = json.loads(said)
        except ValueError:
            code = self._process.returncode
            ended = [f"their process ended with {code}"]
            done = {"turns": {}, "problems": [] if code == _RAISED else ended, "bugs": ended if code == _RAISED else []}
        return done

    def _say(self, line: Order | Told) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # its end says why
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()
