"""The compiled engine held to the one in Python: requests, answers, draws, counts and whole conversations."""

from __future__ import annotations

import ctypes
import gc
import itertools
import random
import sys
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.client import encode
from loadgen.engine import requests
from loadgen.history.operation import Operation, Outcome
from loadgen.load.recorder import Recorder
from loadgen.load.settings import PREFIX_BYTES, UNIQUE_VALUE_BYTES, Settings
from loadgen.load.workload import Keys, Values, Workload, filler
from loadgen.stats import hdr
from loadgen.stats.precision import bucket_ns
from tests.support.examples import examples

core = pytest.importorskip("loadgen.engine.core", reason="the compiled core was not built")
conversation = pytest.importorskip("tests.support.conversation")
two_engines = pytest.importorskip("tests.support.two_engines")
walkers = pytest.importorskip("tests.support.walkers")

revisions = st.one_of(
    st.integers(0, (1 << 63) - 1),
    # Where a varint grows by a byte.
    st.builds(lambda bits, step: (1 << 7 * bits) + step, st.integers(0, 8), st.integers(-1, 1)),
)
numbers = st.integers(0, (1 << 32) - 1)


# Whole conversations


@pytest.mark.parametrize("style", [conversation.PLAIN, conversation.ODD, conversation.HOSTILE])
def test_conversations_mean_the_same_to_both(style: int) -> None:
    assert sum(conversation.play(seed, style) for seed in range(examples(100))) > 200


def test_a_long_conversation_means_the_same_to_both() -> None:
    assert sum(conversation.play(seed, conversation.PLAIN, 1_500) for seed in range(examples(10))) > 5_000


def test_users_that_go_on_together_draw_apart() -> None:
    """All that draw in one turn of the event loop make each other's requests late."""
    engine = pytest.importorskip("loadgen.engine.engine")
    users, turns = 100, 2_000
    drawing = [0] * turns
    for row in range(users):
        moments = list(itertools.takewhile(lambda at: at < turns, itertools.accumulate(engine.draws(row))))
        assert moments[0] <= 8
        for at in moments[1:]:
            drawing[at] += 1
    assert max(drawing) <= 8
    assert sum(drawing) < users * (turns / 128 + 2)


def endless(users: int, clock: Any, folder: Path | None = None) -> Any:
    """Return a plain conversation of a closed loop with so many users, which ends when it is ended."""
    made = ((n, conversation.Conversation(n, conversation.PLAIN, clock)) for n in itertools.count())
    seed = next(n for n, each in made if each.users == users and each.endless)
    return conversation.Conversation(seed, conversation.PLAIN, clock, folder)


def test_the_core_does_what_is_usual() -> None:
    """Or the two would be compared in what Python does for both."""
    with two_engines.stopped_clock() as clock:
        held = endless(1, clock)
        done = held.play(500)
    assert held.compiled.by_the_core > 0.8 * done > 200


def test_histories_are_the_same_record_by_record(tmp_path: Path) -> None:
    """Most of them the core's own, and more than fill a block of the file."""
    with two_engines.stopped_clock() as clock:
        held = endless(20, clock, tmp_path)
        done = held.play(500)
    assert held.recorded == done > 1_000
    assert held.compiled.by_the_core > 0.8 * done
    assert (tmp_path / "1.hist").stat().st_size > 300_000
    assert {len(operation) for operation in two_engines.operations_in(tmp_path / "1.hist")} == {11}


def test_ids_of_streams_that_have_ended_take_no_room() -> None:
    with two_engines.stopped_clock() as clock:
        held = endless(20, clock)
        held.play(3_000)
        lanes: Any = held.compiled.transports
    assert max(lane.conn.next_id for lane in lanes) > 20_000
    assert all(lane.conn.mask < 2_048 for lane in lanes)


def test_conversations_leave_nothing_behind() -> None:
    """Reference counts, and what the core allocates itself: growth is counted, once all caches are full."""
    allocated = []
    for _ in range(4):
        for seed in range(40):
            conversation.play(seed)
        gc.collect()
        allocated.append((sys.getallocatedblocks(), bytes_allocated()))
    blocks, size = (last - before for last, before in zip(allocated[-1], allocated[-2], strict=True))
    assert blocks < 400, allocated
    assert size < 200_000, allocated


def bytes_allocated() -> int:
    """Return how many bytes malloc has given out; 0 where the C library does not say."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return 0
    library.mallinfo2.restype = Information
    return int(library.mallinfo2().uordblks)


class Information(ctypes.Structure):
    """What glibc's `mallinfo2` returns."""

    _fields_ = (*((f"field{n}", ctypes.c_size_t) for n in range(7)), ("uordblks", ctypes.c_size_t),
                ("fordblks", ctypes.c_size_t), ("keepcost", ctypes.c_size_t))  # fmt: skip


# Requests


def check_requests(prefix: bytes, digits: int, size: int, serializable: bool, key: int, process: int, count: int,
                   revision: int) -> None:  # fmt: skip
    rest = filler(7, size - UNIQUE_VALUE_BYTES)
    made = core.Requests(
        prefix, digits, requests.templates(requests.TYPES, prefix, digits, rest, size, serializable=serializable)
    )
    name, value = prefix + b"%0*d" % (digits, key % 10**digits), Values(7, process, size)[count]
    key %= 10**digits
    assert made.message(requests.GET, key, process, count, 0) == encode.get(name, serializable)
    assert made.message(requests.PUT, key, process, count, 0) == encode.put(name, value)
    assert made.message(requests.TXN, key, process, count, revision) == encode.cas(name, value, revision)
    assert made.message(requests.TXN, key, process, count, -1 - revision) is None


@given(
    st.integers(7, 400), st.one_of(st.integers(0, 300), st.sampled_from([1_000, 16_384, 70_000])), st.booleans(),
    numbers, numbers, numbers, revisions,
)  # fmt: skip
def test_requests_are_those_that_python_writes(
    digits: int, size: int, serializable: bool, key: int, process: int, count: int, revision: int
) -> None:
    check_requests(b"a1b2/", digits, size, serializable, key, process, count, revision)


def test_requests_of_every_length_of_keys_and_small_values() -> None:
    """Bytes of a length must not be taken for the place of a key or a value."""
    rng = random.Random(1)
    for digits in range(7, 300):
        for size in (*range(UNIQUE_VALUE_BYTES + 2), rng.randrange(18, 400)):
            check_requests(
                b"a1b2/", digits, size, False, rng.getrandbits(32), rng.getrandbits(32), rng.getrandbits(32),
                rng.getrandbits(rng.choice((0, 7, 14, 40, 63))),
            )  # fmt: skip


# Answers


def test_etcds_answers_are_taken() -> None:
    rng = random.Random(2)
    for _ in range(examples(2_000)):
        f = rng.randrange(3)
        message = conversation.answer(rng, requests.TYPES[f], rng.choice((1, 300, 1 << 40)), plain=True)
        parsed = walkers.ANSWERS[f].FromString(message)
        negative = f != requests.PUT and b"\xff\xff\xff\xff\xff\xff\xff\xff\x01" in message
        assert walkers.check_answer(f, message) or negative, parsed


@given(st.integers(0, 2), st.randoms(use_true_random=False), st.integers(0, (1 << 63) - 1))
@settings(max_examples=examples(2_000))
def test_odd_and_spoiled_answers_are_left_or_read_as_protobuf_reads_them(
    f: int, rng: random.Random, revision: int
) -> None:
    message = conversation.answer(rng, requests.TYPES[f], revision, plain=False)
    walkers.check_answer(f, message)
    walkers.check_answer(f, conversation.spoiled(rng, message))
    walkers.check_answer((f + 1) % 3, message)
    for size in range(len(message)):
        walkers.check_answer(f, message[:size])


@given(st.integers(0, 2), st.binary(max_size=60))
@settings(max_examples=examples(2_000))
def test_any_bytes_are_left_or_read_as_protobuf_reads_them(f: int, message: bytes) -> None:
    walkers.check_answer(f, message)


@pytest.mark.parametrize("size", range(1, 12))
def test_overlong_lengths(size: int) -> None:
    """Protobuf takes five bytes for a length, and no more."""
    message = b"\x0a" + b"\x80" * (size - 1) + b"\x00"
    assert walkers.check_answer(requests.PUT, message) == (size <= 5)


# Draws


@given(
    st.lists(st.sampled_from(["get", "put", "txn"]), min_size=1, max_size=3, unique=True), st.integers(1, 5_000),
    st.integers(), st.integers(0, 1 << 32), st.lists(st.integers(1, 40), min_size=1, max_size=5),
)  # fmt: skip
def test_a_block_is_what_is_drawn_one_by_one(
    types: list[str], key_space: int, seed: int, process: int, sizes: list[int]
) -> None:
    load = Settings(prefix=b"test/", mix={f: n + 0.5 for n, f in enumerate(types)}, key_space=key_space, seed=seed)
    one, other, keys, count = Workload(load, process), Workload(load, process), Keys(load), 0
    for size in sizes:
        drawn, places = other.block(size)
        for f, key in zip(drawn, array("I", places), strict=True):
            value = None
            if types[f] != "get":
                value, count = other.value(count), count + 1
            assert one.next() == (types[f], keys[key], value)


# Counts


@given(st.one_of(st.integers(0, 5_000), st.integers(0, (1 << 47) - 1)))
def test_buckets_are_those_of_the_histograms(value: int) -> None:
    assert core.bucket(value, False) == hdr.bucket(value)
    assert bucket_ns(core.bucket(value, True)) == bucket_ns(value)


def test_the_ends_of_buckets() -> None:
    for bits in range(47):
        for step in range(-2, 3):
            value = max(0, (1 << bits) + step)
            assert core.bucket(value, False) == hdr.bucket(value)
            assert bucket_ns(core.bucket(value, True)) == bucket_ns(value)
    assert core.bucket((1 << 64) - 1, False) > 1 << 46  # the last one holds what is beyond


def recorder(planned_s: float | None, *, open_loop: bool) -> Recorder:
    environment: Any = SimpleNamespace(events=SimpleNamespace(request=SimpleNamespace(_handlers=[None])))
    made = Recorder(environment, open_loop=open_loop, planned_s=planned_s)
    made.clock_offset_ns = 1_000_000_000_007
    return made


@given(
    st.sampled_from([1.0, None, 600.0]), st.booleans(),
    st.lists(
        st.tuples(
            st.sampled_from(["get", "put", "txn"]),
            st.one_of(st.integers(0, 10**6), st.integers(0, 3 * 10**8), st.integers(0, 5 * 10**10)),
            st.integers(0, 10**9), st.integers(0, 10**9), st.booleans(),
        ), max_size=40,
    ),
)  # fmt: skip
def test_what_is_absorbed_is_what_would_have_been_recorded(
    planned_s: float | None, open_loop: bool, operations: list[tuple[str, int, int, int, bool]]
) -> None:
    one, other = recorder(planned_s, open_loop=open_loop), recorder(planned_s, open_loop=open_loop)
    pending: dict[str, list[tuple[Operation, bool]]] = {}
    now, low, high = 5_000_000_000, 0, 0

    def drain() -> None:
        for f, done in pending.items():
            other.absorb(f, drained(done))
        pending.clear()

    for f, step, latency, lag, committed in operations:
        now += step
        if not low <= now < high:
            drain()
            low, high = other.interval(now)
        call = now - latency
        due = call - lag if open_loop else call
        response = SimpleNamespace(succeeded=committed)
        operation = Operation(1, f, b"k", None, due, call, now, Outcome.OK, 1, None, response)
        one.record(operation)
        pending.setdefault(f, []).append((operation, committed))
        if open_loop:
            other.absorb_lags({core.bucket(lag, True): 1})
    drain()
    assert one.totals() == other.totals()
    assert (one.start_lags, one.last_call_ns) == (other.start_lags, other.last_call_ns)
    assert [rows(each) for each in one.take_series()] == [rows(each) for each in other.take_series()]


def drained(done: list[tuple[Operation, bool]]) -> Any:
    """Return what `Core.drain` does, of operations that were done in one interval."""
    operations = [operation for operation, _ in done]

    def histogram(values: list[int]) -> tuple[int, int, int, dict[int, int]]:
        counts: dict[int, int] = {}
        for value in values:
            hdr.merge(counts, {hdr.bucket(value): 1})
        return min(values), max(values), sum(values), counts

    first, last = operations[0], operations[-1]
    return (
        len(done), sum(committed and each.f == "txn" for each, committed in done), 0, 0,
        min(each.call_ns for each in operations), first.return_ns, last.return_ns,
        max(each.call_ns for each in operations), histogram([each.latency_ns for each in operations]),
        histogram([each.return_ns - each.call_ns for each in operations]),
    )  # fmt: skip


def rows(series: Any) -> Any:
    return {f: sorted(each) for f, each in series.items()}


def test_prefixes_have_the_length_that_revisions_rely_on() -> None:
    assert PREFIX_BYTES == 5
