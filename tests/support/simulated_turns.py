"""Turns of a machine that drifts, is slow for minutes and stalls, without the machine."""

from __future__ import annotations

import numpy as np

from loadgen.ab.by_turns import order
from loadgen.ab.turns import LATENCIES, RATE, SIDES, Turn

TYPES = ("get", "put", "total")


def turns(pairs: int, seed: int, *, slower: float = 0.0, noise: float = 0.04) -> list[Turn]:
    """Return the turns of so many pairs, in the order in which they would have been made.

    The machine's speed drifts, wanders (an autoregressive process that keeps 0.9 from turn to turn), and now and then
    stalls, which shows most in the tails. Takes the share by which latencies of NEW are really longer, and the standard
    deviation of a turn's p50.
    """
    rng = np.random.default_rng((seed, pairs))
    level, drift = 0.0, rng.normal(0, 0.01)
    made = []
    for pair in range(1, pairs + 1):
        for place, side in enumerate(order(seed, pair), 1):
            level = 0.9 * level + rng.normal(0, noise)
            stall = rng.exponential(10 * noise) if rng.random() < 0.1 else 0.0
            common = level + drift * (2 * pair + place) + (np.log1p(slower) if side == SIDES[1] else 0.0)
            figures = {}
            for number, f in enumerate(TYPES):
                own = rng.normal(0, noise / 4)
                for tail, field in enumerate(LATENCIES):
                    late = common + own + (1 + tail) * (rng.normal(0, noise / 2) + stall)
                    figures[f"{f}.{field}"] = float(np.exp(late + number / 4 + tail))
                figures[f"{f}.{RATE}"] = 1000 * float(np.exp(rng.normal(0, noise / 8) - common - own - stall))
            made.append(Turn(pair, side, place, f"{side}/{pair:03d}", "", None, 1000, 0, figures))
    return made
