"""The commands of the README and of the guides, typed as they stand from a bare clone, and the time that each takes.

    python -m tests.soak.newcomer

It clones the checkout, makes a virtual environment in the clone's neighbour, and runs each page in one shell, at full
length. Each page's times go to docs/evidence/newcomer.jsonl. The exit code is 0 where every command exited as its page
says and every story was within its time.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.soak.record import CODE, ROOT, about_now, append, command, run
from tests.support import guides

NAME = "newcomer.jsonl"
# docs/guides/before-production.md is about a cluster on other machines.
PAGES = ("README.md", "docs/guides/gate.md", "docs/guides/leader-failure.md", "docs/guides/teach-raft.md")
# What is in a command, and why it is not typed here.
NOT_TYPED = {"make test": "it takes a quarter of an hour; .ci/run runs it"}
# How the commands of a CI workflow begin. They are for another checkout; tests/integration/test_guides.py runs them.
WORKFLOW = "mkdir -p workflow"
# Installers that a page offers beside pip: typed where they are.
INSTALLERS = ("pipx", "uvx")
# What serves until Ctrl-C is looked at for so long, in seconds.
LOOK_S = 10
SERVES = ("raftload web", "--watch")
# Exit codes beside 0, by how a command begins. 3 is inconclusive: it says that other work
# keeps this machine busy. 1 from chaos and bugs is a bug of etcd, which raftload is there to find. 4 is that releases
# of etcd cannot be fetched from here.
FAILS = ("raftload gate gated --threshold 'put.operations", "raftload diagnose --for 15s")
ALSO = {
    "raftload bench": (3,), "raftload gate": (3,), "raftload compare": (3,),
    "raftload ab": (1, 3), "raftload chaos": (1, 3), "raftload check": (1, 3), "raftload cluster test": (3,),
    "raftload etcd get": (4,), "raftload bugs": (1, 4),
    "timeout": (124, 130),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Story:
    """Something that a newcomer wants, and how long its commands may take.

    Attributes:
        name: what is wanted.
        page: the page that has it.
        within_s: seconds allowed.
        first, last: how its first and last command begin.
    """

    name: str
    page: str
    within_s: float
    first: str
    last: str


STORIES = (
    Story("a first result", "README.md", 90, "make bench", "make bench"),
    Story("a failing gate", "docs/guides/gate.md", 120, "raftload bench", FAILS),
    Story(
        "a leader killed under load, with its report", "docs/guides/leader-failure.md", 120, "raftload cluster up",
        "raftload cluster down",
    ),
    Story("a picture of an election", "docs/guides/teach-raft.md", 120, "raftload cluster up", "raftload viz"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Typed:
    """A command that was run: its text and page, how many seconds it took, and its exit code."""

    page: str
    text: str
    seconds: float
    code: int

    @property
    def as_expected(self) -> bool:
        """Whether it exited as its page says."""
        if self.text.startswith(FAILS):
            return self.code == 1
        also = next((codes for beginning, codes in ALSO.items() if self.text.startswith(beginning)), ())
        return self.code == 0 or self.code in also


def main() -> int:
    """Type all pages once. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.newcomer", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--page", action="append", choices=PAGES, help="only this page; may be repeated")
    parser.add_argument("--keep", action="store_true", help="keep the clone, and say where it is")
    args = parser.parse_args()
    about, bad = about_now(*CODE, "docs"), 0
    folder = Path(tempfile.mkdtemp(prefix="raftload-newcomer-"))
    try:
        clone, env = prepare(folder)
        if args.page and "README.md" not in args.page:
            run("pip", "install", "--quiet", ".", cwd=clone, env=env).check_returncode()
        for page in args.page or PAGES:
            texts, left_out = commands(page)
            for text, why in left_out:
                print(f"not typed  {text.splitlines()[0][:100]}  ({why})", flush=True)
            typed = type_out(page, texts, clone, env)
            for each in typed:
                verdict = "" if each.as_expected else f"  UNEXPECTED exit code {each.code}"
                print(f"{each.seconds:7.1f} s  {each.text.splitlines()[0][:100]}{verdict}", flush=True)
            stories: dict[str, float | None] = {}
            for story in STORIES:
                if story.page == page:
                    took = stories[story.name] = seconds_of(story, typed)
                    ok = took is not None and took <= story.within_s
                    says = "is not on its page" if took is None else f"{took:.1f} s of {story.within_s:g} s allowed"
                    print(f"{story.name}: {says}{'' if ok else '  LATE'}", flush=True)
                    bad += not ok
            unexpected = [each.text for each in typed if not each.as_expected]
            bad += len(unexpected)
            row = {"page": page, "commands": len(typed), "seconds": round(sum(each.seconds for each in typed), 1)}
            append(NAME, {**about, **row, "stories": stories, "unexpected": unexpected})
    finally:
        if args.keep:
            print(f"kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad else 0


def prepare(folder: Path) -> tuple[Path, dict[str, str]]:
    """Clone the checkout and make a virtual environment, as somebody does who has nothing; return both.

    Takes an empty folder. Returns the clone, and the environment of its shell.
    """
    clone, venv = folder / "raftload", folder / "venv"
    run("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)).check_returncode()
    base = Path(sys.base_prefix, "bin", "python3")
    run(str(base) if base.exists() else sys.executable, "-m", "venv", str(venv)).check_returncode()
    names = ("RAFTLOAD_", "ETCD", "PYTHON", "LOCUST_", "GITHUB_", "PIP_REQUIRE")
    env = {name: value for name, value in os.environ.items() if not name.startswith(names) and name != "VIRTUAL_ENV"}
    env |= {"PATH": f"{venv / 'bin'}:{env['PATH']}", "XDG_STATE_HOME": str(folder / "state")}
    return clone, env


def why_not(text: str) -> str | None:
    """Return why a command is not typed here, None where it is."""
    program = text.split(maxsplit=1)[0]
    if program in INSTALLERS and shutil.which(program) is None:
        return f"{program} is not on this machine"
    return next((why for found, why in NOT_TYPED.items() if found in text), None)


def commands(page: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the commands of a page that are typed, and those that are not, each with why."""
    found = [each for each in guides.commands(page) if not each.docker]
    workflows = {each.block for each in found if each.text.startswith(WORKFLOW)}
    texts, left_out = list[str](), list[tuple[str, str]]()
    for each in found:
        why = "a step of CI's workflow" if each.block in workflows else why_not(each.text)
        if why is not None:
            left_out.append((each.text, why))
        elif any(word in each.text for word in SERVES):
            texts.append(f"timeout --signal=INT {LOOK_S} {each.text}")
        else:
            texts.append(each.text)
    return texts, left_out


def type_out(page: str, texts: Sequence[str], clone: Path, env: dict[str, str]) -> list[Typed]:
    """Type a page's commands in one shell of the clone; return them in their order."""
    log = clone.parent / "times"
    log.write_text("")
    script = "".join(
        f"begin=$(date +%s.%N)\n{text}\necho $? {number} $begin $(date +%s.%N) >> {log}\n"
        for number, text in enumerate(texts)
    )
    (clone.parent / "script").write_text(script)
    try:
        with (clone.parent / "output").open("ab") as output:
            run("bash", str(clone.parent / "script"), cwd=clone, env=env, stdout=output, stderr=output)
    finally:
        # A page leaves a cluster for whoever wants to go on with it.
        subprocess.run(["bash", "-c", "raftload cluster down"], cwd=clone, env=env, capture_output=True, check=False)
    rows = [line.split() for line in log.read_text().splitlines()]
    ended = {
        int(number): Typed(page, texts[int(number)], float(end) - float(begin), int(code))
        for code, number, begin, end in rows
    }
    return [ended.get(number, Typed(page, text, 0.0, -1)) for number, text in enumerate(texts)]


def seconds_of(story: Story, typed: Sequence[Typed]) -> float | None:
    """Return how long a story's commands took, in seconds; None where its page has them no longer."""
    first = next((at for at, each in enumerate(typed) if each.text.startswith(story.first)), None)
    if first is None:
        return None
    last = next((at for at, each in enumerate(typed) if at >= first and each.text.startswith(story.last)), None)
    return None if last is None else sum(each.seconds for each in typed[first : last + 1])


if __name__ == "__main__":
    command(main)
