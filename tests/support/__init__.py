"""Parts that tests share: commands, clusters, certificates, servers, waiting, and the rules for what is missing."""

import importlib.util

# One of those that all of it takes; without them a command would end with a traceback.
if importlib.util.find_spec("jsonschema") is None:
    raise SystemExit("what is in tests/ needs packages that are not installed: pip install -e '.[dev]'")
