"""Pictures for a terminal: as wide as it is, without trailing blanks, and charts with round ticks and a full legend."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.base.console import width
from viz.diagrams import ascii as text_picture
from viz.diagrams import dot, elections, observed, palette
from viz.diagrams.model import Chart, Lane, Message, Note, Row, Sequence, Span, ticks
from viz.diagrams.raft import DIAGRAMS, diagram, state_machine

DATA = Path(__file__).parents[1] / "data" / "raft-logs"
KINDS = [(kind, variant) for kind, variants in DIAGRAMS.items() for variant in variants]


def lines_of(text: str, columns: int) -> list[str]:
    lines = text.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    assert max(map(width, lines)) <= columns, text
    return lines


@pytest.mark.parametrize(("kind", "variant"), KINDS)
def test_a_diagram_fits_80_columns(kind: str, variant: str) -> None:
    lines_of(text_picture.render(diagram(kind, ("etcd-node1", "etcd-node2", "etcd-node3"), variant)), 80)


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.iterdir() if path.is_dir()))
def test_what_happened_fits_80_columns(name: str) -> None:
    found = elections.read_files(sorted((DATA / name).glob("*.log")))
    sequence = observed.sequence(found, found.elections)
    for model in (observed.timeline(found), observed.state_graph(found), sequence):
        lines_of(text_picture.render(model), 80)


def test_what_has_no_room_to_the_right_of_its_lane_stands_to_the_left_of_it() -> None:
    lanes = tuple(Lane(str(number), f"etcd-node{number}") for number in range(1, 6))
    note = "ignores MsgPreVote of etcd-node1: the lease of the leader that it follows has not run out"
    items = (Message("5", "5", "PreCandidate in term 2 (+0.467 s)", "lost"), Note(note, "5"), Note("short", "5"))
    lines = lines_of(text_picture.render(Sequence("five", lanes, items)), 80)
    columns = [column for column, char in enumerate(lines[-1]) if char == "|"]
    assert [line.rpartition("|")[0].split("|")[-1].strip() for line in lines[6:9]] == [
        "PreCandidate", "in term 2", "(+0.467 s)",
    ]  # fmt: skip
    assert [line[columns[4] - 3 :] for line in lines[9:11]] == [".--|", "x->|"]
    # Of a note one bracket is at the lane and one is at none.
    assert lines[12].index("[ignores") not in columns and lines[13].index("]") == columns[4]
    assert lines[15].index("[short]") == columns[4]


def test_on_a_wider_terminal_a_picture_is_wider() -> None:
    wide = lines_of(text_picture.render(state_machine("paper"), 120), 120)
    assert max(map(width, wide)) > 80


@pytest.mark.parametrize(
    ("duration", "last"),
    [
        (0.0, "0 s"),
        (0.03, "0.03 s"),
        (6.03, "6 s"),
        (59.0, "50 s"),
        (600.0, "10 min"),
        (7300.0, "120 min"),
        (9e5, "10 d"),
    ],
)
def test_ticks_are_round_and_have_a_unit(duration: float, last: str) -> None:
    found = ticks(duration)
    assert found[0][0] == 0 and found[-1][1] == last and found[-1][0] <= duration
    assert len(found) <= 11


def test_each_bar_of_a_timeline_has_its_term_and_each_colour_a_meaning() -> None:
    spans = (Span(0, 5, "follower", "Follower, term 6", 6), Span(5, 5.01, "candidate", "Candidate, term 7", 7),
             Span(5.01, 10, "leader", "Leader, term 7", 7))  # fmt: skip
    text = dot.render(Chart("t", "2026-01-31T12:00:00.000Z", 10.0, (Row("a", spans),)))
    assert 'label="term 6"' in text and 'label="7"' in text and 'label="Leader, term 7"' in text
    legend = ("leads term 7", "candidate", "follower", "down")
    assert all(f'label="{each}\\l"' in text for each in legend)
    assert text.count(palette.term(7)) == 4  # frame and ground of its bar, and of its key
    assert all(palette.state(each) in text for each in legend[1:])
    assert 'label="0 s"' in text and 'label="10 s"' in text
