"""Every parameter of a run's load, in one frozen record that master and workers share.

The same table of parameters feeds `raftload bench`, Locust's command line (`locust -f locustfiles/kv.py
--key-size 64`) and the fields of the web UI. Locust sends a run's parameters to its workers as plain strings,
so that is the form in which they travel; `Settings.from_options` turns them into numbers, once, with a
message for each mistake.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, cast

from cluster.base.errors import UsageError
from cluster.base.units import OPERATION_TYPES, duration_text, format_mix, parse_duration, parse_mix, parse_size
from loadgen.client.balancing import BALANCES, Balance
from loadgen.load import pacing

PREFIX_BYTES = 5
MIN_KEY_BYTES = 12
UNIQUE_VALUE_BYTES = 16
# etcd refuses a request of more than 1.5 MiB by default (--max-request-bytes); what stays under it is the
# server's business, but a value that could never be sent is the user's mistake.
MAX_VALUE_BYTES = 1 << 30

Transport = Literal["grpc", "gateway"]
Consistency = Literal["linearizable", "serializable"]
Arrivals = Literal["constant", "poisson"]


class SettingsError(UsageError):
    """A parameter that cannot be: one line that says which and what would be right."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of the load as users meet it.

    Attributes:
        name: its flag without the dashes, underscores for hyphens.
        default: its default, as text.
        help: what it means, with its unit.
        choices: all values it takes, where they can be listed.
    """

    name: str
    default: str
    help: str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None

    @property
    def flag(self) -> str:
        """Its command-line flag."""
        return "--" + self.name.replace("_", "-")


# `operations` is empty by default here because plain Locust and the web UI run until they are stopped.
PARAMETERS: tuple[Parameter, ...] = (
    Parameter("operations", "", "total operations over all types and workers; empty: no limit", "N"),
    Parameter("mix", "put=1,get=1,txn=1", "operation types and their weights", "put=P,get=G,txn=T"),
    Parameter("key_size", "32", "size of a key, its 5-byte prefix included (at least 12 B)", "SIZE"),
    Parameter("value_size", "64", "size of a value (unique from 16 B up)", "SIZE"),
    Parameter("key_space", "", "how many keys there are; default 1000, fewer for large values", "N"),
    Parameter(
        "read_consistency", "linearizable", "how GETs read", choices=("linearizable", "serializable")
    ),
    Parameter("transport", "grpc", "gRPC, or the JSON gateway over etcd3-py", choices=("grpc", "gateway")),
    Parameter("connections", "1", "connections of each worker to each endpoint", "N"),
    Parameter("balance", "round-robin", "which endpoints get the operations: all in turn, the leader's, the first",
              choices=BALANCES),
    Parameter("timeout", "5s", "deadline of one operation", "DURATION"),
    Parameter("warmup", "0s", "load before the measurement starts, reported apart", "DURATION"),
    Parameter("rate", "", "open loop: operations per second over all workers, whatever the server does", "R"),
    Parameter("stages", "", "open loop: linear ramps from 0, such as 10s:500,30s:2000,10s:0", "DURATION:RATE,…"),
    Parameter("step", "", "open loop: plateaus, such as 500:4000:500/10s", "FROM:TO:BY/DURATION"),
    Parameter("arrivals", "constant", "open loop: evenly spaced, or at random", choices=("constant", "poisson")),
    Parameter("max_in_flight", "10000", "open loop: most operations open at once; beyond it they are dropped", "N"),
    Parameter("seed", "1", "seed of the choice of operations, keys and values", "N"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """The load of one run.

    Attributes:
        endpoints: client URLs, ``host:port``.
        operations: how many in total, None for no limit.
        mix: weight by operation type; only types with a weight above 0.
        key_size, value_size: bytes.
        key_space: number of distinct keys.
        connections: of each worker to each endpoint; the gateway's client has its own way.
        balance: which endpoints get the operations; the leader is followed when leadership moves.
        timeout_s, warmup_s: seconds.
        rate, stages, step: of the open loop, one of them; None and empty in a closed loop.
        arrivals: how the open loop's due times are spaced.
        max_in_flight: most operations that may be open at once in an open loop, over all workers.
        duration_s: after how many seconds the load ends, None for never.
        prefix: the first 5 bytes of every key of the run; empty until the run has chosen it.
    """

    endpoints: tuple[str, ...] = ()
    operations: int | None = None
    mix: Mapping[str, float] = dataclasses.field(default_factory=lambda: parse_mix("put,get,txn"))
    key_size: int = 32
    value_size: int = 64
    key_space: int = 1000
    read_consistency: Consistency = "linearizable"
    transport: Transport = "grpc"
    connections: int = 1
    balance: Balance = "round-robin"
    timeout_s: float = 5.0
    warmup_s: float = 0.0
    seed: int = 1
    prefix: bytes = b""
    rate: float | None = None
    stages: str = ""
    step: str = ""
    arrivals: Arrivals = "constant"
    max_in_flight: int = 10_000
    duration_s: float | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any], endpoints: tuple[str, ...]) -> Settings:
        """Return the settings that the texts in ``options`` (by parameter name) mean.

        Raises SettingsError with one line for the first value that cannot be.
        """
        text = {p.name: str(options.get(p.name, p.default) or "").strip() or p.default for p in PARAMETERS}
        key_size = read("key-size", text["key_size"], parse_size, MIN_KEY_BYTES)
        value_size = read("value-size", text["value_size"], parse_size, 0, MAX_VALUE_BYTES)
        digits = key_size - PREFIX_BYTES
        key_space = read("key-space", text["key_space"], int, 1) if text["key_space"] else default_key_space(value_size)
        if len(str(key_space - 1)) > digits:
            raise SettingsError(f"--key-space {key_space} does not fit into keys of {key_size} bytes")
        for parameter in PARAMETERS:
            if parameter.choices and text[parameter.name] not in parameter.choices:
                listed = " or ".join(parameter.choices)
                raise SettingsError(f"{parameter.flag} takes {listed}, not {text[parameter.name]!r}")
        if text["balance"] == "leader" and text["transport"] == "gateway":
            raise SettingsError("--balance leader is for --transport grpc")
        operations = text["operations"]
        rate = read("rate", text["rate"], pacing.parse_rate, 1e-3, 1e7) if text["rate"] else None
        for name, parse in (("stages", pacing.parse_stages), ("step", pacing.parse_step)):
            if text[name]:
                read(name, text[name], lambda given, parse=parse: parse(given).length_s)
        open_loop = [name for name in ("rate", "stages", "step") if text[name]]
        if len(open_loop) > 1:
            raise SettingsError(f"--{open_loop[0]} and --{open_loop[1]} exclude each other; give one")
        if operations and open_loop and open_loop != ["rate"]:
            raise SettingsError(f"--{open_loop[0]} says how many operations there are; leave out --operations")
        duration = str(options.get("open_loop_s") or "")
        prefix = str(options.get("key_prefix") or "").encode("ascii")
        # With the prefix comes the mix that the run's scenario brought, of whatever types it has.
        types = None if prefix else OPERATION_TYPES
        return cls(
            endpoints=endpoints,
            operations=read("operations", operations, int, 1) if operations else None,
            mix=cast(dict[str, float], read("mix", text["mix"], partial(parse_mix, types=types))),
            key_size=key_size,
            value_size=value_size,
            key_space=key_space,
            read_consistency=cast(Consistency, text["read_consistency"]),
            transport=cast(Transport, text["transport"]),
            balance=cast(Balance, text["balance"]),
            connections=read("connections", text["connections"], int, 1, 1000),
            timeout_s=read("timeout", text["timeout"], parse_duration, 0.001, 3600),
            warmup_s=read("warmup", text["warmup"], parse_duration, 0),
            seed=read("seed", text["seed"], int),
            prefix=prefix,
            rate=rate,
            stages=text["stages"],
            step=text["step"],
            arrivals=cast(Arrivals, text["arrivals"]),
            max_in_flight=read("max-in-flight", text["max_in_flight"], int, 1, 30_000),
            duration_s=float(duration) if duration else None,
        )

    def schedule(self) -> pacing.Schedule | None:
        """Return when operations are due, None in a closed loop."""
        if self.rate is not None:
            return pacing.constant(self.rate, math.inf if self.duration_s is None else self.duration_s)
        if self.stages:
            return pacing.parse_stages(self.stages)
        return pacing.parse_step(self.step) if self.step else None

    def to_options(self) -> dict[str, str]:
        """Return the settings as the texts that `from_options` reads, without the endpoints."""
        return {
            "operations": "" if self.operations is None else str(self.operations),
            "mix": format_mix(self.mix),
            "key_size": str(self.key_size),
            "value_size": str(self.value_size),
            "key_space": str(self.key_space),
            "read_consistency": self.read_consistency,
            "transport": self.transport,
            "connections": str(self.connections),
            "balance": self.balance,
            "timeout": duration_text(self.timeout_s),
            "warmup": duration_text(self.warmup_s),
            "seed": str(self.seed),
            "key_prefix": self.prefix.decode("ascii"),
            "rate": "" if self.rate is None else repr(self.rate),
            "stages": self.stages,
            "step": self.step,
            "arrivals": self.arrivals,
            "max_in_flight": str(self.max_in_flight),
            "open_loop_s": "" if self.duration_s is None else repr(self.duration_s),
        }


def default_key_space(value_size: int) -> int:
    """Return how many keys to use for values of so many bytes: 1,000, but at most 64 MiB preloaded."""
    return max(1, min(1000, (64 << 20) // max(1, value_size)))


def add_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup, **defaults: str) -> list[Any]:
    """Add the table of parameters to a parser; values stay texts, so that one place checks them.

    Takes defaults that differ from the table's by parameter name. Returns the actions that were added.
    """
    actions = []
    for parameter in PARAMETERS:
        default = defaults.get(parameter.name, parameter.default)
        shown = f" (default: {default})" if default else ""
        action: Any = parser.add_argument(
            parameter.flag,
            default=default,
            metavar=None if parameter.choices else parameter.metavar,
            choices=parameter.choices,
            help=parameter.help.replace("%", "%%") + shown,
        )
        actions.append(action)
    return actions


def read(
    name: str, text: str, parse: Any, minimum: float = -math.inf, maximum: float = math.inf
) -> Any:  # fmt: skip
    """Return ``parse(text)``; raise SettingsError where it fails or is out of bounds."""
    try:
        value = parse(text)
    except ValueError as error:
        why = str(error) if parse is not int else f"{text!r} is not a whole number"
        raise SettingsError(f"--{name}: {why}") from error
    if not isinstance(value, dict) and not minimum <= value <= maximum:
        bound = f"at least {minimum:g}" if value < minimum else f"at most {maximum:g}"
        raise SettingsError(f"--{name} must be {bound}, not {text}")
    return value
