"""`raftload perf`: the checks of `etcdctl check`, from many workers, with the reasons where they fail."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.console import say
from cluster.base.errors import ClusterError, UsageError
from cluster.base.files import writing
from cluster.base.security import masked
from cluster.base.signals import Interrupted
from loadgen.cli.terminal import Terminal, finish
from loadgen.perf import etcdctl_form, loads
from loadgen.result import gate, junit, table
from loadgen.run import TargetOptions, WorkerOptions, guard, run_folder, target, worker_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.schema.run_documents import Result

EXAMPLES = """\
loads, as etcdctl has them:
            puts per second   clients   for                     pairs     clients
  --load s              150        50   60 s    --datascale s   10,000         50
  --load m            1,000       200   60 s    --datascale m   100,000       200
  --load l            8,000       500   60 s    --datascale l   1,000,000     500
  --load xl          15,000     1,000   60 s    --datascale xl  3,000,000   1,000

pass marks of --load:
  no error; more than 90 % of the rate; the slowest put at most 500 ms; a standard deviation of at most 100 ms.
  Latency is counted from sending, and a put that is due while all clients wait for an answer is not sent.

examples:
  raftload perf                                      --load s on an embedded cluster
  raftload perf --load m --endpoints 10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379
  raftload perf --load xl --destructive --endpoints 10.0.0.1:2379 --expect-workers 4 --bind 10.0.0.9
                                                     and on four machines, once for each worker:
                                                     raftload worker --master-host 10.0.0.9 --scenario put
  raftload perf --like-etcdctl --endpoints 127.0.0.1:2379
  raftload perf --datascale m --auto-compact --auto-defrag --destructive --endpoints 127.0.0.1:2379

exit codes:
  0 pass   1 a mark was missed   2 usage, or the prefix has keys   3 inconclusive (a worker lost, ended at the quota)
  4 environment (cluster unreachable)   70 a bug in raftload   130 SIGINT, 143 SIGTERM (results are kept)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `raftload perf`."""
    group = parser.add_argument_group("check")
    which = group.add_mutually_exclusive_group()
    sizes = ", ".join(dict.fromkeys(loads.ALIASES.values()))
    which.add_argument("--load", metavar="SIZE", help=f"load of `etcdctl check perf`: {sizes} (default: s)")
    which.add_argument(
        "--datascale", metavar="SIZE",
        help=f"instead, load of `etcdctl check datascale`: {sizes}; what the pairs take of memory and disk",
    )  # fmt: skip
    group.add_argument(
        "--prefix", metavar="PREFIX",
        help="what the keys begin with; no key may begin with it before, and none does afterwards (default: etcdctl's, "
        "/etcdctl-check-perf/ or /etcdctl-check-datascale/)",
    )  # fmt: skip
    group.add_argument("--auto-compact", action="store_true", help="compact the store afterwards, all that is old")
    group.add_argument(
        "--auto-defrag", action="store_true", help="defragment the members afterwards, one after the other"
    )
    guard.add_arguments(group)
    target.add_arguments(parser)
    worker_options.add_arguments(parser.add_argument_group("workers"))
    group = parser.add_argument_group("result")
    group.add_argument(
        "--output", type=Path, metavar="DIR", help="run folder to write (default: runs/<time>-perf-<size>)"
    )
    shown = group.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print the result document instead of a table")
    shown.add_argument(
        "--like-etcdctl", action="store_true", help="print what etcdctl prints on stdout, in its form, and no more"
    )
    group.add_argument("--junit", metavar="FILE", help="also write the verdict to FILE as JUnit XML")


def main(args: argparse.Namespace) -> int:
    """Run a check. Returns the exit code; raises what `cluster.base.exits` turns into a message and a code."""
    check = check_of(args)
    allowed = guard.Guard.from_arguments(args)
    if check.rate is not None:
        allowed.check_rate(check.rate, check.words)
    cluster = TargetOptions.from_arguments(args)
    workers = WorkerOptions.from_arguments(args)
    workers.check_target(cluster.endpoints)
    _check_tidying(args, cluster)
    if check.heavy:
        say(allowed.permit(cluster, check.words, check.writes))
    junit_file = _junit_file(args)
    return run_check(args, check, cluster, workers, allowed.max_rate, junit_file)


def check_of(args: argparse.Namespace) -> loads.Check:
    """Return the check that was asked for. Raises UsageError."""
    option, text = ("--load", args.load) if args.datascale is None else ("--datascale", args.datascale)
    text = "s" if text is None else text
    if text not in loads.ALIASES:
        raise UsageError(f"{option} takes {', '.join(dict.fromkeys(loads.ALIASES.values()))}, not {text!r}")
    size = loads.ALIASES[text]
    return (loads.perf(size) if args.datascale is None else loads.datascale(size)).with_prefix(args.prefix)


def run_check(
    args: argparse.Namespace, check: loads.Check, cluster: TargetOptions, workers: WorkerOptions,
    max_rate: float | None = None, junit_file: Path | None = None,
) -> int:  # fmt: skip
    """Run a check as the options say that stand under ``result``, and return the exit code."""
    from loadgen.perf import checking

    plan = checking.plan_of(check, workers, masked(sys.argv, args), max_rate)
    folder = run_folder.planned(f"{check.name}-{check.size}", args.output)
    started = etcdctl_form.started(check.block()) if args.like_etcdctl else []
    tidied: list[str] = []
    failed: ClusterError | Interrupted | None = None
    with run_folder.for_a_run(folder, exact=args.output is not None, say=say) as folder, _Terminal(started) as terminal:
        try:
            result = checking.run(folder, check, plan, cluster, workers, terminal)
        except run_folder.IncompleteFolderError as error:
            _show(args, folder, error.result, complete=False)
            raise
        if (args.auto_compact or args.auto_defrag) and not result["interrupted"]:
            terminal.results_written()
            failed = _tidy(args, check, cluster, tidied)
    code = _show(args, folder, result, tidied)
    if junit_file is not None:
        with writing(str(junit_file)):
            junit.write(result, junit_file)
    if failed is not None:
        raise failed
    return code


class _Terminal(Terminal):
    """Prints lines on stdout when the load begins. Takes them."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def load_begins(self, stop: Callable[[str], None]) -> None:
        """Print the lines."""
        super().load_begins(stop)
        _print(self._lines)


def _tidy(
    args: argparse.Namespace, check: loads.Check, cluster: TargetOptions, lines: list[str]
) -> ClusterError | Interrupted | None:
    """Compact and defragment, and add what etcdctl says of it to the lines; return what ended it early."""
    from loadgen.perf.tidy import tidy

    try:
        tidy(
            cluster.endpoints, cluster.security, check.prefix, lines.append,
            compact=args.auto_compact, defragment=args.auto_defrag,
        )  # fmt: skip
    except (ClusterError, Interrupted) as error:
        return error
    return None


def _show(
    args: argparse.Namespace, folder: Path, result: Result, tidied: list[str] | None = None, *, complete: bool = True
) -> int:
    if not args.like_etcdctl:
        for line in tidied or ():
            say(line)
        return finish(folder, result, args.json, partial(table.render, folder=folder), complete=complete)
    _print(etcdctl_form.ended(result, tidied or ()))
    say(f"run folder {folder}")
    return gate.exit_code(result)


def _print(lines: list[str]) -> None:
    with writing("to stdout"):
        for line in lines:
            print(line, flush=True)


def _check_tidying(args: argparse.Namespace, cluster: TargetOptions) -> None:
    for option, wanted in (("--auto-compact", args.auto_compact), ("--auto-defrag", args.auto_defrag)):
        if wanted and not cluster.endpoints:
            raise UsageError(f"{option} is for a cluster that stays: one that is started for this run ends with it")


def _junit_file(args: argparse.Namespace) -> Path | None:
    if args.junit is None:
        return None
    path = Path(args.junit)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"--junit {path}: name a file in a folder that is there")
    return path
