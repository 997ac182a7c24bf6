"""The release workflow: its steps, the script that it calls, and the image that it builds."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from cluster.base.versions import CURRENT
from tests.support.command import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RELEASE = (ROOT / ".github" / "workflows" / "release.yml").read_text()
DOCKERFILE = "docs/deploy/Dockerfile"


def steps(workflow: str) -> list[str]:
    """Return the shell scripts of a workflow."""
    found = re.findall(r"^( *)(?:- )?run: (?:\|\n((?:\1 +.*\n|\n)+)|(.+)\n)", workflow, re.MULTILINE)
    return [textwrap.dedent(block) or line for _, block, line in found]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_the_steps_of_a_workflow_are_shell_and_call_what_is_there(workflow: Path) -> None:
    text = workflow.read_text()
    scripts = steps(text)
    assert len(scripts) == text.count("run: ") > 0
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), script
        for path in re.findall(r"(?:\.ci|docs)/[\w./-]+", script):
            assert (ROOT / path).is_file(), path
    for action in re.findall(r"uses: (.*)", text):
        if action.startswith("./"):
            assert (ROOT / action).is_file(), action
            continue
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", action), action


def test_a_tag_makes_the_packages_and_the_image_of_both_platforms() -> None:
    assert 'tags: ["v*"]' in RELEASE
    scripts = steps(RELEASE)
    assert '.ci/packages "$GITHUB_REF_NAME"' in scripts
    assert "    uses: ./.github/workflows/wheels.yml\n" in RELEASE and "needs: [packages, wheels, image]" in RELEASE
    builds = [line for script in scripts for line in script.replace("\\\n", "").splitlines() if "buildx build" in line]
    assert all(f"-f {DOCKERFILE} " in line for line in builds)
    for kept in ("type=oci,dest=dist/", "--push"):
        (build,) = (line for line in builds if kept in line)
        assert "--platform linux/amd64,linux/arm64 " in build


def test_the_image_and_the_compose_file_have_the_current_etcd() -> None:
    for path in (DOCKERFILE, "docs/deploy/compose.yaml"):
        versions = re.findall(r"etcd-development/etcd:v([\d.]+)", (ROOT / path).read_text())
        assert set(versions) == {CURRENT}, path


def test_the_version_is_that_of_the_changelogs_newest_section() -> None:
    """What is built between two releases is not taken for the one before."""
    newest = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == newest


def packages(folder: Path, tag: str, version: str, changelog: str) -> subprocess.CompletedProcess[str]:
    """Run the script of the packages up to where it would make environments."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "packages", folder / ".ci")
    (folder / "pyproject.toml").write_text(f'[project]\nname = "raftload"\nversion = "{version}"\n')
    (folder / "CHANGELOG.md").write_text(changelog)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" != -m ] || exit 77\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return subprocess.run(
        [folder / ".ci" / "packages", tag], env={"PATH": "/usr/bin:/bin", "PYTHON": str(python)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


CHANGES = (
    "# Changelog\n\n## 0.2.1 (unreleased)\n\n- new\n\n## 0.2.0 (2026-12-01)\n\n- good\n\n### More\n\n- x\n\n## 0.1.0\n"
)


@pytest.mark.parametrize(
    ("tag", "version", "line"),
    [
        ("v0.3.0", "0.2.0", "the tag v0.3.0 is not v0.2.0, which pyproject.toml has"),
        ("v0.2.1", "0.2.1", "CHANGELOG.md says: 0.2.1 (unreleased); write the date"),
        ("v0.2", "0.2", "CHANGELOG.md has no section 0.2"),
    ],
)
def test_a_tag_that_does_not_fit_makes_nothing(tag: str, version: str, line: str, tmp_path: Path) -> None:
    done = packages(tmp_path, tag, version, CHANGES)
    assert (done.returncode, done.stderr) == (1, f"{line}\n")
    assert list((tmp_path / "dist").iterdir()) == []


def test_the_notes_of_a_release_are_its_section_of_the_changelog(tmp_path: Path) -> None:
    assert packages(tmp_path, "v0.2.0", "0.2.0", CHANGES).returncode == 77
    assert (tmp_path / "dist" / "notes.md").read_text() == "\n- good\n\n### More\n\n- x\n\n"
