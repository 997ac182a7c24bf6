"""Elections of five members that time out together, until some of them split their votes; each drawn as it was."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest

from cluster.local.cluster import LocalCluster
from tests.support.outage import last_won, replace_leader
from viz.diagrams import observed
from viz.diagrams.elections import Election, History, read_files
from viz.diagrams.model import Message, Note

pytestmark = [pytest.mark.soak, pytest.mark.xdist_group("soak-clusters")]


def test_split_votes_are_drawn_as_they_were(make_cluster: Callable[..., LocalCluster], soak_s: float) -> None:
    cluster = make_cluster(
        5, extra_args=["--pre-vote=false"], heartbeat_interval_ms=100, election_timeout_ms=500, start_timeout_s=60
    )
    deadline = time.monotonic() + soak_s
    elections = split = 0
    while time.monotonic() < deadline:
        replace_leader(cluster)
        found = read_files([cluster.log(member.name) for member in cluster.members])
        last = last_won(found)
        statuses = [status for status in cluster.statuses() if status is not None]
        assert {(status.term, format(status.leader_id, "x")) for status in statuses} == {(last.term, last.winner)}, last
        elections += 1
        split += _check(found, last)
    print(f"{elections} elections, {split} with a split vote")
    if not split:
        pytest.skip(f"no split vote in {elections} elections")


def _check(found: History, election: Election) -> bool:
    """Whether a vote was split in it, the drawing of which is held against the events."""
    candidates = [event for event in election.events if event.kind == "became" and event.detail == "candidate"]
    lost_terms = {event.term for event in candidates if event.term != election.term}
    per_term = Counter(event.term for event in candidates)
    drawn = observed.sequence(found, [election], most=10_000)
    campaigns = Counter(
        int(item.text.split("in term ")[1].split()[0])
        for item in drawn.items
        if isinstance(item, Message) and item.text.startswith("Candidate in term ")
    )
    assert campaigns == per_term
    leaders = [item.text for item in drawn.items if isinstance(item, Note) and item.text.startswith("LEADER of term ")]
    assert [text.split()[3] for text in leaders] == [str(election.term)]
    for event in election.events:
        if event.kind in ("cast", "rejected"):
            verb = "grants" if event.kind == "cast" else "rejects"
            text = f"{verb} {event.message} (term {event.term})"
            assert any(
                (each.source, each.target, each.text) == (event.member, event.peer, text) for each in drawn.messages
            ), text
    return any(per_term[term] > 1 for term in lost_terms)
