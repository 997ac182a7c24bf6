"""A command as its installed script runs it: ``python -m tests.support.guide_program NAME MODULE:FUNCTION WORDS``."""

from __future__ import annotations

import importlib
import sys

if __name__ == "__main__":
    _, name, entry, *words = sys.argv
    module, _, function = entry.partition(":")
    sys.argv = [name, *words]
    sys.exit(getattr(importlib.import_module(module), function)())
