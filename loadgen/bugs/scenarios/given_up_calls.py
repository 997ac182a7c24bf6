"""Calls that their client gives up while the member works at them."""

from __future__ import annotations

from loadgen.bugs.scenario import CannotTryError, Scenario
from loadgen.bugs.stage import Stage
from loadgen.client.kv import put_op
from loadgen.proto import etcd_pb2 as pb

_KEYS, _AT_ONCE = 20_000, 128
_PATIENCE_S = (0.002, 0.005, 0.01, 0.02, 0.04)


def _give_up_reads(stage: Stage) -> None:
    """Have a read-only transaction of serializable reads take long, and give it up at different moments.

    #14110: the client's end is an error in the middle of a transaction, which etcd takes for a broken store.
    """
    client = stage.client()

    def fill() -> None:
        for first in range(0, _KEYS, _AT_ONCE):
            puts = [put_op(b"k/%06d" % n, b"") for n in range(first, min(first + _AT_ONCE, _KEYS))]
            if error := client.txn((), puts).error:
                raise CannotTryError(f"the keys were not written: {error}")

    stage.work(fill)
    actor = stage.actor()
    read = pb.RequestOp(request_range=pb.RangeRequest(key=b"k/", range_end=b"k0", serializable=True))
    for patience_s in _PATIENCE_S * 3:
        actor.ask(pb.TxnRequest(success=[read] * 20), cancel_after_s=patience_s)
        if stage.notice(0.05):
            return
    actor.get(b"k/000000")


SCENARIOS = (Scenario("14110", ("member.lives",), _give_up_reads),)
