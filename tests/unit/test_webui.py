"""The pure parts of the web UI: who may ask, what the form refuses, who led when, seconds, states as SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from cluster.base.errors import ClusterError
from loadgen.cli.web import refusal
from loadgen.load.settings import Settings, SettingsError
from loadgen.stats import hdr
from loadgen.webui import elections
from loadgen.webui.event_list import Events
from loadgen.webui.leadership import Leadership
from loadgen.webui.origins import Guard
from loadgen.webui.seconds import Reader, Seconds
from viz.diagrams import svg
from viz.diagrams.elections import read
from viz.diagrams.raft import state_machine

LOGS = Path(__file__).parents[1] / "data" / "raft-logs" / "etcd-3.5.1-kill"

# -- Guard


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8089", "localhost:8089", "[::1]:8089", "10.1.2.3", "LOCALHOST", "proxy.example:443"]
)
def test_hosts_of_this_server(host: str) -> None:
    guard = Guard("127.0.0.1", ["Proxy.example"])
    assert guard.refusal("GET", {"Host": host}) == ""
    assert guard.refusal("POST", {"Host": host, "Origin": f"http://{host}"}) == ""


@pytest.mark.parametrize("host", ["", "evil.example:8089", "127.0.0.1.evil.example", "[::1", "1.2.3.4@evil.example"])
def test_a_rebound_name_is_refused(host: str) -> None:
    assert "is not one of this server's" in Guard("127.0.0.1").refusal("GET", {"Host": host})


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9000", "http://127.0.0.1"])
def test_other_origins_change_nothing(origin: str) -> None:
    guard = Guard("127.0.0.1")
    headers = {"Host": "127.0.0.1:8089", "Origin": origin}
    assert origin in guard.refusal("POST", headers)
    assert guard.refusal("GET", headers) == "", "what only reads has no CORS header, so nobody else sees it"
    assert guard.refusal("POST", {"Host": "127.0.0.1:8089", "Sec-Fetch-Site": "cross-site"}) != ""


def test_the_token_is_of_this_server_alone() -> None:
    guard, other = Guard("127.0.0.1"), Guard("127.0.0.1")
    assert guard.has_token({"X-Raftload-Token": guard.token})
    assert not guard.has_token({"X-Raftload-Token": other.token})
    assert not guard.has_token({"X-Raftload-Token": "ü"})
    assert not guard.has_token({})


# -- Leadership


def rows(leadership: Leadership) -> dict[str, list[tuple[float, float, str, int | None]]]:
    return {row["name"]: [tuple(span) for span in row["spans"]] for row in leadership.rows()}


def test_a_role_holds_until_the_look_that_sees_another() -> None:
    leadership = Leadership()
    leadership.look(10.0, {"a": ("leader", 2), "b": ("follower", 2)})
    leadership.look(11.0, {"a": ("leader", 2), "b": ("follower", 2)})
    leadership.look(12.0, {"a": ("down", None), "b": ("follower", 2)})
    leadership.look(13.0, {"a": ("down", None), "b": ("leader", 3)})
    leadership.look(14.0, {"a": ("down", None), "b": ("leader", 3)})
    assert rows(leadership) == {
        "a": [(10.0, 12.0, "leader", 2), (12.0, 14.0, "down", None)],
        "b": [(10.0, 13.0, "follower", 2), (13.0, 14.0, "leader", 3)],
    }


def test_a_new_term_is_a_new_span_and_nothing_is_said_of_a_gap() -> None:
    leadership = Leadership(gap_s=5.0)
    leadership.look(0.0, {"a": ("leader", 2)})
    leadership.look(1.0, {"a": ("leader", 3)})
    leadership.look(9.0, {"a": ("leader", 3)})
    leadership.look(10.0, {"a": ("leader", 3)})
    assert rows(leadership)["a"] == [(0.0, 1.0, "leader", 2), (1.0, 1.0, "leader", 3), (9.0, 10.0, "leader", 3)]


def test_what_is_old_is_forgotten_and_members_that_left_with_it() -> None:
    leadership = Leadership(keep_s=10.0)
    leadership.look(0.0, {"a": ("leader", 2), "b": ("follower", 2)})
    for at in range(1, 30):
        leadership.look(float(at), {"a": ("leader", 2 + at // 5)})
    found = rows(leadership)
    assert set(found) == {"a"}
    assert found["a"][0][1] >= 19.0
    assert found["a"][-1][1] == 29.0


# -- Seconds


def interval(second: int, latencies_ms: list[float], failed: int = 0, ticks: int = 10) -> list[object]:
    times = [round(each * 1e6) for each in latencies_ms]
    counts: dict[int, int] = {}
    for ns in times:
        counts[hdr.bucket(ns)] = counts.get(hdr.bucket(ns), 0) + 1
    return [second * 10, ticks, failed, 0, min(times, default=0), max(times, default=0), sum(times), counts]


def test_seconds_of_all_workers_and_types_are_one() -> None:
    seconds = Seconds(0.5)
    assert seconds.points(1000.0) == []
    seconds.add({"put": [interval(100, [1.0, 2.0])], "get": [interval(100, [0.25], failed=1)]})
    seconds.add({"put": [interval(99, [4.0])]}, shift=10)
    ((at, successes, failures, p50, p99, most),) = seconds.points(102.5)
    assert (at, successes, failures, most) == (100, 4, 1, 4.0)
    assert p50 == pytest.approx(1.0, rel=0.001)
    assert p99 is None, "of four samples"


def test_a_p99_is_of_as_many_seconds_as_it_takes() -> None:
    seconds = Seconds(0.5)
    seconds.add({"put": [interval(100, [9.0] * 200), interval(101, [1.0] * 99), interval(102, [2.0] * 299)]})
    assert [point[4] for point in seconds.points(104.0)] == [None, pytest.approx(9.0, 0.001), pytest.approx(2.0, 0.001)]


def test_the_rate_of_a_second_at_an_end_is_over_the_load_in_it() -> None:
    seconds, load = Seconds(0.5), (100_500_000_000, 103_200_000_000)
    whole = [interval(at, [1.0] * count, failed=count // 2) for at, count in ((100, 50), (101, 100), (102, 100))]
    seconds.add({"put": [*whole, interval(103, [1.0] * 20)]}, load=load)
    assert [point[:3] for point in seconds.points(104.0)] == [(100, 100, 50), (101, 100, 50), (102, 100, 50)]
    # The fifth of a second at the end is too little for a rate of its own.
    assert [point[:2] for point in seconds.points(110.0, running=False)] == [(100, 100), (101, 100), (102, 100)]
    # The same of the first one, which waits for the second.
    seconds.clear()
    seconds.add({"put": [interval(100, [1.0] * 10)]}, load=(100_900_000_000, 100_990_000_000))
    assert seconds.points(102.0) == []
    seconds.add({"put": [interval(101, [1.0] * 100)]}, load=(100_900_000_000, 101_990_000_000))
    assert [point[:2] for point in seconds.points(103.0)] == [(101, 100)]


def test_a_second_is_a_point_when_all_have_reported_it_and_an_outage_has_points_too() -> None:
    seconds = Seconds(0.5)
    seconds.add({"put": [interval(100, [1.0]), interval(103, [2500.0])]})
    assert [point[0] for point in seconds.points(101.5)] == []
    assert [point[0] for point in seconds.points(102.0)] == [100]
    assert seconds.points(104.9)[1:3] == [(101, 0, 0, None, None, None), (102, 0, 0, None, None, None)]
    assert [point[0] for point in seconds.points(105.0, since=102)] == [102, 103]
    assert seconds.points(110.0)[-1][0] == 108
    assert seconds.points(110.0, running=False)[-1][0] == 103, "after the run nothing follows"
    seconds.clear()
    assert seconds.points(110.0) == []


def test_a_page_is_told_of_a_second_again_when_a_worker_reports_it_late() -> None:
    seconds = Seconds(0.5)
    page, other = Reader(seconds), Reader(seconds)
    seconds.add({"put": [interval(at, [1.0]) for at in (100, 101, 102, 103, 104)]})
    assert [point[0] for point in page.news(104.0, running=True)] == [100, 101, 102]
    assert [point[0] for point in page.news(106.0, running=True)] == [101, 102, 103, 104]
    assert [point[0] for point in page.news(106.0, running=True)] == [103, 104]
    seconds.add({"put": [interval(101, [2500.0])]})
    seconds.add({"put": [interval(105, [1.0])]})
    assert next((point[0], point[5]) for point in page.news(107.0, running=True)) == (101, 2500.0)
    assert [point[0] for point in page.news(107.0, running=True)] == [104, 105]
    assert [point[0] for point in other.news(107.0, running=True)] == [100, 101, 102, 103, 104, 105]


# -- Events


def test_an_event_stands_where_it_began_also_when_it_is_told_of_late() -> None:
    events = Events(keep=4)
    fault = events.add("kill etcd-node1", "fault", 100.0)
    events.add("etcd-node2 leads term 3", "leader", 101.5)
    fault["text"] = "kill: etcd-node1; etcd-node2 leads now in term 3, after 1.9 s"
    events.add("etcd-node2 won term 3 1.2 s after etcd-node1 was lost", "leader", 100.2)
    assert [event["text"][:12] for event in events.last(9)] == ["kill: etcd-n", "etcd-node2 w", "etcd-node2 l"]
    assert [event["at"][-7:] for event in events.last(9)] == ["40.000Z", "40.200Z", "41.500Z"]
    for number in range(2):
        events.add(f"later {number}", "run", 102.0 + number)
    assert [event["at"][-7:] for event in events.last(2)] == ["42.000Z", "43.000Z"]
    events.add("older than all", "run", 99.0)
    assert [event["text"][:12] for event in events.last(9)] == ["etcd-node2 w", "etcd-node2 l", "later 0", "later 1"]
    refused = events.add("refused", "fault")
    events.remove(refused)
    assert "refused" not in {event["text"] for event in events.last(9)}


# -- Elections


def test_an_election_by_the_members_logs() -> None:
    logs = {path.stem: path.read_text() for path in sorted(LOGS.glob("*.log"))}
    found = read((name, name, text.splitlines()) for name, text in logs.items())
    last = next(each for each in reversed(found.elections) if each.won is not None)
    told = elections.describe(logs, last.term)
    assert told is not None
    text, began = told
    assert began == last.began
    assert text.startswith(f"{found.name(last.winner)} won term {last.term} ")
    assert f" {last.won - last.began:.3f} s after " in text
    assert elections.describe(logs, 999) is None
    assert elections.describe({}, 1) is None


# -- SVG


def test_the_states_and_edges_of_the_paper() -> None:
    graph = state_machine("paper", now={"leader": ["a<b>"]})
    root = ET.fromstring(svg.render(graph))
    states = {each.get("data-state"): each for each in root.iter("g") if each.get("class") == "state"}
    assert list(states) == [state.id for state in graph.states]
    assert [text.text for text in states["leader"].iter("text")] == ["Leader", "now: a<b>"]
    labels = [
        " ".join(span.text or "" for span in each.iter("tspan"))
        for each in root.iter("g")
        if each.get("class") == "edge"
    ]
    assert labels == [each.label for each in graph.transitions]


@pytest.mark.parametrize(
    ("error", "message", "field"),
    [
        (
            SettingsError("--rate 9 needs more: raise --max-in-flight", option="--max-in-flight"),
            "--rate 9 needs more: raise Max In Flight", "max_in_flight",
        ),
        (SettingsError("--rate is not for this cluster", option=None), "--rate is not for this cluster", None),
        (ClusterError("--host answers, but --user is missing"), "--host answers, but --user is missing", None),
        (SettingsError("--ramp-up: no", option="--ramp-up"), "Ramp Up: no", "spawn_rate"),
    ],
    ids=["another option comes first", "about none", "of another kind", "a field of Locust's"],
)  # fmt: skip
def test_a_refusal_stands_at_the_field_that_the_error_is_about(
    error: Exception, message: str, field: str | None
) -> None:
    """Whatever options its text names."""
    assert refusal(error) == {"message": message, "field": field}


@pytest.mark.parametrize(
    ("form", "message", "field"),
    [
        ({"mix": "--mix=1"}, "Mix: '--mix' in mix '--mix=1' is not an operation type", "mix"),
        ({"balance": "leader", "transport": "gateway"}, "Balance leader is for Transport grpc", "balance"),
        ({"rate": "5", "step": "1:2:1/1s"}, "Rate and Step exclude each other; give one", "rate"),
        ({"stages": "1s:5", "operations": "9"}, "there are; leave out Operations", "stages"),
    ],
)
def test_a_refusal_names_options_as_the_form_does_but_leaves_what_was_typed(
    form: dict[str, str], message: str, field: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_options(form, ("127.0.0.1:2379",))
    told = refusal(caught.value)
    assert told["field"] == field
    assert message in str(told["message"])
