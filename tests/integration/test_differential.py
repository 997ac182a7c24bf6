"""The same seeded sequence through us and through grpcio, and through the JSON gateway: equal answers.

Run as a script it is the grpcio side: grpcio and gevent do not share a process.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import Code

OPERATIONS = 3_000
SEED = 20_240_229
Step = tuple[str, dict[str, Any]]


def steps(count: int, prefix: bytes, base: int, reached: list[int]) -> Iterator[Step]:
    """Yield the sequence: what to do, in terms of etcd's own parameters.

    Takes the store's revision at the beginning and, as a list of one, the revision reached so far, which the caller
    keeps; both clients make the same of the random numbers as long as they get the same answers.
    """
    rng = random.Random(SEED)

    def key() -> bytes:
        return prefix + b"%02d" % rng.randrange(20)

    def value() -> bytes:
        size = rng.choice([0, 1, 16, 64, 64, 64, 127, 128, 300, 20_000 if rng.random() < 0.05 else 10])
        return rng.randbytes(size)

    def past() -> int:
        # Beyond the present, too: an error is an answer.
        return base + rng.randint(1, max(1, reached[0] - base + 1))

    def op() -> tuple[str, bytes, bytes]:
        kind = rng.choice(["put", "get", "delete"])
        return (kind, key(), value() if kind == "put" else b"")

    for _ in range(count):
        match rng.choices(["put", "get", "delete", "range", "txn", "cas", "wrong"], [30, 25, 8, 10, 12, 12, 3])[0]:
            case "put":
                yield "put", {"key": key(), "value": value()}
            case "get":
                old = {"revision": past()} if rng.random() < 0.3 else {}
                yield "get", {"key": key(), "serializable": rng.random() < 0.2, **old}
            case "delete":
                yield "delete", {"key": key(), "range_end": prefix + b"99" if rng.random() < 0.1 else b""}
            case "range":
                flag = rng.choice(["limit", "count_only", "keys_only", "serializable"])
                more = {flag: rng.randint(1, 9) if flag == "limit" else True}
                yield (
                    "range",
                    {
                        "key": key(),
                        "range_end": prefix + b"99",
                        "revision": past() if rng.random() < 0.2 else 0,
                        **more,
                    },
                )
            case "txn":
                compare = [(rng.choice(["mod", "value", "version"]), key(), past(), value(), rng.randint(0, 3))
                           for _ in range(rng.randint(0, 2))]  # fmt: skip
                yield "txn", {"compare": compare, "success": unique(op() for _ in range(rng.randint(0, 3))),
                              "failure": unique(op() for _ in range(rng.randint(0, 3)))}  # fmt: skip
            case "cas":
                yield "cas", {"key": key(), "value": value(), "mod_revision": rng.choice([0, past()])}
            case _:
                yield rng.choice(
                    [
                        ("put", {"key": b"", "value": b"x"}),
                        ("put", {"key": key(), "value": b"", "lease": 4242}),
                        ("get", {"key": key(), "revision": 1 << 50}),
                        ("get", {"key": b""}),
                    ]
                )


def unique(ops: Iterator[tuple[str, bytes, bytes]]) -> list[tuple[str, bytes, bytes]]:
    """etcd refuses two writes to one key in a transaction; one such sequence now and then would hide the rest."""
    return list({each[1]: each for each in ops}.values())


def compares(given: list[tuple[str, bytes, int, bytes, int]]) -> list[pb.Compare]:
    made = []
    for target, key, revision, value, version in given:
        compare = pb.Compare(result=pb.Compare.LESS if target == "version" else pb.Compare.EQUAL, key=key)
        if target == "mod":
            compare.target, compare.mod_revision = pb.Compare.MOD, revision
        elif target == "value":
            compare.target, compare.value = pb.Compare.VALUE, value
        else:
            compare.target, compare.version = pb.Compare.VERSION, version
        made.append(compare)
    return made


def request_ops(given: list[tuple[str, bytes, bytes]]) -> list[pb.RequestOp]:
    made = []
    for kind, key, value in given:
        op = pb.RequestOp()
        if kind == "put":
            op.request_put.key, op.request_put.value = key, value
        elif kind == "get":
            op.request_range.key = key
        else:
            op.request_delete_range.key = key
        made.append(op)
    return made


def normal(message: Any, prefix: bytes, base: int) -> str:
    """Return an answer's text with the prefix cut off and revisions counted from the beginning."""
    copy = type(message)()
    copy.CopyFrom(message)
    _normalize(copy, prefix, base)
    return copy.SerializeToString(deterministic=True).hex()


def _normalize(message: Any, prefix: bytes, base: int) -> None:
    for field, value in message.ListFields():
        if field.name in ("revision", "mod_revision", "create_revision"):
            setattr(message, field.name, value - base)
        elif field.name == "key":
            message.key = value.removeprefix(prefix)
        elif field.name in ("cluster_id", "member_id", "raft_term"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for each in value if field.is_repeated else [value]:
                _normalize(each, prefix, base)


def through_client(client: Any, prefix: bytes, count: int) -> list[list[str]]:
    """Run the sequence through a client of ours, return what came of each step."""
    base = client.get(b"x").revision
    reached = [base]
    lines = []
    for f, arguments in steps(count, prefix, base, reached):
        given = dict(arguments)
        if f == "txn":
            given = {
                "compare": compares(given["compare"]),
                "success": request_ops(given["success"]),
                "failure": request_ops(given["failure"]),
            }
        operation = getattr(client, f)(**given)
        if operation.response is None:
            lines.append([f, f"{Code(operation.code).name}: {operation.detail}"])
        else:
            reached[0] = max(reached[0], operation.revision)
            assert operation.revision == operation.response.header.revision
            lines.append([f, normal(operation.response, prefix, base)])
    return lines


def through_grpcio(endpoint: str, prefix: bytes, count: int) -> list[list[str]]:
    """Return the same through grpcio, with requests built by the protobuf runtime alone."""
    import grpc

    channel = grpc.insecure_channel(endpoint, [("grpc.max_receive_message_length", -1)])

    def method(name: str, answer: Any) -> Any:
        return channel.unary_unary(
            f"/etcdserverpb.KV/{name}", lambda request: request.SerializeToString(), answer.FromString
        )

    put, get = method("Put", pb.PutResponse), method("Range", pb.RangeResponse)
    delete, txn = method("DeleteRange", pb.DeleteRangeResponse), method("Txn", pb.TxnResponse)
    base = get(pb.RangeRequest(key=b"x")).header.revision
    reached = [base]
    lines = []
    for f, given in steps(count, prefix, base, reached):
        try:
            if f == "put":
                answer = put(pb.PutRequest(**given))
            elif f in ("get", "range"):
                answer = get(pb.RangeRequest(**given))
            elif f == "delete":
                answer = delete(pb.DeleteRangeRequest(**given))
            elif f == "txn":
                request = pb.TxnRequest(
                    compare=compares(given["compare"]),
                    success=request_ops(given["success"]),
                    failure=request_ops(given["failure"]),
                )
                answer = txn(request)
            else:
                request = pb.TxnRequest()
                compare = request.compare.add(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=given["key"])
                compare.mod_revision = given["mod_revision"]
                request.success.add().request_put.CopyFrom(pb.PutRequest(key=given["key"], value=given["value"]))
                request.failure.add().request_range.key = given["key"]
                answer = txn(request)
        except grpc.RpcError as exc:
            lines.append([f, f"{exc.code().name}: {exc.details()}"])
        else:
            reached[0] = max(reached[0], answer.header.revision)
            lines.append([f, normal(answer, prefix, base)])
    channel.close()
    return lines


if __name__ == "__main__":
    json.dump(through_grpcio(sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])), sys.stdout)
    sys.exit()


import pytest  # noqa: E402

from cluster.local.cluster import LocalCluster  # noqa: E402
from loadgen.client.etcd import EtcdClient  # noqa: E402
from loadgen.load.json_client import GatewayClient  # noqa: E402


@pytest.fixture(scope="module")
def endpoint(etcd_binary: str) -> Iterator[str]:
    """Yield an etcd that nobody else writes to, so that revisions tell what each client did."""
    with LocalCluster(1, binary=etcd_binary, storage="memory") as cluster:
        yield cluster.endpoints[0]


def differences(ours: list[list[str]], theirs: list[list[str]]) -> list[object]:
    assert len(ours) == len(theirs)
    return [(n, a, b) for n, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b][:3]


def test_equal_to_grpcio(endpoint: str) -> None:
    client = EtcdClient([endpoint])
    ours = through_client(client, b"ours/", OPERATIONS)
    client.close()
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, __file__, endpoint.removeprefix("http://"), "them/", str(OPERATIONS)],
        check=True, capture_output=True, timeout=120, cwd=root, env={"PYTHONPATH": str(root)},
    )  # fmt: skip
    theirs = json.loads(done.stdout)
    assert not differences(ours, theirs)
    # The sequence is worth something: every kind, both kinds of end.
    assert {f for f, _ in ours} == {"put", "get", "delete", "range", "txn", "cas"}
    assert {"OUT_OF_RANGE", "INVALID_ARGUMENT", "NOT_FOUND"} <= {said.partition(":")[0] for _, said in ours}


def test_gateway_is_equal(endpoint: str) -> None:
    client, gateway = EtcdClient([endpoint]), GatewayClient([endpoint])
    ours = through_client(client, b"more/", 500)
    theirs = through_client(gateway, b"gate/", 500)
    client.close()
    gateway.close()
    assert not differences(ours, theirs)
