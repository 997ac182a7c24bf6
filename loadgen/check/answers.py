"""The check of one answer (read, write or transaction) against the store, and its effect on the store.

Functions return what is wrong in words, None where nothing is; ``Problems`` collects pairs of rule and words.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadgen.check.store import ABSENT, Changes, Entry, Item, Store, entry_of, sort_key
from loadgen.check.words import entry_words, show
from loadgen.history.format import Method
from loadgen.proto import etcd_pb2 as pb

Problems = list[tuple[str, str]]
_DELETE, _TXN, _PUT = "request_delete_range", "request_txn", "request_put"
_put, _put_answer = pb.PutRequest.FromString, pb.PutResponse.FromString
_delete, _delete_answer = pb.DeleteRangeRequest.FromString, pb.DeleteRangeResponse.FromString


def do(
    store: Store,
    method: int,
    request: bytes,
    response: bytes | None,
    revision: int,
    changes: Changes,
    problems: Problems,
) -> None:
    """Do a write to the store, and say what is wrong with its answer, if one is given."""
    if method == Method.PUT:
        put = _put(request)
        replaced = _put_answer(response) if put.prev_kv and response is not None else None
        if wrong := do_put(store, put, replaced, revision, changes):
            problems.append(("kv.writes", wrong))
    elif method == Method.TXN:
        answer = pb.TxnResponse.FromString(response) if response is not None else None
        do_txn(store, pb.TxnRequest.FromString(request), answer, revision, changes, problems)
    elif method == Method.DELETE_RANGE:
        deleted = _delete_answer(response) if response is not None else None
        wrong = do_delete(store, _delete(request), deleted, changes)
        if wrong:
            problems.append(("kv.writes", wrong))


def wrong_range(store: Store, request: pb.RangeRequest, response: pb.RangeResponse) -> str | None:
    """Say how the answer to a ``RangeRequest`` differs from what the store has."""
    kvs = response.kvs
    if not request.range_end:
        key = request.key
        entry = store.entries.get(key)
        count = 1 if entry else 0
        if request.count_only or request.keys_only or request.sort_order or request.sort_target or _bounded(request):
            return _wrong_keys(store, request, response)
        if response.count == count and len(kvs) == count and not response.more:
            if entry is None:
                return None
            kv = kvs[0]
            got = (kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
            if got == entry and kv.key == key:
                return None
        return _single(key, entry, response)
    return _wrong_keys(store, request, response)


def _bounded(request: pb.RangeRequest) -> bool:
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _single(key: bytes, entry: Entry | None, response: pb.RangeResponse) -> str:
    if len(response.kvs) == 1 and response.kvs[0].key != key:
        return f"answered with key {show(response.kvs[0].key)}"
    got = entry_of(response.kvs[0]) if len(response.kvs) == 1 else None
    if got == entry:
        return f"answered with count {response.count} and more={response.more}"
    return f"answered {entry_words(got)}, where the store has {entry_words(entry)}"


def _wrong_keys(store: Store, request: pb.RangeRequest, response: pb.RangeResponse) -> str | None:
    wanted, count, more = store.range(request)
    bare = request.keys_only
    got = [(kv.key, entry_of(kv)) for kv in response.kvs]
    if bare:
        wanted = [(key, (b"", *entry[1:])) for key, entry in wanted]
        got = [(key, _with_lease(store, key, entry)) for key, entry in got]
    if got != wanted and not (request.sort_target and _same_but_for_ties(store, request, got, wanted)):
        return first_difference(got, wanted)
    if response.count != count:
        return f"answered with count {response.count}, where the range has {count} keys"
    if response.more != more:
        return f"answered with more={response.more}, where it is {more}"
    return None


def _with_lease(store: Store, key: bytes, entry: Entry) -> Entry:
    """Return what was answered of a key without its value, with the key's own lease where its member tells none."""
    has = store.entries.get(key)
    if store.bare_keys_have_leases or entry[4] or has is None:
        return entry
    return (*entry[:4], has[4])


def _same_but_for_ties(store: Store, request: pb.RangeRequest, got: Sequence[Item], wanted: Sequence[Item]) -> bool:
    """Sorted by anything but keys, equals may stand in any order, and a limit may cut any of them off."""
    by = sort_key(request)
    if len(got) != len(wanted) or len({key for key, _ in got}) != len(got):
        return False
    if request.keys_only and request.sort_target == pb.RangeRequest.VALUE:
        return sorted(got) == sorted(wanted)
    if [by(item) for item in got] != [by(item) for item in wanted]:
        return False
    for key, entry in got:
        has = store.entries.get(key)
        if has is None or (entry[1:] != has[1:] if request.keys_only else entry != has):
            return False
    return True


def first_difference(got: list[tuple[bytes, Entry]], wanted: list[tuple[bytes, Entry]]) -> str:
    """Say how keys that were answered differ from those that should have been, at the first key that does."""
    have, want = dict(got), dict(wanted)
    if len(have) != len(got):
        return "answered with a key twice"
    if have == want:
        return "answered with the keys in another order than was asked for"
    key = min(key for key in have.keys() | want.keys() if have.get(key) != want.get(key))
    more = sum(1 for each in have.keys() | want.keys() if have.get(each) != want.get(each)) - 1
    others = f" ({more} more keys differ)" if more else ""
    return (
        f"answered {entry_words(have.get(key))} for {show(key)}, "
        f"where the store has {entry_words(want.get(key))}{others}"
    )


def do_put(
    store: Store, request: pb.PutRequest, response: pb.PutResponse | None, revision: int, changes: Changes
) -> str | None:
    """Put; says how the answer's previous key-value differs. ``response`` may be None."""
    key, value, lease = request.key, request.value, request.lease
    old = store.entries.get(key)
    if request.ignore_value:
        value = (old or ABSENT)[0]
    if request.ignore_lease:
        lease = (old or ABSENT)[4]
    store.put(key, value, lease, revision, changes)
    if request.prev_kv and response is not None:
        got = entry_of(response.prev_kv) if response.HasField("prev_kv") else None
        if got != old:
            return f"it says that it replaced {entry_words(got)}, where the store had {entry_words(old)}"
    return None


def do_delete(
    store: Store, request: pb.DeleteRangeRequest, response: pb.DeleteRangeResponse | None, changes: Changes
) -> str | None:
    """Delete a range; say how the answer's count or previous key-values differ. ``response`` may be None."""
    keys = list(store.keys(request.key, request.range_end))
    entries = [(key, store.entries[key]) for key in keys]
    for key in keys:
        store.delete(key, changes)
    if response is not None:
        if response.deleted != len(keys):
            return f"it says that it deleted {response.deleted} keys, where the range had {len(keys)}"
        if request.prev_kv:
            got = [(kv.key, entry_of(kv)) for kv in response.prev_kvs]
            if got != entries:
                return "of what it deleted it " + first_difference(got, entries)
    return None


def do_txn(
    store: Store,
    request: pb.TxnRequest,
    response: pb.TxnResponse | None,
    revision: int,
    changes: Changes,
    problems: Problems,
) -> None:
    """Do the branch that a transaction took by its answer, or by its compares where ``response`` is None.

    All compares, of nested transactions too, are evaluated on what the store is before any write (etcd evaluates the
    whole tree first). Appends what is wrong with the answer.
    """
    branches = _branches(store, request, response, problems)
    _do_branch(store, request, response, revision, changes, problems, branches, ())


_Path = tuple[int, ...]


def _branches(
    store: Store, request: pb.TxnRequest, response: pb.TxnResponse | None, problems: Problems
) -> dict[_Path, bool]:
    """Which branch is taken, by the place of each transaction in the tree."""
    taken: dict[_Path, bool] = {}
    work: list[tuple[_Path, pb.TxnRequest, pb.TxnResponse | None]] = [((), request, response)]
    while work:
        path, txn, answer = work.pop()
        holds = store.holds(txn.compare)
        if answer is not None and answer.succeeded != holds:
            problems.append(("txn.compares", f"answered succeeded={answer.succeeded}, where {_why(store, txn)}"))
            holds = answer.succeeded
        taken[path] = holds
        operations = txn.success if holds else txn.failure
        answers = answer.responses if answer is not None else ()
        for number, operation in enumerate(operations):
            if operation.HasField(_TXN):
                inner = answers[number].response_txn if number < len(answers) else None
                work.append(((*path, number), operation.request_txn, inner))
    return taken


def _why(store: Store, txn: pb.TxnRequest) -> str:
    for compare in txn.compare:
        if not store.holds([compare]):
            return f"the compare of {show(compare.key)} does not hold: it has {_range_words(store, compare)}"
    return "all its compares hold"


def _range_words(store: Store, compare: pb.Compare) -> str:
    keys = list(store.keys(compare.key, compare.range_end))
    first = entry_words(store.entries[keys[0]] if keys else None)
    return f"{len(keys)} keys, the first of them {first}" if compare.range_end else first


def _do_branch(
    store: Store,
    request: pb.TxnRequest,
    response: pb.TxnResponse | None,
    revision: int,
    changes: Changes,
    problems: Problems,
    branches: dict[_Path, bool],
    path: _Path,
) -> None:
    operations = request.success if branches[path] else request.failure
    answers = response.responses if response is not None else None
    if answers is not None and len(answers) != len(operations):
        problems.append(("txn.responses", f"it has {len(answers)} answers to {len(operations)} operations"))
        answers = None
    for number, operation in enumerate(operations):
        kind = operation.WhichOneof("request")
        answer = answers[number] if answers is not None else None
        if answer is not None and answer.WhichOneof("response") != kind.replace("request", "response"):
            problems.append(("txn.responses", f"its answer {number + 1} is of another kind than its operation"))
            answer = None
        wrong: str | None = None
        if kind == _PUT:
            wrong = do_put(
                store, operation.request_put, answer.response_put if answer is not None else None, revision, changes
            )
        elif kind == _DELETE:
            wrong = do_delete(
                store, operation.request_delete_range,
                answer.response_delete_range if answer is not None else None, changes,
            )  # fmt: skip
        elif kind == _TXN:
            inner = answer.response_txn if answer is not None else None
            nested = operation.request_txn
            _do_branch(store, nested, inner, revision, changes, problems, branches, (*path, number))
        elif answer is not None and not operation.request_range.revision:
            # Reads of past revisions in a transaction that writes are not in this store any more.
            wrong = wrong_range(store, operation.request_range, answer.response_range)
        if wrong:
            problems.append(("txn.responses", f"its operation {number + 1} {wrong}"))


def wrote(response: pb.TxnResponse) -> bool:
    """Return whether a ``TxnResponse`` says that something was written."""
    for answer in response.responses:
        kind = answer.WhichOneof("response")
        if kind == "response_put" or (kind == "response_delete_range" and answer.response_delete_range.deleted):
            return True
        if kind == "response_txn" and wrote(answer.response_txn):
            return True
    return False


def only_reads_stale(request: pb.TxnRequest) -> bool:
    """Return whether a ``TxnRequest`` may be answered from a member's own store: it has serializable reads only."""
    for branch in (request.success, request.failure):
        for operation in branch:
            if operation.WhichOneof("request") != "request_range" or not operation.request_range.serializable:
                return False
    return True
