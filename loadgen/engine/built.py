"""Whether the compiled core is there, and why not."""

from __future__ import annotations

import importlib
from functools import cache

NOT_BUILT = "the compiled core was not built: that takes a C compiler and Python's headers when raftload is installed"


@cache
def missing() -> str:
    """Return why there is no compiled core, empty where there is one."""
    try:
        importlib.import_module("loadgen.engine.core")
    except ImportError as error:
        built = getattr(error, "name", None) != "loadgen.engine.core"
        return f"the compiled core cannot be loaded: {error}" if built else NOT_BUILT
    return ""


def engine_name() -> str:
    """Return the engine that ``--engine auto`` takes where the load allows both."""
    return "python" if missing() else "compiled"


def described() -> str:
    """Return that engine for people, with the reason where it is Python's."""
    return f"{engine_name()} ({missing()})" if missing() else engine_name()
