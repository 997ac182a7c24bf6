"""The live view's lines and events, from snapshots made by hand."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import threading

import pytest

from cluster.base.console import width
from cluster.observe.at_once import at_once
from tests.support.waiting import HANG_S
from viz.diagrams.model import ClusterSnapshot, MemberView
from viz.live.status import View, document, line

GOOD = tuple(
    MemberView(f"etcd-node{number}", f"127.0.0.1:{number}", "follower", 3, 100, 98, 2, 20480, "3.5.1", 0.4)
    for number in range(1, 8)
)
LEADS = (dataclasses.replace(GOOD[0], role="leader", lag=0), *GOOD[1:])


def cluster(*members: MemberView, title: str = "etcd cluster: quorum") -> ClusterSnapshot:
    return ClusterSnapshot(title, members)


def dead(member: MemberView) -> MemberView:
    return MemberView(member.name, member.endpoint, "no answer", alarms=("refused",))


def test_it_says_what_changed_and_only_that() -> None:
    view = View()
    assert view.look(cluster(*LEADS[:3]), 0).changes == ()
    assert view.look(cluster(*LEADS[:3]), 1).changes == ()
    gone = view.look(cluster(dead(LEADS[0]), *LEADS[1:3]), 2)
    assert gone.changes == ("etcd-node1 does not answer", "leader NONE")
    second = dataclasses.replace(LEADS[1], role="leader", term=4)
    new = view.look(cluster(dead(LEADS[0]), second, LEADS[2]), 3)
    assert new.changes == ("etcd-node2: follower -> leader", "etcd-node2 leads term 4")
    full = dataclasses.replace(GOOD[0], alarms=("alarm:NOSPACE",))
    assert view.look(cluster(full, second, LEADS[2]), 4).changes == ("etcd-node1 answers again: follower",)
    assert view.look(cluster(full, second), 5).changes == ("etcd-node3 left the list of members",)
    worse = dataclasses.replace(second, alarms=("alarm:NOSPACE",))
    assert view.look(cluster(full, worse), 6).changes == ("etcd-node2: alarm:NOSPACE",)
    assert list(view.events)[:2] == ["00:00:02 etcd-node1 does not answer", "00:00:02 leader NONE"]


def test_rates_are_never_across_a_gap() -> None:
    view = View()
    later = dataclasses.replace(LEADS[0], commit_index=1100)
    assert view.look(cluster(LEADS[0]), 10).rates == {"etcd-node1": None}
    assert view.look(cluster(later), 12).rates == {"etcd-node1": 500.0}
    assert view.look(cluster(dead(later)), 13).rates == {"etcd-node1": None}
    assert view.look(cluster(later), 14).rates == {"etcd-node1": None}
    assert view.look(cluster(LEADS[0]), 15).rates == {"etcd-node1": 0.0}  # restored from a snapshot, say


@pytest.mark.parametrize(
    "member",
    [
        *LEADS[:2],
        dead(LEADS[0]),
        MemberView("節点" * 12, "a:1", "leader", 99_999, 10**12, 10**12, 10**9, 10**13, "3.5.30-rc.1", 12345.6),
        MemberView("x" * 48, "a:1", "no leader", 9999, 9_999_999, 9_999_999, 999, 10_200, "3.5.30", 999.9),
    ],
)
def test_eighty_columns_hold_the_table(member: MemberView) -> None:
    view = View()
    view.look(cluster(member, *GOOD[1:]), 0)
    title = "etcd cluster: " + "long " * 30
    tick = view.look(cluster(member, *GOOD[1:], title=title.strip()), 1, {member.name: 2 << 30})
    lines = view.screen(tick, colour=False)
    assert max(map(width, lines)) <= 80
    head = next(each for each in lines if each.startswith("MEMBER"))
    rows = [each for each in lines if each.startswith(("etcd-node", member.name[:5]))]
    assert {width(each) for each in rows if " B" not in each} == {width(head)} == {80}


def test_colour_is_only_paint() -> None:
    view = View()
    tick = view.look(cluster(dead(LEADS[0]), *GOOD[1:3], title="etcd cluster: leader NONE, NO QUORUM"), 0)
    painted = view.screen(tick)
    assert painted[0].startswith("\x1b[1;31m")
    assert [re.sub(r"\x1b\[[0-9;]*m", "", each) for each in painted] == view.screen(tick, colour=False)


def test_one_line_or_one_document_a_tick() -> None:
    view = View()
    view.look(cluster(*LEADS[:2]), 0)
    tick = view.look(cluster(LEADS[0], dead(LEADS[1])), 1, {"etcd-node1": 123})
    shown = line(tick)
    assert "\n" not in shown and "etcd-node1=leader/lag0" in shown and "[etcd-node2 does not answer]" in shown
    assert shown.startswith("1970-01-01T00:00:01.000Z ")
    found = json.loads(json.dumps(document(tick)))
    assert found["members"][0]["db_quota"] == 123 and found["members"][1]["entries_per_s"] is None
    assert found["changes"] == ["etcd-node2 does not answer"]


def test_ctrl_c_waits_for_no_silent_member() -> None:
    asked, over, answered = threading.Event(), threading.Event(), []

    def question(name: str) -> None:
        asked.set()
        over.wait(HANG_S)
        answered.append(name)

    def interrupt() -> None:
        asked.wait(HANG_S)
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.get_ident()
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        at_once(question, ["a", "b"])
    assert answered == []
    over.set()
