"""Elections read from logs of real runs are what a person read from them; what cannot be read is counted."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from cluster.observe.log_times import parse_time
from cluster.observe.raftlog import Event, Log, merge, read_log
from viz.diagrams import elections, observed
from viz.diagrams.elections import History
from viz.diagrams.model import Message, Note

DATA = Path(__file__).parents[1] / "data" / "raft-logs"
LABELS: dict[str, dict[str, Any]] = json.loads((DATA / "labels.json").read_text())
TAKEN = 0.050  # seconds, from the kill to the peers' notice of it


def read(name: str) -> History:
    return elections.read_files(sorted((DATA / name).glob("*.log")))


def votes(found: History, kind: str, message: str) -> list[list[Any]]:
    events = [each for each in found.elections[-1].events if each.kind == kind and each.message == message]
    return sorted([found.name(each.member), found.name(each.peer), each.term] for each in events)


@pytest.mark.parametrize("name", LABELS)
def test_the_last_election_is_as_a_person_read_it(name: str) -> None:
    label, found = LABELS[name], read(name)
    election = found.elections[-1]
    assert sorted(found.names.values()) == [f"etcd-node{number + 1}" for number in range(label["members"])]
    assert len(found.elections) == label["elections"]
    assert (found.name(election.failed), found.name(election.winner)) == (label["failed"], label["winner"])
    assert election.term == label["term"]
    assert abs(election.began - label["killed_at"]) < TAKEN
    candidates: dict[str, list[str]] = {}
    for event in election.events:
        if event.kind == "became" and event.detail == "candidate":
            candidates.setdefault(str(event.term), []).append(found.name(event.member))
    assert candidates == label["candidates"]
    assert votes(found, "cast", "MsgPreVote") == sorted(label["pre_granted"])
    assert votes(found, "cast", "MsgVote") == sorted(label["granted"])
    assert votes(found, "rejected", "MsgVote") == sorted(label["rejected"])
    assert votes(found, "ignored", "MsgVote") == sorted(label["ignored"])


@pytest.mark.parametrize("name", LABELS)
def test_the_sequence_says_the_same(name: str) -> None:
    label, found = LABELS[name], read(name)
    model = observed.sequence(found, found.elections[-1:])
    drawn = {
        (verb, found.name(each.source), found.name(each.target), term)
        for each in model.messages
        for verb in ("grants", "rejects")
        for term in range(1, 20)
        if each.text == f"{verb} MsgVote (term {term})"
    }
    labelled = {("grants", *each) for each in label["granted"]} | {("rejects", *each) for each in label["rejected"]}
    assert drawn == labelled
    ignored = [each for each in model.items if isinstance(each, Note) and each.text.startswith("ignores MsgVote")]
    assert len(ignored) == len(label["ignored"])
    lost = {found.name(each.target) for each in model.messages if each.kind == "lost"}
    assert lost == {label["failed"]}  # who was dead did not answer, everybody else did
    assert f"{label['winner']} leads term {label['term']}" in model.title


@pytest.mark.parametrize("name", LABELS)
def test_counts_of_the_state_graph(name: str) -> None:
    found = read(name)
    graph = observed.state_graph(found)
    won = sum(event.kind == "became" and event.detail == "leader" for event in found.events)
    starts = sum(event.kind == "start" for event in found.events)
    counts = {(each.source, each.target): each.count for each in graph.transitions}
    assert counts["candidate", "leader"] == won == LABELS[name]["elections"]
    assert counts["", "follower"] == starts
    campaigns = sum(event.kind == "became" and event.detail == "candidate" for event in found.events)
    assert sum(count or 0 for (_, target), count in counts.items() if target == "candidate") == campaigns


@pytest.mark.parametrize("name", LABELS)
def test_the_timeline_has_one_leader_a_term_and_the_dead_down(name: str) -> None:
    label, found = LABELS[name], read(name)
    chart = observed.timeline(found)
    begin = min(log.first for log in found.logs)
    leading = [(span.text, row.label) for row in chart.rows for span in row.spans if span.kind == "leader"]
    assert len({text for text, _ in leading}) == len(leading) == label["elections"]
    assert (f"Leader, term {label['term']}", label["winner"]) in leading
    downs = [
        span.start for row in chart.rows if row.label == label["failed"] for span in row.spans if span.kind == "down"
    ]
    assert any(abs(begin + start - label["killed_at"]) < TAKEN for start in downs)


def test_no_answer_comes_before_its_question_however_wrong_the_clocks_are() -> None:
    folder = DATA / "etcd-3.5.1-split-vote"
    logs = [read_log(path.read_text().splitlines(), path.stem) for path in sorted(folder.glob("*.log"))]
    rng = random.Random(1)
    for _ in range(20):
        skews = [rng.uniform(-0.4, 0.4) for _ in logs]
        skewed = [
            dataclasses.replace(
                log, events=tuple(dataclasses.replace(event, at=event.at + skew) for event in log.events)
            )
            for log, skew in zip(logs, skews, strict=True)
        ]
        merged = merge(skewed)
        for log in skewed:
            mine = [(each.at, each.kind) for each in merged if each.member == log.member]
            assert mine == [(each.at, each.kind) for each in log.events]
        asked: set[tuple[str, str, str, int]] = set()
        for event in merged:
            if event.kind == "sent":
                asked.add((event.member, event.peer, event.message, event.term))
            elif event.kind in ("cast", "rejected"):
                assert (event.peer, event.member, event.message, event.term) in asked


def test_garbage_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    good = (DATA / "etcd-3.5.1-kill" / "etcd-node2.log").read_bytes()
    bad = [b"\xff\xfe\x00 not text", b"{", b'{"msg": 1}', b"[]", b"null", b'{"ts":"yesterday","msg":"x"}', b"{" * 5000]
    path = tmp_path / "mixed.log"
    path.write_bytes(b"\n".join(bad) + b"\n" + good + b"\n" + good[: len(good) // 2][-40:] + b"\n")
    found = elections.read_files([path])
    clean = elections.read_files([DATA / "etcd-3.5.1-kill" / "etcd-node2.log"])
    assert found.events == clean.events
    assert found.logs[0].garbage == len(bad) + 1
    assert f"{len(bad) + 1} of" in found.notes[0]


def test_a_line_that_a_running_member_is_writing_is_no_garbage(tmp_path: Path) -> None:
    """A reader sees the first part of a line that is longer than what is left of a page of memory."""
    good = (DATA / "etcd-3.5.1-kill" / "etcd-node2.log").read_bytes()
    clean = elections.read_files([DATA / "etcd-3.5.1-kill" / "etcd-node2.log"])
    path = tmp_path / "live.log"
    last = good.rstrip(b"\n").rpartition(b"\n")[2]
    for cut in range(1, len(last)):
        path.write_bytes(good + last[:cut])
        found = elections.read_files([path])
        assert (found.notes, found.events, found.logs[0].lines) == ((), clean.events, clean.logs[0].lines)
    path.write_bytes(good + last)  # whole but for its end, which an editor may have taken
    assert elections.read_files([path]).logs[0].lines == clean.logs[0].lines + 1


def test_one_members_log_alone_still_shows_the_answers_it_received() -> None:
    found = elections.read_files([DATA / "etcd-3.5.1-kill" / "etcd-node2.log"])
    model = observed.sequence(found, found.elections[-1:])
    assert [each.text for each in model.messages if each.kind == "reply"] == [
        "grants MsgPreVote (term 2)",
        "grants MsgVote (term 3)",
    ]
    assert not [each for each in model.messages if each.kind == "lost"]  # nobody can say what became of a request


def test_long_sequences_are_cut_and_say_so() -> None:
    found = read("etcd-3.4.23-split-vote")
    whole = observed.sequence(found, found.elections, most=10_000)
    short = observed.sequence(found, found.elections, most=40)
    assert len(short.items) == 40
    (note,) = [each for each in short.items if isinstance(each, Note) and "left out" in each.text]
    assert note.text == f"{len(whole.items) - 39} events are left out here"
    assert short.items[-1] == whole.items[-1]


def test_a_range_of_time_chooses_elections() -> None:
    found = read("etcd-3.4.23-split-vote")
    last, before = found.elections[-1], found.elections[-2]
    assert elections.between(found.elections, None, None) == [last]
    assert elections.between(found.elections, 0, None) == list(found.elections)
    assert elections.between(found.elections, None, before.began) == list(found.elections[:-1])
    assert elections.between(found.elections, last.events[-1].at + 1, None) == []
    assert isinstance(observed.sequence(found, []).items[0], Note)


def test_hostile_names_in_logs_are_drawn_as_clean_names() -> None:
    event = Event("a", 1.0, "became", 1, detail="candidate")
    found = elections.history([Log("a", 'end"; #\n', (event,), 1.0, 2.0, 1, 0)])
    assert observed.sequence(found, found.elections).lanes[0].label == 'end"; #\\n'
    assert [each.text for each in observed.timeline(found).rows[0].spans] == ["Candidate, term 1"]
    assert any(isinstance(each, Message) for each in observed.sequence(found, found.elections).items)


def test_times() -> None:
    assert parse_time("1970-01-01T00:00:01.500Z") == parse_time("1970-01-01T02:00:01.500+0200") == 1.5
    assert parse_time("1970-01-01 00:00:01.500") == parse_time("1.5") == 1.5
    for bad in ("noon", "-1", "nan", "inf", ""):
        with pytest.raises(ValueError):
            parse_time(bad)


def test_who_has_not_heard_of_the_win_belongs_to_the_same_election() -> None:
    won = (Event("a", 1.0, "became", 2, detail="candidate"), Event("a", 1.01, "became", 2, detail="leader"))
    late = (
        Event("b", 1.015, "became", 1, detail="precandidate"),
        Event("b", 1.02, "became", 2, detail="candidate"),
        Event("b", 1.03, "became", 2, detail="follower"),
    )
    found = elections.history([Log("a", "a", won, 1.0, 2.0, 2, 0), Log("b", "b", late, 1.0, 2.0, 3, 0)])
    assert [(each.winner, each.term, len(each.events)) for each in found.elections] == [("a", 2, 5)]
    again = Event("b", 1.2, "became", 2, detail="precandidate")  # it had followed, and times out
    found = elections.history([Log("a", "a", won, 1.0, 2.0, 2, 0), Log("b", "b", (*late, again), 1.0, 2.0, 4, 0)])
    assert [each.winner for each in found.elections] == ["a", ""]


def test_an_old_leader_that_campaigns_for_a_decided_term_opens_no_election() -> None:
    """Started again, it times out before it hears of the new leader; its term is that of the election it missed."""
    won = (Event("a", 1.0, "became", 4, detail="candidate"), Event("a", 1.01, "became", 4, detail="leader"))
    old = (
        Event("b", 3.0, "start"),
        Event("b", 3.6, "became", 4, detail="candidate"),
        Event("b", 3.61, "became", 4, detail="follower"),
    )
    found = elections.history([Log("a", "a", won, 1.0, 4.0, 2, 0), Log("b", "b", old, 1.0, 4.0, 3, 0)])
    assert [(each.winner, each.term) for each in found.elections] == [("a", 4)]
    # A cluster that is made anew begins with a term of 0, and its first elections are elections.
    anew = (
        Event("a", 9.0, "became", 0, detail="follower"),
        Event("a", 9.5, "became", 2, detail="candidate"),
        Event("a", 9.51, "became", 2, detail="leader"),
    )
    found = elections.history([Log("a", "a", (*won, *anew), 1.0, 9.6, 5, 0), Log("b", "b", old, 1.0, 4.0, 3, 0)])
    assert [(each.winner, each.term) for each in found.elections] == [("a", 4), ("a", 2)]


# Of etcd 3.6.16: node 2 missed the heartbeats of node 1, which leads term 2, and campaigned in vain. Then node 1 was
# killed.
NODES = {"912f9932b7459a6c": "etcd-node1", "510e2ccade6f89ae": "etcd-node2", "cffb1cac51065e57": "etcd-node3"}
LEADER, MISSED, THIRD = NODES
IN_VAIN = [
    (LEADER, 16.185289, "912f9932b7459a6c became candidate at term 2"),
    (LEADER, 16.187057, "912f9932b7459a6c became leader at term 2"),
    (LEADER, 16.187065, "raft.node: 912f9932b7459a6c elected leader 912f9932b7459a6c at term 2"),
    (THIRD, 16.187412, "raft.node: cffb1cac51065e57 elected leader 912f9932b7459a6c at term 2"),
    (MISSED, 16.187499, "raft.node: 510e2ccade6f89ae elected leader 912f9932b7459a6c at term 2"),
    (MISSED, 17.650701, "510e2ccade6f89ae became pre-candidate at term 2"),
    (MISSED, 17.650725, "510e2ccade6f89ae [logterm: 2, index: 8] sent MsgPreVote request to "
     "912f9932b7459a6c at term 2"),
    (MISSED, 17.650732, "510e2ccade6f89ae [logterm: 2, index: 8] sent MsgPreVote request to "
     "cffb1cac51065e57 at term 2"),
    (MISSED, 17.650740, "raft.node: 510e2ccade6f89ae lost leader 912f9932b7459a6c at term 2"),
    (LEADER, 17.660766, "912f9932b7459a6c [logterm: 2, index: 8, vote: 912f9932b7459a6c] ignored MsgPreVote from "
     "510e2ccade6f89ae [logterm: 2, index: 8] at term 2: lease is not expired (remaining ticks: 9)"),
]  # fmt: skip
FOUND_AGAIN = [
    (MISSED, 17.660896, "510e2ccade6f89ae became follower at term 2"),
    (MISSED, 17.660921, "raft.node: 510e2ccade6f89ae elected leader 912f9932b7459a6c at term 2"),
    (THIRD, 17.662470, "cffb1cac51065e57 [logterm: 2, index: 8, vote: 912f9932b7459a6c] ignored MsgPreVote from "
     "510e2ccade6f89ae [logterm: 2, index: 8] at term 2: lease is not expired (remaining ticks: 10)"),
]  # fmt: skip
KILLED = [
    (MISSED, 17.674531, "lost TCP streaming connection with remote peer"),
    (THIRD, 17.674949, "lost TCP streaming connection with remote peer"),
]
NEXT = [
    (MISSED, 18.950655, "510e2ccade6f89ae became pre-candidate at term 2"),
    (MISSED, 18.951072, "510e2ccade6f89ae became candidate at term 3"),
    (MISSED, 18.951950, "510e2ccade6f89ae became leader at term 3"),
    (THIRD, 18.952261, "raft.node: cffb1cac51065e57 elected leader 510e2ccade6f89ae at term 3"),
]


def _told(lines: list[tuple[str, float, str]], form: str) -> History:
    """Read the lines of all members as etcd writes them in JSON or for the console."""

    def line(member: str, at: float, message: str) -> str:
        lost = {"local-member-id": member, "remote-peer-id": LEADER} if message.startswith("lost TCP") else {}
        stamp = f"2026-11-29T09:20:{at:.6f}Z"
        if form == "json":
            return json.dumps({"level": "info", "ts": stamp, "caller": "a/b.go:1", "msg": message, **lost})
        return "\t".join((stamp, "info", "a/b.go:1", message, *([json.dumps(lost)] if lost else [])))

    return elections.read(
        (name, name, [line(*each) for each in lines if each[0] == member]) for member, name in NODES.items()
    )


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_leader_that_is_lost_after_a_campaign_in_vain_is_named(form: str) -> None:
    found = _told([*IN_VAIN, *FOUND_AGAIN, *KILLED, *NEXT], form)
    assert not found.notes
    assert [(found.name(each.failed), found.name(each.winner), each.term) for each in found.elections] == [
        ("", "etcd-node1", 2), ("", "", 2), ("etcd-node1", "etcd-node2", 3),
    ]  # fmt: skip
    in_vain, last = found.elections[1:]
    assert len(in_vain.events) == len(IN_VAIN) - 5 + len(FOUND_AGAIN)  # who ignores it late is of it
    assert last.began == parse_time("2026-11-29T09:20:17.674531Z") and last.since_lost
    title = observed.sequence(found, [last]).title
    assert title == "Observed election: etcd-node2 leads term 3, 1.277 s after the leader was lost"


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_leader_that_is_lost_while_a_member_campaigns_is_named(form: str) -> None:
    found = _told([*IN_VAIN, *KILLED, *NEXT], form)
    assert [(found.name(each.failed), found.name(each.winner), each.term) for each in found.elections] == [
        ("", "etcd-node1", 2), ("etcd-node1", "etcd-node2", 3),
    ]  # fmt: skip
    model = observed.sequence(found, found.elections[-1:])
    assert model.title == "Observed election: etcd-node2 leads term 3, 1.301 s after the first campaign"
    notes = [each.text for each in model.items if isinstance(each, Note)]
    assert "leader lost: its connections break (+0.024 s)" in notes


def test_a_member_that_was_cut_off_and_comes_back_lost_no_leader() -> None:
    cut_off = (MISSED, 16.5, "lost TCP streaming connection with remote peer")
    before, after = IN_VAIN[:5], IN_VAIN[5:]
    found = _told([*before, cut_off, *after, *FOUND_AGAIN, *KILLED, *NEXT], "json")
    assert [(found.name(each.failed), found.name(each.winner)) for each in found.elections] == [
        ("", "etcd-node1"), ("", ""), ("etcd-node1", "etcd-node2"),
    ]  # fmt: skip
    assert [each.began - found.first for each in found.elections[1:]] == pytest.approx([1.465412, 1.489242], abs=1e-4)


def test_a_member_that_starts_late_and_campaigns_before_it_hears_of_the_leader_hides_no_loss() -> None:
    """Its first line is of term 0, as those of a cluster that is made anew."""
    late = [
        (MISSED, 17.1, "510e2ccade6f89ae became follower at term 0"),
        (MISSED, 17.1, "510e2ccade6f89ae became follower at term 1"),
        (MISSED, 17.5, "510e2ccade6f89ae became pre-candidate at term 1"),
        (MISSED, 17.6, "510e2ccade6f89ae became follower at term 2"),
        (MISSED, 17.6, "raft.node: 510e2ccade6f89ae elected leader 912f9932b7459a6c at term 2"),
    ]
    found = _told([*IN_VAIN[:4], *late, *KILLED, *NEXT], "json")
    assert [found.name(each.failed) for each in found.elections if each.failed] == ["etcd-node1"]
    assert found.elections[-1].since_lost
