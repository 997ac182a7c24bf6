"""/metrics: what is read, and percentiles of what lies between two scrapes."""

from __future__ import annotations

import math

import pytest

from cluster.observe.metrics import HISTOGRAMS, SCALARS, Histogram, parse, standing
from tests.support.metric_columns import COLUMNS, RELEASES, columns_of, metrics_text

BOUNDS = (0.001, 0.002, 0.004, math.inf)
TEXT = """\
# HELP etcd_disk_wal_fsync_duration_seconds The latency distributions of fsync called by WAL.
# TYPE etcd_disk_wal_fsync_duration_seconds histogram
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} 3
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.002"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 6
etcd_disk_wal_fsync_duration_seconds_sum 0.012
etcd_disk_wal_fsync_duration_seconds_count 6
etcd_mvcc_db_total_size_in_bytes 2.097152e+06
etcd_server_leader_changes_seen_total 2
etcd_server_leader_changes_seen_total_by_moon 7
etcd_server_proposals_pending 0
process_start_time_seconds 1.79557876427e+09
grpc_server_handled_total{grpc_code="OK",grpc_method="Range"} 4
"""


def test_reads_what_it_knows_and_passes_over_the_rest() -> None:
    found = parse(TEXT)
    assert found.values == {
        "db_size": 2097152.0, "leader_changes": 2.0, "proposals_pending": 0.0, "started_at": 1795578764.27,
    }  # fmt: skip
    assert found.histograms == {"wal_fsync": Histogram((0.001, 0.002, math.inf), (3, 5, 6))}


@pytest.mark.parametrize("release", RELEASES)
def test_each_release_fills_the_columns_that_it_has(release: str) -> None:
    found = parse(metrics_text(release))
    assert {*found.values, *found.histograms} == columns_of(release)
    assert standing(metrics_text(release)).version == release


def test_a_column_is_filled_by_some_release() -> None:
    assert COLUMNS == {*SCALARS, *HISTOGRAMS} == columns_of(RELEASES[-1])


def test_the_figures_of_the_newest_release() -> None:
    found = parse(metrics_text("3.7.3"))
    assert {name: found.values[name] for name in ("puts", "ranges", "quota", "gomaxprocs", "gc_pause_s")} == {
        "puts": 210, "ranges": 71, "quota": 2147483648, "gomaxprocs": 2, "gc_pause_s": 0.003485635,
    }  # fmt: skip
    # Of both peers together; nothing failed yet, of which etcd has no line.
    assert (found.values["peer_sent_bytes"], found.values["peer_failures"]) == (76242 + 77004, 0)
    # Of each kind of entry together: 210 puts, three members' attributes, the version of the cluster.
    assert found.histograms["apply"].count == 214
    assert found.histograms["peer_round_trip"].counts[4:6] == (3, 4)
    assert found.histograms["peer_round_trip"].bounds[4:6] == (0.0016, 0.0032)


def test_what_is_told_by_label_is_summed_up() -> None:
    text = """\
etcd_network_peer_sent_failures_total{To="a1"} 2
etcd_network_peer_sent_failures_total{To="b2"} 3 1795578764270
etcd_server_apply_duration_seconds_bucket{op="Put",success="true",version="v3",le="0.1"} 4
etcd_server_apply_duration_seconds_bucket{op="Put",success="true",version="v3",le="+Inf"} 6
etcd_server_apply_duration_seconds_bucket{role="le",le="0.1"} 1
etcd_server_apply_duration_seconds_bucket{role="le",le="+Inf"} 1
"""
    found = parse(text)
    assert found.values == {"peer_failures": 5}
    assert found.histograms == {"apply": Histogram((0.1, math.inf), (5, 7))}


def test_who_is_alone_has_sent_nothing_to_peers() -> None:
    found = parse("etcd_server_proposals_committed_total 4\n")
    assert found.values == {"proposals_committed": 4, "peer_sent_bytes": 0, "peer_failures": 0}


def test_a_number_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="many"):
        parse("etcd_server_proposals_pending many\n")


@pytest.mark.parametrize(
    ("counts", "q", "expected"),
    [
        ((10, 10, 10, 10), 0.5, 0.0005),  # the middle of the first bucket
        ((0, 100, 100, 100), 0.99, 0.00199),  # 99 % of the way from 1 to 2 ms
        ((50, 100, 100, 100), 0.75, 0.0015),
        ((0, 0, 0, 4), 0.99, 0.004),  # the infinite bucket: no more than its lower bound is known
        ((1, 1, 2, 2), 0.5, 0.001),
    ],
)
def test_quantile_is_histogram_quantile_of_promql(counts: tuple[int, ...], q: float, expected: float) -> None:
    assert Histogram(BOUNDS, counts).quantile(q) == pytest.approx(expected)


def test_there_is_no_quantile_of_nothing() -> None:
    assert Histogram(BOUNDS, (0, 0, 0, 0)).quantile(0.99) is None


def test_since_is_the_difference_and_all_of_another_life() -> None:
    earlier, later = Histogram(BOUNDS, (1, 2, 3, 4)), Histogram(BOUNDS, (1, 5, 7, 9))
    assert later.since(earlier).counts == (0, 3, 4, 5)
    assert earlier.since(later) == earlier
    assert later.since(None) == later


def test_a_cell_holds_a_whole_histogram() -> None:
    histogram = Histogram(BOUNDS, (1, 5, 7, 9))
    assert histogram.to_cell() == "0.001:1 0.002:5 0.004:7 inf:9"
    assert Histogram.from_cell(histogram.to_cell()) == histogram
    assert Histogram.from_cell("") is None


def test_who_leads_is_in_the_metrics() -> None:
    text = """\
etcd_server_has_leader 1
etcd_server_id{server_id="8211f1d0f64f3269"} 1
etcd_server_is_leader 0
etcd_server_is_learner 0
etcd_server_version{server_version="3.5.35"} 1
etcd_debugging_mvcc_current_revision 12
"""
    said = standing(text)
    assert (said.member_id, said.version, said.revision) == (0x8211F1D0F64F3269, "3.5.35", 12)
    assert (said.leads, said.follows, said.learns) == (False, True, False)
    with pytest.raises(ValueError, match="etcd_server_is_leader"):
        standing(text.replace("is_leader", "is_other"))
