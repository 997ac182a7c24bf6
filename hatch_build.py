"""The build hook of the wheel: the compiled core goes into it where a C compiler and Python's headers are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CORE = Path("loadgen/engine/core.pyx")
MADE = CORE.with_suffix(sysconfig.get_config_var("EXT_SUFFIX"))


class CoreHook(BuildHookInterface[Any]):
    """Compiles the core; a wheel without it is for any platform.

    ``RAFTLOAD_REQUIRE_CORE=1`` in the environment makes a core that was not built a failure of the build.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the core, into the wheel or, for an editable installation, into the checkout."""
        in_checkout = Path(self.root, MADE)
        if version == "editable":
            in_checkout.unlink(missing_ok=True)  # one of an older source; a process that has it loaded keeps it
        self._scratch = TemporaryDirectory(prefix="raftload-core-")
        folder = Path(self._scratch.name)
        if output := compile_core(Path(self.root), folder):
            lines = output.splitlines()
            reason = next((line for line in lines if "error: " in line), lines[-1]).removeprefix("error: ")
            said = f"raftload: the compiled core was not built, the Python engine will be used: {reason}"
            if os.environ.get("RAFTLOAD_REQUIRE_CORE") == "1":
                self.app.abort(f"{output}\n{said}; RAFTLOAD_REQUIRE_CORE=1 makes that a failure")
            self.app.display_warning(said)
        elif version == "editable":
            shutil.move(folder / MADE, in_checkout)
        else:
            build_data |= {"pure_python": False, "infer_tag": True}
            build_data["force_include"][str(folder / MADE)] = str(MADE)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was packed."""
        self._scratch.cleanup()


def compile_core(root: Path, folder: Path) -> str:
    """Compile the core of a checkout below another folder, which gets `MADE`; return the output of a failure.

    Cython has distutils or setuptools compile, which know each platform's compiler, ``$CC``, ``$CFLAGS`` and the like.
    """
    for package in CORE.parent, CORE.parent.parent:
        (folder / package).mkdir(parents=True, exist_ok=True)
        (folder / package / "__init__.py").touch()
    shutil.copy(root / CORE, folder / CORE)
    done = subprocess.run(
        [sys.executable, "-m", "Cython.Build.Cythonize", "--inplace", str(CORE)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        # The last option counts, so those of the environment do. The C code is not for people: no warnings. Newer
        # setuptools leave out Python's own options where there are any, and two of them are needed.
        env={**os.environ, "CFLAGS": f"-O2 -g0 -w -DNDEBUG -fwrapv {os.environ.get('CFLAGS', '')}"},
    )  # fmt: skip
    return done.stdout.strip() or "no output" if done.returncode else ""
