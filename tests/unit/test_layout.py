"""The folders of the packages: which may import which, how large they are, and how files are named.

The directions are the table "Directions" in CONTRIBUTING.md: a folder imports only folders that stand before it.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("cluster", "loadgen", "viz")
MOST_MODULES = 25
# The path by which people's own scenarios import the class; the class is in loadgen/load/user.py.
PUBLIC = "loadgen/user.py"
# One thing on two backends.
ON_TWO_BACKENDS = {"cluster/docker/cluster.py", "cluster/local/cluster.py"}


def directions() -> dict[str, list[set[str]]]:
    """Return the table: by package, its folders from the lowest layer to the highest."""
    _, _, text = (ROOT / "CONTRIBUTING.md").read_text().partition("### Directions\n")
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", text.partition("\n### ")[0].partition("\n## ")[0], re.MULTILINE)
    return {package: [set(layer.split(", ")) for layer in layers.split(" → ")] for package, layers in rows}


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    return {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
        for package in (*PACKAGES, "locustfiles")
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def imports(path: Path, known: dict[str, Path]) -> list[tuple[int, str]]:
    """Return the modules of ours that a file imports, each with its line; those for type checkers too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names if alias.name in known]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in known or node.module in known:
                    found.append((node.lineno, name if name in known else str(node.module)))
    return found


def place(module: str) -> tuple[str, str]:
    """Return the package and the folder of a module; no folder for what stands above them."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def is_allowed(importer: str, imported: str, layers: dict[str, list[set[str]]]) -> bool:
    """Whether a module may import another."""
    (from_package, from_folder), (to_package, to_folder) = place(importer), place(imported)
    if from_package == "locustfiles":
        return to_package in ("locustfiles", "loadgen")
    if imported == "locustfiles":  # the folder, for the names and paths of the scenarios
        return from_package == "loadgen"
    assembles = (from_package, from_folder) == ("loadgen", "cli")
    if from_package != to_package:
        if to_folder == "cli":
            return assembles
        in_view = to_package == "viz" and (assembles or (from_package, from_folder) == ("loadgen", "webui"))
        return to_package == "cluster" or in_view
    if to_folder in (from_folder, ""):
        return to_folder != "user"
    if importer.replace(".", "/") + ".py" == PUBLIC:
        return True
    rank = {folder: number for number, layer in enumerate(layers[from_package]) for folder in layer}
    return rank[to_folder] < rank[from_folder]


def test_each_folder_imports_only_folders_that_stand_before_it() -> None:
    known, layers = modules(), directions()
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {path.read_text().splitlines()[line - 1].strip()}"
        for module, path in known.items()
        for line, imported in imports(path, known)
        if not is_allowed(module, imported, layers)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_table_names_the_folders_that_there_are() -> None:
    named = {f"{package}/{folder}" for package, layers in directions().items() for layer in layers for folder in layer}
    there = {
        path.parent.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).glob("*/__init__.py")
    }
    assert named == there


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("loadgen.wire.grpc", "loadgen.wire.errors", True),
        ("loadgen.client.etcd", "loadgen.wire.grpc", True),
        ("loadgen.wire.grpc", "loadgen.client.etcd", False),
        ("loadgen.chaos.campaign", "loadgen.webui.runs", False),
        ("loadgen.webui.runs", "viz.report.page", True),
        ("loadgen.chaos.outcome", "viz.report.page", False),
        ("loadgen.webui.runs", "loadgen.cli.bench", False),
        ("loadgen.cli.main", "viz.cli.command", True),
        ("viz.report.page", "viz.cli.command", False),
        ("viz.report.page", "loadgen.result.document", False),
        ("cluster.base.units", "viz.report.page", False),
        ("cluster.cli.test", "cluster.conformance.suite", True),
        ("cluster.local.cluster", "cluster.docker.cluster", False),
        ("locustfiles.kv", "loadgen.user", True),
        ("loadgen.load.scenarios", "locustfiles", True),
        ("loadgen.load.scenarios", "locustfiles.kv", False),
        ("locustfiles.kv", "cluster.base.units", False),
    ],
)
def test_the_rule_itself(importer: str, imported: str, allowed: bool) -> None:
    assert is_allowed(importer, imported, directions()) is allowed


def test_no_folder_is_crowded() -> None:
    sizes = Counter(path.parent.relative_to(ROOT).as_posix() for path in modules().values() if path.stem != "__init__")
    assert {folder: size for folder, size in sizes.items() if size > MOST_MODULES} == {}


def test_no_two_modules_of_a_package_have_one_name() -> None:
    names: dict[tuple[str, str], set[str]] = {}
    for module, path in modules().items():
        relative = path.relative_to(ROOT).as_posix()
        if path.stem != "__init__" and place(module)[1] != "cli" and relative != PUBLIC:
            names.setdefault((place(module)[0], path.name), set()).add(relative)
    assert {key: paths for key, paths in names.items() if len(paths) > 1 and paths != ON_TWO_BACKENDS} == {}
