"""Both engines of the load path held to each other for long, and the compiled one under sanitizers.

    python -m tests.soak.two_engines --operations 1000000 --asan-minutes 30

It holds drawn conversations (`tests.support.conversation`) and appends a line to docs/evidence/two-engines.jsonl for
each portion. Portions of the same code, tests included, count, so it goes on where it was ended before. It ends at the
first difference or finding, with the seed to hold that conversation again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.record import LOAD_PATH, ROOT, about_now, append, command, recorded, run
from tests.support import sanitized

NAME = "two-engines.jsonl"
# A portion: so many operations, or so many seconds under sanitizers.
_PORTION, _PORTION_S = 100_000, 300.0


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What was held to each other.

    Attributes:
        seed: of the first conversation; the others follow it.
        conversations, operations: how many of them, and how many operations ended in these.
        answers: messages that were given to the core's reader and to protobuf's.
    """

    seed: int
    conversations: int
    operations: int
    answers: int


def hold(seed: int, seconds: float, operations: float) -> Held:
    """Hold conversations for so long or until so many operations. Raises `conversation.DifferenceError`."""
    from tests.support.conversation import PLAIN, play
    from tests.support.walkers import read_some

    until = time.monotonic() + seconds
    conversations = done = answers = 0
    while not conversations or (time.monotonic() < until and done < operations):
        number = seed + conversations
        # Most are short and odd; each fourth is long, as a run is.
        done += play(number, PLAIN, 1_000) if number % 4 == 0 else play(number, None, 80)
        answers += read_some(random.Random(f"answers/{number}"))
        conversations += 1
    return Held(seed, conversations, done, answers)


def hold_sanitized(core: Path, seed: int, seconds: float) -> Held:
    """Do that in a process with the core under sanitizers. Raises AssertionError with what that says."""
    what = ["--core", str(core), "--hold-s", f"{seconds}", "--seed", f"{seed}"]
    words = [sys.executable, "-m", "tests.soak.two_engines", *what]
    done = run(*words, cwd=ROOT, env=sanitized.environment(), stderr=subprocess.PIPE)
    assert done.returncode == 0, f"seed {seed}, exit code {done.returncode}:\n{done.stdout}{done.stderr}"
    return Held(**json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """Hold as much as it takes. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.two_engines", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--operations", type=int, default=0, metavar="N", help="operations in all")
    parser.add_argument("--asan-minutes", type=float, default=0.0, metavar="M", help="minutes under sanitizers in all")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--hold-s", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.hold_s is not None:
        if args.core is not None:
            sanitized.load(args.core)
        print(json.dumps(dataclasses.asdict(hold(args.seed, args.hold_s, float("inf")))))
        return 0
    about = about_now(*LOAD_PATH)
    done = sum(row["operations"] for row in recorded(NAME, {**about, "sanitized": False}))
    while done < args.operations:
        began = time.monotonic()
        held = hold(_any_seed(), float("inf"), min(_PORTION, args.operations - done))
        done += held.operations
        _append(about, held, time.monotonic() - began, sanitized=False)
        print(f"{done:,} of {args.operations:,} operations without a difference", flush=True)
    wanted_s = 60 * args.asan_minutes
    held_s = sum(row["seconds"] for row in recorded(NAME, {**about, "sanitized": True}))
    if held_s < wanted_s:
        with tempfile.TemporaryDirectory(prefix="raftload-core-") as folder:
            core = sanitized.build(Path(folder))
            while held_s < wanted_s:
                began = time.monotonic()
                held = hold_sanitized(core, _any_seed(), min(_PORTION_S, wanted_s - held_s))
                seconds = time.monotonic() - began
                held_s += seconds
                _append(about, held, seconds, sanitized=True)
                print(f"{held_s / 60:.1f} of {args.asan_minutes:g} minutes without a finding", flush=True)
    return 0


def _any_seed() -> int:
    return random.SystemRandom().randrange(1 << 40)


def _append(about: dict[str, object], held: Held, seconds: float, *, sanitized: bool) -> None:
    append(NAME, {**about, "sanitized": sanitized, "seconds": round(seconds, 1), **dataclasses.asdict(held)})


if __name__ == "__main__":
    command(main)
