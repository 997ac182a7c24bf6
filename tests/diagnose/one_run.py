"""One run of one cause: `python -m tests.diagnose.one_run CAUSE ETCD` injects it and prints the evidence as JSON.

It is a process of its own, since some causes need a network namespace, and whatever it started ends with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cluster.base.binary import find_etcd
from tests.diagnose import injectors, machine
from tests.diagnose.rows import pack
from tests.diagnose.scene import Scene, in_a_namespace, scene
from tests.soak.record import command

if TYPE_CHECKING:
    from cluster.schema.diagnose_documents import EvidenceDocument
    from cluster.schema.run_documents import Result

SETTLES_S = 3.0
PROBES_S = 20.0
# The prober removes its keys in the end, at a cluster that may be slow.
_HANGS_S = 60.0


def words(cause: str, etcd: str, *options: str) -> list[str]:
    """Return the command that runs a cause on an etcd, in a namespace where its setup needs one."""
    command = [sys.executable, "-m", "tests.diagnose.one_run", cause, etcd, *options]
    return in_a_namespace(command) if injectors.INJECTORS[cause].setup.far is not None else command


def run(cause: str, etcd: str, probes_s: float = PROBES_S) -> dict[str, Any]:
    """Inject a cause, and return a row's part of it: the members that it was done to, the leaders, and the evidence.

    ``probes`` and ``run`` are packed; the latter is None where there was no load.
    """
    injector = injectors.INJECTORS[cause]
    began = time.monotonic()
    with scene(injector.setup, find_etcd(etcd)) as made:
        leader = made.leader()
        with injector.inject(made) as names:
            time.sleep(SETTLES_S)
            probes = probed(made, probes_s)
            after = _leader(made)
            observed = None if made.bench is None else of_run(made, made.bench.end())
    return {
        "of": list(names), "leader": leader, "leader_after": after, "seconds": round(time.monotonic() - began, 1),
        "probes": pack(probes), "run": None if observed is None else pack(observed),
    }  # fmt: skip


def _leader(made: Scene) -> str:
    try:
        return made.leader()
    except RuntimeError:
        return ""


def probed(made: Scene, seconds: float) -> EvidenceDocument:
    """Return the evidence of so many seconds of probes."""
    process = made.start_client(
        "tests.diagnose.take_probes", str(seconds), ",".join(made.endpoints),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, said = process.communicate(timeout=seconds + _HANGS_S)
    finally:
        machine.end(process)
    if process.returncode:
        raise RuntimeError(f"the prober failed: {said.strip()[-300:]}")
    document: EvidenceDocument = json.loads(out)
    return document


def of_run(made: Scene, result: Result) -> EvidenceDocument | None:
    """Return the evidence of the load's run folder."""
    from cluster.observe import record
    from loadgen.diagnose import observed

    assert made.bench is not None
    evidence = observed.of_run(record.read(made.bench.folder), result)
    return None if evidence is None else evidence.to_json()


def main(arguments: Sequence[str] = ()) -> int:
    """Run the cause that is named, and print its row."""
    cause, etcd, *seconds = arguments or sys.argv[1:]
    json.dump(run(cause, etcd, *map(float, seconds)), sys.stdout)
    return 0


if __name__ == "__main__":
    command(main)
