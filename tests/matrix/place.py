"""The surroundings of the cells of one release: its etcd, a folder, commands, and a cluster that the cells share."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from cluster.base.binary import EtcdBinary
from cluster.base.ports import is_free
from tests.support import command
from tests.support.leftovers import SESSION, wait_gone

# Beyond what any command of a cell needs: it only ends one that hangs.
HANG_S = 600.0
# Above the ports of tests (`tests.support.ports`), below those that `cluster.base.ports` chooses.
_PORTS = range(14_800, 15_000, 3)


class CellFailed(Exception):  # noqa: N818
    """What a cell was to show and did not, in one line."""


def hold(condition: object, otherwise: str) -> None:
    """Raise CellFailed with a line where a condition does not hold."""
    if not condition:
        raise CellFailed(" ".join(otherwise.split())[:400])


class Place:
    """Use as a context manager: what was started ends with it, whatever ends the block.

    Attributes:
        target: the column of the matrix.
        binary: its etcd.
        folder: of the cell that runs, for its files.
    """

    def __init__(self, target: str, binary: EtcdBinary) -> None:
        self.target = target
        self.binary = binary
        self._root = Path()
        self.folder = Path()
        self._stack = contextlib.ExitStack()
        self._shared: tuple[str, ...] = ()
        self._outside: dict[str, str | None] = {}

    def __enter__(self) -> Place:
        # Short, since paths of Unix sockets are at most 107 bytes.
        self._root = Path(tempfile.mkdtemp(prefix="rl-matrix-"))
        self._stack.callback(shutil.rmtree, self._root, ignore_errors=True)
        (self._root / "tmp").mkdir()
        wanted = {"TMPDIR": str(self._root / "tmp"), SESSION: secrets.token_hex(8)}
        self._outside = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        tempfile.tempdir = None
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.close_shared()
        except CellFailed as failure:
            print(failure, file=sys.stderr)
        finally:
            self._stack.close()
            for name, value in self._outside.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
            tempfile.tempdir = None

    @contextlib.contextmanager
    def cell(self, name: str, keep: Path) -> Iterator[None]:
        """Give a cell its folder, of which a copy is kept in ``keep`` where the cell fails, for somebody to read."""
        self.folder = self._root / name
        self.folder.mkdir()
        try:
            yield
        except Exception:
            shutil.rmtree(keep, ignore_errors=True)
            keep.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(self.folder, keep, ignore_dangling_symlinks=True)
            raise
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    # Commands

    def run(
        self, *words: str, code: Collection[int] = (0,), state: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `raftload …` in the cell's folder to its end.

        Takes the exit codes that are right, a name of a state folder other than the shared cluster's, and more of the
        environment. What it printed is kept in the cell's folder. Raises CellFailed for another exit code and for a
        command that hangs. Whatever else is raised meanwhile ends the command first, in order.
        """
        with self.start(*words, state=state, **env) as process:
            try:
                out, err = process.communicate(timeout=HANG_S)
            except BaseException as exc:
                _end(process)
                if isinstance(exc, subprocess.TimeoutExpired):
                    raise CellFailed(f"`raftload {' '.join(words)}` did not end in {HANG_S:.0f} s") from exc
                raise
        with (self.folder / "commands.txt").open("a", encoding="utf-8") as file:
            file.write(f"$ raftload {' '.join(words)}\n{out}{err}exit code {process.returncode}\n\n")
        last = err.strip().splitlines()[-1] if err.strip() else ""
        hold(process.returncode in code, f"`raftload {words[0]}` exited with {process.returncode}: {last}")
        hold("Traceback" not in err, f"`raftload {words[0]}` printed a traceback")
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(self, *words: str, state: str = "", **env: str) -> subprocess.Popen[str]:
        """Start `raftload …` in the cell's folder."""
        folder = {"XDG_STATE_HOME": str(self._root / "state" / (state or "shared"))}
        etcd = {"RAFTLOAD_ETCD": self.binary.path}
        return command.start(*words, cwd=self.folder, **{**folder, **etcd, **env})

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Yield a command that runs while the block does, and is then ended as by Ctrl-C."""
        with self.start(*words) as process:
            try:
                yield process
            finally:
                _end(process)

    def document(self, *words: str, code: Collection[int] = (0,), state: str = "", **env: str) -> Any:
        """Return what a command prints, which is JSON."""
        return json.loads(self.run(*words, code=code, state=state, **env).stdout)

    # Clusters

    def up(self, state: str) -> Any:
        """Brings three local members up. Takes the name of a state folder. Returns what the command said."""
        base = next(port for port in _PORTS if all(is_free(port + each) for each in range(3)))
        words = ("--backend", "local", "--etcd", self.binary.path, "--base-port", str(base), "--nodes", "3", "--json")
        made = self.document("cluster", "up", *words, state=state)
        hold((made["done"], made["version"]) == ("created", self.binary.version), f"`cluster up` made {made}")
        return made

    def down(self, state: str) -> None:
        """Take those members down. Raises CellFailed where anything of them is left."""
        self.run("cluster", "down", "--backend", "local", state=state)

    def shared(self) -> tuple[str, ...]:
        """Endpoints of the cluster that cells share, which is brought up for the first."""
        if not self._shared:
            self._shared = tuple(self.up("shared")["endpoints"])
        return self._shared

    def close_shared(self) -> None:
        """Take the shared cluster down, where it is up. Raises CellFailed where anything is left then."""
        if not self._shared:
            return
        self._shared = ()
        self.folder = self._root / "down"
        self.folder.mkdir(exist_ok=True)
        self.down("shared")
        self.nothing_left()

    def nothing_left(self) -> None:
        """Raise CellFailed where a process or folder of a cluster is still there, and none should be."""
        left = wait_gone(set(), 20.0)
        hold(not left, f"left behind: {'; '.join(sorted(left))}")


def _end(process: subprocess.Popen[str]) -> None:
    """End a command in order, and at once where it does not end."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
