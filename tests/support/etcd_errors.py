"""etcd's own lists of its client errors, read from its Go modules: ``python -m tests.support.etcd_errors`` writes them.

``tests/data/etcd-errors/MINOR.tsv`` has the list of one minor release: name, gRPC code and text of each error, with
tabs between them, after the version that it is of.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LISTS = Path(__file__).parents[1] / "data" / "etcd-errors"
# 3.4 has no module of its own but etcd's whole: this is 3.4.13, of which the proxy has no other name.
_WHOLE = ("go.etcd.io/etcd", "v0.5.0-alpha.5.0.20200910180754-dd1b699fc489")
_ERROR = re.compile(r'^\s*ErrG(?:RPC|PRC)(\w+)\s*=\s*status\.\w+\(codes\.(\w+), "([^"]+)"\)', re.MULTILINE)
# Names by which one error is known in the list of the server's errors, or was before.
_OTHER_NAMES = {"RequestTooManyRequests": "TooManyRequests", "ClusterIdMismatch": "ClusterIDMismatch"}
_MINORS = ("3.4", "3.5", "3.6", "3.7")
Row = tuple[str, str, str]


class NoGo(Exception):  # noqa: N818
    """Why etcd's source cannot be had on this machine."""


def listed(source: str) -> list[Row]:
    """Take the text of etcd's error.go, return name, gRPC code and text of each error, in its order."""
    return [(_OTHER_NAMES.get(name, name), _code(code), text) for name, code, text in _ERROR.findall(source)]


def _code(name: str) -> str:
    """Take a code's name as Go's gRPC has it, return gRPC's own: ``DataLoss`` is ``DATA_LOSS``."""
    return {"Canceled": "CANCELLED"}.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


def stored(minor: str) -> tuple[str, list[Row]]:
    """Return the version that a minor's stored list is of, and the list."""
    version, *lines = (LISTS / f"{minor}.tsv").read_text(encoding="utf-8").splitlines()
    rows = [tuple(line.split("\t")) for line in lines]
    assert all(len(row) == 3 for row in rows)
    return version, rows  # type: ignore[return-value]


def pinned(minor: str) -> str:
    """Return the newest release of a minor that ``tests/etcds`` pins."""
    text = (Path(__file__).parents[1] / "etcds" / minor / "go.mod").read_text(encoding="utf-8")
    found = re.search(r"go\.etcd\.io/etcd/server/v3 v(\S+)", text)
    assert found, f"tests/etcds/{minor}/go.mod requires no etcd"
    return found[1]


def of_release(minor: str) -> tuple[str, list[Row]]:
    """Return a minor's newest pinned version and its list, from Go's module cache or proxy. Raises NoGo."""
    if minor == "3.4":
        return "3.4.13", listed((_module(*_WHOLE) / "etcdserver/api/v3rpc/rpctypes/error.go").read_text("utf-8"))
    version = pinned(minor)
    return version, listed((_module("go.etcd.io/etcd/api/v3", f"v{version}") / "v3rpc/rpctypes/error.go").read_text())


@functools.cache
def _module(path: str, version: str) -> Path:
    env = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    with tempfile.TemporaryDirectory() as empty:
        command = ["go", "mod", "download", "-json", f"{path}@{version}"]
        try:
            done = subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True, timeout=300, check=False)
            return Path(json.loads(done.stdout)["Dir"])
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise NoGo(f"no Go that works: {exc}") from exc
        except (ValueError, KeyError) as exc:
            raise NoGo(f"no module {path}@{version}: {(done.stderr or done.stdout).strip()[-200:]}") from exc


def main() -> int:
    """Write the lists of all minor releases; return the exit code, 4 where a source cannot be had."""
    LISTS.mkdir(exist_ok=True)
    for minor in _MINORS:
        try:
            version, rows = of_release(minor)
        except NoGo as exc:
            print(f"etcd {minor}: {exc}", file=sys.stderr)
            return 4
        lines = [version, *("\t".join(row) for row in rows)]
        (LISTS / f"{minor}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
