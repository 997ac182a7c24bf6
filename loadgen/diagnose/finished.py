"""The diagnosis of a finished run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cluster.schema.run_documents import short_of_cpu
from loadgen.diagnose import causes, observed

if TYPE_CHECKING:
    from cluster.observe.record import Record
    from cluster.schema.run_documents import Result
    from loadgen.diagnose.answer import Diagnosis


def diagnose(watched: Record, result: Result) -> Diagnosis | None:
    """Return what was slow in a run; None where nothing tells of its members.

    Takes what the observer wrote, and the run's result.
    """
    evidence = observed.of_run(watched, result)
    if evidence is None:
        return None
    found = causes.diagnose(evidence)
    short = short_of_cpu(result)
    if found.cluster.word != "healthy" or not short:
        return found
    # Nothing is slow by the bounds of a diagnosis, and yet the machine is in the figures.
    what = short.popitem()[1] if len(short) == 1 else "the machine's own"
    why = f"{found.cluster.why}, though the run was {' and '.join(short_of_cpu(result))}: latencies are partly {what}"
    return dataclasses.replace(found, cluster=dataclasses.replace(found.cluster, why=why))
