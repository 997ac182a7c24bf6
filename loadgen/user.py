"""`EtcdUser` under the name that scenarios of people's own import."""

from __future__ import annotations

from loadgen.load.user import EtcdUser

__all__ = ["EtcdUser"]
