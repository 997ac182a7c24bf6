"""Whether runs are of the same load, and what else is different between two groups of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cluster.base.errors import UsageError
from cluster.schema.run_documents import NO_TARGET
from loadgen.load.settings import PARAMETERS

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result

LOAD = (
    "scenario",
    "loop",
    "users",
    "workers",
    "requested_duration_s",
    *(each.field for each in PARAMETERS if each.field != "seed"),
)
"""What makes the load: where it differs, other latencies say nothing of etcd."""

# Runs of earlier versions do not tell these.
_LATE = {"connections", "balance", "engine", "arrivals", "environment"}


class OtherLoadError(UsageError):
    """Runs that are to be compared did not have the same load."""


def require_same_load(base: Sequence[Result], new: Sequence[Result], names: tuple[str, str] = ("BASE", "NEW")) -> None:
    """Hold the load of all runs of both sides against that of the first. Raises OtherLoadError with what differs."""
    first = base[0]
    for side, runs in zip(names, (base, new), strict=True):
        for result in runs:
            found = {
                key: pair for key, pair in _different(_load(first), _load(result)).items() if key not in _LATE
                or None not in pair
            }  # fmt: skip
            if found:
                what = ", ".join(f"{key} ({ours} and {theirs})" for key, (ours, theirs) in found.items())
                whose = f"{names[0]} and {side}" if side != names[0] else f"runs of {side}"
                raise OtherLoadError(
                    f"{whose} did not run the same load: {what}; a difference would not be etcd's alone; "
                    "add --allow-other-load to compare them all the same"
                )


def differences(base: Sequence[Result], new: Sequence[Result]) -> dict[str, list[str]]:
    """Return what differs between two sides, in text: that of BASE and that of NEW."""
    sides = [[{**_load(result), **_surroundings(result)} for result in runs] for runs in (base, new)]
    found = {}
    for key in dict.fromkeys(key for runs in sides for run in runs for key in run):
        ours, theirs = (sorted({str(run[key]) for run in runs if run.get(key) is not None}) for runs in sides)
        if ours != theirs and ((ours and theirs) or key not in _LATE):
            found[key] = [" or ".join(ours) or "none", " or ".join(theirs) or "none"]
    return found


def mixtures(side: str, runs: Sequence[Result]) -> list[str]:
    """Return a sentence for each thing that is not the same in all runs of one side, other than the load."""
    found = []
    for key in ("etcd_version", "target", "members", "raftload"):
        values = sorted({str(_surroundings(result)[key]) for result in runs} - {"None"})
        if len(values) > 1:
            found.append(f"runs of {side} have several values of {key}: {', '.join(values)}")
    return found


def by_turns(base: Sequence[Result], new: Sequence[Result]) -> bool:
    """Tell whether the runs of both sides were made by turns, so far as their times tell; one run each are not."""
    times = [[str(result["run"].get("started_at") or "") for result in runs] for runs in (base, new)]
    if not all(all(side) for side in times):
        return True
    return min(times[0]) < max(times[1]) and min(times[1]) < max(times[0]) and len(base) > 1 and len(new) > 1


def _load(result: Result) -> dict[str, object]:
    run: Mapping[str, object] = result["run"]
    return {key: run.get(key) for key in LOAD}


def _surroundings(result: Result) -> dict[str, object]:
    """Return what was tested and by what."""
    run, target = result["run"], result.get("target") or NO_TARGET
    members = target["members"]
    environment = {f"${key}": value for key, value in (run.get("environment") or {}).items()}
    return {
        "etcd_version": target["etcd_version"],
        "target": target["kind"],
        "members": len(members) if isinstance(members, list) else members,
        "raftload": (run.get("versions") or {}).get("raftload"),
        **environment,
    }


def _different(ours: Mapping[str, object], theirs: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    return {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]}
