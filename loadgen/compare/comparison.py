"""The comparison of the runs of NEW with those of BASE: `compare`, from run folders to the document."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from cluster.base.errors import UsageError
from loadgen.compare import alike, permutation
from loadgen.compare.run_figures import LATENCIES, RATE, RunFigures, shortages
from loadgen.compare.verdict import Word, as_document, overall
from loadgen.schema import COMPARE

if TYPE_CHECKING:
    from cluster.schema.compare_documents import Compared, CompareMethod, Side

WITHIN = 0.05
TEST = (
    "permutation test of the runs with the largest studentized difference of any figure (Westfall and Young); "
    "Student's intervals of the logarithms, for all figures together"
)
_SURE_OF_GROSS = "there are too few runs for the test, but NEW is beyond twice BASE, and each run by itself shows it"
NAMES = ("BASE", "NEW")


def compare(
    base: Sequence[RunFigures],
    new: Sequence[RunFigures],
    *,
    within: float = WITHIN,
    figures: Iterable[str] = (),
    allow_contended: bool = False,
    allow_other_load: bool = False,
) -> Compared:
    """Return whether the runs of NEW are slower than those of BASE.

    Takes the share by which figures may differ and are the same, patterns of the figures to compare, such as
    ``put.*`` (none: all), whether runs on a machine that was short of CPU count, and whether runs of another load do.
    Raises UsageError where the runs are not of the same load, have no figure in common, or no pattern is one's, and
    where one run stands on both sides.
    """
    results = [[run.result for run in side] for side in (base, new)]
    _check(base, new)
    if not allow_other_load:
        alike.require_same_load(results[0], results[1])
    figures = tuple(figures)
    names = _chosen(_common([*base, *new]), figures)
    judged = permutation.judge({name: _values(name, base, new) for name in names}, within)
    sides = [_side(name, runs, allow_contended) for name, runs in zip(NAMES, (base, new), strict=True)]
    doubts = [f"{side['name']}, {run['id']}: {doubt}"
              for side in sides for run in side["runs"] for doubt in run["doubts"]]  # fmt: skip
    verdict = overall(judged.figures, doubts)
    unjudged, failing = _lacking([*base, *new], figures)
    if verdict.word is not Word.SLOWER:  # that is not undone by what is missing
        verdict = overall(judged.figures, [*doubts, *failing])
    found_grossly = judged.arrangements is None and verdict.word in (Word.SLOWER, Word.FASTER)
    return {
        "schema": COMPARE,  # type: ignore[typeddict-item]
        "base": sides[0],
        "new": sides[1],
        "method": method("runs", TEST, within, judged.arrangements),
        "differences": alike.differences(*results),
        "warnings": [*_warnings(base, new, allow_contended=allow_contended), *unjudged],
        "figures": [figure.row(within) for figure in judged.figures],
        "verdict": verdict.word.value,
        "words": verdict.words(within),
        "more": as_document(verdict.more),
        "reasons": [*verdict.reasons, *([_SURE_OF_GROSS] if found_grossly else [])],
    }


def method(design: Literal["runs", "pairs"], test: str, within: float, arrangements: int | None) -> CompareMethod:
    """Return how it was judged, as the document has it."""
    return {
        "design": design,
        "test": test,
        "alpha": permutation.ALPHA,
        "within": within,
        "power": permutation.POWER,
        "arrangements": arrangements,
    }


def _warnings(base: Sequence[RunFigures], new: Sequence[RunFigures], *, allow_contended: bool) -> Iterator[str]:
    """Yield what to know before the figures are believed."""
    results = [[run.result for run in side] for side in (base, new)]
    for name, side in zip(NAMES, results, strict=True):
        yield from alike.mixtures(name, side)
    short = [run.id for run in (*base, *new) if shortages(run.result)] if allow_contended else []
    if short:
        yield (
            f"the machine was short of CPU in {len(short)} of {len(base) + len(new)} runs, so a difference may be "
            "that of its other work"
        )
    without = [run.id for run in (*base, *new) if not run.own]
    if without:
        yield f"how sure a run is by itself is not known of {', '.join(without)}: too short, or without its series"
    if not alike.by_turns(*results):
        yield (
            "BASE and NEW were not run by turns, so what else changed on the machine between them counts as a "
            "difference; `raftload ab` runs them by turns"
        )


def _check(base: Sequence[RunFigures], new: Sequence[RunFigures]) -> None:
    for name, side in zip(NAMES, (base, new), strict=True):
        if not side:
            raise UsageError(f"there is no run of {name}")
    seen: dict[str, str] = {}
    for name, side in zip(NAMES, (base, new), strict=True):
        for run in side:
            if (key := _key(run)) in seen:
                raise UsageError(f"{run.id} is there twice, in {seen[key]} and in {name}; a run counts once")
            seen[key] = name


def _key(run: RunFigures) -> str:
    """Return what tells a run from all others."""
    return f"{run.result['run'].get('id')} {run.result['run'].get('started_at') or run.folder}"


def _common(runs: Sequence[RunFigures]) -> list[str]:
    """Return the names of the figures that all runs have: of each type, then of the total."""
    types = dict.fromkeys(name.rpartition(".")[0] for run in runs for name in run.values)
    ordered = [*(f for f in types if f != "total"), *(f for f in types if f == "total")]
    every = [f"{f}.{field}" for f in ordered for field in (*LATENCIES, RATE)]
    return [name for name in every if all(name in run.values for run in runs)]


def _lacking(runs: Sequence[RunFigures], patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what to say of figures that some of the runs lack: a warning, and doubts where all of a type failed."""
    names = dict.fromkeys(name for run in runs for name in run.values if not patterns or _is_one_of(name, patterns))
    lacking = {name: count for name in names if (count := sum(name not in run.values for run in runs))}
    doubts = []
    for f in dict.fromkeys(name.rpartition(".")[0] for name in lacking):
        rows = [run.result["results"].get(f) for run in runs]
        if failed := sum(bool(row and row["operations"] and not row["succeeded"]) for row in rows):
            doubts.append(f"all operations of {f} failed in {failed} of {len(runs)} runs")
    if not lacking:
        return [], doubts
    name, count = next(iter(lacking.items()))
    others = f" and {len(lacking) - 1} more figures" if len(lacking) > 1 else ""
    return [f"not judged: {name}, which is not known of {count} of {len(runs)} runs,{others}".rstrip(",")], doubts


def _is_one_of(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _chosen(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    if not names:
        raise UsageError("the runs have no figure in common: no operation type succeeded in all of them")
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise UsageError(f"no figure that all runs have is called {pattern!r}; there are {', '.join(names)}")
    return [name for name in names if not patterns or _is_one_of(name, patterns)]


def _values(name: str, base: Sequence[RunFigures], new: Sequence[RunFigures]) -> permutation.Values:
    """Return what is known of a figure in all runs."""
    own = [run.own.get(name) for run in (*base, *new)]
    squares = [each.deviation**2 for each in own if each is not None]
    ranges = [(each.low, each.high) for each in own if each is not None]
    apart = len(ranges) == len(own) and permutation.gross(ranges[: len(base)], ranges[len(base) :])
    return permutation.Values(
        tuple(run.values[name] for run in base),
        tuple(run.values[name] for run in new),
        (sum(squares) / len(squares)) ** 0.5 if squares else 0.0,
        apart,
    )


def _side(name: str, runs: Sequence[RunFigures], allow_contended: bool) -> Side:
    return {"name": name, "runs": [run.document(allow_contended=allow_contended) for run in runs]}
