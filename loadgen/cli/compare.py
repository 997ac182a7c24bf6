"""`raftload compare`: whether the runs of NEW are slower than those of BASE."""

from __future__ import annotations

import argparse

from cluster.base.errors import UsageError
from loadgen.cli import comparison

EXAMPLES = """\
examples:
  raftload compare runs/before runs/after                     one run each: only a gross difference shows
  for n in 1 2 3 4 5 6; do
    raftload bench --etcd 3.5.30 --duration 20s --output base/$n
    raftload bench --etcd 3.6.14 --duration 20s --output new/$n
  done
  raftload compare --base base/* --new new/* --html compared.html
  raftload compare --base base/* --new new/* --figure 'total.*' --within 2% --json

Runs of the same differ, by far more than the operations within them let expect. So the runs are what is counted, and
it takes some: 6 of each side, or 4 of one and 6 of the other, are the fewest that show anything but a gross difference.
Where they do not suffice, the answer says how many more: `cannot tell: 5 more runs of each`. docs/numbers.md has the
method. `raftload ab` makes the runs itself, by turns.

exit codes:
  0 NEW is the same or faster   1 slower   2 usage, or runs that cannot be compared   3 cannot tell
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raftload compare`."""
    parser.description = (
        "Say whether the runs of NEW are slower than those of BASE: of each figure the difference and between which "
        "values it is, and one verdict on all: slower, faster, same within x %%, or cannot tell, and what is missing."
    ).replace("%%", "%")
    parser.add_argument(
        "runs", metavar="RUN", nargs="*",
        help="two runs, that of BASE and that of NEW; each a run folder, a result.json, or 'latest'",
    )  # fmt: skip
    for option in ("base", "new"):
        parser.add_argument(
            f"--{option}", metavar="RUN", action="extend", nargs="+",
            help=f"runs of {option.upper()}, one or several; may be repeated",
        )  # fmt: skip
    comparison.add_judging(parser)
    comparison.add_answering(parser.add_argument_group("answer"))


def main(args: argparse.Namespace) -> int:
    """Run `raftload compare`. Returns the exit code; raises UsageError, and FileError of a file not written."""
    base, new = _sides(args)
    comparison.check_files(args)
    return comparison.answer(args, comparison.judged(args, base, new))


def _sides(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the runs of BASE and of NEW."""
    if args.runs and (args.base or args.new):
        raise UsageError("name the runs either as BASE NEW, or with --base and --new")
    if args.runs:
        if len(args.runs) != 2:
            raise UsageError(
                f"give two runs, BASE and NEW, not {len(args.runs)}; for several of a side, "
                "--base RUN RUN... --new RUN RUN..."
            )
        return args.runs[:1], args.runs[1:]
    if not args.base or not args.new:
        missing = " and ".join(f"--{side}" for side in ("base", "new") if not getattr(args, side))
        raise UsageError(f"there is nothing to compare: give BASE and NEW, or {missing}")
    return args.base, args.new
