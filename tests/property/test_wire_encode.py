"""The requests written by hand are what the protobuf runtime writes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadgen.client import encode
from loadgen.client.kv import get_op, mod_revision_is, put_op
from loadgen.proto import etcd_pb2 as pb

int64 = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(0, 300),
    # Where a varint grows by a byte.
    st.builds(lambda bits, step: (1 << bits) + step, st.sampled_from((7, 14, 21, 28, 56)), st.integers(-2, 2)),
)
keys = st.one_of(st.binary(max_size=300), st.integers(120, 135).map(lambda n: b"k" * n))
values = st.one_of(keys, st.integers(16_370, 16_390).map(lambda n: b"v" * n))


@given(keys, st.booleans(), int64)
def test_get(key: bytes, serializable: bool, revision: int) -> None:
    expected = pb.RangeRequest(key=key, serializable=serializable, revision=revision)
    assert encode.get(key, serializable, revision) == expected.SerializeToString()


@given(keys, values, int64)
def test_put(key: bytes, value: bytes, lease: int) -> None:
    expected = pb.PutRequest(key=key, value=value, lease=lease)
    assert encode.put(key, value, lease) == expected.SerializeToString()


@given(keys, values, int64)
def test_cas(key: bytes, value: bytes, revision: int) -> None:
    expected = pb.TxnRequest(
        compare=[mod_revision_is(key, revision)], success=[put_op(key, value)], failure=[get_op(key)]
    )
    assert encode.cas(key, value, revision) == expected.SerializeToString(deterministic=True)
