"""The turns of a comparison: what each measured, as turns.csv has it, and the comparison that they make. Pure."""

from __future__ import annotations

import csv
import dataclasses
import fnmatch
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from loadgen.compare import verdict
from loadgen.compare.verdict import Word
from loadgen.load.settings import PARAMETERS
from loadgen.result.gate import causes_of
from loadgen.result.known import few_at, known_in

if TYPE_CHECKING:
    from cluster.schema.compare_documents import Compared
    from cluster.schema.compare_documents import Side as SideDocument
    from cluster.schema.run_documents import Result, Row

SideName = Literal["base", "new"]
SIDES: tuple[SideName, SideName] = ("base", "new")
LATENCIES = ("p50_ms", "p99_ms", "p99_9_ms")
RATE = "throughput_ops_s"
# Shares of failed operations that differ by less are no reason for a doubt.
_FAILURES_WORTH_SAYING = 0.001
_COLUMNS = ("pair", "place", "side", "run", "started_at", "etcd_version", "operations", "failed", "dropped",
            "saturated", "unfit")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Turn:
    """What one turn of a pair measured.

    Attributes:
        pair: its number; pair 0 warms up, and does not count.
        side: whose turn it was.
        place: 1 where it was the first of its pair, else 2.
        run: the id of its run, which is the path of its folder within that of the comparison.
        started_at: when, in ISO 8601.
        etcd_version: of the cluster; None where nobody said it.
        operations, failed: how many there were.
        figures: by name, as `put.p99_ms`; one that is not known is left out.
        few: why a percentile is not known that is of too few samples, by its name.
        saturated: whether the generator was the bottleneck.
        causes: of failures, the most frequent first.
        unfit: why its pair cannot count, as where a worker was lost; empty where it can.
        dropped: operations of a schedule that were not sent.
        problems: what was wrong with the run, such as a member that ended.
    """

    pair: int
    side: SideName
    place: int
    run: str
    started_at: str
    etcd_version: str | None
    operations: int
    failed: int
    figures: Mapping[str, float]
    few: Mapping[str, str] = dataclasses.field(default_factory=dict)
    saturated: bool = False
    causes: tuple[str, ...] = ()
    unfit: str = ""
    dropped: int = 0
    problems: tuple[str, ...] = ()


def turn_of(result: Result, pair: int, side: SideName, place: int, run: str, lost: Sequence[str] = ()) -> Turn:
    """Return the turn that a result is of. Takes where it stands, its folder's path, and why workers were lost."""
    total = result["results"].get("total")
    figures: dict[str, float] = {}
    few: dict[str, str] = {}
    rows = {name: row for name, row in result["results"].items() if row is not None}
    if len(rows) == 2:
        del rows["total"]  # It says what the one type says.
    for name, row in rows.items():
        # In an open loop the throughput is given.
        known = {**_latencies(row), RATE: None if result["run"].get("loop") == "open" else row["throughput_ops_s"]}
        figures |= {f"{name}.{field}": value for field, value in known.items() if value}
        few |= {f"{name}.{field}": why for field in LATENCIES if (why := few_at(result["results"], name, field))}
    generator, target = result["generator"], result["target"]
    return Turn(
        pair, side, place, run, str(result["run"].get("started_at") or ""), target and target["etcd_version"],
        total["operations"] if total else 0, total["failed"] if total else 0, figures, few,
        bool(generator and generator.get("saturated")), tuple(causes_of(total)), "; ".join(lost),
        int((generator and generator.get("dropped")) or 0), tuple(map(str, result.get("problems") or ())),
    )  # fmt: skip


def _latencies(row: Row) -> dict[str, float | None]:
    return {field: known_in(row, field) for field in LATENCIES}


def to_csv(turns: Sequence[Turn]) -> str:
    """Return turns as turns.csv has them: a line each in the order in which they were made."""
    names = list(dict.fromkeys(name for turn in turns for name in turn.figures))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*_COLUMNS, *names])
    for turn in turns:
        writer.writerow([
            turn.pair, turn.place, turn.side, turn.run, turn.started_at, turn.etcd_version or "", turn.operations,
            turn.failed, turn.dropped, int(turn.saturated), turn.unfit, *(turn.figures.get(name, "") for name in names),
        ])  # fmt: skip
    return file.getvalue()


def pairs_of(turns: Iterable[Turn]) -> list[tuple[Turn, Turn]]:
    """Return the pairs that count, BASE before NEW: with both turns, none unfit, without the one that warms up."""
    found: dict[int, dict[SideName, Turn]] = {}
    for turn in turns:
        found.setdefault(turn.pair, {})[turn.side] = turn
    return [
        (each["base"], each["new"])
        for pair, each in sorted(found.items())
        if pair and len(each) == len(SIDES) and not any(turn.unfit for turn in each.values())
    ]


def compare(
    turns: Sequence[Turn],
    within: float,
    seed: int,
    differences: Mapping[str, tuple[str, str]],
    notes: Sequence[str] = (),
    figures: Sequence[str] = (),
    root: Path | None = None,
) -> Compared:
    """Return the comparison that turns make.

    Takes the share within which figures are the same, a seed, the parameters in which the sides differ, what else there
    is to say, patterns of the figures to judge, such as ``put.*`` (none: all), and the folder of the comparison.
    """
    # They import numpy, which no `--help` needs.
    from loadgen.ab import sign_flips
    from loadgen.compare import comparison

    pairs = pairs_of(turns)
    everywhere, partly = _known_figures(pairs, figures)
    values = {name: ([a.figures[name] for a, _ in pairs], [b.figures[name] for _, b in pairs]) for name in everywhere}
    judged = sign_flips.judge(values, within, seed=seed)
    of_base, of_new = _problems(pairs, 0), _problems(pairs, 1)
    doubts = [f"{name} has no value in {missing} of {len(pairs)} pairs" for name, missing in partly.items()]
    if not pairs:
        overall = verdict.overall(judged, ["no pair was measured to its end"])
    elif any(figure.word is Word.SLOWER for figure in judged):
        # That is not undone by what is missing of NEW. But what BASE did not do may have made it look faster.
        overall = verdict.overall(judged, [*_failures(pairs, 0), *of_base])
    else:
        overall = verdict.overall(judged, [*_failures(pairs, 1), *of_new, *of_base, *doubts])
    if overall.more is not None:
        overall = dataclasses.replace(overall, more=sign_flips.MorePairs(overall.more.base, overall.more.new))
    return {
        "schema": "raftload.compare/1",
        "base": _side("BASE", [base for base, _ in pairs], root),
        "new": _side("NEW", [new for _, new in pairs], root),
        "method": comparison.method("pairs", sign_flips.TEST, within, sign_flips.arrangements(len(pairs))),
        "differences": {name: list(values) for name, values in differences.items()},
        "warnings": [*notes, *_warnings(turns, pairs)],
        "figures": [figure.row(within) for figure in judged],
        "verdict": overall.word.value,
        "words": overall.words(within),
        "more": verdict.as_document(overall.more),
        "reasons": list(overall.reasons),
    }


def figure_names(turns: Iterable[Turn], patterns: Sequence[str] = ()) -> list[str]:
    """Return the figures that any turn has, those that a pattern is of; all where there is no pattern."""
    names = dict.fromkeys(name for turn in turns for name in turn.figures)
    return [name for name in names if not patterns or any(fnmatch.fnmatch(name, each) for each in patterns)]


def why_none(turns: Sequence[Turn], pattern: str) -> str:
    """Return in a sentence why a pattern is no figure's that a turn has."""
    for turn in turns:
        for name, why in turn.few.items():
            if fnmatch.fnmatch(name, pattern):
                return f"{name} is not known: {why}; give a longer --turn"
    there = ", ".join(figure_names(turns)) or "none"
    return f"no figure of a turn is called {pattern!r}; there are {there}"


def _known_figures(pairs: Sequence[tuple[Turn, Turn]], patterns: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Return the figures that every turn has, and in how many pairs others are missing that are of enough samples."""
    if not pairs:
        return [], {}
    turns = [turn for pair in pairs for turn in pair]
    names = figure_names(turns, patterns)
    few = {name for turn in turns for name in turn.few}
    everywhere = [name for name in names if all(name in turn.figures for turn in turns)]
    foreign = _of_one_side(pairs)
    missing = {
        name: sum(name not in base.figures or name not in new.figures for base, new in pairs)
        for name in names
        if name not in everywhere and name not in few and name.rpartition(".")[0] not in foreign
    }
    return everywhere, missing


def _of_one_side(pairs: Sequence[tuple[Turn, Turn]]) -> dict[str, SideName]:
    """Return the types that no turn of the other side has, such as those of another mix, and whose they are."""
    base, new = (
        dict.fromkeys(name.rpartition(".")[0] for pair in pairs for name in (*pair[side].figures, *pair[side].few))
        for side in range(len(SIDES))
    )
    return {**{f: SIDES[0] for f in base if f not in new}, **{f: SIDES[1] for f in new if f not in base}}


def _failures(pairs: Sequence[tuple[Turn, Turn]], side: int) -> list[str]:
    """Return a sentence where operations of this side, 0 or 1, failed more often: latencies are of successes alone."""
    shares, texts = [], []
    for each in range(len(SIDES)):
        turns = [pair[each] for pair in pairs]
        operations, failed = sum(turn.operations for turn in turns), sum(turn.failed for turn in turns)
        dropped = sum(turn.dropped for turn in turns)
        shares.append((failed + dropped) / (operations + dropped) if operations + dropped else 0.0)
        cause = next((f" ({turn.causes[0]})" for turn in turns if turn.causes), "")
        unsent = f", and {dropped:,} not sent" if dropped else ""
        texts.append(f"{failed:,} of {operations:,}{cause}{unsent}")
    name, other = SIDES[side].upper(), SIDES[1 - side].upper()
    if shares[side] - shares[1 - side] <= _FAILURES_WORTH_SAYING:
        return []
    return [f"more operations failed on {name}: {texts[side]}; on {other} {texts[1 - side]}"]


def _problems(pairs: Sequence[tuple[Turn, Turn]], side: int) -> list[str]:
    """Return a sentence where something was wrong with turns of a side, 0 or 1."""
    bad = [pair[side] for pair in pairs if pair[side].problems]
    name = SIDES[side].upper()
    return [f"{len(bad)} of {len(pairs)} turns of {name} had a problem: {bad[0].problems[0]}"] if bad else []


def _warnings(turns: Sequence[Turn], pairs: Sequence[tuple[Turn, Turn]]) -> list[str]:
    counted = [turn for pair in pairs for turn in pair]
    found = [f"pair {turn.pair} does not count: {turn.unfit}" for turn in turns if turn.pair and turn.unfit]
    failed = sum(turn.failed for turn in counted)
    if failed and not _failures(pairs, 1):
        cause = next(turn.causes[0] for turn in counted if turn.causes)
        found.append(f"{failed:,} operations failed ({cause}); latencies are of successes")
    if saturated := sum(turn.saturated for turn in counted):
        found.append(
            f"the generator was the bottleneck in {saturated} of {len(counted)} turns: it added to the latencies of "
            "both sides, which hides differences"
        )
    foreign = _of_one_side(pairs)
    found += [f"not judged: {f}, which only {side.upper()} has" for f, side in foreign.items()]
    few: dict[str, str] = {}
    for turn in counted:
        few |= turn.few
    if few:
        name, why = next(iter(few.items()))
        others = f" and {len(few) - 1} more figures" if len(few) > 1 else ""
        found.append(f"not judged: {name} ({why} in a turn){others}; give a longer --turn")
    return found


def _side(name: str, turns: Sequence[Turn], root: Path | None) -> SideDocument:
    return {
        "name": name,
        "runs": [
            {
                "id": turn.run,
                "folder": None if root is None else str(root / turn.run),
                "started_at": turn.started_at or None,
                "etcd_version": turn.etcd_version,
                "doubts": ["the generator was saturated"] if turn.saturated else [],
            }
            for turn in turns
        ],
    }


def settings_that_differ(base: Mapping[str, str], new: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the options of the load, as texts by their names, that differ between both sides."""
    names = [parameter.name for parameter in PARAMETERS]
    return {name: (base[name], new[name]) for name in names if base[name] != new[name]}
