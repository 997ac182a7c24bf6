"""The run that was started last from a folder, remembered in the user's folder for state wherever the run's own is."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from cluster.base.files import write_bytes
from cluster.base.state import state_dir

# A build server starts runs from a new folder each time.
_MOST = 500


def remember(run: Path) -> str | None:
    """Note that a run was started from the current folder. Takes its run folder.

    Returns why that cannot be noted, None where it was.
    """
    try:
        here = Path.cwd()
        file = _file(here)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_bytes(file, os.fsencode(here / run))
    except OSError as exc:
        return exc.strerror or str(exc)
    except RuntimeError as exc:  # this user has no home
        return str(exc)
    with contextlib.suppress(OSError):
        files = sorted(file.parent.iterdir(), key=lambda each: each.stat().st_mtime_ns)
        for old in files[:-_MOST]:
            old.unlink(missing_ok=True)
    return None


def remembered() -> tuple[Path, int] | None:
    """Return the folder of the run that was started last from the current one, and when: nanoseconds since 1970.

    The folder may be gone. None where no run was noted.
    """
    try:
        file = _file(Path.cwd())
        return Path(os.fsdecode(file.read_bytes())), file.stat().st_mtime_ns
    except (OSError, RuntimeError):
        return None


def _file(folder: Path) -> Path:
    return state_dir() / "latest" / hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
