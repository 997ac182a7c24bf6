"""The effect of a fault on the load, by a recorded history."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loadgen.chaos import fault_stats
from loadgen.chaos.fault_stats import FaultRound
from loadgen.history.format import Kind
from loadgen.history.reader import read

HISTORY = Path(__file__).resolve().parents[1] / "data" / "histories" / "healthy-3.5.30"
S = 1_000_000_000


def test_a_fault_that_is_healed_after_the_load_has_no_load_after_it(tmp_path: Path) -> None:
    """Its rate was 0/s there, as if clients had not come back."""
    history = read(HISTORY)
    returns = np.sort(history.rows["return_ns"][history.rows["kind"] == Kind.OPERATION])
    end_ns = int(returns[-1])
    began_ns = int(returns[len(returns) // 2])
    fault_round = FaultRound(
        1, "kill-leader", "2026-01-02T03:04:05.000+00:00", began_ns=began_ns, effect_ns=began_ns + 1,
        healed_ns=end_ns + 3 * S, healthy_ns=end_ns + 5 * S,
    )  # fmt: skip
    (row,) = fault_stats.describe([fault_round], history, tmp_path, every_s=1.0, end_ns=end_ns)
    assert row["during"]["duration_s"] == round((end_ns - began_ns) / 1e9, 3)
    assert row["during"]["operations"] > 0
    assert (row["after"]["duration_s"], row["after"]["operations"], row["after"]["throughput_ops_s"]) == (0, 0, None)
