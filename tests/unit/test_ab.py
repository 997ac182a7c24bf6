"""What `raftload ab` makes of turns whose truth is known, and of options that are given twice."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import Counter
from typing import Any
from unittest.mock import Mock

import pytest

from loadgen.ab import by_turns, turns
from loadgen.ab.by_turns import order
from loadgen.ab.sign_flips import FEWEST
from loadgen.ab.turns import Turn, compare, pairs_of, to_csv
from loadgen.cli.ab import _AbTerminal, _fewer_pairs, _side
from loadgen.cli.main import build_parser
from loadgen.compare.verdict import TOO_NOISY
from loadgen.result import document as results
from loadgen.schema import problem
from tests.support import simulated_turns
from tests.support.scaled_runs import RECORDED

WITHIN = 0.05


@pytest.mark.parametrize(
    ("more", "words", "options", "expected"),
    [
        (300, "", (), ("--rate", "--figure")),
        (300, "", ("--rate", "500"), ("--figure",)),
        (300, "", ("--figure", "total.*"), ("--rate",)),
        (300, "", ("--stages", "1s:100", "--figure", "total.*"), ()),
        (None, f"cannot tell: {TOO_NOISY}: put.p99_ms", (), ("--rate", "--figure")),
        (None, "cannot tell: more operations failed on NEW", (), ()),
        (12, "", (), ()),
    ],
)
def test_who_is_asked_for_hundreds_of_pairs_is_told_how_to_need_fewer(
    more: int | None, words: str, options: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    args = build_parser("ab").parse_args(["ab", *options])
    document: Any = {"verdict": "cannot tell", "words": words, "more": more and {"base": more, "new": more}}
    sides = by_turns.Sides(_side(args, ()), _side(args, ()))
    said = _fewer_pairs(document, sides, args.figure)
    assert tuple(option for option in ("--rate", "--figure") if option in said) == expected, said
    assert bool(said) == bool(expected)
    assert _fewer_pairs({**document, "verdict": "slower"}, sides, args.figure) == ""


def test_of_the_same_on_a_machine_that_drifts_nearly_never_a_difference_is_told() -> None:
    """The rate is 0.4 % at most, of 9 pairs; of 120, with fixed seeds, 3 or more would have a probability of 0.013.

    `python -m tests.soak.ab --simulated 10000` tells the rate itself.
    """
    words = Counter(compare(simulated_turns.turns(9, seed), WITHIN, seed, {})["verdict"] for seed in range(120))
    assert words["slower"] + words["faster"] < 3, words


def test_a_difference_is_found_though_the_drift_is_larger() -> None:
    found = [compare(simulated_turns.turns(16, seed, slower=0.3), WITHIN, seed, {}) for seed in range(8)]
    words = Counter(each["verdict"] for each in found)
    assert words["slower"] >= 6 and not words["faster"] and not words["same"], words


def test_with_the_pairs_that_are_said_to_miss_a_difference_is_found() -> None:
    asked = right = 0
    for seed in range(30):
        few = compare(simulated_turns.turns(12, seed, slower=0.1), WITHIN, seed, {}, figures=["total.p50_ms"])
        if few["verdict"] == "cannot tell" and few["more"] is not None and few["more"]["new"] <= 100:
            asked += 1
            many = simulated_turns.turns(12 + 2 * few["more"]["new"], seed, slower=0.1)
            right += compare(many, WITHIN, seed, {}, figures=["total.p50_ms"])["verdict"] == "slower"
    assert asked >= 5 and right >= 0.8 * asked, (asked, right)


def test_the_same_is_told_of_a_machine_that_is_quiet() -> None:
    document = compare(simulated_turns.turns(16, 1, noise=0.003), WITHIN, 1, {})
    assert (document["verdict"], document["words"]) == ("same", "same within 5 %")
    assert problem(document, "compare") is None


def test_a_coin_says_who_goes_first() -> None:
    first = Counter(order(7, pair)[0] for pair in range(400))
    assert 150 < first["base"] < 250
    assert all(set(order(7, pair)) == {"base", "new"} for pair in range(9))


def test_what_warms_up_is_half_or_lost_a_worker_does_not_count() -> None:
    made = [dataclasses.replace(turn, pair=turn.pair - 1) for turn in simulated_turns.turns(FEWEST + 3, 1)]
    made.pop()
    at = next(number for number, turn in enumerate(made) if turn.pair == 2)
    made[at] = dataclasses.replace(made[at], unfit="worker 1 was lost (killed)")
    assert [base.pair for base, _ in pairs_of(made)] == [1, *range(3, FEWEST + 2)]
    assert all((base.side, new.side) == ("base", "new") for base, new in pairs_of(made))
    assert "pair 2 does not count: worker 1 was lost (killed)" in compare(made, WITHIN, 1, {})["warnings"]


def test_more_failures_on_new_leave_open_whether_it_is_the_same_or_faster() -> None:
    made = simulated_turns.turns(12, 1, noise=0.003)
    failing = [
        dataclasses.replace(turn, failed=100, causes=("NoSpace: 100",)) if turn.side == "new" else turn for turn in made
    ]
    document = compare(failing, WITHIN, 1, {})
    assert document["verdict"] == "cannot tell"
    assert "more operations failed on NEW: 1,200 of 12,000 (NoSpace: 100); on BASE 0 of 12,000" in document["words"]
    slower = [dataclasses.replace(turn, failed=100) if turn.side == "new" else turn
              for turn in simulated_turns.turns(12, 1, noise=0.003, slower=1.0)]  # fmt: skip
    assert compare(slower, WITHIN, 1, {})["verdict"] == "slower"


def test_failures_of_base_leave_open_whether_new_is_slower() -> None:
    """The slow ones of BASE may be those that failed."""
    slower = [dataclasses.replace(turn, failed=100, causes=("NoSpace: 100",)) if turn.side == "base" else turn
              for turn in simulated_turns.turns(16, 1, noise=0.003, slower=1.0)]  # fmt: skip
    document = compare(slower, WITHIN, 1, {})
    assert document["verdict"] == "cannot tell"
    assert "more operations failed on BASE: 1,600 of 16,000 (NoSpace: 100); on NEW 0 of 16,000" in document["words"]
    same = [dataclasses.replace(turn, failed=100, causes=("NoSpace: 100",)) if turn.side == "base" else turn
            for turn in simulated_turns.turns(16, 1, noise=0.003)]  # fmt: skip
    document = compare(same, WITHIN, 1, {})
    assert (document["verdict"], len(document["warnings"])) == ("same", 1)


def test_what_was_not_sent_counts_as_a_failure() -> None:
    made = [dataclasses.replace(turn, dropped=250) if turn.side == "new" else turn
            for turn in simulated_turns.turns(16, 1, noise=0.003)]  # fmt: skip
    document = compare(made, WITHIN, 1, {})
    assert document["words"] == (
        "cannot tell: more operations failed on NEW: 0 of 16,000, and 4,000 not sent; on BASE 0 of 16,000"
    )


@pytest.mark.parametrize(
    ("side", "slower", "verdict"),
    [("new", 0.0, "cannot tell"), ("base", 0.0, "cannot tell"), ("new", 1.0, "slower"), ("base", 1.0, "cannot tell")],
)
def test_a_problem_leaves_open_what_it_may_have_made(side: str, slower: float, verdict: str) -> None:
    made = simulated_turns.turns(16, 1, noise=0.003, slower=slower)
    at = next(number for number, turn in enumerate(made) if turn.pair == 3 and turn.side == side)
    made[at] = dataclasses.replace(made[at], problems=("etcd-node1 ended during the run",))
    document = compare(made, WITHIN, 1, {})
    assert document["verdict"] == verdict
    said = f"1 of 16 turns of {side.upper()} had a problem: etcd-node1 ended during the run"
    assert (said in document["reasons"]) == (verdict == "cannot tell")


def test_a_turn_has_what_its_result_says_of_operations_that_were_not_sent_and_of_problems() -> None:
    result: Any = results.build(RECORDED)
    result["generator"]["dropped"], result["problems"] = 7, ["etcd-node1 ended during the run"]
    turn = turns.turn_of(result, 1, "new", 2, "new/001")
    assert (turn.dropped, turn.problems) == (7, ("etcd-node1 ended during the run",))


def test_a_figure_of_too_few_samples_is_not_called_unknown() -> None:
    made = simulated_turns.turns(1, 1)
    few = [dataclasses.replace(without(turn, "put.p99_9_ms"), few={"put.p99_9_ms": "of 80 samples; it takes 2,995"})
           for turn in made]  # fmt: skip
    assert turns.why_none(few, "put.p99_9_*") == (
        "put.p99_9_ms is not known: of 80 samples; it takes 2,995; give a longer --turn"
    )
    assert turns.why_none([dataclasses.replace(turn, figures={}) for turn in made], "x") == (
        "no figure of a turn is called 'x'; there are none"
    )


def test_a_signal_between_two_turns_ends_the_one_that_begins() -> None:
    terminal, stopped = _AbTerminal(), list[str]()
    terminal._signals = Mock()
    terminal.load_ended()
    terminal._signals.gently("SIGINT")
    terminal.load_begins(stopped.append)
    assert (terminal.stopped_by, stopped) == ("SIGINT", ["SIGINT"])


def test_a_figure_that_some_turns_lack_is_unknown_and_not_the_same() -> None:
    made = simulated_turns.turns(12, 1, noise=0.003)
    made[3] = without(made[3], "put.p50_ms")
    document = compare(made, WITHIN, 1, {})
    assert document["words"] == "cannot tell: put.p50_ms has no value in 1 of 12 pairs"
    few = [dataclasses.replace(without(turn, "put.p99_9_ms"), few={"put.p99_9_ms": "of 80 samples; it takes 2,995"})
           for turn in simulated_turns.turns(16, 1, noise=0.003)]  # fmt: skip
    document = compare(few, WITHIN, 1, {})
    assert document["verdict"] == "same"
    assert document["warnings"] == [
        "not judged: put.p99_9_ms (of 80 samples; it takes 2,995 in a turn); give a longer --turn"
    ]


def test_a_type_that_is_not_in_the_mix_of_one_side_is_not_judged() -> None:
    made = simulated_turns.turns(16, 1, noise=0.003)
    puts = [name for name in made[0].figures if name.startswith("put.")]
    for name in puts:
        made = [without(turn, name) if turn.side == "base" else turn for turn in made]
    document = compare(made, WITHIN, 1, {})
    assert (document["verdict"], document["warnings"]) == ("same", ["not judged: put, which only NEW has"])
    assert {row["name"].rpartition(".")[0] for row in document["figures"]} == {"get", "total"}


def test_no_pair_is_no_verdict() -> None:
    document = compare([], WITHIN, 1, {})
    assert (document["words"], document["figures"]) == ("cannot tell: no pair was measured to its end", [])
    assert problem(document, "compare") is None


def test_turns_have_a_row_each() -> None:
    made = simulated_turns.turns(2, 1)
    made[0] = without(made[0], "put.p50_ms")
    rows = list(csv.DictReader(io.StringIO(to_csv(made))))
    assert [(int(row["pair"]), row["side"], row["run"]) for row in rows] == [(t.pair, t.side, t.run) for t in made]
    assert (rows[0]["put.p50_ms"], float(rows[1]["put.p50_ms"])) == ("", made[1].figures["put.p50_ms"])


def without(turn: Turn, name: str) -> Turn:
    """Return a turn that lacks a figure."""
    return dataclasses.replace(turn, figures={key: value for key, value in turn.figures.items() if key != name})


def test_an_option_that_is_given_twice_has_a_value_for_each_side() -> None:
    words = ["ab", "--etcd", "3.5.30", "--etcd=3.6.14", "--connections", "2", "--mix", "put=1", "--mix", "get=1"]
    args = build_parser("ab").parse_args(words)
    assert (args.etcd, args.connections, args.mix) == ("3.5.30", "2", "put=1")
    assert args.second == {"etcd": "3.6.14", "mix": "get=1"}
    assert build_parser("ab").parse_args(["ab"]).second == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", "1", "--workers", "2"], "argument --workers: it is the same for both sides; give it once"),
        (["--seed", "1", "--seed", "2"], "argument --seed: it is the same for both sides; give it once"),
        (["--nodes", "1", "--nodes", "2", "--nodes", "3"], "argument --nodes: there are two sides"),
    ],
)  # fmt: skip
def test_an_option_that_both_sides_share_is_given_once(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser("ab").parse_args(["ab", *words])
    assert ended.value.code == 2
    said_so = capsys.readouterr().err
    assert said_so.startswith(f"raftload: error: {said}") and said_so.endswith(" (see 'raftload ab --help')\n")


def test_every_figure_is_one_of_a_comparison_of_runs() -> None:
    from loadgen.compare import run_figures

    assert (turns.LATENCIES, turns.RATE) == (run_figures.LATENCIES, run_figures.RATE)
