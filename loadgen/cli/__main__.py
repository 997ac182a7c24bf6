"""The `raftload` command as ``python -m loadgen.cli``."""

from loadgen.cli.main import run

raise SystemExit(run())
