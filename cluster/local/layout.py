"""The folders and the ports (on 127.0.0.1) of a local cluster's members."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence
from pathlib import Path

from cluster.base.errors import ClusterError
from cluster.base.files import FileError
from cluster.base.ports import free_ports, is_free
from cluster.base.topology import Member, local_members, member_names


class FolderError(ClusterError, FileError):
    """A folder of a cluster cannot be made or written."""


def make_writable(folder: Path, what: str) -> None:
    """Make a folder if it is missing. Takes what it is for; raises FolderError where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        attempt = folder / f".raftload-{secrets.token_hex(4)}"
        attempt.touch()
        attempt.unlink()
    except OSError as exc:
        said = f"cannot write to the {what} folder {folder}: {exc.strerror or exc}"
        raise FolderError(said, refers_to=folder) from exc


def refuse_data(root: Path, nodes: int) -> None:
    """Raise ClusterError where members have left data under a folder: etcd would go on from it."""
    for name in member_names(nodes):
        if (root / name / "member").exists():
            raise ClusterError(f"{root / name} holds a member's data already; give an empty folder")


def lay_out(
    nodes: int, root: Path, base_port: int | None, *, relayed: bool, tls: bool, peer_tls: bool = False
) -> tuple[Member, ...]:
    """Return the members with their data under a folder, on ports that are free now.

    Takes the first client port, None for any; whether their peer links go through a relay, which then listens where
    peers reach a member; and whether clients, and whether peers speak TLS. Raises ClusterError for a client port that
    is taken.
    """
    if base_port is None:
        ports = free_ports(2 * nodes)
    else:
        fixed = _fixed_ports(base_port, nodes)
        ports = [*fixed, *free_ports(nodes, taken=fixed)]
    schemes = ["https" if each else "http" for each in (tls, peer_tls)]
    members = local_members(ports[:nodes], ports[nodes:], str(root), *schemes)
    if not relayed:
        return members
    hidden = free_ports(nodes, taken=ports)
    return tuple(
        dataclasses.replace(member, peer_listen_url=f"{schemes[1]}://127.0.0.1:{port}")
        for member, port in zip(members, hidden, strict=True)
    )


def _fixed_ports(base: int, nodes: int) -> Sequence[int]:
    ports = range(base, base + nodes)
    for port in ports:
        if not 0 < port < 65536:
            raise ClusterError(f"there is no port {port}: choose a lower --base-port")
        if not is_free(port):
            raise ClusterError(f"port {port} on 127.0.0.1 is taken: stop what uses it or choose another --base-port")
    return ports
