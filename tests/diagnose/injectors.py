"""How each cause is injected: its cluster and load, and what is done to them for the length of a block."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from cluster.base.errors import ClusterError
from cluster.local.strike_rules import hold
from tests.diagnose import machine, scene
from tests.diagnose.links import Late, shaped_relay
from tests.diagnose.scene import SCENARIOS, Scene, Setup

# Filled in for the long ranges, and for the defragmentation: 20,000 keys, and 200 MiB. What is missing to the quota is
# more than a load adds.
_RANGE_KEYS, _RANGE_BYTES = 20_000, 100
_DEFRAGMENTED = (12_800, 16_384)
_QUOTA_MIB, _PERCENT = 96, 94
_REVISIONS = 300_000
_SPINNING = 8
# Few bytes each, so that they cost time and no memory.
_COUNTED_KEYS, _COUNTED_BYTES = 300_000, 8
_STREAMED, _LARGE_DATABASE = (12_800, 16_384), (19_200, 16_384)
_SORTED_KEYS = 5_000
_AS_FAST_AS_IT_GOES = ("--scenario", "put")

Inject = Callable[[Scene], AbstractContextManager[tuple[str, ...]]]
OnMember = Callable[[Scene, str], AbstractContextManager[object]]


@dataclasses.dataclass(frozen=True, slots=True)
class Injector:
    """How a cause is injected.

    Attributes:
        setup: the cluster and the load.
        inject: what is done in a block, which gets the names of the members it is done to.
        needs: what says why this machine cannot; beside what the setup needs.
    """

    setup: Setup
    inject: Inject
    needs: Callable[[], str] = str


@contextlib.contextmanager
def _nothing(_: Scene) -> Iterator[tuple[str, ...]]:
    yield ()


@contextlib.contextmanager
def _again(do: Callable[[], None], every_s: float) -> Iterator[None]:
    """Do something at once and then every so many seconds, in a thread. What it raises is raised after the block."""
    ends, failed = threading.Event(), list[BaseException]()

    def loop() -> None:
        try:
            while True:
                do()
                if ends.wait(every_s):
                    return
        except BaseException as exc:
            failed.append(exc)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
    if failed:
        raise failed[0]


def _whom(made: Scene, of: str) -> tuple[str, ...]:
    """Return the names of the members that a fault is done to, as it begins."""
    if of == "all":
        return made.names
    if of == "leader":
        return (made.leader(),)
    followers = made.followers()
    return {
        "followers": followers, "two": followers[:2], "leader and follower": (made.leader(), *followers[:1]),
    }.get(of, followers[:1])  # fmt: skip


def _each(of: str, do: OnMember) -> Inject:
    """Return what does something to some members."""

    @contextlib.contextmanager
    def inject(made: Scene) -> Iterator[tuple[str, ...]]:
        with contextlib.ExitStack() as stack:
            names = _whom(made, of)
            for name in names:
                stack.enter_context(do(made, name))
            yield names

    return inject


# Disks


def _struck(call: str, file: str, hold_s: float | None = None) -> OnMember:
    """Return what holds each sync of some files, until the end of the block where no time is given."""

    @contextlib.contextmanager
    def strike(made: Scene, name: str) -> Iterator[None]:
        rule = hold(call, file) if hold_s is None else hold(call, file, hold_s)
        number = made.local.strike(name, rule)
        try:
            yield
        finally:
            made.local.clear_strikes(name, number)

    return strike


def _now_and_then(file: str, hold_s: float, every_s: float) -> OnMember:
    """Return what every so many seconds holds syncs of some files for a time, as a disk does that is stuck for it."""

    @contextlib.contextmanager
    def strike(made: Scene, name: str) -> Iterator[None]:
        with _again(lambda: _strike_for_a_time(made, name, file, hold_s), every_s):
            yield
        made.local.clear_strikes(name)

    return strike


def _strike_for_a_time(made: Scene, name: str, file: str, hold_s: float) -> None:
    # Those that are used up are dropped, so that they do not become many.
    made.local.clear_strikes(name)
    made.local.strike(name, hold("sync", file, hold_s, for_s=hold_s))


def _slow(by_s: float) -> OnMember:
    return _struck("sync", "*", by_s)


def _by_chance(share: float, least_s: float, most_s: float) -> OnMember:
    """Return what holds each sync with a probability, for a time between two at random."""

    @contextlib.contextmanager
    def strike(made: Scene, name: str) -> Iterator[None]:
        def one() -> None:
            nth = 1
            while random.random() >= share:
                nth += 1
            hold_s = random.uniform(least_s, most_s)
            number = made.local.strike(name, hold("sync", "*", hold_s, nth=nth, times=1))
            with contextlib.suppress(ClusterError):  # without a load nothing is synced
                made.local.wait_struck(name, number, timeout_s=1.0)
                time.sleep(hold_s)
            made.local.clear_strikes(name, number)

        with _again(one, 0.0):
            yield
        made.local.clear_strikes(name)

    return strike


# Links


def _links(delay_s: float = 0.0, jitter_s: float = 0.0, drop: float = 0.0) -> OnMember:
    """Return what delays or loses what goes over a member's peer links."""

    @contextlib.contextmanager
    def disturb(made: Scene, name: str) -> Iterator[None]:
        made.local.delay(name, delay_s, jitter_s)
        made.local.drop(name, drop)
        try:
            yield
        finally:
            made.local.delay(name, 0)
            made.local.drop(name, 0)

    return disturb


@contextlib.contextmanager
def _late(made: Scene, late: Late) -> Iterator[None]:
    relay = shaped_relay(made.local)
    before, relay.late = relay.late, late
    try:
        yield
    finally:
        relay.late = before


def _sends_late(made: Scene, name: str) -> AbstractContextManager[None]:
    return _late(made, lambda sender, _: 0.06 if sender == name else 0.0)


@contextlib.contextmanager
def _late_between_followers(made: Scene) -> Iterator[tuple[str, ...]]:
    ends = {*made.followers()}
    with _late(made, lambda sender, receiver: 0.08 if {sender, receiver} == ends else 0.0):
        yield tuple(sorted(ends))


@contextlib.contextmanager
def _late_to_a_follower(made: Scene) -> Iterator[tuple[str, ...]]:
    leader, follower = made.leader(), made.followers()[0]
    with _late(made, lambda sender, receiver: 0.08 if {sender, receiver} == {leader, follower} else 0.0):
        yield (follower,)


def _sends_later(made: Scene, name: str) -> AbstractContextManager[None]:
    return _late(made, lambda sender, _: 0.08 if sender == name else 0.0)


@contextlib.contextmanager
def _late_or_not(made: Scene) -> Iterator[tuple[str, ...]]:
    with _late(made, lambda _sender, _receiver: random.choice((0.0, 0.1))):
        yield made.names


@contextlib.contextmanager
def _cut_off(made: Scene, name: str) -> Iterator[None]:
    made.local.isolate(name)
    try:
        yield
    finally:
        made.local.join(name)


def _narrow(bits_s: float) -> OnMember:
    """Return what lets each link of a member carry so much: of a link between two such ones, the half."""

    @contextlib.contextmanager
    def narrow(made: Scene, name: str) -> Iterator[None]:
        relay = shaped_relay(made.local)
        relay.carries[name] = bits_s / 8
        try:
            yield
        finally:
            del relay.carries[name]

    return narrow


def _flapping(cut_s: float, joined_s: float) -> OnMember:
    @contextlib.contextmanager
    def flapping(made: Scene, name: str) -> Iterator[None]:
        def flap() -> None:
            made.local.isolate(name)
            ends.wait(cut_s)
            made.local.join(name)

        ends = threading.Event()
        try:
            with _again(flap, joined_s):
                try:
                    yield
                finally:
                    ends.set()
        finally:
            made.local.join(name)

    return flapping


@contextlib.contextmanager
def _far(made: Scene) -> Iterator[tuple[str, ...]]:
    """The packets are late from the start on."""
    assert made.setup.far is not None
    yield made.names[: made.setup.far[0]]


# Processors


def _quota(cores: float) -> OnMember:
    def limit(made: Scene, name: str) -> AbstractContextManager[object]:
        return machine.quota(made.pid(name), cores)

    return limit


@contextlib.contextmanager
def _busy_neighbours(made: Scene) -> Iterator[tuple[str, ...]]:
    """All members have one processor from the start on."""
    with machine.spinning(_SPINNING, made.member_cpu):
        yield made.names


def _busy_neighbours_of(of: str) -> Inject:
    @contextlib.contextmanager
    def inject(made: Scene) -> Iterator[tuple[str, ...]]:
        (it,), all_of_it = _whom(made, of), frozenset(os.sched_getaffinity(0))
        for name in made.names:
            machine.pin(made.pid(name), frozenset([made.member_cpu if name == it else made.client_cpu]))
        try:
            with machine.spinning(_SPINNING, made.member_cpu):
                yield (it,)
        finally:
            for name in made.names:
                machine.pin(made.pid(name), all_of_it)

    return inject


def _two_processors() -> str:
    return "" if len(os.sched_getaffinity(0)) >= 2 else "it needs two processors"


@contextlib.contextmanager
def _frozen(made: Scene) -> Iterator[tuple[str, ...]]:
    with machine.freezing(0.15, 0.35) as freeze:
        freeze([made.pid(name) for name in made.names])
        yield made.names


def _frozen_one(stopped_s: float, running_s: float) -> OnMember:
    @contextlib.contextmanager
    def freeze_it(made: Scene, name: str) -> Iterator[None]:
        with machine.freezing(stopped_s, running_s) as freeze:
            freeze([made.pid(name)])
            yield

    return freeze_it


def _docker_limit(of: str) -> Inject:
    @contextlib.contextmanager
    def limit(made: Scene, name: str) -> Iterator[None]:
        container: Any = made.cluster._container(name)  # type: ignore[union-attr]
        container.update(cpu_period=100_000, cpu_quota=5_000)  # `--cpus 0.05`, until the container goes
        yield

    return _each(of, limit)


# Clients


@contextlib.contextmanager
def _without_a_processor(made: Scene) -> Iterator[tuple[str, ...]]:
    """Clients have one processor from the start on."""
    # A kernel lets those that mostly sleep go first where they weigh the same.
    with machine.spinning(6, made.client_cpu, nice=-10):
        yield ()


def _to_clients(make: Callable[[], AbstractContextManager[Callable[[list[int]], None]]]) -> Inject:
    """Return what is done to the processes of the generator and of the prober."""

    @contextlib.contextmanager
    def inject(made: Scene) -> Iterator[tuple[str, ...]]:
        with make() as do:
            made.on_client = do
            made.tell_clients()
            try:
                yield ()
            finally:
                made.on_client = None

    return inject


@contextlib.contextmanager
def _frozen_clients(made: Scene) -> Iterator[tuple[str, ...]]:
    with _to_clients(lambda: machine.freezing(0.2, 0.4))(made):
        yield ()


def _client_quota(cores: float) -> Inject:
    @contextlib.contextmanager
    def inject(made: Scene) -> Iterator[tuple[str, ...]]:
        # The load's master sends nothing, and has a report to write in the end.
        master = {made.bench.process.pid} if made.bench is not None else set[int]()
        with (
            machine.quotas(cores) as limit,
            _to_clients(lambda: contextlib.nullcontext(lambda pids: limit([*{*pids} - master])))(made),
        ):
            yield ()

    return inject


# Leaders that die


def _leader_in_the_end(made: Scene) -> str:
    """Return the leader once there is one; nothing where there is none within seconds."""
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        with contextlib.suppress(RuntimeError):  # nobody leads, for a moment
            return made.leader()
    return ""


@contextlib.contextmanager
def _dying_leaders(made: Scene) -> Iterator[tuple[str, ...]]:
    def kill() -> None:
        if leader := _leader_in_the_end(made):
            made.local.kill(leader)
            made.local.start(leader)

    with _again(kill, 6.0):
        yield ()


# Loads, and what is done to the store


def _beside(*scripts: tuple[str, ...]) -> Inject:
    @contextlib.contextmanager
    def inject(made: Scene) -> Iterator[tuple[str, ...]]:
        with contextlib.ExitStack() as stack:
            for words in scripts:
                stack.enter_context(made.beside(*words))
            yield ()

    return inject


def _filled(*words: object) -> Callable[[Scene], None]:
    def prepare(made: Scene) -> None:
        made.do(*map(str, words))

    return prepare


def _restarted(made: Scene) -> None:
    name = made.followers()[0]
    made.local.kill(name)
    made.local.start(name)
    made.local.wait_healthy()


def _own(scenario: str, *words: str) -> tuple[str, ...]:
    return ("--scenario", str(SCENARIOS / f"{scenario}.py"), *words)


INJECTORS: dict[str, Injector] = {
    "A01": Injector(Setup(load=None), _nothing),
    "A02": Injector(Setup(memory=True), _nothing),
    "A03": Injector(Setup(nodes=5), _nothing),
    "A04": Injector(Setup(strikes=True), _each("all", _slow(0.004))),
    "A05": Injector(Setup(prepare=_restarted), _nothing),
    "A06": Injector(Setup(strikes=True), _each("leader", _slow(0.06))),
    "A07": Injector(Setup(strikes=True), _each("all", _slow(0.04))),
    "A08": Injector(Setup(strikes=True), _each("follower", _struck("sync", "*"))),
    "A09": Injector(Setup(strikes=True), _each("leader", _now_and_then("*", 0.4, 2.0))),
    "A10": Injector(Setup(), _each("leader", _quota(0.05)), machine.why_no_quota),
    "A11": Injector(Setup(), _each("all", _quota(0.08)), machine.why_no_quota),
    "A12": Injector(Setup(apart=True), _busy_neighbours),
    # What is done to the links of both ends adds up.
    "A13": Injector(Setup(), _each("all", _links(delay_s=0.02))),
    "A14": Injector(Setup(), _each("follower", _links(delay_s=0.06))),
    "A15": Injector(Setup(), _each("leader", _links(drop=0.2))),
    "A16": Injector(Setup(far=(3, 0.04)), _far),
    "A17": Injector(Setup(load=(*_AS_FAST_AS_IT_GOES, "--value-size", "512KiB", "--concurrency", "16", "--key-space",
                                "20"), quota_mib=8192), _nothing),
    "A18": Injector(Setup(load=_own("huge_ranges", "--concurrency", "32"),
                          prepare=_filled("fill", _RANGE_KEYS, _RANGE_BYTES)), _nothing),
    "A19": Injector(Setup(load=(*_AS_FAST_AS_IT_GOES, "--concurrency", "256")), _nothing),
    "A20": Injector(Setup(prepare=_filled("history", 2 * _REVISIONS)), _beside(("compaction", "1", "2"))),
    "A21": Injector(Setup(apart=True), _without_a_processor),
    "A22": Injector(Setup(), _beside(("move", "120"))),
    "A23": Injector(Setup(quota_mib=_QUOTA_MIB, prepare=_filled("fill_to", _QUOTA_MIB, _PERCENT)), _nothing),

    "B01": Injector(Setup(load=("--rate", "400")), _nothing),
    "B02": Injector(Setup(nodes=1), _nothing),
    "B03": Injector(Setup(tls=True), _nothing),
    "B04": Injector(Setup(), _each("all", _links(delay_s=0.001))),
    "B05": Injector(Setup(load=("--scenario", "get", "--rate", "150"), quota_mib=_QUOTA_MIB,
                          prepare=_filled("fill_to", _QUOTA_MIB, _PERCENT)), _nothing),
    "B06": Injector(Setup(strikes=True), _each("followers", _slow(0.08))),
    "B07": Injector(Setup(strikes=True), _each("follower", _slow(0.15))),
    "B08": Injector(Setup(strikes=True), _each("all", _struck("sync", "db", 0.25))),
    "B09": Injector(Setup(strikes=True), _each("all", _now_and_then(".wal", 0.3, 1.5))),
    "B10": Injector(Setup(), _each("follower", _quota(0.05)), machine.why_no_quota),
    "B11": Injector(Setup(), _frozen),
    "B12": Injector(Setup(), _busy_neighbours_of("leader"), _two_processors),
    "B13": Injector(Setup(docker=True), _docker_limit("all")),
    "B14": Injector(Setup(docker=True), _docker_limit("leader")),
    # 5 to 80 ms between two members.
    "B15": Injector(Setup(), _each("all", _links(delay_s=0.02125, jitter_s=0.01875))),
    "B16": Injector(Setup(), _each("all", _links(drop=0.05))),
    "B17": Injector(Setup(), _each("leader", _links(delay_s=0.05))),
    "B18": Injector(Setup(shaped=True, load=(*_AS_FAST_AS_IT_GOES, "--rate", "6", "--value-size", "16KiB")),
                    _each("leader", _narrow(2e6))),
    "B19": Injector(Setup(shaped=True), _each("leader", _sends_late)),
    "B20": Injector(Setup(far=(2, 0.07)), _far),
    "B21": Injector(Setup(), _beside(("watchers", "2000"), ("hot", "200"))),
    "B22": Injector(Setup(prepare=_filled("history", _REVISIONS)), _beside(("lagging", "12"))),
    "B23": Injector(Setup(load=_own("large_txns", "--concurrency", "128"), quota_mib=8192), _nothing),
    "B24": Injector(Setup(prepare=_filled("fill", *_DEFRAGMENTED)), _beside(("defragment", "3000"))),
    "B25": Injector(Setup(load=_own("lease_storm", "--concurrency", "128")), _nothing),
    "B26": Injector(Setup(), _frozen_clients),
    "B27": Injector(Setup(load=_own("own_work", "--engine", "python", "--rate", "1500", "--max-in-flight", "200")),
                    _nothing),
    "B28": Injector(Setup(), _each("follower", _flapping(1.5, 2.5))),

    "C01": Injector(Setup(load=("--scenario", "get", "--read-consistency", "serializable", "--rate", "1000")),
                    _nothing),
    "C02": Injector(Setup(), _beside(("watchers", "100"), ("hot", "20"))),
    "C03": Injector(Setup(), _beside(("keep_alive", "200"))),
    "C04": Injector(Setup(), _beside(("snapshots", "1", "5000"))),
    "C05": Injector(Setup(), _beside(("large_puts", "102400", "1000"))),
    "C06": Injector(Setup(nodes=2), _nothing),
    "C07": Injector(Setup(shaped=True), _late_between_followers),
    "C08": Injector(Setup(nodes=5, strikes=True), _each("two", _slow(0.08))),
    "C09": Injector(Setup(strikes=True), _each("leader", _by_chance(0.3, 0.1, 0.1))),
    "C10": Injector(Setup(strikes=True, load=(*_AS_FAST_AS_IT_GOES, "--concurrency", "64")), _each("all", _slow(0.03))),
    "C11": Injector(Setup(strikes=True, writes=True), _each("leader", _struck("write", ".wal", 0.04))),
    "C12": Injector(Setup(), _each("followers", _quota(0.05)), machine.why_no_quota),
    "C13": Injector(Setup(), _each("follower", _frozen_one(0.3, 0.7))),
    "C14": Injector(Setup(), _each("leader", _frozen_one(0.1, 0.2))),
    "C15": Injector(Setup(shaped=True), _late_or_not),
    "C16": Injector(Setup(nodes=5), _each("leader", _links(delay_s=0.05))),
    "C17": Injector(Setup(), _each("follower", _cut_off)),
    "C18": Injector(Setup(), _each("follower", _links(drop=0.2))),
    "C19": Injector(Setup(far=(3, 0.06), far_jitter_s=0.03), _far),
    "C20": Injector(Setup(), _beside(*3 * [("connections", "67")])),
    "C21": Injector(Setup(prepare=_filled("fill", *_STREAMED)), _beside(("snapshots", "4", "0"))),
    "C22": Injector(Setup(load=_own("counts", "--concurrency", "32"),
                          prepare=_filled("fill", _COUNTED_KEYS, _COUNTED_BYTES)), _nothing),
    "C23": Injector(Setup(), _beside(("deletes", "10000"))),
    "C24": Injector(Setup(tls=True), _beside(("logins", "20"))),
    "C25": Injector(Setup(), _client_quota(0.05), machine.why_no_quota),
    "C26": Injector(Setup(), _to_clients(lambda: machine.freezing(0.03, 0.03))),
    "C27": Injector(Setup(), _dying_leaders),

    "D01": Injector(Setup(load=("--scenario", "range", "--rate", "100")), _nothing),
    "D02": Injector(Setup(nodes=4), _nothing),
    "D03": Injector(Setup(prepare=_filled("fill", *_LARGE_DATABASE)), _nothing),
    "D04": Injector(Setup(), _beside(("compact_often", "5000"))),
    "D05": Injector(Setup(prepare=_filled("move_once")), _nothing),
    "D06": Injector(Setup(load=("--rate", "150", "--value-size", "4KiB")), _nothing),
    "D07": Injector(Setup(strikes=True), _each("leader and follower", _slow(0.07))),
    "D08": Injector(Setup(strikes=True), _each("all", _by_chance(1.0, 0.0, 0.12))),
    "D09": Injector(Setup(strikes=True), _each("follower", _now_and_then("*", 1.0, 4.0))),
    "D10": Injector(Setup(strikes=True), _each("leader", _struck("sync", "db", 0.3))),
    "D11": Injector(Setup(strikes=True, load=(*_AS_FAST_AS_IT_GOES, "--rate", "100", "--value-size", "16KiB")),
                    _each("all", _slow(0.06))),
    "D12": Injector(Setup(), _busy_neighbours_of("follower"), _two_processors),
    "D13": Injector(Setup(nodes=5), _each("leader", _quota(0.05)), machine.why_no_quota),
    "D14": Injector(Setup(docker=True), _docker_limit("follower")),
    "D15": Injector(Setup(shaped=True), _each("follower", _sends_later)),
    "D16": Injector(Setup(), _each("leader", _flapping(1.0, 4.0))),
    "D17": Injector(Setup(shaped=True, load=(*_AS_FAST_AS_IT_GOES, "--rate", "6", "--value-size", "8KiB")),
                    _each("all", _narrow(2e6))),
    "D18": Injector(Setup(shaped=True), _late_to_a_follower),
    "D19": Injector(Setup(), _each("all", _links(delay_s=0.01, jitter_s=0.01, drop=0.025))),
    "D20": Injector(Setup(prepare=_filled("fill", *_STREAMED)), _beside(("hashes", "3"))),
    "D21": Injector(Setup(load=_own("sorted_ranges", "--concurrency", "32"),
                          prepare=_filled("fill", _SORTED_KEYS, _RANGE_BYTES)), _nothing),
    "D22": Injector(Setup(), _beside(("expiring", "10000"))),
    "D23": Injector(Setup(load=_own("blocking", "--engine", "python", "--rate", "150")), _nothing),
}  # fmt: skip
"""How each of `causes.CAUSES` is injected, by its name."""


def sources() -> dict[str, str]:
    """Return what stands for how each cause is injected: a hash of its entry above, and of the scripts that it runs."""
    here = Path(__file__)
    tree = ast.parse(here.read_text(encoding="utf-8"))
    named = (node for node in tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "INJECTORS")
    entries = next(named).value
    assert isinstance(entries, ast.Dict)
    scripts = {
        f"{_beside.__name__}(": [here.with_name("load_scripts.py")],
        f"{_filled.__name__}(": [here.with_name("load_scripts.py")],
        f"{_own.__name__}(": sorted(SCENARIOS.glob("*.py")), "far=": [here.with_name("far.py")],
        "shaped=": [here.with_name("links.py")],
    }  # fmt: skip

    def digest(entry: str) -> str:
        run = [path.read_text(encoding="utf-8") for name, paths in scripts.items() if name in entry for path in paths]
        return hashlib.sha256("\0".join([entry, *run]).encode()).hexdigest()[:8]

    return {
        str(ast.literal_eval(key)): digest(ast.unparse(value))
        for key, value in zip(entries.keys, entries.values, strict=True) if key is not None
    }  # fmt: skip


def why_not(name: str) -> str:
    """Return why a cause cannot be injected on this machine; empty where it can."""
    injector = INJECTORS[name]
    return scene.why_not(injector.setup) or injector.needs()
