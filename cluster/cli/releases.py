"""The `raftload etcd` commands: official releases of etcd in the user's cache."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from cluster.base.console import columns, print_json, say
from cluster.base.errors import ClusterError
from cluster.base.parser import Duration
from cluster.base.signals import Interrupted, interruptible
from cluster.base.units import megabytes
from cluster.base.versions import CURRENT, parse_version, releases_dir

SCHEMA = "raftload.releases/1"
EXAMPLES = f"""\
examples:
  raftload etcd get {CURRENT}                      download the release for this machine, verify its checksum
  raftload bench --etcd {CURRENT}                  use it; chaos, web and cluster have --etcd, too
  export RAFTLOAD_ETCD={CURRENT}                   use it for all commands
  raftload etcd get {CURRENT} --base-url https://mirror.example/etcd
  raftload etcd list
  raftload etcd remove {CURRENT}

A mirror has the files of etcd's release pages: v{CURRENT}/SHA256SUMS and v{CURRENT}/etcd-v{CURRENT}-linux-amd64.tar.gz.
The environment's https_proxy, no_proxy and REQUESTS_CA_BUNDLE are used.

exit codes:
  0 done   2 usage   4 environment (no such release, no network, a wrong checksum, disk full)   70 a bug in raftload
  130 SIGINT, 143 SIGTERM; a download that fails or is interrupted leaves nothing in the cache
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands of the group."""
    group = parser.add_subparsers(dest="etcd_command", metavar="COMMAND", required=True)

    def command(
        name: str, text: str, example: str, main: Callable[[argparse.Namespace], int]
    ) -> argparse.ArgumentParser:
        made = group.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".",
            epilog=f"example:\n  raftload etcd {example}\n", formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        made.set_defaults(etcd_main=main)
        return made

    def version(made: argparse.ArgumentParser) -> None:
        made.add_argument("version", metavar="VERSION", help=f"version of etcd, such as {CURRENT} or v{CURRENT}")

    get = command("get", "download an official release into the cache, and print the path of its etcd",
                  f"get {CURRENT}", _get)  # fmt: skip
    version(get)
    # Written out, since help imports nothing that downloads.
    get.add_argument(
        "--base-url", metavar="URL",
        help="base address of the releases, with http, https or file (default: $RAFTLOAD_ETCD_BASE_URL, else "
        "https://github.com/etcd-io/etcd/releases/download)",
    )  # fmt: skip
    get.add_argument(
        "--timeout", type=Duration(0.001), default=30.0, metavar="DURATION",
        help="give up when no data has arrived for so long (default: 30s)",
    )  # fmt: skip
    command("list", "show the releases in the cache: version, size and path", "list", _list).add_argument(
        "--json", action="store_true", help="print one JSON document instead of text"
    )
    version(command("path", "print the path of the etcd binary of a release in the cache", f"path {CURRENT}", _path))
    version(command("remove", "remove a release from the cache", f"remove {CURRENT}", _remove))


def main(args: argparse.Namespace) -> int:
    """Run one command of the group. Returns the exit code; raises RaftloadError."""
    try:
        with interruptible():
            return int(args.etcd_main(args))
    except Interrupted as exc:
        say(f"interrupted by {exc}; the cache has no partial download")
        return exc.exit_code


def _get(args: argparse.Namespace) -> int:
    version = parse_version(args.version)
    from cluster.releases import cache
    from cluster.releases.download import Base

    release = cache.get(version, Base.choose(args.base_url, args.timeout), say)
    print(release.path)
    say(f"use it with --etcd {version}, or for all commands with RAFTLOAD_ETCD={version}")
    return 0


def _list(args: argparse.Namespace) -> int:
    from cluster.releases import cache

    found = cache.releases()
    if args.json:
        document = {"schema": SCHEMA, "folder": str(releases_dir()), "releases": [each.to_json() for each in found]}
        print_json(document)
        return 0
    rows = [(each.version, each.platform, megabytes(each.size_bytes), str(each.path)) for each in found]
    if found:
        print("\n".join(columns([("version", "platform", "size", "path"), *rows])))
    else:
        say(f"no release is in {releases_dir()}: `raftload etcd get {CURRENT}` gets one")
    return 0


def _path(args: argparse.Namespace) -> int:
    from cluster.releases import cache

    print(cache.find(parse_version(args.version)).path)
    return 0


def _remove(args: argparse.Namespace) -> int:
    from cluster.local.daemon_client import DetachedCluster
    from cluster.releases import cache

    release = cache.find(parse_version(args.version), cache.WHAT_IS_THERE)
    running = DetachedCluster.find()
    if running is not None and running.running.source.startswith(f"{release.path} ("):
        raise ClusterError("the local cluster that is up runs this release: `raftload cluster down` first")
    cache.remove(release.version)
    print(f"removed {release.folder} ({megabytes(release.size_bytes)})")
    return 0
