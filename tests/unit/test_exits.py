"""Every exception that ends a command has an exit code, and what a command says of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.base import exits
from cluster.base.errors import ClusterError, RaftloadError, UsageError
from cluster.base.files import writing

ROOT = Path(__file__).resolve().parents[2]
# In a process of its own, since some modules import Locust, which patches the standard library.
LIST = """
import importlib, json, pathlib, sys
classes = {}
for package in ("cluster", "loadgen", "locustfiles", "viz"):
    for path in sorted(pathlib.Path(package).rglob("*.py")):
        if path.stem != "__main__":
            module = importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
            for kind in vars(module).values():
                if isinstance(kind, type) and issubclass(kind, BaseException) and kind.__module__ == module.__name__:
                    classes[kind.__name__] = [each.__name__ for each in kind.__mro__], getattr(kind, "exit_code", None)
print(json.dumps(classes))
"""
# What never reaches a command: who catches it, and makes what of it.
INTERNAL = {
    "Broken": "cluster.conformance.model: FAIL",
    "Inconclusive": "cluster.conformance.model: UNKNOWN",
    "NotApplicable": "cluster.conformance.model: SKIP",
    "Stopped": "cluster.conformance.model: UNKNOWN",
    "ConnectError": "loadgen.client.channel: the outcome of a call",
    "TlsError": "loadgen.client.dialing: a ConnectError",
    "ProtocolError": "loadgen.client.transport: the end of a connection or a call",
    "LocalError": "loadgen.client.transport: the same",
    "RemoteError": "loadgen.client.transport: the same",
    "NoStreamError": "loadgen.client.transport: a wait for a stream",
    "NotGrpcError": "cluster.observe.calls: a question in JSON",
    "CannotTryError": "loadgen.bugs.trial: could not be tried",
    "UncertainError": "loadgen.chaos.actor_process: the end of a turn",
    # These two have a code each, of a signal and of what was raised, and pass every `except Exception`.
    "Interrupted": "cluster.base.exits",
    "ListenerError": "cluster.base.exits",
}


@pytest.fixture(scope="module")
def classes() -> dict[str, tuple[list[str], int | None]]:
    """Every exception of the packages: its base classes, itself first, and its exit code."""
    done = subprocess.run([sys.executable, "-c", LIST], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: (bases, code) for name, (bases, code) in json.loads(done.stdout).items()}


def test_every_exception_has_an_exit_code_or_is_internal(classes: dict[str, tuple[list[str], int | None]]) -> None:
    ending = {name for name, (bases, _) in classes.items() if "RaftloadError" in bases}
    assert len(ending) > 20
    assert set(classes) - ending == set(INTERNAL)


def test_it_is_2_for_what_was_asked_for_and_4_for_the_environment(
    classes: dict[str, tuple[list[str], int | None]],
) -> None:
    codes = {name: code for name, (bases, code) in classes.items() if "RaftloadError" in bases}
    of_usage = {name for name, (bases, _) in classes.items() if "UsageError" in bases}
    assert codes == {name: 2 if name in of_usage else 4 for name in codes}
    assert of_usage == {
        "UsageError", "SecurityError", "SettingsError", "ScenarioError", "ThresholdError", "ReportError",
        "HistoryError", "RunError", "OtherLoadError",
    }  # fmt: skip


class PlantedError(ClusterError):
    """Defined where exits.py cannot know it."""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("no"), 2, "raftload: error: no\n"),
        (RaftloadError("full"), 4, "raftload: error: full\n"),
        (PlantedError("gone"), 4, "raftload: error: gone\n"),
        (OSError("gone"), 4, "raftload: error: gone\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_command_that_raises_says_one_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        raise error

    assert exits.run(command) == code
    assert capsys.readouterr() == ("", said)


def test_a_bug_says_where_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAFTLOAD_DEBUG", raising=False)
    assert exits.run(lambda: int("x")) == 70
    err = capsys.readouterr().err
    assert err.startswith("raftload: internal error: ValueError: invalid literal")
    assert "at test_exits.py:" in err and err.count("\n") == 1


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RaftloadError, match=r"^cannot write x\.json: Is a directory$"), writing("x.json"):
        tmp_path.open("w")
    with pytest.raises(BrokenPipeError), writing("to stdout"):
        raise BrokenPipeError
