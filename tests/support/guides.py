"""The commands of the documentation: taken from its pages, and run as a reader types them.

A page is one shell script, so that what a command leaves behind (a variable, a cluster, a run folder) is there for the
next. `raftload` and its like are this checkout's, by ``tests.support.guide_command``, which tells what is wrong from a
verdict on a busy machine. Only what a page cannot know is replaced: addresses, ports, and how long a load goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support import forked

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w+)( docker)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STEP = re.compile(r"^ *- run: (?:>\n((?: {10}.*\n)+)|(.*)\n)", re.MULTILINE)
_COMMENT = re.compile(r" +#.*$")
ELLIPSIS = "⋮"
# A page takes half a minute; this ends one that hangs.
_HANG_S = 900.0
# Made by the commands themselves; the wheel's programs and those that come with raftload's dependencies.
PROGRAMS = ("python", "locust")


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of a page.

    Attributes:
        place: ``README.md:12``.
        text: the command, without the comment beside it.
        sample: the output that the page shows below it, empty for none.
        docker: whether its block is marked as one that needs Docker.
        block: which block of the page has it, counted from 1.
    """

    place: str
    text: str
    sample: str = ""
    docker: bool = False
    block: int = 0


def pages() -> list[str]:
    """Return the pages that have commands, by their paths in the repository."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in paths if commands(str(path.relative_to(ROOT)))]


def commands(page: str) -> list[Command]:
    """Return a page's commands in order: of its sh and console blocks, its workflows' steps, and its Python blocks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    everything: list[Command] = []
    for number_of_block, block in enumerate(_FENCE.finditer(text), 1):
        found: list[Command] = []
        language, docker, body = block.group(1), bool(block.group(2)), block.group(3)
        first = text.count("\n", 0, block.start(3)) + 1
        if language == "sh":
            lines = ((number, _COMMENT.sub("", line)) for number, line in enumerate(body.splitlines(), first))
            found += [Command(f"{page}:{number}", line, docker=docker) for number, line in lines if line]
        elif language == "console":
            found += _typed(page, first, body)
        elif language == "yaml":
            found.append(Command(f"{page}:{first}", "mkdir -p workflow && cd workflow"))
            for step in _STEP.finditer(body):
                number = first + body.count("\n", 0, step.start())
                words = " ".join((step.group(1) or step.group(2)).split())
                found.append(Command(f"{page}:{number}", _COMMENT.sub("", words)))
        elif language == "python":
            found.append(Command(f"{page}:{first}", _python(body)))
        everything += [dataclasses.replace(each, block=number_of_block) for each in found]
    return everything


def _typed(page: str, first: int, body: str) -> Iterator[Command]:
    """Yield the commands of a console block, which have a dollar before them and their output below."""
    parts = re.split(r"^\$ ", body, flags=re.MULTILINE)
    number = first + parts[0].count("\n")
    for part in parts[1:]:
        command, _, output = part.partition("\n")
        yield Command(f"{page}:{number}", _COMMENT.sub("", command), output)
        number += part.count("\n")


def _python(body: str) -> str:
    """Return a command that runs a block of Python, or keeps it under the name that its first line gives."""
    named = re.match(r"# (\w+\.py)\n", body)
    words = f"cat > {named.group(1)}" if named else "python -"
    return f"{words} <<'END'\n{body}END"


@dataclasses.dataclass(frozen=True)
class Ended:
    """What became of a page.

    Attributes:
        code: of its script.
        text: what the script wrote.
        outputs: of each command with a sample, by its place.
        unexpected: commands whose exit code was none to expect, those in the background among them.
    """

    code: int
    text: str
    outputs: dict[str, str]
    unexpected: list[str]


def run(script: list[Command], folder: Path, replaced: Mapping[str, str], **env: str) -> Ended:
    """Run commands as one script in the folder ``work`` of a folder, and end the cluster that they may have left.

    Takes what is replaced in a command, by the text that is found, in that order; and more of the environment.
    """
    work, bin_folder, log = folder / "work", folder / "bin", folder / "codes"
    for each in (work, bin_folder, folder / "out"):
        each.mkdir(parents=True, exist_ok=True)
    for name in ("docs", "locustfiles", "tests"):
        (work / name).symlink_to(ROOT / name)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name in (*scripts, *PROGRAMS):
        path = bin_folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.support.guide_command {name} "$@"\n')
        path.chmod(0o755)
    lines = ["set -eu", "trap 'echo \"failed: $at\" >&2' ERR", f"cd '{work}'"]
    for number, command in enumerate(script):
        text = f"{command.text}\n"
        for found, instead in replaced.items():
            text = text.replace(found, instead)
        text = text.rstrip("\n")
        lines += [f"at={_quoted(f'{command.place}: {text}')}", 'echo "+ $at"']
        lines.append(f"{{ {text}\n}} > '{folder}/out/{number}'" if command.sample else text)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ETCD_", "ETCDCTL_", "GITHUB_")) and name != "NODES"
    }
    whole = {
        **kept, "PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "GUIDE_LOG": str(log),
        "XDG_STATE_HOME": str(folder / "state"), "XDG_CACHE_HOME": str(folder / "cache"), **env,
    }  # fmt: skip
    (folder / "script").write_text("\n".join(lines) + "\n")
    try:
        code, text = _bash(folder / "script", whole)
    finally:
        if any("cluster" in command.text for command in script):
            down = [bin_folder / "raftload", "cluster", "down"]
            subprocess.run(down, cwd=folder, env=whole, capture_output=True, timeout=_HANG_S, check=False)
    outputs = {
        command.place: (folder / "out" / str(number)).read_text()
        for number, command in enumerate(script)
        if (folder / "out" / str(number)).exists()
    }
    entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    unexpected = [f"{entry['words']} exited with {entry['code']}" for entry in entries if not entry["expected"]]
    return Ended(code, text, outputs, unexpected)


def _bash(script: Path, env: Mapping[str, str]) -> tuple[int, str]:
    sockets = forked.sockets(env)
    with subprocess.Popen(
        ["bash", str(script)], env={**env, **{name: str(socket) for name, socket in sockets.items()}},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        pass_fds=tuple(sockets.values()),
    ) as process:  # fmt: skip
        try:
            text, _ = process.communicate(timeout=_HANG_S)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, text


def _quoted(text: str) -> str:
    return "'" + " ".join(text.split()).replace("'", "'\\''") + "'"


def missing_lines(sample: str, output: str) -> set[str]:
    """Return the first words of a sample's lines that no line of the output begins with; numbers, verdicts aside."""
    return {_beginning(line) for line in sample.splitlines() if line[:1].strip() and line != ELLIPSIS} - {
        _beginning(line) for line in output.splitlines()
    }


def _beginning(line: str) -> str:
    word = line.split(" ", 1)[0]
    return re.sub(r"PASS|FAIL|UNKNOWN", "VERDICT", re.sub(r"[\d,.]+", "0", re.sub("-+", "-", word)))
