"""The workload: repeatable, in proportion, and with values that nothing else writes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from loadgen.load.settings import Settings
from loadgen.load.workload import Keys, Values, Workload, filler, owed, share

SETTINGS = Settings(prefix=b"test/", mix={"put": 1.0, "get": 2.0, "txn": 1.0})


def draw(settings: Settings, process: int, count: int) -> list[tuple[str, bytes, bytes | None]]:
    workload = Workload(settings, process)
    return [workload.next() for _ in range(count)]


def test_the_same_seed_and_process_give_the_same_sequence() -> None:
    assert draw(SETTINGS, 7, 500) == draw(SETTINGS, 7, 500)
    assert draw(SETTINGS, 7, 500) != draw(SETTINGS, 8, 500)


def test_types_come_in_the_proportions_of_the_mix() -> None:
    counts = Counter(f for f, _, _ in draw(SETTINGS, 1, 20_000))
    assert abs(counts["get"] - 10_000) < 400
    assert abs(counts["put"] - 5_000) < 400


def test_a_type_without_weight_is_never_drawn() -> None:
    settings = Settings(prefix=b"test/", mix={"get": 1.0})
    assert {f for f, _, _ in draw(settings, 1, 1000)} == {"get"}


@given(key_size=st.integers(12, 80), key_space=st.integers(1, 2000))
def test_keys_have_the_size_and_the_prefix_and_differ(key_size: int, key_space: int) -> None:
    keys = list(Keys(Settings(prefix=b"a1b2/", key_size=key_size, key_space=key_space)))
    assert len(set(keys)) == key_space
    assert all(len(key) == key_size and key.startswith(b"a1b2/") for key in keys)


@given(
    size=st.integers(16, 300), processes=st.sets(st.integers(0, 2**32 - 1), min_size=2, max_size=4), seed=st.integers()
)
def test_values_are_unique_from_16_bytes_up_and_checkable(size: int, processes: set[int], seed: int) -> None:
    sources = [Values(seed, process, size) for process in processes]
    values = [source.next() for source in sources for _ in range(4)]
    assert len(set(values)) == 4 * len(processes)
    assert {len(value) for value in values} == {size}
    assert {value[16:] for value in values} == {filler(seed, size - 16)}


@given(size=st.integers(0, 15))
def test_small_values_have_their_size(size: int) -> None:
    assert len(Values(1, 3, size).next()) == size


@given(operations=st.integers(1, 10_000), workers=st.integers(1, 60))
def test_shares_add_up_and_do_not_overlap(operations: int, workers: int) -> None:
    shares = [share(operations, workers, rank) for rank in range(workers)]
    place = 0
    for quota, offset in shares:
        assert offset == place
        place += quota or 0
    assert place == operations


@given(operations=st.integers(3, 50), workers=st.integers(1, 8))
def test_every_type_is_owed_once_in_any_run_that_has_room(operations: int, workers: int) -> None:
    forced = Counter[str]()
    for rank in range(workers):
        quota, offset = share(operations, workers, rank)
        forced.update(f for n in range(quota or 0) if (f := owed(SETTINGS, offset, n)))
    assert forced == {"put": 1, "get": 1, "txn": 1}
