"""The keys of a run: a prefix that no other key has, values to read, and their removal at the end."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import math
import secrets
import shlex
import string
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import gevent

from cluster.base import naming
from cluster.base.endpoint import split_endpoints
from cluster.base.errors import RaftloadError, UsageError
from cluster.base.etcd_errors import KINDS
from cluster.base.security import Security
from loadgen.client import connect_errors
from loadgen.client.connect_errors import HINTS
from loadgen.client.etcd import EtcdClient
from loadgen.client.kv import bytes_prefix_end, put_op, version_is
from loadgen.history.operation import Operation, Outcome
from loadgen.load import engines, listening
from loadgen.load.protocol import DONE, RANKS_OPTION, SHARE_DONE, USERS_OPTION, Done
from loadgen.load.settings import PREFIX_BYTES, Settings, SettingsError
from loadgen.load.workload import Keys, Values

if TYPE_CHECKING:
    from loadgen.load.locust_types import Environment, UserClass

NO_SPACE, TOO_LARGE = KINDS["NoSpace"].name, KINDS["RequestTooLarge"].name
# Nobody sets etcd's limit of a request, 1.5 MiB, that low.
_SURELY_TAKEN_BYTES = 32 << 10
# What such a transaction has beside the value.
_AROUND_BYTES = 64
# etcd's defaults: 128 operations in a transaction (--max-txn-ops), 1.5 MiB a request (--max-request-bytes).
_BATCH_OPERATIONS = 100
_BATCH_BYTES = 1 << 20
# Keys of one request to delete.
_MOST_DELETED = 10_000
# What passes by itself, or is otherwise at another member: an election, which takes a second or two; a member that is
# paused, cut off, started again, overloaded or a learner; a token that a member has not heard of yet. All that is asked
# here reads, or can be done twice, so it does not matter what became of it.
_PASSING = frozenset(
    {
        *(name for name, kind in KINDS.items() if not kind.refused and name != NO_SPACE),
        "InvalidAuthToken", "AuthOldRevision", "NotSupportedForLearner", "ProposalDropped", "TooManyRequests",
        "Unhealthy", "CANCELLED", "DEADLINE_EXCEEDED", "UNAUTHENTICATED", "UNAVAILABLE",
        connect_errors.CLOSED, connect_errors.LEARNER, connect_errors.LOST, connect_errors.NO_ANSWER,
        connect_errors.NO_LOGIN, connect_errors.REFUSED, connect_errors.SILENT, connect_errors.UNREACHABLE,
        "stream refused",
    }
)  # fmt: skip
# Seconds that are waited for that, in all.
PATIENCE_S = 10.0
# A process number that no user has: users count from 1 in each worker's range.
_PRELOAD_PROCESS = 0
# Types of operation that want keys to be there.
READING = frozenset({"get", "range", "list"})

logger = logging.getLogger(__name__)


class KeySpaceError(RaftloadError):
    """The keys could not be prepared or removed: one line that says why.

    Attributes: ``error``, of the operation that failed, as it is counted; empty where it was none.
    """

    def __init__(self, message: str, error: str = "") -> None:
        super().__init__(message)
        self.error = error


class KeySpace:
    """The keys of one run on a cluster, from the choice of their prefix to their removal.

    What a member cannot answer now is asked again, at the next member, for at most `PATIENCE_S` seconds in all: it
    reads, or can be done twice.

    Attributes:
        settings: of the run; with its prefix after `prepare`.
        preloaded: how many keys were written before the load.
        notes: what a reader of the result should know, a sentence each.
    """

    def __init__(self, client: EtcdClient, settings: Settings, prefix: bytes = b"") -> None:
        """Take a client, the load, and the prefix to use, empty for one that is chosen."""
        self._client = client
        self._wanted = prefix
        # What was not found to be free is never removed.
        self.settings = dataclasses.replace(settings, prefix=b"")
        self.preloaded = 0
        self.notes: list[str] = []
        self._patient_s = PATIENCE_S

    def prepare(self, chosen: Callable[[Settings], object] | None = None) -> Settings:
        """Choose a prefix under which there is no key and write every key of the run once.

        Takes what to call with the settings when the prefix is chosen, before the first write. Returns the settings
        with the prefix in them. Raises KeySpaceError where the cluster does not answer
        or refuses the values, and SettingsError where it takes no request of their size, or there are keys under the
        prefix that was asked for.
        """
        if self._wanted and self._count(self._wanted):
            prefix = shlex.quote(self._wanted.decode("ascii"))
            raise SettingsError(
                f"--prefix {prefix} has keys: delete them with `etcdctl del --prefix {prefix}` first, or give another",
                option="--prefix",
            )
        self.settings = dataclasses.replace(self.settings, prefix=self._wanted or self._free_prefix())
        if chosen is not None:
            chosen(self.settings)
        if self.settings.request_bytes > _SURELY_TAKEN_BYTES:
            self._try_size()
        # Writes need no values to be there; a get of a missing key would measure another code path.
        if READING & self.settings.mix.keys():
            try:
                self._preload()
            except KeySpaceError as error:
                # A store that is full still serves reads, and whether it does is then what a load of them asks.
                if error.error != NO_SPACE or not self.settings.mix.keys() <= READING:
                    raise
                self.notes.append(f"{error}; reads of the other keys find nothing")
        return self.settings

    def expect_no_answer(self) -> None:
        """Ask once from now on: the members that are left are no majority, and nobody starts the others."""
        self._patient_s = 0.0

    def revision(self) -> int:
        """Return the cluster's present revision, read linearizably. Raises KeySpaceError."""
        return self._done(lambda: self._client.get(self.settings.prefix), "read the cluster's revision").revision

    def remove(self) -> None:
        """Delete every key under the run's prefix, some thousands at a time. Raises KeySpaceError."""
        prefix = self.settings.prefix
        if not prefix:
            return
        bounds = [prefix, *self._bounds(), bytes_prefix_end(prefix)]
        for first, end in itertools.pairwise(bounds):
            self._done(functools.partial(self._client.delete, first, end), "remove the run's keys")

    def _bounds(self) -> list[bytes]:
        """Return keys between which there are at most some thousands: etcd serves nobody else while it deletes."""
        settings = self.settings
        if settings.key_space <= _MOST_DELETED:
            return []
        # Keys are drawn evenly, so equal parts of all numbers have as many keys each.
        parts = math.ceil(self._count(settings.prefix, "count the run's keys") / _MOST_DELETED)
        keys = Keys(settings)
        return [keys[number * settings.key_space // parts] for number in range(1, parts)]

    def _free_prefix(self) -> bytes:
        alphabet = string.ascii_lowercase + string.digits
        for _ in range(20):
            prefix = "".join(secrets.choice(alphabet) for _ in range(PREFIX_BYTES - 1)).encode() + b"/"
            if self._count(prefix) == 0:
                return prefix
        raise KeySpaceError("20 random key prefixes are all in use on this cluster")

    def _count(self, prefix: bytes, why: str = "look for a free key prefix") -> int:
        found = self._done(lambda: self._client.range(prefix, bytes_prefix_end(prefix), count_only=True), why)
        return int(found.response.count)

    def _try_size(self) -> None:
        """Send a request as large as those of the load. Raises SettingsError where that is too large for the server.

        Which limit it has etcd tells nobody. The transaction's comparison never holds, so it writes nothing.
        """
        key = self.settings.prefix
        put = put_op(key, bytes(self.settings.request_bytes - _AROUND_BYTES))
        if self._client.txn([version_is(key, 1 << 62)], [put]).error == TOO_LARGE:
            raise self.settings.too_large(
                "this etcd refuses it (its --max-request-bytes, 1.5 MiB by default)",
                "give smaller ones, or start it with a larger --max-request-bytes",
            )

    def _preload(self) -> None:
        settings = self.settings
        values = Values(settings.seed, _PRELOAD_PROCESS, settings.value_size)
        each = settings.key_size + settings.value_size
        size = max(1, min(_BATCH_OPERATIONS, _BATCH_BYTES // each))
        keys = Keys(settings)
        for first in range(0, len(keys), size):
            batch = [keys[n] for n in range(first, min(first + size, len(keys)))]
            puts = [put_op(key, values.next()) for key in batch]
            self._done(
                functools.partial(self._client.txn, [], puts), f"write {len(keys)} keys of {settings.value_size} B"
            )
            self.preloaded += len(batch)

    def _done(self, call: Callable[[], Operation], what: str) -> Operation:
        """Call until a member answers; return what succeeded. Raises KeySpaceError."""
        while True:
            began = time.monotonic()
            operation = call()
            if operation.outcome is Outcome.OK:
                self._patient_s = PATIENCE_S
                return operation
            if operation.error not in _PASSING or self._patient_s <= 0:
                hint = HINTS.get(operation.error or "")
                because = hint or operation.detail
                raise KeySpaceError(
                    f"cannot {what}: {operation.error}" + (f": {because}" if because else ""), operation.error or ""
                )
            gevent.sleep(0.1)
            self._patient_s -= time.monotonic() - began


def attach(environment: Environment) -> None:
    """Prepare and remove the keys of each test that plain Locust's master or local runner runs.

    An engine of ours does so itself and marks its environment.
    """
    from locust.runners import MasterRunner, WorkerRunner

    if isinstance(environment.runner, WorkerRunner) or getattr(environment, "raftload_engine", None):
        return
    spaces: list[KeySpace] = []
    waiting: list[str] = []

    def on_test_start(environment: Environment, **_: object) -> None:
        try:
            if not environment.host and (told := naming.named_by_environment()) is not None:
                environment.host = told[0]  # workers are told it with the users to spawn
            endpoints = split_endpoints(environment.host)
            given = Settings.from_options(vars(environment.parsed_options), endpoints)
            settings = for_scenario(environment.user_classes, given)
            security = Security.from_environment()
            client = EtcdClient(settings.endpoints, timeout_s=settings.timeout_s, security=security)
            space = KeySpace(client, settings)
            waiting[:] = share_out(environment, space.prepare())
            for note in space.notes:
                logger.warning("%s", note)
            spaces.append(space)
            # Locust's default is to kill users in mid-operation, of which nobody then knows the effect.
            environment.stop_timeout = environment.stop_timeout or settings.timeout_s + 0.5
        except (RaftloadError, ValueError) as error:
            logger.error("%s", error)  # noqa: TRY400
            environment.process_exit_code = getattr(error, "exit_code", UsageError.exit_code)
            environment.runner.quit()

    def on_test_stop(**_: object) -> None:
        while spaces:
            try:
                spaces.pop().remove()
            except KeySpaceError as error:
                logger.error("%s", error)  # noqa: TRY400

    def on_done(client_id: str, done: Done) -> None:
        """End the test once the last worker has done its share."""
        if client_id in waiting:
            waiting.remove(client_id)
            if not waiting and done["reason"] == SHARE_DONE:
                runner = environment.runner
                gevent.spawn(runner.quit if environment.web_ui is None else runner.stop)

    if isinstance(environment.runner, MasterRunner):
        listening.handle(environment.runner, DONE, on_done)
    # Before the listeners that start the load in this same process.
    listening.listen(environment.events.test_start, on_test_start, first=True)
    listening.listen(environment.events.test_stop, on_test_stop)


def for_scenario(user_classes: Sequence[UserClass], settings: Settings) -> Settings:
    """Return the settings for a scenario: one that is about certain operations brings its own mix.

    Raises SettingsError where it cannot run over the transport, or on the engine that is asked for.
    """
    for user in user_classes:
        transports = getattr(user, "transports", (settings.transport,))
        if settings.transport not in transports:
            said = f"this scenario needs --transport {' or '.join(transports)}"
            raise SettingsError(said, option="--transport")
        least = getattr(user, "least_value_size", 0)
        if settings.value_size < least:
            said = f"this scenario needs unique values: --value-size of at least {least}"
            raise SettingsError(said, option="--value-size")
    mixes = [mix for user in user_classes if (mix := getattr(user, "mix", None))]
    settings = dataclasses.replace(settings, mix=dict(mixes[0])) if mixes else settings
    if settings.engine == engines.COMPILED and (reason := engines.python_because(user_classes, settings)):
        raise engines.refused(reason)
    return settings


def share_out(environment: Environment, settings: Settings) -> list[str]:
    """Write a run's settings and the order of its workers into the options that Locust sends to them.

    Returns the client ids of the workers that share the run's operations, in their order: as many as there
    are users, in the order in which Locust's dispatcher hands users to workers.
    """
    options = environment.parsed_options
    for name, text in settings.to_options().items():
        setattr(options, name, text)
    clients = sorted(getattr(environment.runner, "clients", ()))
    users = getattr(options, "num_users", None) or len(clients)
    # Locust sends its own options' values to nobody, and these to every worker.
    sharing = clients[: max(1, int(users))]
    setattr(options, RANKS_OPTION, ",".join(sharing))
    setattr(options, USERS_OPTION, int(users))
    return sharing
