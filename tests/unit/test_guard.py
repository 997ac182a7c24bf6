"""The guard of somebody's cluster: what it permits, refuses and says beforehand."""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from loadgen.load.settings import SettingsError
from loadgen.run import TargetOptions
from loadgen.run import guard as guarding
from loadgen.run.guard import DEFAULT_QUOTA, Fill, Guard, QuotaWatch, _bounded, add_arguments

THEIRS = TargetOptions.at("10.0.0.1:2379")


def guard(*words: str) -> Guard:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return Guard.from_arguments(parser.parse_args(words))


def test_a_cluster_that_was_named_needs_the_flag() -> None:
    with pytest.raises(SettingsError) as refused:
        guard().permit(THEIRS, "perf --load l", 614_400_000)
    assert str(refused.value) == (
        "perf --load l writes up to 614.4 MB to 10.0.0.1:2379, and ends at 80% of the database's quota; it slows the "
        "cluster's other clients down: give --destructive if it may"
    )
    assert (refused.value.exit_code, refused.value.option) == (2, "--destructive")
    said = guard("--destructive").permit(THEIRS, "capacity", None)
    assert said == (
        "capacity writes as much as the cluster takes to 10.0.0.1:2379, and ends at 80% of the database's quota"
    )


def test_on_a_cluster_of_our_own_nothing_is_asked() -> None:
    assert "a cluster that is started for it" in guard().permit(TargetOptions(), "capacity", 1)
    up = TargetOptions("local", ("http://127.0.0.1:2379",), 3)
    assert "to http://127.0.0.1:2379" in guard().permit(up, "capacity", 1)


def test_a_rate_above_the_bound_is_refused() -> None:
    guard().check_rate(1e6, "perf --load xl")
    guard("--max-rate", "8000").check_rate(8000, "perf --load l")
    with pytest.raises(SettingsError, match=r"perf --load xl is a load of 15,000 .*, and --max-rate permits 8,000"):
        guard("--max-rate", "8000").check_rate(15_000, "perf --load xl")
    for text in ("0", "fast", "-1"):
        with pytest.raises(SettingsError, match="--max-rate"):
            guard(f"--max-rate={text}")


@pytest.mark.parametrize(
    ("said", "quota"), [(0, DEFAULT_QUOTA), (64 << 20, 64 << 20), (-1.0, None), ((1 << 64) - 1, None)]
)
def test_quotas_as_etcd_reports_them(said: float, quota: int | None) -> None:
    assert _bounded(said) == quota
    assert Fill("a:1", 32 << 20, 64 << 20).share == 0.5
    assert Fill("a:1", 32 << 20, None).share == 0.0


@pytest.mark.parametrize("how", ["goes on", "over", "is_stopping"])
def test_a_full_database_ends_no_load_that_ends_by_itself(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """What was asked before the end, and answered after it, is no reason to doubt the result."""
    monkeypatch.setattr(guarding, "_fills", lambda _: ([Fill("a:1", 60 << 20, 64 << 20)], ""))
    asked: list[str] = []
    run: Any = SimpleNamespace(
        elapsed_s=2.0, over=False, is_stopping=False, doubt=asked.append, ask_stop=lambda: asked.append("stop")
    )
    said: list[str] = []
    watch = QuotaWatch(said.append)
    watch.tick(run)
    gevent.sleep(0)
    setattr(run, how, True)
    watch.tick(run)
    assert (asked[1:], len(said), bool(watch.ended)) == ((["stop"], 1, True) if how == "goes on" else ([], 0, False))
