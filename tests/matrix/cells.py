"""The cells of the matrix: for each its name, what it shows, and the run that shows it."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import re
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gevent

from cluster.base.errors import ClusterError
from cluster.base.known_bugs import known_bugs
from cluster.base.security import Security
from cluster.base.topology import ServerTls
from cluster.conformance import TESTS
from cluster.docker.engine import connect
from cluster.local.cluster import LocalCluster
from cluster.observe.observer import MEMBER_COLUMNS, METRIC_COLUMNS
from cluster.observe.probe import agreed_leader
from cluster.observe.record import read_scrapes
from loadgen.client.auth import READWRITE
from loadgen.client.etcd import EtcdClient
from loadgen.history.operation import Outcome as Came
from tests.matrix.evidence import Outcome
from tests.matrix.place import CellFailed, Place, hold
from tests.support.certificates import Authority
from tests.support.command import ROOT
from tests.support.engine import engine_alone, everything
from tests.support.metric_columns import COLUMNS, LATE, columns_of
from tests.support.outage import replace_leader

Found = tuple[Outcome, str]
CHAOS_S = 120
_SMALL = ("--operations", "300", "--workers", "1", "--concurrency", "8")
_RANGE_GATEWAY = ("--operations", "60", "--workers", "1", "--concurrency", "4")


@dataclasses.dataclass(frozen=True)
class Cell:
    """``run`` takes a place, returns the outcome and one line of figures, and raises where something is wrong.

    Attributes:
        name: for the command line and the evidence.
        title: for the document.
        shows: what is certain where it is ok.
        alone: whether no cluster of ours may be up beside it.
    """

    name: str
    title: str
    shows: str
    run: Callable[[Place], Found]
    alone: bool = False


# Clusters


def embedded(place: Place) -> Found:
    """Return a cluster for the length of a run."""
    result = place.document("bench", "--backend", "embedded", "--etcd", place.binary.path, *_SMALL, "--json")
    hold(result["target"]["kind"] == "embedded" and len(result["target"]["members"]) == 3, "not three members")
    hold(result["target"]["etcd_version"] == place.binary.version, f"ran etcd {result['target']['etcd_version']}")
    figures = _bench_figures(result, 300)
    place.nothing_left()
    return "ok", f"3 members, {figures}; nothing left"


def docker(place: Place) -> Found:
    """Return a cluster of containers, whose image is made of this etcd."""
    with engine_alone(), contextlib.closing(connect()) as client:
        before = everything(client)
        hold(not any("etcd-node" in name for name in before["containers"]), "containers etcd-node… are there already")
        images = _images(client)
        try:
            figures = _in_docker(place)
        finally:
            place.run("cluster", "down", "--backend", "docker", state="docker", code=range(256))
            for made in _images(client) - images:
                client.images.remove(made, force=True)
        hold(everything(client) == before, f"left on the Engine: {everything(client)}, before {before}")
    return "ok", f"{figures}; nothing left"


def _in_docker(place: Place) -> str:
    def raftload(*words: str) -> Any:
        return place.document(*words, "--json", state="docker")

    up = raftload("cluster", "up", "--backend", "docker", "--etcd", place.binary.path, "--nodes", "3")
    hold((up["version"], up["nodes"], up["quorum"]) == (place.binary.version, 3, True), f"`cluster up` made {up}")
    passed, figures = _conformance(raftload("cluster", "test", "--backend", "docker"), place.binary.version)
    hold(passed == "ok", figures)
    load = raftload("bench", "--backend", "docker", *_SMALL)
    hold(load["target"]["kind"] == "docker", "bench did not use the containers")
    leader = raftload("cluster", "status", "--backend", "docker")["leader"]
    killed = raftload("cluster", "kill", "leader", "--backend", "docker")
    hold(killed["members"] == [leader] and killed["leader"] not in (None, leader), f"after the kill: {killed}")
    healed = raftload("cluster", "heal", "--backend", "docker")
    hold(healed["quorum"] and leader in healed["members"], f"`cluster heal` says {healed}")
    status = raftload("cluster", "status", "--backend", "docker")
    hold({each["role"] for each in status["members"]} == {"leader", "follower"}, f"after `heal`: {status}")
    place.run("cluster", "down", "--backend", "docker", state="docker")
    led = f"{leader} killed, {killed['leader']} led, healed"
    return f"cluster test: {figures}; bench: {_bench_figures(load, 300)}; {led}"


def _images(client: Any) -> set[str]:
    return {image.id for image in client.images.list()}


# What etcd guarantees


def conformance(place: Place, transport: str) -> Found:
    """Every test of `cluster test`, those of members, users, snapshots and alarms among them."""
    place.shared()
    words = ("cluster", "test", "--backend", "local", "--all", "--transport", transport, "--json")
    report = place.document(*words, code=(0, 1, 3))
    hold({each["name"] for each in report["tests"]} == {each.name for each in TESTS}, "not every test ran")
    hold(not report["summary"]["skip"], f"skipped: {[each for each in report['tests'] if each['verdict'] == 'SKIP']}")
    return _conformance(report, place.binary.version)


def _conformance(report: Any, version: str) -> Found:
    """Return what a report of `cluster test` comes to."""
    hold(report["target"]["version"] == version, f"tested etcd {report['target']['version']}")
    bad = [each for each in report["tests"] if each["verdict"] in ("FAIL", "UNKNOWN")]
    skipped = [f"{each['name']} ({each['reason']})" for each in report["tests"] if each["verdict"] == "SKIP"]
    summary = report["summary"]
    figures = f"{summary['pass']} PASS" + (f", skipped: {'; '.join(skipped)}" if skipped else "")
    unknown = [
        f"{each['name']}: {each['reason']}" for each in bad if f"etcd {version} is known for it" not in each["reason"]
    ]
    hold(not unknown, "; ".join(unknown))
    if bad:
        return "known", f"{figures}; {'; '.join(each['name'] + ': ' + each['reason'] for each in bad)}"
    return "ok", figures


def chaos(place: Place) -> Found:
    """Two minutes of load and faults, every answer of which is checked."""
    words = ("--duration", f"{CHAOS_S}s", "--rounds", "100", "--etcd", place.binary.path, "--output", "run", "--json")
    result = place.document("chaos", *words, code=(0, 1))
    check, rounds = result["check"], result["chaos"]["faults"]
    figures = (
        f"{check['operations']:,} operations, {len(rounds)} faults of {len({each['fault'] for each in rounds})} kinds"
    )
    place.nothing_left()
    if check["verdict"] == "pass":
        hold(result["verdict"] == "pass", f"verdict {result['verdict']}: {'; '.join(result['verdict_reasons'])}")
        # After the last one the load may only wait for what is still open.
        back = [each["after"] for each in rounds[:-1]]
        hold(all(each["throughput_ops_s"] for each in back), f"{figures}: no operation succeeded after one of them")
        least = min(each["throughput_ops_s"] for each in back)
        return "ok", f"{figures}, all guarantees kept, {least:,.0f} ops/s or more after each"
    bugs = explained(set(check["broken"]), place.binary.version)
    ended = f", ended early: {result['chaos']['stopped_by']}" if result["chaos"]["stopped_by"] else ""
    return "known", f"{figures}{ended}; broken: {', '.join(check['broken'])}: {bugs}"


# A member that missed a write is another store from then on, and all of its answers may show it.
_PARTS_MEMBERS = "13766"
# What a bug breaks.
_BREAKS = {
    _PARTS_MEMBERS: re.compile(r"(durability|convergence|kv|txn|watch|lease)\..*"),
    "15220": re.compile(r"watch\.(bookmarkable|resumable)"),
    # Of a transaction in that revision, the watch gets the puts and misses the deletions.
    "18089": re.compile(r"watch\.(reliable|resumable|atomic)"),
}


def explained(broken: set[str], version: str) -> str:
    """Names the known bugs that broke guarantees. Raises CellFailed for a guarantee that none explains."""
    named = []
    for bug in known_bugs(version, under_load=True):
        breaks = _BREAKS.get(bug.issue)
        if bug.issue == _PARTS_MEMBERS and not any(each.startswith("convergence.") for each in broken):
            continue
        if breaks and (theirs := {each for each in broken if breaks.fullmatch(each)}):
            named.append(f"{bug.name} ({bug.summary})")
            broken = broken - theirs
    hold(not broken, f"broken, and no known bug of etcd {version} explains it: {', '.join(sorted(broken))}")
    return "; ".join(named)


# Load


def scenario(place: Place, name: str) -> Found:
    """Return a scenario over both transports; one that is for gRPC alone has to say so."""
    endpoints = ("--endpoints", ",".join(place.shared()), "--scenario", name, "--json")
    how: tuple[str, ...] = _SMALL
    if name == "steps":
        how = ("--duration", "4s", "--concurrency", "4", "--workers", "1")
    result = place.document("bench", *endpoints, *how, "--output", "grpc")
    figures = [f"grpc: {_bench_figures(result, None if name == 'steps' else 300)}"]
    how = _RANGE_GATEWAY if name == "range" else how
    said = place.run("bench", *endpoints, *how, "--transport", "gateway", "--output", "gateway", code=(0, 2))
    if said.returncode:
        hold("needs --transport grpc" in said.stderr, said.stderr)
        figures.append("gateway: refused, as documented")
    else:
        wanted = None if name == "steps" else int(how[1])
        figures.append(f"gateway: {_bench_figures(json.loads(said.stdout), wanted)}")
    return "ok", "; ".join(figures)


def _bench_figures(result: Any, operations: int | None) -> str:
    """Hold a result to what a run on a healthy cluster is, and sum it up. ``operations``: how many were asked for."""
    hold(not result["problems"], "; ".join(result["problems"]))
    hold(not result["lost_workers"], f"lost workers: {result['lost_workers']}")
    hold(result["books"]["balanced"] is not False, f"acknowledged writes and revision do not agree: {result['books']}")
    total = result["results"]["total"]
    errors = {f: row["errors"] for f, row in result["results"].items() if row and row["failed"]}
    # A keepalive may be answered by a leader that has not applied the grant yet, as the scenario's help says.
    late = errors == {f: {"LeaseNotFound": total["failed"]} for f in ("lease_keepalive", "total")}
    hold(not total["failed"] or late, f"{total['failed']} of {total['operations']} operations failed: {errors}")
    asked = sum(row["operations"] for f, row in result["results"].items() if row and f not in ("total", "watch"))
    hold(asked == operations if operations else asked > 0, f"{asked} operations, {operations} were asked for")
    return f"{total['operations']:,} operations, p50 {total['latency']['p50_ms']:.1f} ms"


def over_tls(place: Place) -> Found:
    """Members that speak TLS to their clients, and one load over each transport."""
    authority = Authority(place.folder / "pki")
    server = authority.sign("server", "127.0.0.1", "localhost")
    trust = Security(cacert=authority.cert)
    how = ServerTls(server.cert, server.key)
    with LocalCluster(3, binary=place.binary.path, tls=how, security=trust) as cluster:
        endpoints = ",".join(cluster.endpoints)
        hold(endpoints.startswith("https://"), endpoints)
        figures = _both_transports(place, "--endpoints", endpoints, "--cacert", authority.cert)
        refused = place.run("bench", "--endpoints", endpoints, *_SMALL, code=(4,)).stderr
        hold("certificate" in refused, refused)
    return "ok", f"{figures}; without the CA refused"


def with_auth(place: Place) -> Found:
    """Return a cluster with auth on, and one load over each transport as a user with a role."""
    with LocalCluster(3, binary=place.binary.path) as cluster:
        client = EtcdClient(cluster.endpoints)
        done = [
            client.user_add("root", "r00t"), client.role_add("root"), client.user_grant_role("root", "root"),
            client.user_add("load", "l0ad"), client.role_add("load"), client.user_grant_role("load", "load"),
            client.role_grant_permission("load", READWRITE, b"\0", b"\0"), client.auth_enable(),
        ]  # fmt: skip
        client.close()
        gevent.sleep(0)
        hold({each.outcome for each in done} == {Came.OK}, f"auth: {[each.error for each in done]}")
        endpoints = ("--endpoints", ",".join(cluster.endpoints))
        figures = _both_transports(place, *endpoints, "--user", "load:l0ad")
        place.run("bench", *endpoints, *_SMALL, "--user", "load:wrong", code=(4,))
    return "ok", f"{figures}; a wrong password refused"


def _both_transports(place: Place, *words: str) -> str:
    found = []
    for transport in ("grpc", "gateway"):
        how = ("--transport", transport, "--json", "--output", transport)
        found.append(f"{transport}: {_bench_figures(place.document('bench', *words, *_SMALL, *how), 300)}")
    return "; ".join(found)


# What members say


def columns(place: Place) -> Found:
    """Every column of members.csv and metrics.csv that docs/formats.md names, as far as the release has them."""
    words = ("--duration", "5s", "--workers", "1", "--concurrency", "4", "--output", "run", "--json")
    result = place.document("bench", "--endpoints", ",".join(place.shared()), *words)
    polls = _filled(place.folder / "run" / "members.csv", MEMBER_COLUMNS, {"reason"})
    may_be_empty = {"phase", *LATE, *COLUMNS - columns_of(place.binary.version)}
    scrapes = _filled(place.folder / "run" / "metrics.csv", METRIC_COLUMNS, may_be_empty)
    hold({row["role"] for row in polls} == {"leader", "follower"}, "no leader among the roles")
    for rows in (polls, scrapes):
        hold(len({row["member"] for row in rows}) == 3, "not all members are in it")
    hold({row["phase"] for row in scrapes} >= {"before", "end", "after"}, "a phase is missing")
    for of_member in read_scrapes(place.folder / "run").values():
        hold(all(each.count for each in of_member[-1].metrics.histograms.values()), "a histogram without observations")
    for name in ("wal_fsync_p99_ms", "backend_commit_p99_ms"):
        # After the load there may be no commit at all between two scrapes.
        hold(result["target"][name]["before"] and result["target"][name]["during"], f"target.{name} is empty")
    filled = len(METRIC_COLUMNS) - len(COLUMNS - columns_of(place.binary.version))
    return "ok", f"{len(MEMBER_COLUMNS)} columns in {len(polls)} polls, {filled} in {len(scrapes)} scrapes"


def _filled(path: Path, names: tuple[str, ...], may_be_empty: set[str]) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("answers") != "0"]
    hold(rows, f"{path.name} has no row")
    empty = {name for row in rows for name in names if name not in may_be_empty and not row[name]}
    hold(not empty, f"{path.name}: empty: {', '.join(sorted(empty))}")
    return rows


def cluster_status(place: Place) -> Found:
    """Return the cluster as `viz` draws it, and as `cluster status` tells it."""
    endpoints = ("--endpoints", ",".join(place.shared()))
    drawn = place.document("viz", "--type", "cluster-status", *endpoints, "--json")
    told = place.document("cluster", "status", "--backend", "local", "--json")
    hold({each["version"] for each in drawn["members"]} == {place.binary.version}, f"drawn: {drawn}")
    leaders = [each["name"] for each in drawn["members"] if each["role"] == "leader"]
    hold(leaders == [told["leader"]], f"drawn as leader: {leaders}, told: {told['leader']}")
    hold(not any(each["alarms"] for each in drawn["members"]), f"alarms: {drawn}")
    for each in drawn["members"]:
        missing = [name for name in ("term", "commit_index", "applied_index", "db_size") if not each[name]]
        hold(not missing, f"{each['name']}: {', '.join(missing)} missing")
    text = place.run("viz", "--type", "cluster-status", *endpoints, "--format", "ascii").stdout
    hold(told["leader"] in text and place.binary.version in text, text)
    return "ok", drawn["title"]


def web_page(place: Place) -> Found:
    """Return the web UI's cluster page: what it shows, and a button of it."""
    place.shared()
    with place.running("web", "--web-port", "0", "--workers", "1") as process:
        assert process.stderr is not None
        line = ""
        while "open http://" not in line:
            line = process.stderr.readline()
            hold(line, "`raftload web` ended before it served")
        url = line.split("open ")[1].split()[0].rstrip("/")
        page = _get(f"{url}/cluster/")
        token = re.search(r"[\w-]{43}", page)
        hold(token, "the page has no token")
        shown = _event(url, lambda seen: {each["role"] for each in seen["members"]} == {"leader", "follower"})
        hold({each["version"] for each in shown["members"]} == {place.binary.version}, f"the page shows {shown}")
        hold(shown["ours"], "the page cannot break the cluster")
        other = next(each["name"] for each in shown["members"] if each["role"] == "follower")
        order = urllib.request.Request(
            f"{url}/cluster/act", json.dumps({"fault": "transfer-leader", "member": other}).encode(),
            {"Content-Type": "application/json", "Origin": url, "X-Raftload-Token": token[0] if token else ""},
        )  # fmt: skip
        with urllib.request.urlopen(order, timeout=60) as answer:
            effect = json.load(answer)
        _event(url, lambda seen: seen["leader"] == other)
    return (
        "ok",
        f"3 members of etcd {place.binary.version} shown; leadership handed to {effect['leader']} by its button",
    )


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def _event(url: str, wanted: Callable[[Any], bool]) -> Any:
    """Return the first event of the page that shows what is wanted, of 200."""
    seen: Any = None
    with urllib.request.urlopen(f"{url}/cluster/events", timeout=60) as stream:
        count = 0
        for line in stream:
            if not line.startswith(b"data: "):
                continue
            seen, count = json.loads(line.removeprefix(b"data: ")), count + 1
            if seen["members"] and wanted(seen):
                return seen
            if count == 200:
                break
    raise CellFailed(f"the page did not show what was waited for, at last: {str(seen)[:300]}")


# Elections


def election(place: Place) -> Found:
    """Return the leader is killed; the election and who led when are drawn from the members' JSON logs."""
    made = place.up("election")
    try:
        killed = place.document("cluster", "kill", "leader", "--json", state="election")
        place.document("cluster", "heal", "--json", state="election")
        status = place.document("cluster", "status", "--json", state="election")
        drawn, who = (
            place.document("viz", "--type", kind, "--observed", "--format", "json", state="election")
            for kind in ("leader-election", "timeline")
        )
    finally:
        place.down("election")
    leader = status["leader"]
    hold(leader and leader == killed["leader"] != made["leader"], f"after the kill {leader} leads")
    figures = _drawn(drawn, who, made["leader"], leader, {each["name"] for each in status["members"]})
    place.nothing_left()
    return "ok", figures


def _drawn(drawn: Any, who: Any, lost: str, leader: str, names: set[str]) -> str:
    """Hold the two pictures of an election to what is known of it. Returns the title of the first."""
    title = str(drawn["title"])
    hold(re.match(rf"Observed election: {leader} leads term \d+, ", title), title)
    hold(title.endswith("after the leader was lost"), title)
    rows = {row["label"]: row["spans"] for row in who["rows"]}
    hold(set(rows) == names, f"the timeline has {set(rows)}")
    hold(any(span["kind"] == "down" for span in rows[lost]), f"the timeline does not show {lost} down")
    term = re.search(r"leads term (\d+)", title)
    hold(term and rows[leader][-1]["text"] == f"Leader, term {term[1]}", f"the timeline ends with {rows[leader][-1]}")
    return title.removeprefix("Observed election: ")


def console_election(place: Place) -> Found:
    """Return the same from the logs that people read: ``--log-format=console``, and of 3.4 its older logger's."""
    missing = ""
    for flag in ("--log-format=console", "--logger=capnslog"):
        try:
            with LocalCluster(3, binary=place.binary.path, extra_args=[flag]) as cluster:
                figures = _console(place, cluster)
            return "ok", f"{missing}{flag}: {figures}"
        except ClusterError as exc:
            log = str(exc)
            hold(re.search(r"flag provided but not defined|is removed in", log), f"{flag}: {log}")
            missing += f"no {flag}: this etcd says {_words(log)!r}; "
    return "not-applicable", missing.removesuffix("; ")


def _words(log: str) -> str:
    found = re.search(r"flag provided but not defined: \S+|\S+ is removed in \S+", log)
    return found[0].rstrip(".;") if found else log[:100]


def _console(place: Place, cluster: LocalCluster) -> str:
    killed = replace_leader(cluster)
    leader = agreed_leader([status for status in cluster.statuses() if status is not None])
    assert leader is not None
    logs = [str(cluster.log(member.name)) for member in cluster.members]
    hold(not any(Path(log).read_text().startswith("{") for log in logs), "the logs are JSON")
    drawn, who = (
        place.document("viz", "--type", kind, "--observed", "--logs", *logs, "--format", "json")
        for kind in ("leader-election", "timeline")
    )
    return _drawn(drawn, who, killed.name, leader.name, {member.name for member in cluster.members})


SCENARIOS = tuple(sorted(path.stem for path in (ROOT / "locustfiles").glob("*.py") if not path.stem.startswith("_")))

_ALL = "every test, those of `--all` too, and none is skipped"

CELLS: tuple[Cell, ...] = (
    Cell("embedded", "embedded cluster", "`bench --backend embedded` starts three members, loads them, and leaves "
         "nothing", embedded, alone=True),
    Cell("election", "election from JSON logs", "`cluster up --backend local`, `kill leader`, `heal`: `viz --observed` "
         "draws the election and the timeline as they were; `down` leaves nothing", election, alone=True),
    Cell("console", "election from console logs", "the same from logs with `--log-format=console`, which people read",
         console_election, alone=True),
    Cell("status", "`viz --type cluster-status`", "roles, terms, indexes, sizes and versions are those that members "
         "tell", cluster_status),
    Cell("web", "web UI's cluster page", "it shows the members live, and its button hands leadership over", web_page),
    Cell("columns", "`members.csv`, `metrics.csv`", "each column of docs/formats.md that the release has is filled",
         columns),
    *(Cell(f"bench-{name}", f"`bench --scenario {name}`", "all operations succeed over gRPC, and over the gateway "
           "where the scenario allows it", partial(scenario, name=name)) for name in SCENARIOS),
    Cell("tls", "`bench` over TLS", "over both transports; without the CA it is refused", over_tls),
    Cell("auth", "`bench` with auth on", "as a user with a role, over both transports; a wrong password is refused",
         with_auth),
    Cell("conformance-grpc", "`cluster test --transport grpc`", _ALL, partial(
        conformance, transport="grpc")),
    Cell("conformance-gateway", "`cluster test --transport gateway`", _ALL, partial(
        conformance, transport="gateway")),
    Cell("docker", "Docker cluster", "an image of this release: `up --nodes 3`, `cluster test`, `bench`, `kill "
         "leader`, `heal`, `down`; nothing left", docker, alone=True),
    Cell("chaos", "two minutes of `chaos`", "load and faults of nine kinds; every guarantee is kept", chaos,
         alone=True),
)  # fmt: skip


def named(name: str) -> Cell:
    """Return the cell of a name. Raises KeyError."""
    return {cell.name: cell for cell in CELLS}[name]
