"""What shows each known bug: one module for the bugs of one kind. ``loadgen.bugs.catalogue`` finds them by itself.

A module has a tuple ``SCENARIOS``. To add a bug: its row in ``cluster/base/known_bugs.py``, and its `Scenario` in a
module here; ``anonymous_calls`` is the one to begin with.
"""
