"""Comparisons by turns whose truth is known: `raftload ab` of the same, and of the same with a relay's delay on NEW.

    python -m tests.soak.ab --same 20 --delay 10

It appends a line for each comparison to docs/evidence/ab.jsonl and goes on where it was ended before: comparisons by
the same code with the same options count. Of the same neither `slower` nor `faster` may be said; with the delay, of
200 us unless told otherwise, it is to be `slower`. Both sides of these go through relays to one cluster, BASE through
those that delay nothing. The exit code is 0 where each was told as it is.

    python -m tests.soak.ab --simulated 10000

makes that many comparisons of the same on simulated turns, of a machine that drifts and stalls, and tells how many were
false: the exit code is 0 where with 95 % confidence their rate is at most 1 %.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from scipy.stats import binomtest

from cluster.base.units import parse_duration
from cluster.local.cluster import LocalCluster
from loadgen.ab.sign_flips import FEWEST
from loadgen.ab.turns import compare
from tests.soak.record import LOAD_PATH, ROOT, about_now, append, command, recorded, run
from tests.support import simulated_turns
from tests.support.relay import relay

NAME = "ab.jsonl"
HANGS_S = 3600
SIMULATED_AT_ONCE = 500
PAIRS = {"same": 16, "delayed": 24}
# A relay is a process of Python: at full load its own CPU would be what is measured.
DELAYED_LOAD = ("--rate", "400", "--turn", "1s")


def main() -> int:
    """Compare as often as it takes. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.ab", description=__doc__.splitlines()[0])
    parser.add_argument("--same", type=int, default=20, metavar="N", help="comparisons of the same (default: 20)")
    parser.add_argument("--delay", type=int, default=10, metavar="N", help="comparisons with a delay (default: 10)")
    parser.add_argument("--by", type=parse_duration, default=200e-6, metavar="DURATION", help="delay (default: 200us)")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs of each (default: 16, with a delay 24)")
    parser.add_argument(
        "--at-once",
        type=int,
        default=1,
        metavar="N",
        help="comparisons of the same that run at a time, each beside the noise of the others (default: 1)",
    )
    parser.add_argument("--simulated", type=int, default=0, metavar="N", help="simulated comparisons, and no others")
    args = parser.parse_args()
    if args.simulated:
        return simulated(args.simulated)
    about = about_now(*LOAD_PATH, "loadgen/run", "loadgen/ab", "loadgen/compare")
    kinds = {"same": (args.same, 0.0), "delayed": (args.delay, args.by)}
    wrong = 0
    for kind, (count, delay_s) in kinds.items():
        pairs = args.pairs or PAIRS[kind]
        about_kind = {**about, "pairs": pairs, "kind": kind, "delay_us": round(delay_s * 1e6)}
        rows = recorded(NAME, about_kind)
        if rows:
            print(f"{len(rows)} of {count} comparisons, {kind}, of this code are in docs/evidence/{NAME} already")
        numbers = range(len(rows) + 1, count + 1)
        with (
            concurrent.futures.ThreadPoolExecutor(args.at_once if kind == "same" else 1) as pool,
            # Closed first, so that where this is to end no further one begins.
            contextlib.closing(pool.map(functools.partial(compared, kind, delay_s, pairs), numbers)) as made,
        ):
            for number, found in zip(numbers, made, strict=True):
                row = {**about_kind, **({"at_once": args.at_once} if kind == "same" else {}), **found}
                rows.append(row)
                append(NAME, row)
                print(
                    f"{kind} {number} of {count}: {row['seconds']:.0f} s, NEW {row['words']}{row['error']}", flush=True
                )
        right = sum(told_right(row) for row in rows)
        wrong += len(rows) - right
        print(f"{kind}: {right} of {len(rows)} told as it is, {by_verdict(rows)}")
    return 1 if wrong else 0


def simulated(count: int) -> int:
    """Judge simulated turns of the same so many times. Returns the exit code."""
    about = {**about_now("loadgen/ab", "loadgen/compare"), "kind": "simulated", "pairs": FEWEST}
    rows = recorded(NAME, about)
    done, false = (sum(row[key] for row in rows) for key in ("comparisons", "false"))
    while done < count:
        seeds = range(done, min(count, done + SIMULATED_AT_ONCE))
        found = [compare(simulated_turns.turns(FEWEST, seed), 0.05, seed, {})["verdict"] for seed in seeds]
        row = {"comparisons": len(seeds), "false": sum(each in ("slower", "faster") for each in found)}
        done, false = done + row["comparisons"], false + row["false"]
        append(NAME, {**about, **row})
        print(f"{false} false of {done}", flush=True)
    bound = float(binomtest(false, done).proportion_ci(0.90, "exact").high)
    print(f"{false} of {done} simulated comparisons of the same were false, with 95 % confidence {bound:.2%} at most")
    return 0 if bound <= 0.01 else 1


def told_right(row: dict[str, Any]) -> bool:
    """Tell whether a comparison came to what is true, or of the same to no verdict."""
    return row["verdict"] in (("slower",) if row["kind"] == "delayed" else ("same", "cannot tell"))


def by_verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Return how many comparisons came to each verdict."""
    found = [row["verdict"] for row in rows]
    return ", ".join(f"{found.count(verdict)} {verdict or 'failed'}" for verdict in dict.fromkeys(found))


def compared(kind: str, delay_s: float, pairs: int, seed: int) -> dict[str, Any]:
    """Run one to its end; return its verdict and figures. The seed says who goes first in a pair."""
    with tempfile.TemporaryDirectory(prefix="raftload-ab-") as folder, targets(kind, delay_s) as words:
        began, asked = time.monotonic(), ("ab", "--pairs", str(pairs), "--seed", str(seed), "--json", *words)
        try:
            done = run(
                sys.executable, "-m", "loadgen.cli", *asked, timeout_s=HANGS_S,
                cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            done = subprocess.CompletedProcess("", 124, "", "it did not end")
        row: dict[str, Any] = {"options": list(words) if kind == "same" else [*DELAYED_LOAD], "seed": seed}
        row["seconds"] = round(time.monotonic() - began, 1)
    if done.returncode not in (0, 1, 3):
        return {**row, "verdict": "", "words": "", "error": f"exit {done.returncode}: {done.stderr.strip()[-300:]}"}
    document = json.loads(done.stdout)
    return {
        **row,
        "verdict": document["verdict"],
        "words": document["words"],
        "etcd": document["base"]["runs"][0]["etcd_version"],
        "figures": {
            each["name"]: {
                key: each[key] for key in ("base", "new", "ratio", "interval", "p", "noise", "verdict", "more")
            }
            for each in document["figures"]
        },
        "warnings": document["warnings"],
        "error": "",
    }


@contextlib.contextmanager
def targets(kind: str, delay_s: float) -> Iterator[tuple[str, ...]]:
    """Yield the options that name both sides; of the same there are none."""
    if kind == "same":
        yield ()
        return
    with LocalCluster(3) as cluster, contextlib.ExitStack() as stack:
        sides = [
            ",".join(stack.enter_context(relay(endpoint, late_s)) for endpoint in cluster.endpoints)
            for late_s in (0.0, delay_s)
        ]
        yield ("--endpoints", sides[0], "--endpoints", sides[1], *DELAYED_LOAD)


if __name__ == "__main__":
    command(main)
