"""`raftload check`: a recorded run in, a verdict on each guarantee out."""

from __future__ import annotations

import argparse

from cluster.base.console import show
from cluster.base.verdict import Verdict
from loadgen.check.rules import FAMILIES, RULES, select
from loadgen.cli.run_argument import WHAT_LATEST_IS, find
from loadgen.result.document import LATEST


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``raftload check`` to a parser."""
    parser.description = (
        "Check a run's recorded history against the guarantees of etcd and Raft, and exit with the verdict: "
        "0 kept, 1 broken, 3 unknown (evidence is missing)."
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="?",
        default=LATEST,
        help="run folder with a history/ in it (`raftload chaos` and `raftload bench --history` write one), or "
        f"{WHAT_LATEST_IS} (the default)",
    )
    parser.add_argument(
        "--guarantee",
        metavar="NAME",
        action="append",
        default=[],
        help="check only this: a family of guarantees such as 'watch', or one guarantee such as "
        "'watch.bookmarkable'; may be repeated (default: all)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    width = max(map(len, RULES))
    listed = "\n".join(f"  {name:<{width}}  {promise}" for name, promise in RULES.items())
    parser.epilog = f"""\
families: {", ".join(FAMILIES)}
guarantees:
{listed}

The families auth, member and alarm, and some of lease, are judged where actors' calls were recorded (`raftload bugs`,
`raftload chaos --actors`). Violations that no known bug of the members' release explains stand first; the others are
listed by the bug that explains them (see docs/chaos.md). Both make the exit code 1.

examples:
  raftload check latest
  raftload check runs/20260102T030405Z-chaos --guarantee watch --guarantee kv.real-time
  raftload check latest --json | jq -r '.guarantees[] | select(.verdict == "fail") | .violations[0].text'
"""


def main(args: argparse.Namespace) -> int:
    """Run ``raftload check``: print the verdicts and return the exit code. Raises UsageError."""
    from loadgen.check import report

    rules = select(args.guarantee)
    document = report.judged(find(args.run), rules)
    show(document, args.json, report.render)
    return Verdict(document["verdict"]).exit_code
