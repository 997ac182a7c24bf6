"""A bound on one number of a result, from its text: ``put.p99_ms < 50``."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import operator
import re
from collections.abc import Callable, Collection

from cluster.base.console import short
from cluster.base.errors import UsageError
from cluster.base.etcd_errors import KINDS
from loadgen.history import operation

TOTAL = "total"
TYPES = (*operation.TYPES, TOTAL)
LATENCY_FIELDS = (
    "min_ms", "mean_ms", "median_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_9_ms", "p99_99_ms",
    "max_ms",
)  # fmt: skip
SERVICE_FIELDS = tuple(f"service.{field}" for field in LATENCY_FIELDS)
COUNT_FIELDS = ("operations", "succeeded", "failed", "info")
RATE_FIELDS = ("success_rate", "throughput_ops_s")
FIELDS = (*LATENCY_FIELDS, *SERVICE_FIELDS, *COUNT_FIELDS, *RATE_FIELDS)
_ERRORS = "errors."
OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
_EXPRESSION = re.compile(r"\s*(?P<metric>.*?)\s*(?P<operator><=|>=|==|<|>)\s*(?P<bound>[^<>=\s]+)\s*")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class ThresholdError(UsageError):
    """A text that is not a threshold; the message is one line that says what would be one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Threshold:
    """A bound on one number of a result, such as ``put.p99_ms < 50``.

    Attributes:
        type: an operation type, ``total``, or a request name of a plain Locust run.
        field: one of FIELDS, or ``errors.CAUSE``, which is the number of failures of one cause.
        operator: one of ``<``, ``<=``, ``>``, ``>=``, ``==``.
        bound: milliseconds, operations, operations per second, or a share between 0 and 1, as the field is.
    """

    type: str
    field: str
    operator: str
    bound: float

    @classmethod
    def parse(
        cls,
        text: str,
        types: Collection[str] | None = TYPES,
        causes: Callable[[], Collection[str] | None] | None = None,
    ) -> Threshold:
        """Return the threshold that a text means, ``<type>.<field> <operator> <number>``.

        ``types`` are the names that may stand before the dot, None for any; ``causes`` returns those that may stand
        after ``errors.``, None for any: by default what the clients of a run count failures as. Raises ThresholdError.
        """
        match = _EXPRESSION.fullmatch(text)
        if not match:
            raise ThresholdError(
                f"{text!r} is not a threshold; write <type>.<field> <operator> <number>, "
                "such as 'put.p99_ms < 50' (operators: < <= > >= ==)"
            )
        type_, field = _split(match["metric"], types or ())
        cause = _cause(field)
        if cause is not None:
            known = (causes or known_causes)()
            if known is not None and cause not in known:
                raise ThresholdError(f"{cause!r} in {text!r} is not a cause of failures; {_suggest(cause, known)}")
        elif field not in FIELDS:
            raise ThresholdError(f"{field!r} in {text!r} is not a field; {_suggest(field, _SUGGESTED)}")
        if types is not None and type_ not in types:
            raise ThresholdError(f"{type_!r} in {text!r} is not an operation type; {_suggest(type_, types)}")
        if not _NUMBER.fullmatch(match["bound"]) or not math.isfinite(float(match["bound"])):
            raise ThresholdError(
                f"{match['bound']!r} in {text!r} is not a plain number; "
                "latencies are in ms, success_rate is between 0 and 1"
            )
        return cls(type_, field, match["operator"], float(match["bound"]))

    def check_is_run(self, types: Collection[str]) -> None:
        """Raise ThresholdError where a run has no operations of its type. Takes the types that the run has."""
        if self.type not in (*types, TOTAL):
            raise ThresholdError(
                f"{str(self)!r}: this run has no operation of type {self.type}; it runs {', '.join(types)}"
            )

    def __str__(self) -> str:
        bound = int(self.bound) if self.bound.is_integer() and abs(self.bound) < 1e15 else self.bound
        return f"{self.type}.{self.field} {self.operator} {bound!r}"

    @property
    def cause(self) -> str | None:
        """The cause whose failures it counts; None where it is about another field."""
        return _cause(self.field)

    @property
    def is_count(self) -> bool:
        """Whether its field is a number of operations."""
        return self.field in COUNT_FIELDS or self.cause is not None

    def holds(self, value: float) -> bool:
        """Tell whether a value is within the bound."""
        return bool(OPERATORS[self.operator](value, self.bound))


def _cause(field: str) -> str | None:
    return field.removeprefix(_ERRORS) if field.startswith(_ERRORS) else None


_MOST, _LONGEST = 40, 100


def known_causes() -> tuple[str, ...]:
    """Return what a failure of a run's clients can be counted as, etcd's names first."""
    # Only here: the clients take a tenth of a second to import, and few thresholds are about a cause.
    from loadgen.client import call, connect_errors
    from loadgen.wire import Code

    codes = (code.name for code in Code if code)
    ours = (call.KILLED, call.MALFORMED, operation.STOPPED, "stream refused", "refused")
    return tuple(dict.fromkeys((*KINDS, *codes, *connect_errors.HINTS, *ours)))


_SUGGESTED = (*(field for field in FIELDS if field not in SERVICE_FIELDS), "errors.CAUSE")


def _split(metric: str, types: Collection[str]) -> tuple[str, str]:
    """Return type and field of a metric; request names of plain Locust runs may hold dots themselves."""
    for field in SERVICE_FIELDS:
        if metric.endswith(f".{field}"):
            return metric.removesuffix(f".{field}"), field
    type_, dot, field = metric.rpartition(".")
    places = [] if field in FIELDS else [each.start() for each in re.finditer(rf"\.{re.escape(_ERRORS)}", metric)]
    if places:
        at = next((place for place in places if metric[:place] in types), places[0])
        return metric[:at], metric[at + 1 :]
    return (type_, field) if dot else (metric, "")


def _plain(name: str) -> str:
    """Return a name as one that people may write: of small letters, with nothing between its words."""
    return re.sub(r"[ _-]", "", name[:_LONGEST].lower())


def _suggest(name: str, valid: Collection[str]) -> str:
    """Return what could have been meant: of a plain Locust run's thousands of names not all, and no endless one."""
    alike = {_plain(each): each[:_LONGEST] for each in reversed([*valid])}
    close = difflib.get_close_matches(_plain(name), alike, n=1, cutoff=0.5)
    hint = f"did you mean {alike[close[0]]!r}? " if close else ""
    shown = [short(each, _LONGEST) for each in itertools.islice(valid, _MOST)]
    rest = f" and {len(valid) - _MOST:,} more" if len(valid) > _MOST else ""
    return f"{hint}There are {', '.join(shown)}{rest}"
