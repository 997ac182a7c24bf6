"""The loads of `etcdctl check perf` and `etcdctl check datascale`, as etcd 3.5 to 3.7 have them.

They stand in etcd's ``etcdctl/ctlv3/command/check.go``, which is the same in these releases.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from loadgen.load.settings import Settings, checked_prefix

if TYPE_CHECKING:
    from cluster.schema.run_documents import Perf

Size = Literal["s", "m", "l", "xl"]
ALIASES: dict[str, Size] = {
    "s": "s", "small": "s", "m": "m", "medium": "m", "l": "l", "large": "l", "xl": "xl", "xLarge": "xl",
}  # fmt: skip
"""What etcdctl takes for each size."""
SECONDS = 60.0
# etcdctl gives its puts no deadline, so what ends one is the member's own, after 7 s with etcd's defaults.
_TIMEOUT_S = 30.0
# A put of a load as fast as it goes waits for all those before it.
_CLOSED_TIMEOUT_S = 120.0
# Keys are drawn at random: of 3 million that many, one in 3,000 is written twice.
_KEY_SPACE = (1 << 32) - 1


@dataclasses.dataclass(frozen=True)
class Check:
    """One of etcdctl's checks.

    Attributes:
        name: ``perf`` or ``datascale``.
        size: of its load.
        clients: operations that are open at most; each has a connection of its own, as in etcdctl.
        prefix: of its keys, where the user names no other.
        key_bytes: of a key, behind the prefix.
        value_bytes: of a value.
        rate: puts per second; None where they follow each other.
        pairs: how many keys are written; None where the load goes by time.
        seconds: length of the load that goes by time.
    """

    name: Literal["perf", "datascale"]
    size: Size
    clients: int
    prefix: str
    key_bytes: int
    value_bytes: int
    rate: float | None = None
    pairs: int | None = None
    seconds: float = SECONDS

    @property
    def words(self) -> str:
        """Return it as the user gave it."""
        return f"perf --{'load' if self.name == 'perf' else 'datascale'} {self.size}"

    @property
    def heavy(self) -> bool:
        """Whether it loads a cluster to its limits, or fills its database."""
        return self.name == "datascale" or self.size in ("l", "xl")

    @property
    def writes(self) -> int:
        """Return the bytes of keys and values that it writes at most."""
        count = self.pairs if self.pairs is not None else round((self.rate or 0) * self.seconds)
        return count * (len(self.prefix) + self.key_bytes + self.value_bytes)

    def with_prefix(self, prefix: str | None) -> Check:
        """Return it with another prefix of its keys, None for the same. Raises UsageError."""
        if prefix is None:
            return self
        return dataclasses.replace(self, prefix=checked_prefix(prefix))

    def settings(self, workers: int, max_rate: float | None = None) -> Settings:
        """Return it as the load of a run. Takes how many workers there are, and the rate that is never exceeded."""
        rate = self.rate if self.pairs is None else max_rate
        return Settings(
            operations=self.pairs, duration_s=self.seconds if self.pairs is None else None, mix={"put": 1.0},
            key_size=len(self.prefix) + self.key_bytes, value_size=self.value_bytes, key_space=_KEY_SPACE,
            connections=max(1, -(-self.clients // workers)), rate=rate, max_in_flight=self.clients,
            timeout_s=_TIMEOUT_S if self.pairs is None else _CLOSED_TIMEOUT_S,
        )  # fmt: skip

    def block(self) -> Perf:
        """Return ``perf`` of run.json."""
        return {
            "check": self.name, "load": self.size, "clients": self.clients, "rate": self.rate,
            "seconds": self.seconds if self.pairs is None else None, "pairs": self.pairs,
        }  # fmt: skip


def perf(size: Size) -> Check:
    """Return the load of ``etcdctl check perf --load SIZE``."""
    rate, clients = {"s": (150, 50), "m": (1000, 200), "l": (8000, 500), "xl": (15_000, 1000)}[size]
    return Check("perf", size, clients, "/etcdctl-check-perf/", 256, 1024, rate=rate)


def datascale(size: Size) -> Check:
    """Return the load of ``etcdctl check datascale --load SIZE``."""
    pairs, clients = {"s": (10_000, 50), "m": (100_000, 200), "l": (1_000_000, 500), "xl": (3_000_000, 1000)}[size]
    return Check("datascale", size, clients, "/etcdctl-check-datascale/", 512, 512, pairs=pairs)
