"""`raftload bugs`: which known bugs an etcd has, each tried on a throwaway cluster of it."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.console import StatusLine, say, show, terminal_width
from cluster.base.errors import UsageError
from cluster.base.files import writing
from cluster.base.known_bugs import BUGS
from cluster.base.parser import Whole
from cluster.base.signals import EXIT_CODES, Interrupted, interruptible
from cluster.base.verdict import Verdict

if TYPE_CHECKING:
    from cluster.base.binary import EtcdBinary
    from cluster.base.exits import ListenerError
    from cluster.schema.bugs_documents import Bugs
    from loadgen.bugs.parallel import Trial
    from loadgen.bugs.scenario import Scenario
    from loadgen.bugs.trial import Outcome

_LONGER = 5
DOCUMENT = "bugs.json"
EXAMPLES = """\
examples:
  raftload bugs                                  the etcd of the embedded cluster, all bugs
  raftload bugs --etcd 3.5.30 --etcd 3.6.14      two releases (after `raftload etcd get`)
  raftload bugs --etcd /usr/bin/etcd --only CVE-2026-33413 --only 14110
  raftload bugs --list                           the bugs, without trying any
  raftload bugs --junit bugs.xml --json > bugs.json

A known bug is one that etcd's issues or advisories describe, and that --list shows. Each has a scenario: users with
and without permissions, watches, leases, killed members. Every call and answer is recorded, and judged by the
guarantees of `raftload check`. The etcd binary is unmodified, and its version does not count. The clusters are made
for this, on loopback, and are removed again. No cluster of yours gets a request.

found:
  affected              the etcd has the bug: a guarantee broke in the way that is typical of this bug
  not affected          it does not have it: the scenario shows the bug every time where it is, and here it did not
  not shown in N s      open: the bug needs luck, and did not show; --thorough tries longer
  could not be tried    open, with the reason: this machine or this etcd lacks something, or a call got no answer;
                        on a busy machine try again with --jobs 1

exit codes:
  0 affected by no bug   1 affected by one or more   2 usage
  3 inconclusive: a bug could not be tried, or was not shown although the version is known to have it
  4 environment (no such etcd)   70 a bug in raftload   130 SIGINT, 143 SIGTERM (what was tried is shown)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `raftload bugs`."""
    parser.description = (
        "Try the known bugs of etcd on throwaway clusters of one etcd or several. Say which bugs each etcd has, which "
        "guarantee breaks, and which releases fix it."
    )
    parser.add_argument(
        "--etcd", metavar="VERSION|PATH", action="append", default=[],
        help="etcd to try: a release that `raftload etcd get` has fetched, such as 3.6.14, or the path of a binary; "
        "may be repeated (default: as `raftload bench`)",
    )  # fmt: skip
    parser.add_argument(
        "--only", metavar="BUG", action="append", default=[],
        help="try only this bug: the number of its issue or the name of its advisory, as --list shows them; may be "
        "repeated (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--thorough", action="store_true",
        help=f"try bugs that need luck {_LONGER} times as long",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=Whole(1, 64), metavar="N", help="bugs to try at a time (default: the number of processors)"
    )
    parser.add_argument(
        "--seed", type=Whole(0), default=1, metavar="N", help="seed of what is random in the scenarios (default: 1)"
    )
    parser.add_argument("--list", action="store_true", help="print the bugs that can be tried, and exit")
    group = parser.add_argument_group("result")
    group.add_argument(
        "--output", type=Path, metavar="DIR",
        help="folder to write, with a run folder of each try (default: runs/<time>-bugs)",
    )  # fmt: skip
    group.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    group.add_argument("--junit", metavar="FILE", help="also write what was found to FILE as JUnit XML")


def main(args: argparse.Namespace) -> int:
    """Try the bugs. Returns the exit code; raises what `cluster.base.exits` turns into a message and a code."""
    from loadgen.bugs import bug_table, catalogue
    from loadgen.result import junit
    from loadgen.run import run_folder

    scenarios = catalogue.select(args.only)
    if args.list:
        _list([each.issue for each in scenarios])
        return 0
    if args.junit and not Path(args.junit).absolute().parent.is_dir():
        raise UsageError(f"--junit {args.junit}: there is no folder {Path(args.junit).parent}")
    binaries = _binaries(args.etcd)
    planned = run_folder.planned("bugs", args.output)
    folder = run_folder.create(planned, exact=args.output is not None, say=say, is_run=False)
    found, failed = _tried(args, binaries, scenarios, folder)
    with writing(folder / DOCUMENT):
        run_folder.write_json(folder / DOCUMENT, found)
    if args.junit:
        with writing(args.junit):
            Path(args.junit).write_text(bug_table.to_xml(found), encoding="utf-8")
    if summary := os.environ.get(junit.STEP_SUMMARY):
        with writing(summary):
            appended = junit.append_markdown(bug_table.to_markdown(found))
        if not appended:
            say(junit.SUMMARY_IS_FULL.format(summary))
    show(found, args.json, bug_table.render)
    if not args.json:
        say(f"folder {folder}")
    if failed is not None:
        raise failed
    if found["stopped_by"]:
        return EXIT_CODES[found["stopped_by"]]
    return Verdict(found["verdict"]).exit_code


def _list(issues: list[str]) -> None:
    """Print the bugs of these issues."""
    with writing("to stdout"):
        for bug in BUGS:
            if bug.issue in issues:
                print(f"{bug.name:<20} {bug.summary}")


def _binaries(names: list[str]) -> list[EtcdBinary]:
    """Return the etcds that options name, the default for none. Raises ClusterError."""
    from cluster.base.binary import find_etcd

    found: dict[str, EtcdBinary] = {}
    for binary in map(find_etcd, names) if names else [find_etcd()]:
        found.setdefault(binary.path, binary)
    return list(found.values())


def _tried(
    args: argparse.Namespace, binaries: list[EtcdBinary], scenarios: list[Scenario], folder: Path
) -> tuple[Bugs, ListenerError | None]:
    """Try scenarios on etcds; return the document, also where a signal ended it, and a bug of ours that ended one."""
    from cluster.base.exits import ListenerError
    from loadgen.bugs import bug_table, parallel
    from loadgen.bugs.trial import Found, Outcome

    trials = [
        parallel.Trial(
            scenario, binary, folder / f"{binary.version}{f'-{at}' * (len(binaries) > 1)}" / scenario.issue,
            scenario.limit_s * (_LONGER if args.thorough and not scenario.certain else 1), args.seed,
        )
        for at, binary in enumerate(binaries, 1) for scenario in scenarios
    ]  # fmt: skip
    # What takes longest first: so all end at about one time.
    in_order = sorted(trials, key=lambda trial: trial.scenario.certain)
    outcomes: dict[int, Outcome] = {}
    progress = _Progress(len(trials))
    stopped_by, failed = None, None
    try:
        with (
            interruptible(),
            contextlib.closing(parallel.run(in_order, args.jobs or os.cpu_count() or 1, progress.tick)) as tried,
        ):
            for trial, outcome in tried:
                outcomes[id(trial)] = outcome
                progress.done(trial, outcome)
    except Interrupted as signal:
        stopped_by = str(signal)
    except ListenerError as error:
        failed = error
    finally:
        progress.clear()
    missing = Outcome(Found.NOT_TRIED, 0.0, 0, reason=f"ended by {stopped_by} before it was tried")
    if failed is not None:
        missing = Outcome(Found.NOT_TRIED, 0.0, 1, reason="a bug of raftload itself has ended it")
    by_etcd = [
        (binary, [bug_table.row(each, outcomes.get(id(each), missing)) for each in trials if each.binary is binary])
        for binary in binaries
    ]
    found = bug_table.document(by_etcd, thorough=args.thorough, seed=args.seed, stopped_by=stopped_by)
    return found, failed


class _Progress:
    """Says what is tried: a line that is drawn anew, or one for each bug where there is no terminal."""

    def __init__(self, count: int) -> None:
        self._count, self._done, self._affected = count, 0, 0
        self._line = StatusLine()
        self.clear = self._line.clear

    def tick(self, running: list[Trial]) -> None:
        """Draw the line anew."""
        if self._line.is_due():
            names = ", ".join(f"{each.scenario.bug.name} ({each.binary.version})" for each in running)
            text = f"{self._done}/{self._count} tried   {self._affected} affected   {names}"
            self._line.draw(text[: terminal_width() - 1])

    def done(self, trial: Trial, outcome: Outcome) -> None:
        """Take the outcome of one."""
        self._done += 1
        self._affected += outcome.found == "affected"
        if not self._line.live:
            say(f"{self._done}/{self._count} etcd {trial.binary.version}: {trial.scenario.bug.name}: {outcome.found}")
