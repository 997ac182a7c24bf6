"""Every setting of a run's load, in one frozen record that master and workers share.

`Settings` is the one table of settings: each field says its option, its default, what it may be and what it means. The
options of `raftload bench` and `web` and of Locust's command line (`locust -f locustfiles/kv.py --key-size 64`), the
fields of the web form, `run.json`, `result.json` and their JSON Schemas and documentation derive from it. Locust sends
a run's settings to its workers as plain strings, so that is the form in which they travel; `Settings.from_options`
turns them into numbers, once, with a message for each mistake.
"""

# ruff: noqa: RUF009 - what `_setting` returns is a dataclasses.field

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Literal, TypeVar

from cluster.base.errors import UsageError
from cluster.base.units import duration_text, parse_duration, parse_number, parse_size, parse_whole
from loadgen.client.balancing import BALANCES, Balance
from loadgen.history.operation import IN_MIX
from loadgen.load import pacing

PREFIX_BYTES = 5
MIN_KEY_BYTES = 12
UNIQUE_VALUE_BYTES = 16
# A value that could never be sent; what a server takes is its business, see `check_size`.
MAX_VALUE_BYTES = 1 << 30
# etcd's default of --max-request-bytes.
MAX_REQUEST_BYTES = 3 << 19
# Transactions that compare the key, and get it where they do not put it: it stands in them three times.
_GUARDED = frozenset({"txn", "create", "update", "delete"})
_KEYLESS = frozenset({"lease_grant", "lease_keepalive", "lease_revoke"})

Transport = Literal["grpc", "gateway"]
Consistency = Literal["linearizable", "serializable"]
Arrivals = Literal["constant", "poisson"]
Choice = Literal["auto", "python", "compiled"]
T = TypeVar("T")


class SettingsError(UsageError):
    """A parameter that cannot be: one line that says which and what would be right.

    Attributes:
        option: the option that the line is about, such as ``--key-size``; None where it is about none.
        others: further options that the line names.
    """

    def __init__(self, message: str, *, option: str | None, others: Collection[str] = ()) -> None:
        super().__init__(message)
        self.option = option
        self.others = tuple(others)


def parse_mix(text: str, types: Collection[str] | None = IN_MIX) -> dict[str, float]:
    """Return the weight of each operation type in a text such as ``put=1,get=8,txn=1``.

    A type that is not named has weight 0 and is left out; ``put`` alone means ``put=1``. ``types`` are those that
    there are, None for any.
    Raises ValueError for an unknown type, a type named twice, a weight that is not a number of at least 0,
    and where no weight is above 0.
    """
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight_text = part.partition("=")
        name = name.strip().lower()
        if types is not None and name not in types:
            *most, last = types
            there = f"{', '.join(most)} and {last}"
            raise ValueError(f"{name!r} in mix {text!r} is not an operation type; there are {there}")
        if name in mix:
            raise ValueError(f"{name!r} stands twice in mix {text!r}")
        try:
            weight = parse_number(weight_text) if "=" in part else 1.0
        except ValueError:
            weight = -1.0
        if weight < 0:
            raise ValueError(f"{weight_text!r} in mix {text!r} is not a weight; write a number of at least 0")
        mix[name] = weight
    if not any(mix.values()):
        raise ValueError(f"mix {text!r} runs nothing: one weight at least must be above 0")
    return {name: mix[name] for name in dict.fromkeys([*IN_MIX, *mix]) if mix.get(name)}


def format_mix(mix: Mapping[str, float]) -> str:
    """Return a mix as `parse_mix` reads it."""
    return ",".join(f"{name}={weight:g}" for name, weight in mix.items())


def _schedule(parse: Callable[[str], pacing.Schedule]) -> Callable[[str], str]:
    """Return a parser that checks the text of a schedule and leaves it as it is."""

    def check(text: str) -> str:
        parse(text)
        return text

    return check


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One setting as users meet it.

    Attributes:
        default: its default, as text.
        help: of its option, with its unit.
        meaning: in the documents that runs leave behind.
        json: its type in these documents, as JSON Schema names it.
        metavar, choices: as the command line shows them; choices where all values can be listed.
        parse: from a text, raises ValueError. It is not called for the empty text, which means ``empty``.
        minimum, maximum: of numbers.
        text: back to a text.
        empty: the value where neither a text nor a default is given.
        open_loop: whether it says something in an open loop only.
        shown: how the title of a result names it where it is not the default; empty: it does not.
        field: of Settings and of the documents; it may end in the unit.
    """

    default: str
    help: str
    meaning: str
    json: str = "integer"
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    parse: Callable[[str], object] = parse_whole
    minimum: float = -math.inf
    maximum: float = math.inf
    text: Callable[[Any], str] = str
    empty: object = None
    open_loop: bool = False
    shown: str = ""
    field: str = ""

    @property
    def name(self) -> str:
        """Its option without the dashes, underscores for hyphens."""
        return self.field.removesuffix("_s")

    @property
    def flag(self) -> str:
        """Its command-line option."""
        return "--" + self.name.replace("_", "-")

    @property
    def schema(self) -> dict[str, object]:
        """What it is in the documents, as JSON Schema."""
        kind: dict[str, object] = {"type": [self.json, "null"]}
        if self.choices:
            kind = {"enum": [*self.choices, None]}
        elif self.json == "object":
            kind["additionalProperties"] = {"type": "number", "minimum": 0}
        elif self.minimum >= 0:
            kind["minimum"] = 1 if self.json == "integer" and self.minimum >= 1 else 0
        return {**kind, "description": f"{self.meaning[0].upper()}{self.meaning[1:]}."}

    def read(self, text: str, parse: Callable[[str], object] | None = None) -> Any:
        """Return the value that a text means; takes what parses it, None for its own. Raises SettingsError."""
        if self.choices and text not in self.choices:
            said = f"{self.flag} takes {' or '.join(self.choices)}, not {text!r}"
            raise SettingsError(said, option=self.flag)
        if not text:
            return self.empty
        return read(self.flag.removeprefix("--"), text, parse or self.parse, self.minimum, self.maximum)


def _setting(default: str, help_: str, meaning: str, **more: Any) -> Any:
    """Return the field of one setting, from what a `Parameter` takes."""
    if "choices" in more:
        more |= {"json": "string", "parse": str}
    parameter = Parameter(default, help_, meaning, **more)
    return dataclasses.field(
        default_factory=lambda: parameter.parse(default) if default else parameter.empty,
        metadata={"parameter": parameter},
    )


_SECONDS: dict[str, object] = {
    "json": "number", "metavar": "DURATION", "parse": parse_duration, "text": duration_text
}  # fmt: skip
_TEXT: dict[str, object] = {"json": "string", "empty": ""}


def checked_prefix(text: str) -> str:
    """Return what an option ``--prefix`` says that keys are to begin with. Raises UsageError."""
    if not text or not text.isascii() or not text.isprintable():
        raise UsageError(f"--prefix takes printable ASCII characters, not {text!r}")
    return text


@dataclasses.dataclass(frozen=True)
class Settings:
    """The load of one run: each field but the last three is a setting with an option of its own.

    Attributes:
        mix: weight by operation type; only types with a weight above 0.
        stages, step: the schedule as text, empty for none; of ``rate``, ``stages`` and ``step`` one at most is given.
        endpoints: client URLs, ``host:port``.
        duration_s: after how many seconds the load ends, None for never.
        prefix: what every key of the run begins with; empty until the run has chosen 5 bytes, or was given more.
    """

    # Without a default, as plain Locust and the web UI run until they are stopped.
    operations: int | None = _setting(
        "", "operations in total, over all types and workers (default: 1000 in bench without --duration, "
        "else no limit)",
        "operations asked for; null if the run was limited by time", metavar="N", minimum=1,
    )  # fmt: skip
    mix: Mapping[str, float] = _setting(
        "put=1,get=1,txn=1", "operation types and their weights; a type that is not named is not run",
        "weight of each operation type; a scenario with operations of its own has its own mix",
        metavar="put=P,get=G,txn=T", json="object", parse=parse_mix, text=format_mix,
    )  # fmt: skip
    key_size: int = _setting(
        "32", "size of a key in bytes or with a unit (64, 1KiB), the run's 5-byte prefix included; at least 12",
        "bytes of a key",
        metavar="SIZE", parse=parse_size, minimum=MIN_KEY_BYTES,
    )  # fmt: skip
    value_size: int = _setting(
        "64", "size of a value in bytes or with a unit (64, 4KiB); values are unique from 16 bytes up",
        "bytes of a value",
        metavar="SIZE", parse=parse_size, minimum=0, maximum=MAX_VALUE_BYTES,
    )  # fmt: skip
    key_space: int = _setting(
        "", "number of different keys (default: 1000, or fewer, so that their values take at most 64 MiB)",
        "number of different keys",
        metavar="N", minimum=1, empty=1000,
    )  # fmt: skip
    read_consistency: Consistency = _setting(
        "linearizable",
        "consistency of GETs: the latest committed state, or that of the member asked, which may be stale",
        "consistency of reads",
        choices=("linearizable", "serializable"), shown="{} reads",
    )  # fmt: skip
    transport: Transport = _setting(
        "grpc", "protocol: gRPC, or etcd's JSON gateway through etcd3-py",
        "how etcd was reached", choices=("grpc", "gateway"),
    )  # fmt: skip
    connections: int = _setting(
        "1", "with --transport grpc: connections of each worker to each endpoint",
        "connections of each worker to each endpoint; without effect on transport `gateway`",
        metavar="N", minimum=1, maximum=1000, shown="{} connections per worker and endpoint",
    )  # fmt: skip
    balance: Balance = _setting(
        "round-robin", "load balancing: send operations to all endpoints in turn, to the leader, or to the first",
        "load balancing: which endpoints got the operations; `leader` follows where leadership moves",
        choices=BALANCES, shown="load balancing {}",
    )  # fmt: skip
    timeout_s: float = _setting(
        "5s", "deadline of one operation, after which it counts as failed",
        "seconds after which an operation is given up",
        **_SECONDS, minimum=0.001, maximum=3600,
    )  # fmt: skip
    warmup_s: float = _setting(
        "0s", "time of load before the measurement starts; its operations are counted separately",
        "seconds of load before the measurement",
        **_SECONDS, minimum=0,
    )  # fmt: skip
    rate: float | None = _setting(
        "", "open loop: operations per second over all workers, started on time even if the server is slow",
        "target operations per second of an open loop with a constant rate",
        json="number", metavar="R", parse=pacing.parse_rate, minimum=1e-3, maximum=1e7,
    )  # fmt: skip
    stages: str = _setting(
        "", "open loop: ramps; within each DURATION the rate goes from the last one (at first 0) to RATE operations "
        "per second, such as 10s:500,30s:2000,10s:0",
        "the open loop's ramps, as they were given",
        metavar="DURATION:RATE,…", parse=_schedule(pacing.parse_stages), **_TEXT,
    )  # fmt: skip
    step: str = _setting(
        "", "open loop: plateaus; the rate goes from FROM to TO operations per second in steps of BY, each for "
        "DURATION, such as 500:4000:500/10s",
        "the open loop's plateaus, as they were given",
        metavar="FROM:TO:BY/DURATION", parse=_schedule(pacing.parse_step), **_TEXT,
    )  # fmt: skip
    arrivals: Arrivals = _setting(
        "constant", "open loop: start operations at even or at random (exponential) intervals",
        "how due times are spaced: evenly, or at random with the same mean; null in a closed loop",
        choices=("constant", "poisson"), open_loop=True, shown="{} arrivals",
    )  # fmt: skip
    max_in_flight: int = _setting(
        "10000", "open loop: limit of operations in flight over all workers; those beyond it are dropped and counted",
        "limit of operations in flight, over all workers; null in a closed loop",
        metavar="N", minimum=1, maximum=30_000, open_loop=True,
    )  # fmt: skip
    engine: Choice = _setting(
        "auto", "what carries out the operations: the compiled core where it was built and can run this load, else "
        "Python",
        "engine of the load path asked for; `generator.engine` says which one ran",
        choices=("auto", "python", "compiled"),
    )  # fmt: skip
    seed: int = _setting(
        "1", "seed of the random choice of operations, keys and values",
        "seed of the random choice of operations, keys and values", metavar="N",
    )  # fmt: skip
    endpoints: tuple[str, ...] = ()
    duration_s: float | None = None
    prefix: bytes = b""

    @classmethod
    def from_options(cls, options: Mapping[str, object], endpoints: tuple[str, ...]) -> Settings:
        """Return the settings that the texts in ``options`` (by parameter name) mean.

        Raises SettingsError with one line for the first value that cannot be.
        """
        prefix = str(options.get("key_prefix") or "").encode("ascii")
        duration = str(options.get("open_loop_s") or "")
        values = {}
        for parameter in PARAMETERS:
            text = str(options.get(parameter.name, parameter.default) or "").strip() or parameter.default
            # With the prefix comes the mix that the run's scenario brought, of whatever types it has.
            is_any_mix = parameter.field == "mix" and prefix
            values[parameter.field] = parameter.read(text, partial(parse_mix, types=None) if is_any_mix else None)
        if not str(options.get("key_space") or "").strip():
            values["key_space"] = default_key_space(values["value_size"])
        settings = cls(
            endpoints=endpoints, prefix=prefix, duration_s=float(duration) if duration else None, **values
        )  # fmt: skip
        settings._check()
        return settings

    def _check(self) -> None:
        """Raise SettingsError for settings that exclude each other."""
        if len(str(self.key_space - 1)) > self.digits:
            said = f"--key-space {self.key_space} does not fit into keys of {self.key_size} bytes"
            raise SettingsError(said, option="--key-space")
        if self.balance == "leader" and self.transport == "gateway":
            raise SettingsError("--balance leader is for --transport grpc", option="--balance", others=["--transport"])
        open_loop = [f"--{name}" for name in ("rate", "stages", "step") if getattr(self, name)]
        if len(open_loop) > 1:
            option, other, *_ = open_loop
            raise SettingsError(f"{option} and {other} exclude each other; give one", option=option, others=[other])
        if self.operations and open_loop and open_loop != ["--rate"]:
            raise SettingsError(
                f"{open_loop[0]} says how many operations there are; leave out --operations",
                option=open_loop[0], others=["--operations"],
            )  # fmt: skip

    def schedule(self) -> pacing.Schedule | None:
        """Return when operations are due, None in a closed loop."""
        if self.rate is not None:
            return pacing.constant(self.rate, math.inf if self.duration_s is None else self.duration_s)
        if self.stages:
            return pacing.parse_stages(self.stages)
        return pacing.parse_step(self.step) if self.step else None

    @property
    def digits(self) -> int:
        """The bytes of a key behind the prefix, which hold its number."""
        return self.key_size - (len(self.prefix) or PREFIX_BYTES)

    @property
    def only_serializable_reads(self) -> bool:
        """Whether the load consists of reads that any member serves by itself, a learner too."""
        return self.read_consistency == "serializable" and self.mix.keys() <= {"get", "range"}

    @property
    def request_bytes(self) -> int:
        """The bytes of the keys and the value in its largest request; what stands around them takes a few more."""
        if self.mix.keys() <= _KEYLESS:
            return 0
        return self.value_size + self.key_size * (3 if _GUARDED & self.mix.keys() else 1)

    def too_large(self, limit: str, hint: str) -> SettingsError:
        """Return the error for a request that the cluster refuses. Takes its limit and what to do, in words."""
        size = self.request_bytes
        option, what = ("key", "keys") if size > 2 * self.value_size else ("value", "values")
        return SettingsError(
            f"--{option}-size: with {what} of {getattr(self, f'{option}_size'):,} bytes a request has {size:,}, and "
            f"{limit}; {hint}",
            option=f"--{option}-size",
        )

    def to_options(self) -> dict[str, str]:
        """Return the settings as the texts that `from_options` reads, without the endpoints."""
        values = {parameter: getattr(self, parameter.field) for parameter in PARAMETERS}
        return {
            **{each.name: "" if value is None else each.text(value) for each, value in values.items()},
            "key_prefix": self.prefix.decode("ascii"),
            "open_loop_s": "" if self.duration_s is None else repr(self.duration_s),
        }

    def to_document(self) -> dict[str, object]:
        """Return the settings as `run.json` has them, without endpoints and duration."""
        loop = "closed" if self.schedule() is None else "open"
        document: dict[str, object] = {"loop": loop}
        for parameter in PARAMETERS:
            value = getattr(self, parameter.field)
            is_known = value != "" and not (parameter.open_loop and loop == "closed")
            document[parameter.field] = value if is_known else None
        return {**document, "mix": dict(self.mix), "prefix": self.prefix.decode("ascii")}


PARAMETERS: tuple[Parameter, ...] = tuple(
    dataclasses.replace(field.metadata["parameter"], field=field.name)
    for field in dataclasses.fields(Settings)
    if "parameter" in field.metadata
)


def check_size(load: Settings) -> None:
    """Raise SettingsError for a load that a cluster of raftload's own refuses, before that is started."""
    if load.request_bytes > MAX_REQUEST_BYTES:
        larger = 1 << load.request_bytes.bit_length()
        raise load.too_large(
            "etcd refuses those of more than 1.5 MiB unless it is started with a larger --max-request-bytes",
            f"start such a cluster with `raftload cluster up --etcd-arg max-request-bytes={larger}`",
        )


def default_key_space(value_size: int) -> int:
    """Return how many keys to use for values of so many bytes: 1,000, but at most 64 MiB preloaded."""
    return max(1, min(1000, (64 << 20) // max(1, value_size)))


def other_than_default(run: Mapping[str, object]) -> list[str]:
    """Return what to say in a title of the settings in a document that are not the defaults."""
    said = [(each, run.get(each.field)) for each in PARAMETERS if each.shown]
    return [each.shown.format(value) for each, value in said if value is not None and str(value) != each.default]


def add_arguments(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, without: Collection[str] = ()
) -> list[argparse.Action]:
    """Add the options of all settings to a parser and return them; values stay texts, so that one place checks them.

    Takes the fields of those to leave out, which then have their defaults.
    """
    actions = []
    for parameter in PARAMETERS:
        if parameter.field in without:
            continue
        shown = f" (default: {parameter.default})" if parameter.default else ""
        action = parser.add_argument(
            parameter.flag,
            default=parameter.default,
            metavar=None if parameter.choices else parameter.metavar,
            choices=parameter.choices,
            help=parameter.help.replace("%", "%%") + shown,
        )
        actions.append(action)
    return actions


def read(name: str, text: str, parse: Callable[[str], T], minimum: float = -math.inf, maximum: float = math.inf) -> T:
    """Return ``parse(text)``; raise SettingsError where it fails or is out of bounds.

    Takes the option's name without the dashes.
    """
    try:
        value = parse(text)
    except ValueError as error:
        raise SettingsError(f"--{name}: {error}", option=f"--{name}") from error
    if isinstance(value, int | float) and not minimum <= value <= maximum:
        bound = f"at least {minimum:g}" if value < minimum else f"at most {maximum:g}"
        raise SettingsError(f"--{name} must be {bound}, not {text}", option=f"--{name}")
    return value
