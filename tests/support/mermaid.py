"""The real Mermaid, from npm: installed once into the user's cache, run by Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from tests.support.cache import cached
from tests.support.missing import require

VERSIONS = ("mermaid@11", "jsdom@24", "js-yaml@4")


def run_mermaid(script: str, sources: Mapping[str, str], folder: Path) -> list[str]:
    """Return the lines that a script prints, which finds the sources by their names as JSON on its stdin.

    Takes an empty folder. Skips the test where Mermaid cannot be had, see ``require``.
    """
    if not (shutil.which("node") and shutil.which("npm")):
        _cannot("no node and npm on PATH, from which the real Mermaid is installed")
    path = folder / "script.mjs"
    path.write_text(script)
    (folder / "node_modules").symlink_to(cached("mermaid-11", _install) / "node_modules")
    done = subprocess.run(
        ["node", str(path)], input=json.dumps(sources).encode(), capture_output=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return done.stdout.decode().splitlines()


def _install(folder: Path) -> Path:
    """Installs Mermaid into a folder; returns the one that is to be kept."""
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), *VERSIONS]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        _cannot("npm install mermaid took more than 600 s")
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        # What npm says last is where its log lies.
        reason = next((line for line in said if "reason: " in line), said[0])
        _cannot(f"npm install mermaid failed: {reason.rpartition('reason: ')[2]}")
    made = folder / "whole"
    made.mkdir()
    for each in folder.iterdir():
        if each != made:
            each.rename(made / each.name)
    return made


def _cannot(reason: str) -> NoReturn:
    require("mermaid", reason)
    raise AssertionError("require() ends the test")
