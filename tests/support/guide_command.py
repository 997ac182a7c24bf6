"""A program as the documentation's scripts call it: ``python -m tests.support.guide_command raftload bench …``.

It runs the real one, forked from a process that has imported raftload where `tests.support.guides` passes on the
sockets of such: imports take most of the processor's time of a short run. What serves until it is interrupted is
interrupted once it has answered. A verdict that says more of this machine than of the command (a saturated generator, a
known bug of etcd that chaos met) does not end a script. Every exit code goes to the file that ``$GUIDE_LOG`` names.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.support import forked

_INSTALLED = "tests.support.guide_program"
_ROOT = Path(__file__).resolve().parents[2]
# Beside 0: 3 is inconclusive, 1 from chaos and check is a broken promise of etcd's.
_VERDICTS = {"bench": {3}, "gate": {3}, "test": {3}, "chaos": {1, 3}, "check": {1, 3},
             "bugs": {1, 3}, "compare": {1, 3}, "ab": {1, 3}, "capacity": {1, 3}, "diagnose": {1, 3}}  # fmt: skip
# A threshold that a page shows as one that fails.
_FAILS = "put.operations >= 10000"


def main(name: str, words: list[str]) -> int:
    """Return the exit code for the script: 0 where the program's own is one to expect."""
    command = [*_program(name), *words]
    serves = "--watch" in words or words[:1] == ["web"] or (name == "locust" and "--headless" not in words)
    code = _serve(command, words) if serves else _run(command, name, words)
    expected = {0, 130} if serves else {0}.union(*(_VERDICTS.get(word, ()) for word in [*words[:2], *_verb(name)]))
    if "--baseline" in words:
        expected |= {1}
    if _FAILS in words:
        expected = {1}
    with Path(os.environ["GUIDE_LOG"]).open("a") as log:
        log.write(json.dumps({"words": " ".join([name, *words]), "code": code, "expected": code in expected}) + "\n")
    return 0 if code in expected else code or 1


def _verb(name: str) -> list[str]:
    return ["bench"] if name == "benchmark-consensus" else []


def _program(name: str) -> list[str]:
    """Return what runs a program: Python, a module of Python's, or one that this project installs."""
    if name == "python":
        return [sys.executable]
    scripts = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    if name not in scripts:
        return [sys.executable, "-m", name]
    return [sys.executable, "-m", _INSTALLED, name, scripts[name]]


def _run(command: list[str], name: str, words: list[str]) -> int:
    kind = forked.kind_of([*_verb(name), *words])
    descriptor = os.environ.get(forked.socket_variable(kind))
    # What is forked reads nothing.
    reads = os.fstat(0).st_rdev != Path(os.devnull).stat().st_rdev
    if _INSTALLED not in command or descriptor is None or reads:
        return subprocess.run(command, check=False).returncode
    with socket.socket(fileno=int(descriptor)) as server:
        report = forked.request(server, _INSTALLED, command[3:], Path.cwd(), os.environ, (1, 2), with_us=True)
    with report:
        forked.number(report)  # its pid
        return os.waitstatus_to_exitcode(forked.number(report))


def _serve(command: list[str], words: list[str]) -> int:
    """Run a program until it has answered, then interrupts it."""
    # Only here: what they import takes longer than all else in a command of a page, of which there are a hundred.
    from tests.support.ports import serves
    from tests.support.waiting import until

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if "--web-port" in words:
                port = words[words.index("--web-port") + 1]
                until(lambda: process.poll() is not None or serves(port), "a page")
            else:
                assert process.stdout is not None
                print(process.stdout.readline(), end="", flush=True)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)
        except BaseException:
            process.kill()
            raise
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
