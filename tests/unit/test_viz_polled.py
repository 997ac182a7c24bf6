"""Elections from polls: what was seen, between which polls, and nothing that was not."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from viz.cli.command import visualize_raft_state
from viz.diagrams.model import ClusterSnapshot, MemberView, Note, Role
from viz.live import polled
from viz.live.polled import ClusterPoll
from viz.live.status import View, document

ROLES: dict[str, Role] = {"L": "leader", "F": "follower", "?": "no leader", "x": "no answer"}


def looks(*seen: str, every_s: float = 0.1) -> list[ClusterPoll]:
    """Poll of members a, b and c; ``L2 F2 F2`` is a leading in term 2 with two followers, ``x`` no answer."""
    found = []
    for number, text in enumerate(seen):
        members = {
            name: (ROLES[said[0]], int(said[1:]) if said[1:] else None)
            for name, said in zip("abc", text.split(), strict=True)
        }
        found.append(ClusterPoll(1000 + number * every_s, members))
    return found


KILLED = looks("L2 F2 F2", "L2 F2 F2", "x F2 F2", "x ?2 ?2", "x ?2 ?2", "x L3 F3", "x L3 F3", "F3 L3 F3")


def test_the_time_without_a_leader_is_between_polls() -> None:
    model = polled.sequence(KILLED)
    assert model.title == "Polled election: b leads term 3, 0.2 to 0.4 s without a leader"
    texts = [(item.lane, item.text) for item in model.items if isinstance(item, Note)]
    assert texts[0] == (None, "8 polls at most 0.10 s apart: candidates and votes are not seen")
    assert ("b", "LEADER in term 3 (seen at +0.400 s)") in texts
    assert ("a", "does not answer (seen at +0.100 s)") in texts
    assert ("a", "follows a leader in term 3 (seen at +0.600 s)") in texts
    assert model.messages == ()


def test_without_a_change_of_leader_there_is_no_election() -> None:
    assert polled.sequence(looks("L2 F2 F2", "L2 F2 F2")).title.startswith("Polled: no change of leader, 2 polls")
    assert polled.sequence([]).title == "Polled: no change of leader, 0 polls"


def test_a_new_term_of_the_same_leader_is_a_change() -> None:
    assert "a leads term 4, 0.0 to 0.1 s" in polled.sequence(looks("L2 F2 F2", "L4 F4 F4")).title


def test_an_old_leader_that_says_so_still_does_not_lead() -> None:
    both = looks("L2 F2 F2", "L2 L3 F3", "L2 L3 F3")
    assert both[1].leader == ("b", 3)
    assert polled.sequence(both).title.startswith("Polled election: b leads term 3")


def test_timeline_has_gaps_where_nobody_leads_and_down_where_nobody_answers() -> None:
    chart = polled.timeline(KILLED)
    assert "8 polls at most 0.10 s apart" in chart.title
    rows = {row.label: [(span.start, span.end, span.kind) for span in row.spans] for row in chart.rows}
    assert rows["a"] == [(0.0, 0.2, "leader"), (0.2, 0.7, "down")]
    assert rows["b"] == [(0.0, 0.3, "follower"), (0.5, 0.7, "leader")]


def test_state_graph_counts_what_was_seen() -> None:
    graph = polled.state_graph(KILLED)
    seen = {(each.source, each.target): each.count for each in graph.transitions}
    assert seen == {
        ("leader", "no answer"): 1, ("follower", "no leader"): 2, ("no leader", "leader"): 1,
        ("no leader", "follower"): 1, ("no answer", "follower"): 1,
    }  # fmt: skip


def test_what_watch_wrote_is_read_again_and_the_rest_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view, out = View(), io.StringIO()
    for each in KILLED:
        members = tuple(MemberView(name, f"{name}:1", role, term) for name, (role, term) in each.members.items())
        out.write(json.dumps(document(view.look(ClusterSnapshot("t", members), each.at))) + "\n")
    text = out.getvalue() + "garbage\n[]\n" + json.dumps({"at": "2026-01-31T12:00:00Z", "members": [{"name": "a"}]})
    again, garbage = polled.read(text.splitlines())
    assert garbage == 3
    assert [each.members for each in again] == [each.members for each in KILLED]
    path = tmp_path / "polls.jsonl"
    path.write_text(text)
    assert visualize_raft_state(["--type", "leader-election", "--polls", str(path), "--format", "ascii"]) == 0
    out_text, err = capsys.readouterr()
    assert "Polled election: b leads term 3" in out_text
    assert "left out 3 lines that --watch --json did not write" in err


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--polls", "/nowhere/x"], 2, "cannot read /nowhere/x"),
        (["--polls", "/dev/null"], 4, "no poll in /dev/null"),
        (["--observed", "--polls", "x", "--endpoints", "a:1"], 2, "exclude each other"),
        (["--observed", "--endpoints", "a:1", "--for", "soon"], 2, "--for: 'soon' is not a duration; write"),
        (["--observed", "--endpoints", "a:1", "--for", "0.01"], 2, "--for: must be at least 0.1s, not 0.01"),
        (["--observed", "--for", "1s"], 2, "--for needs --endpoints"),
        (["--for", "1s"], 2, "--for needs --observed"),
    ],
)
def test_bad_input(words: list[str], code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        ended = visualize_raft_state(["--type", "leader-election", *words])
    except SystemExit as exc:  # as argparse ends it
        ended = int(str(exc.code))
    assert ended == code
    err = capsys.readouterr().err
    assert line in err and err.count("\n") == 1
