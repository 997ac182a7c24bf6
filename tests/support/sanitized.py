"""The compiled core with AddressSanitizer and UndefinedBehaviorSanitizer: its build, and Python with it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.support.command import ROOT

CYTHON = "RAFTLOAD_CYTHON"
SOURCE = ROOT / "loadgen" / "engine" / "core.pyx"
# What a finding ends the process with.
FOUND = 99
_FLAGS = (
    "-O1", "-g", "-fPIC", "-shared", "-fno-omit-frame-pointer", "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
)  # fmt: skip


def missing() -> str:
    """Return why there can be no such build on this machine, empty where there can."""
    if shutil.which("gcc") is None:
        return "no gcc on PATH"
    if not _cython():
        return f"no Cython: neither in this environment nor named by ${CYTHON}"
    return "" if _runtime() else "gcc has no AddressSanitizer"


def build(folder: Path) -> Path:
    """Build the core into a folder; return its path. Raises CalledProcessError."""
    made, core = folder / "core.c", folder / "core.so"
    subprocess.run([*_cython(), "-3", "-o", str(made), str(SOURCE)], check=True, capture_output=True, text=True)
    include = sysconfig.get_path("include")
    command = ["gcc", *_FLAGS, f"-I{include}", str(made), "-o", str(core)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return core


def environment() -> dict[str, str]:
    """Return what Python needs to load such a build.

    Each object is an allocation of its own, so that reading behind its end is found. What Python leaves at its exit is
    no leak of the core's.
    """
    return os.environ | {
        "LD_PRELOAD": _runtime(), "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": f"detect_leaks=0:exitcode={FOUND}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:exitcode={FOUND}",
    }  # fmt: skip


def load(path: Path) -> None:
    """Have this process take the core from there. Call it before anything imports the core."""
    name = "loadgen.engine.core"
    assert name not in sys.modules
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    importlib.import_module("loadgen.engine").core = module  # type: ignore[attr-defined]


def _cython() -> list[str]:
    if named := os.environ.get(CYTHON):
        return [named]
    if importlib.util.find_spec("Cython") is not None:
        return [sys.executable, "-m", "cython"]
    return [found] if (found := shutil.which("cython")) else []


def _runtime() -> str:
    """Return the path of the sanitizer's library, empty where gcc has none."""
    command = ["gcc", "-print-file-name=libasan.so"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return str(Path(found).resolve()) if "/" in found else ""
