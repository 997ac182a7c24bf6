"""The options and variables by which a cluster's endpoints are named: as they are, or by DNS SRV."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from cluster.base.errors import UsageError

ENDPOINTS, DISCOVERY, NAME = "ETCDCTL_ENDPOINTS", "ETCDCTL_DISCOVERY_SRV", "ETCDCTL_DISCOVERY_SRV_NAME"


def add_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the options about DNS SRV, to stand beside ``--endpoints``."""
    parser.add_argument(
        "--discovery-srv", metavar="DOMAIN",
        help="domain whose DNS SRV records _etcd-client-ssl._tcp and _etcd-client._tcp name the endpoints (default: "
        f"${DISCOVERY})",
    )  # fmt: skip
    parser.add_argument(
        "--discovery-srv-name", metavar="NAME",
        help=f"suffix of the services' names, as in _etcd-client-NAME._tcp (default: ${NAME})",
    )  # fmt: skip


def option(args: argparse.Namespace) -> str | None:
    """Return the option that names a cluster, None where none does; looks nothing up.

    Raises UsageError for options that exclude each other.
    """
    has_endpoints = getattr(args, "endpoints", None) is not None
    if not getattr(args, "discovery_srv", None):
        return "--endpoints" if has_endpoints else None
    if has_endpoints:
        raise UsageError("--endpoints and --discovery-srv exclude each other; give one")
    return "--discovery-srv"


def named(args: argparse.Namespace) -> tuple[str, str] | None:
    """Return the endpoints that options name, with commas between them, and the option; None where none does.

    Raises UsageError for options that exclude each other, and as ``endpoints_of``.
    """
    told = option(args)
    if told is None:
        return None
    return args.endpoints if told == "--endpoints" else _discovered(args.discovery_srv, args, os.environ), told


def named_by_environment(
    args: argparse.Namespace | None = None, env: Mapping[str, str] | None = None
) -> tuple[str, str] | None:
    """Return the same of an environment (default: this process's), in which DNS SRV comes first, as in etcdctl.

    Takes the options too, where there are some, for ``--discovery-srv-name``.
    """
    args = argparse.Namespace() if args is None else args
    env = os.environ if env is None else env
    if env.get(DISCOVERY):
        return _discovered(env[DISCOVERY], args, env), f"${DISCOVERY}"
    return (env[ENDPOINTS], f"${ENDPOINTS}") if env.get(ENDPOINTS) else None


def _discovered(domain: str, args: argparse.Namespace, env: Mapping[str, str]) -> str:
    from cluster.base.dns import endpoints_of

    name = getattr(args, "discovery_srv_name", None) or env.get(NAME) or ""
    return ",".join(endpoints_of(domain, name))
