"""The page docs/known-bugs.md: what it says of trials and campaigns, and that it is the one of the records."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from loadgen.bugs.catalogue import catalogue
from tests.soak import bugs_page
from tests.soak.record import recorded

AFFECTED, CLEAN = "affected", "not affected"


def trial(
    found: str = AFFECTED, bug: str = "14110", etcd: str = "3.5.1", code: str = "a", **more: Any
) -> dict[str, Any]:
    return {"code": code, "bug": bug, "etcd": etcd, "found": found, "seconds": 2.0, **more}


_SEEDS = itertools.count(1)


def campaign(*met: str, **more: Any) -> dict[str, Any]:
    explained = [{"bug": bug, "guarantees": [], "places": 1} for bug in met]
    return {"code": "a", "kind": "find", "etcd": "3.5.1", "seed": next(_SEEDS), "minutes": 3.0, "operations": 1000,
            "faults": 40, "exit": 1, "explained": explained, "broken": [], "error": "", **more}  # fmt: skip


def cells(text: str, first: str) -> list[str]:
    """Return the cells of the first row of the page that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first}"))
    return line.strip("| ").split(" | ")[1:]


@pytest.mark.parametrize(
    ("trials", "cell"),
    [
        ([trial(seconds=1.0), trial(seconds=9.0), trial(seconds=3.0)], "found 3/3, 3.0 s"),
        ([trial(seconds=1.0), trial(CLEAN, seconds=9.0)], "**found 1/2, 1.0 s**"),
        ([trial(CLEAN)], "**found 0/1**"),
        ([trial(CLEAN, etcd="3.5.5"), trial("not shown", etcd="3.5.5")], "clean 2/2"),
        ([trial(CLEAN, etcd="3.5.5"), trial(etcd="3.5.5")], "**clean 1/2**"),
        # What could not be tried is told: it says nothing of the bug.
        ([trial("could not be tried", etcd="3.5.5")], "**clean 0/1, 1 could not be tried**"),
        ([trial(), trial("could not be tried")], "**found 1/2, 2.0 s, 1 could not be tried**"),
        # What another code did counts no more.
        ([trial(code="b"), trial(CLEAN, code="b"), trial()], "found 1/1, 2.0 s"),
    ],
)
def test_a_cell_says_how_many_trials_were_as_known(trials: list[dict[str, Any]], cell: str) -> None:
    assert cells(bugs_page.render(trials, []), "[14110]")[0] == cell


def test_releases_stand_in_order_and_what_was_not_tried_is_no_result() -> None:
    text = bugs_page.render([trial(etcd=etcd) for etcd in ("3.10.0", "3.4.23", "3.5.1")], [])
    assert cells(text, "bug") == ["3.4.23", "3.5.1", "3.10.0", "shown by"]
    assert cells(text, "[12385]") == ["-"] * 4
    assert sum(line.startswith("| [") for line in text.splitlines()) == 2 * len(catalogue())


def test_what_shows_a_bug() -> None:
    shown = [trial(), trial(bug="15220"), trial(CLEAN, bug="13766")]
    text = bugs_page.render(shown, [campaign("etcd#15220", "etcd#13766")])
    assert [cells(text, f"[{bug}]")[-1] for bug in ("14110", "15220", "13766", "12385")] == [
        "its own track", "both", "the campaign", "-",
    ]  # fmt: skip
    assert "2 of 39 bugs were found: by 2 of 3 trials on releases that have them." in text.replace(
        f"of {len(catalogue())} bugs", "of 39 bugs"
    )


def test_a_run_whose_history_was_checked_again_is_told_of_once() -> None:
    rows = [
        campaign("etcd#15220", seed=1, broken=[{"guarantee": "raft.term"}]),
        campaign(),
        campaign(seed=1, again="b"),
    ]
    found = cells(bugs_page.render([], rows).partition("## What the campaign")[2], "3.5.1")
    assert found == ["6", "2", "2,000", "80", "none", "nothing"]


def test_the_campaign_tells_when_it_met_a_bug_and_what_was_open() -> None:
    rows = [
        campaign("etcd#15220"), campaign("etcd#15220", "etcd#13766", broken=[{"guarantee": "kv.once"}]),
        campaign(exit=4, error="no etcd"),
    ]  # fmt: skip
    found = cells(bugs_page.render([], rows).partition("## What the campaign")[2], "3.5.1")
    assert found == ["9", "3, 1 not judged", "3,000", "120", "etcd#15220 (3 min), etcd#13766 (6 min)", "kv.once"]
    assert "## What the campaign" not in bugs_page.render([], [])


def test_the_page_that_is_there_says_what_the_records_say() -> None:
    said = bugs_page.render(recorded(bugs_page.TRIALS, {}), recorded(bugs_page.CAMPAIGN, {}))
    assert bugs_page.PAGE.read_text(encoding="utf-8") == said, "`python -m tests.soak.bugs --table` writes it"
