"""Run folders that are a recorded run with other latencies, for tests of comparisons."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadgen.stats import hdr

RECORDED = Path(__file__).parent.parent / "data" / "runs" / "leader-killed"


def scaled_run(folder: Path, factor: float = 1.0, *, number: int = 0, **run: Any) -> Path:
    """Write a run folder and return it: the recorded run, each latency so many times as long.

    Takes a number that makes it another run at another time, and further fields of its run.json. Unlike the recorded
    one its generator was not saturated.
    """
    shutil.copytree(RECORDED, folder, ignore=shutil.ignore_patterns("logs", "README.md"))
    for log in folder.glob("*.hlog"):
        head = [line for line in log.read_text().splitlines(keepends=True) if line[0] in '#"']
        started = float(head[1].split()[1])
        lines = [
            hdr.log_line(at - started, length, max(counts) * factor, hdr.encode(scaled(counts, factor)))
            for at, length, counts in hdr.read_log(log.read_text())
        ]
        log.write_text("".join([*head, *lines]))
    document = json.loads((folder / "run.json").read_text())
    document["generator"]["saturated"] = False
    document |= {"id": folder.name, "started_at": f"2026-11-25T04:{number:02}:06.000Z", **run}
    (folder / "run.json").write_text(json.dumps(document))
    return folder


def scaled(counts: Mapping[int, int], factor: float) -> dict[int, int]:
    """Return a histogram of latencies that are so many times as long."""
    found: dict[int, int] = {}
    for key, count in counts.items():
        hdr.merge(found, {hdr.bucket(round(hdr.middle(key) * factor)): count})
    return found
