"""The table of injected causes: enough of them, in parts of different kinds."""

from __future__ import annotations

from collections import Counter
from typing import get_args

from cluster.schema.diagnose_documents import Word
from tests.diagnose.causes import CAUSES, Half

HALVES = get_args(Half)
BLAMING = {"disk", "cpu", "network"}


def test_there_are_forty_causes_or_more_and_their_names_say_their_half() -> None:
    assert len(CAUSES) >= 40
    for half in HALVES:
        names = [name for name, cause in CAUSES.items() if cause.half == half]
        assert names == [f"{half}{number:02}" for number in range(1, len(names) + 1)]


def test_the_halves_have_no_kind_of_cause_in_common() -> None:
    kinds = Counter(cause.kind for cause in CAUSES.values())
    assert [kind for kind, count in kinds.items() if count > 1] == []


def test_each_half_has_each_word_more_than_once() -> None:
    words = {half: Counter(cause.label for cause in CAUSES.values() if cause.half == half) for half in HALVES}
    for word in ("healthy", "disk", "cpu", "network", "overload"):
        assert all(words[half][word] >= 2 for half in HALVES), word
    # Few things make a generator slow, and nearly nothing may stay unsure.
    assert [words[half]["client"] for half in HALVES] == [1, 2, 2, 1]
    assert [words[half]["unsure"] for half in HALVES] == [1, 0, 1, 0]


def test_labels_are_words_and_a_blamed_part_has_its_member() -> None:
    for cause in CAUSES.values():
        assert cause.label in get_args(Word)
        assert bool(cause.of) == (cause.label in BLAMING), cause.name
        assert not (cause.unsure_allowed and cause.label == "healthy")
        assert cause.right == {cause.label} | ({"unsure"} if cause.unsure_allowed else set())
        assert cause.injected
