"""A scenario as `kv`, by users that pause: for loads whose speed is not the point, and which would fill a processor."""

from __future__ import annotations

from pathlib import Path

_PAUSING = """
from locust import constant

from locustfiles.kv import KeyValueUser as _KeyValueUser

class Pausing(_KeyValueUser):
    abstract = False
    wait_time = constant(0.03)
"""


def pausing(folder: Path) -> tuple[str, str]:
    """Write the scenario into a folder; return the options that name it."""
    path = folder / "pausing.py"
    path.write_text(_PAUSING)
    return "--scenario", str(path)
