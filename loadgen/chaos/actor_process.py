"""The process of the actors of a chaos run, apart from the load: its threads are not gevent's.

It reads an `Order`, one JSON object, and then a line for each thing that was done to a member. When its stdin ends it
ends each actor's turn, closes the records, writes `Done` and is over.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import TypedDict

from cluster.base import exits
from cluster.base.errors import ClusterError
from loadgen.chaos.actor_kinds import KINDS, ActorKind
from loadgen.chaos.actor_turns import TURNS, Acting, UncertainError
from loadgen.client.actor import Actor
from loadgen.client.hub_thread import HubThread
from loadgen.history.calls import CallWriter, MemberEvent
from loadgen.history.format import FOLDER, SUFFIX
from loadgen.history.writer import HistoryWriter

NAME = f"actors{SUFFIX}"
# Every turn bounds its calls by this, and the end waits for each turn.
_TIMEOUT_S, _LOOK_S = 3.0, 0.2


class Order(TypedDict):
    """What the process is to do; ``members`` are names with client URLs."""

    folder: str
    members: dict[str, str]
    prefix: str
    seed: int
    actors: list[str]


class Told(TypedDict):
    """What was done to a member, or what it did, as in ``MemberEvent``."""

    member: str
    what: str
    said: str
    at_ns: int


class Done(TypedDict):
    """How many turns each actor had, and why one could not go on; ``bugs`` are those of our own that ended one."""

    turns: dict[str, int]
    problems: list[str]
    bugs: list[str]


class Records:
    """The two records of one run folder, and the clients that write them."""

    def __init__(self, order: Order) -> None:
        run = Path(order["folder"])
        self.hub, self.calls = HubThread(), CallWriter(run)
        self.history = self.hub.run(lambda: HistoryWriter(run / FOLDER / NAME, worker=0, prefix=order["prefix"]))
        self.hub.run(self.history.flush_every)
        self._members = order["members"]
        self._actors: list[Actor] = []
        self._lock = threading.Lock()
        for member in self._members:
            self.tell({"member": member, "what": "started", "said": "", "at_ns": time.perf_counter_ns()})

    def tell(self, told: Told) -> None:
        self.calls.member(MemberEvent(**told))

    def connect(self, member: str, user: str, password: str) -> Actor:
        with self._lock:
            made = Actor(
                self._members[member], member, hub=self.hub, calls=self.calls, history=self.history, user=user,
                password=password, timeout_s=_TIMEOUT_S,
            )  # process 0, as what the master does: it is no part of the load  # fmt: skip
            self._actors.append(made)
        return made

    def close(self) -> None:
        for actor in self._actors:
            actor.close()
        self.hub.run(self.history.close)
        self.calls.close()


def _act(kind: ActorKind, acting: Acting, problems: list[str], bugs: list[str]) -> None:
    """Do one turn after the other until it is over; add to the lists why it could not go on."""
    while not acting.over.wait(acting.rng.uniform(0.5, 1.5) * kind.pause_s):
        try:
            TURNS[kind.name](acting)
        except UncertainError as error:
            problems.append(f"{kind.name}: {error}")
            return
        except Exception as error:
            of_ours = exits.code_of(error) == exits.BUG
            (bugs if of_ours else problems).append(f"{kind.name}: {exits.describe(error)}")
            raise
        acting.turns += 1


def _end_without(starter: int) -> None:
    """End this process where its starter has: the cluster is gone then, and nobody switches off anything there."""
    while os.getppid() == starter:
        time.sleep(_LOOK_S)
    os._exit(ClusterError.exit_code)


def serve() -> None:
    """Do what the order on stdin says."""
    starter = os.getppid()
    order: Order = json.loads(sys.stdin.readline())
    records = Records(order)
    prefix, members = order["prefix"].encode("ascii"), sorted(order["members"])
    problems: list[str] = []
    bugs: list[str] = []
    acting = {name: Acting(name, members, prefix, order["seed"], records.connect) for name in order["actors"]}
    threads = [
        threading.Thread(target=_act, args=(KINDS[name], each, problems, bugs), name=name)
        for name, each in acting.items()
    ]
    for thread in threads:
        thread.start()
    for line in sys.stdin:
        records.tell(json.loads(line))
    threading.Thread(target=_end_without, args=(starter,), daemon=True).start()
    for each in acting.values():
        each.over.set()
    for thread in threads:
        thread.join()
    records.close()
    done: Done = {"turns": {name: each.turns for name, each in acting.items()}, "problems": problems, "bugs": bugs}
    print(json.dumps(done), flush=True)
