"""The prober as a process of its own: `python -m tests.diagnose.take_probes SECONDS HOST:PORT,…` prints its evidence.

It is apart from the process that makes the cluster, whose relays would share its interpreter.
"""

from __future__ import annotations

import json
import os
import sys

from loadgen.load import patching

patching.patch()

from cluster.base.security import Security  # noqa: E402 (after the patch)
from loadgen.diagnose import prober  # noqa: E402


def main() -> None:
    """Probe for so long and print what was found; TLS and the user are those of etcdctl's variables."""
    seconds, endpoints = float(sys.argv[1]), tuple(sys.argv[2].split(","))
    cacert, cert, key, user, password = map(os.environ.get, (f"ETCDCTL_{n}" for n in (
        "CACERT", "CERT", "KEY", "USER", "PASSWORD")))  # fmt: skip
    security = Security(cacert, cert, key, user=user, password=password)
    evidence = prober.probe(endpoints, seconds, security=security)
    json.dump(evidence.to_json(), sys.stdout)


if __name__ == "__main__":
    main()
