"""`raftload diagnose`: what is slow in a cluster, from its command line to its exit code."""

from __future__ import annotations

import argparse
import functools
from typing import TYPE_CHECKING

from cluster.base.console import StatusLine, say, show, terminal_width
from cluster.base.errors import UsageError
from cluster.base.naming import add_arguments as add_naming_arguments
from cluster.base.parser import Duration
from cluster.base.security import add_arguments as add_security_arguments
from cluster.base.signals import EXIT_CODES, Interrupted
from cluster.observe import record
from loadgen.cli.run_argument import WHAT_LATEST_IS, find
from loadgen.diagnose.answer import LEAST_S
from loadgen.load.settings import checked_prefix
from loadgen.run import TargetOptions, target

if TYPE_CHECKING:
    from loadgen.diagnose.answer import Diagnosis
    from loadgen.diagnose.facts import Evidence
    from loadgen.diagnose.prober import Prober

DEFAULT_S = 60.0
_DEFAULT_ENDPOINT = "127.0.0.1:2379"
EXAMPLES = """\
answers:
  healthy    nothing is slow
  disk       syncs to disk take long
  cpu        members wait for their processors
  network    messages take long, between members or between client and members
  overload   the cluster is asked for more than it can do
  client     whoever measured was too busy to measure
  unsure     it is slow, and the figures have more than one explanation: the answer says what would tell them apart

Without RUN the members of --endpoints get probes for a minute: connections, reads and writes of several kinds, each of
which takes one part of a cluster more than another one. At most 20 requests a second are sent to all members together,
the largest of 16 KiB. Their keys have a prefix that no other key has, and are removed again. The members' metrics are
read every 5 seconds. Name every member: one that is not named is not asked.

With RUN, a run folder of `bench` or another command, the figures are those of its load, and nobody is asked.

examples:
  raftload diagnose --endpoints 10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379
  raftload diagnose --for 20s --json | jq -r '.cluster.word, (.members[] | "\\(.name) \\(.word)")'
  raftload diagnose latest                           what was slow in the last run

exit codes:
  0 healthy   1 disk, cpu, network, overload or client   2 usage   3 unsure   4 environment (no endpoint answers)
  70 a bug in raftload   130 SIGINT, 143 SIGTERM (what was seen in 5 s or more is judged, and shown)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `raftload diagnose`."""
    parser.description = (
        "Say in one word what is slow in a cluster, and at which member: its disk, its processor, the network, its "
        "load, the client, or nothing; with the figures that decide, and what to do about it."
    )
    parser.add_argument(
        "run", metavar="RUN", nargs="?",
        help=f"judge a finished run instead of asking a cluster: its run folder, or {WHAT_LATEST_IS}",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    group = parser.add_argument_group("probes, without RUN")
    group.add_argument(
        "--endpoints", metavar="HOST:PORT,…",
        help="client URLs of the cluster's members (default: $ETCDCTL_ENDPOINTS, else the cluster that "
        f"`raftload cluster up` started, else {_DEFAULT_ENDPOINT})",
    )  # fmt: skip
    add_naming_arguments(group)
    group.add_argument(
        "--for", dest="for_", type=Duration(LEAST_S, 3600), metavar="DURATION",
        help=f"how long to probe; Ctrl-C ends it earlier, and what was seen is judged (default: {DEFAULT_S:g}s)",
    )  # fmt: skip
    group.add_argument(
        "--prefix", metavar="PREFIX",
        help="what the keys begin with, for a user who may write under some prefix only; no key may begin with it "
        "before, and none does afterwards (default: 5 bytes with which no key begins)",
    )  # fmt: skip
    add_security_arguments(parser.add_argument_group("TLS and login, for --endpoints"))
    # What else a target may be is a cluster that is made for a run, which nobody asks what is slow.
    parser.set_defaults(backend=None, nodes=None, etcd=None, wait="0s")


def main(args: argparse.Namespace) -> int:
    """Diagnose a cluster or a run. Returns the exit code; raises what `cluster.base.exits` turns into a message."""
    if args.run is not None:
        if others := [option for option in ("endpoints", "discovery_srv", "for_", "prefix") if getattr(args, option)]:
            named = others[0].rstrip("_").replace("_", "-")
            raise UsageError(f"RUN and --{named} exclude each other: a run was measured already")
        return _show(_of_run(args.run), args)
    from loadgen.diagnose.causes import diagnose

    prefix = checked_prefix(args.prefix).encode() if args.prefix is not None else b""
    cluster = TargetOptions.from_arguments(args)
    if not cluster.endpoints:
        cluster = TargetOptions.at(_DEFAULT_ENDPOINT, cluster.security)
    evidence, notes, stopped_by = _probed(cluster, args.for_ or DEFAULT_S, prefix)
    if stopped_by is None:
        return _show(diagnose(evidence).noting(notes), args)
    if evidence.seconds >= LEAST_S:
        _show(diagnose(evidence).noting(notes), args)
    return EXIT_CODES[stopped_by]


def _of_run(name: str) -> Diagnosis:
    """Return the diagnosis of a run. Raises ReportError, and UsageError for a run that nobody watched."""
    from loadgen.diagnose import finished
    from loadgen.result import document

    folder = find(name)
    found = finished.diagnose(record.read(folder), document.build(folder))
    if found is None:
        raise UsageError(f"{folder}: nothing tells of the members during this run: their metrics were not read")
    return found


def _probed(cluster: TargetOptions, seconds: float, prefix: bytes) -> tuple[Evidence, list[str], str | None]:
    """Probe a cluster; return the evidence, notes, and the signal that ended it before its time.

    Raises Interrupted where that came too early, ClusterError where no endpoint answers, and SettingsError where there
    are keys under the prefix.
    """
    from loadgen.diagnose.prober import Prober
    from loadgen.run.gevent_signals import Signals

    signals = Signals()
    stopped: list[str] = []
    prober, evidence = None, None
    times = None if cluster.running is None else target.cpu_times_of(cluster.running)
    try:
        with Prober(cluster.endpoints, security=cluster.security, prefix=prefix, cpu_times=times) as prober:
            progress = _Progress(prober, seconds, cluster.describe())
            signals.gently = signals.again = functools.partial(_stop, prober, stopped)
            try:
                evidence = prober.run(seconds, progress.tick)
            finally:
                progress.clear()
                signals.gently = signals.again = lambda _: None  # until the keys are removed
    except Interrupted:
        say("interrupted before the first probe")
        raise
    finally:
        signals.close()
        if prober is not None and (evidence is None or evidence.seconds < LEAST_S):
            for note in prober.notes:  # which no diagnosis has
                say(f"note: {note}")
    if stopped and evidence.seconds < LEAST_S:
        say(f"interrupted after {evidence.seconds:.1f} s: a diagnosis takes {LEAST_S:g} s of probes at least")
    return evidence, prober.notes, stopped[0] if stopped else None


def _stop(prober: Prober, stopped: list[str], name: str) -> None:
    stopped.append(name)
    prober.stop()


class _Progress:
    """Says what is sent, once the probes have begun, and how far they are in a line that is drawn anew."""

    def __init__(self, prober: Prober, seconds: float, where: str) -> None:
        self._prober, self._seconds, self._where = prober, seconds, where
        self._line = StatusLine()
        self.clear = self._line.clear
        self._has_said = False

    def tick(self) -> None:
        """Say how far it is."""
        prober = self._prober
        if not self._has_said:
            self._has_said = True
            say(f"{self._seconds:g} s of probes at {self._where}: {prober.describe()}")
        if self._line.is_due():
            failed = f"   {prober.failed:,} failed" if prober.failed else ""
            left = max(0.0, self._seconds - prober.elapsed_s)
            self._line.draw(f"{prober.sent:,} requests{failed}   {left:.0f} s left"[: terminal_width() - 1])


def _show(found: Diagnosis, args: argparse.Namespace) -> int:
    """Show a diagnosis; return the exit code of its word."""
    from loadgen.diagnose import answer_table

    show(found.to_json(), args.json, answer_table.render)
    return found.cluster.exit_code
