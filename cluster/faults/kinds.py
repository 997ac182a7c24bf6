"""The kinds of faults: one record each, and a plan of what one does to which members. No I/O.

A new fault is one record in KINDS. The commands of `raftload cluster`, fault plans (`raftload chaos`), the Cluster
page, the report and the documentation derive from it. A method that a record names is one of the cluster's (``kill``,
``isolate``, …); where the cluster has none, the record has the request to etcd that does it.

A target is one or more members by name, with commas; ``leader``; ``follower`` or ``random``, one to which the fault
applies; ``majority``, as many as make a quorum, or ``minority``, as many as a quorum can spare, chosen at random; or
``all``, each to which it applies.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

from cluster.base.errors import UsageError
from cluster.base.units import parse_duration, parse_number

TARGETS = ("leader", "follower", "random", "majority", "minority", "all")
HEAL = "heal"
"""The command that undoes every fault."""

# What a cluster's methods make of a member.
_STATE_AFTER = {
    "kill": "down", "terminate": "down", "start": "running", "pause": "paused", "resume": "running",
    # etcd ends itself where it cannot write.
    "disk_error": "down", "disk_full": "down",
}  # fmt: skip
_ISOLATED_AFTER = {"isolate": True, "join": False}
_DISK_AFTER = {
    "slow_disk": "slow", "stuck_disk": "stuck", "disk_error": "failing", "disk_full": "full", "mend_disk": ""
}  # fmt: skip

_RUNNING, _UP, _ANY = ("running",), ("running", "paused"), ("running", "paused", "down")


def parse_share(text: str) -> float:
    """Return the share that a text such as ``10%`` or ``0.1`` means. Raises ValueError."""
    try:
        compact = text.strip()
        return parse_number(compact[:-1]) / 100 if compact.endswith("%") else parse_number(compact)
    except ValueError as exc:
        raise ValueError(f"{text!r} is not a share; write 10% or 0.1") from exc


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """A number that a kind of fault takes.

    Attributes:
        name: of the command-line option, without dashes.
        parse: from a text; raises ValueError.
        metavar, help: as the command line shows them.
        is_valid, bounds: which values there may be, and the sentence that says so.
        in_plan: its value in fault plans.
        default: its value on the command line; None where it must be given.
    """

    name: str
    parse: Callable[[str], float]
    metavar: str
    help: str
    is_valid: Callable[[float], bool]
    bounds: str
    in_plan: float
    default: float | None = None

    @property
    def example(self) -> str:
        """Its value in fault plans, as the command line takes it."""
        return f"{self.in_plan * 1000:g}ms" if self.parse is parse_duration else f"{self.in_plan:g}"


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A request to etcd that is a fault.

    Attributes:
        path: in etcd's JSON gateway, for where gRPC is not spoken.
        method: of etcd's gRPC API.
        verb: what etcd does then, for messages: ``defragment``.
        member_field: where the leader is asked: the field of the request, its first, that names the member by its ID.
            Empty: the member itself is asked.
    """

    path: str
    method: str
    verb: str
    member_field: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """All that is known of one kind of fault.

    Attributes:
        name: of its command, and in events.
        help: one sentence in the imperative mood.
        methods: what is called on each member, in order.
        options: the numbers that it takes, which the method gets in this order.
        request: what does it where the cluster has no method for it.
        applies_to: states of members to whom it can be done.
        undone_by: the command that undoes it; empty for what ends by itself.
        calm: the values with which its method undoes it, where that is how ``heal`` does it.
        on_links: whether it is done to the links between members, for which a local cluster needs its relay.
        on_disk: whether it is done to what members write, for which a local cluster traps their system calls.
        takes_leader: whether a leader it is done to is gone at once. One that is told to end leads until it does.
        effect: what is waited for: that members agree on a leader again (or know that there is none), nothing, that
            the member leads, or that a call of the member was struck, and then as the first.
        plan_names: its names in fault plans, each with ``-TARGET``.
        plan_target: its target where its name stands alone in a fault plan; empty where it may not.
        in_default_plan: names in the plan of a `raftload chaos` that names no faults.
        button: its label on the Cluster page; empty for none. There its options have their values in fault plans.
    """

    name: str
    help: str
    methods: tuple[str, ...]
    options: tuple[Option, ...] = ()
    request: Request | None = None
    applies_to: tuple[str, ...] = _RUNNING
    undone_by: str = ""
    calm: tuple[float, ...] = ()
    on_links: bool = False
    on_disk: bool = False
    takes_leader: bool = False
    effect: Literal["settled", "nothing", "leads", "struck"] = "settled"
    plan_names: tuple[str, ...] = ()
    plan_target: str = ""
    in_default_plan: tuple[str, ...] = ()
    button: str = ""

    @property
    def ends_process(self) -> bool:
        """Whether the member's process is another one afterwards."""
        return any(_STATE_AFTER.get(method) == "down" for method in self.methods)

    @property
    def brings_back(self) -> bool:
        """Whether a member that was down or paused runs afterwards."""
        return any(_STATE_AFTER.get(method) == "running" for method in self.methods)

    def why_not_here(self, cannot: Mapping[str, str]) -> str:
        """Return why it does not work on a cluster, from what the cluster says of its methods; empty where it does."""
        return next((cannot[method] for method in self.methods if method in cannot), "")

    def is_done_to(self, subject: Subject) -> bool:
        """Return whether a member is in the state in which this kind puts it; False for one that changes no state."""
        fresh, actions = Subject(subject.name), [Action(method, subject.name) for method in self.methods]
        return after((subject,), actions) == (subject,) and after((fresh,), actions) != (fresh,)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "kill", "end a member at once with SIGKILL", ("kill",), applies_to=_UP, undone_by="start",
            takes_leader=True, plan_names=("kill",), in_default_plan=("kill-leader", "kill-random"), button="Kill",
        ),
        Kind(
            "stop", "end a member with SIGTERM, so that it shuts down in order", ("terminate",), applies_to=_UP,
            undone_by="start", plan_names=("stop",),
        ),
        Kind(
            "pause", "freeze a member: its connections stay, but it answers nothing", ("pause",), undone_by="resume",
            takes_leader=True, plan_names=("pause",), in_default_plan=("pause-follower",), button="Pause",
        ),
        Kind(
            "partition", "cut each member of TARGET off from all its peers; clients still reach it", ("isolate",),
            undone_by=HEAL, on_links=True, takes_leader=True, plan_names=("partition", "isolate"),
            in_default_plan=("partition-leader", "isolate-random"), button="Partition",
        ),
        Kind(
            "delay", "delay the traffic between a member and its peers (local backend only)", ("delay",),
            options=(
                Option("by", parse_duration, "DURATION", "delay in each direction, such as 50ms",
                       lambda value: 0 < value <= 60, "a delay is more than 0 and at most 60 s", in_plan=0.05),
                Option("jitter", parse_duration, "DURATION",
                       "random deviation from the delay, up to DURATION more or less (default: 0)",
                       lambda value: 0 <= value <= 60, "the jitter of a delay is 0 to 60 s", in_plan=0.02, default=0.0),
            ),
            undone_by=HEAL, calm=(0.0, 0.0), on_links=True, effect="nothing", plan_names=("delay",),
        ),
        Kind(
            "drop", "simulate packet loss between a member and its peers: lost data arrives late (local backend only)",
            ("drop",),
            options=(
                Option("share", parse_share, "SHARE", "share of the data that is lost, such as 10% or 0.1",
                       lambda value: 0 < value < 1, "a share to drop is more than 0 and less than 1 (100%)",
                       in_plan=0.1),
            ),
            undone_by=HEAL, calm=(0.0,), on_links=True, effect="nothing", plan_names=("drop",),
        ),
        Kind(
            "slow-disk", "make each sync of a member's files take longer (local backend with --disk-faults only)",
            ("slow_disk",),
            options=(
                Option("by", parse_duration, "DURATION", "how much longer each sync takes, such as 100ms",
                       lambda value: 0 < value <= 60, "a disk is slower by more than 0 and at most 60 s", in_plan=0.1),
            ),
            undone_by=HEAL, on_disk=True, effect="struck", plan_names=("slow-disk",), button="Slow disk",
        ),
        Kind(
            "stuck-disk", "hold every sync of a member's files until the fault is healed (local backend with "
            "--disk-faults only)", ("stuck_disk",), undone_by=HEAL, on_disk=True, takes_leader=True, effect="struck",
            plan_names=("stuck-disk",), button="Stuck disk",
        ),
        Kind(
            "disk-error", "fail each sync of a member's files with EIO; etcd then ends itself (local backend with "
            "--disk-faults only)", ("disk_error",), undone_by=HEAL, on_disk=True, takes_leader=True, effect="struck",
            plan_names=("disk-error",), button="Disk error",
        ),
        Kind(
            "disk-full", "fail each write of a member that needs space with ENOSPC; etcd then ends itself (local "
            "backend with --disk-faults only)", ("disk_full",), undone_by=HEAL, on_disk=True, takes_leader=True,
            effect="struck", plan_names=("disk-full",), button="Disk full",
        ),
        Kind("start", "start a member that is down, with its data", ("start",), applies_to=("down",), button="Start"),
        Kind("resume", "let a paused member go on", ("resume",), applies_to=("paused",), button="Resume"),
        Kind(
            "crash", "end a member with SIGKILL and start it again", ("kill", "start"), applies_to=_ANY,
            takes_leader=True, plan_names=("crash",),
        ),
        Kind(
            "restart", "end a member with SIGTERM and start it again", ("terminate", "start"), applies_to=_ANY,
            plan_names=("restart",), in_default_plan=("restart-all",),
        ),
        Kind(
            "defrag", "make a member defragment its store; meanwhile it answers nothing", ("defrag",),
            request=Request("/v3/maintenance/defragment", "/etcdserverpb.Maintenance/Defragment", "defragment"),
            plan_names=("defrag",), plan_target="all", in_default_plan=("defrag",),
        ),
        Kind(
            "transfer-leader", "transfer leadership to a member", ("transfer",),
            request=Request(
                "/v3/maintenance/transfer-leadership", "/etcdserverpb.Maintenance/MoveLeader", "hand over leadership",
                member_field="targetID",
            ),
            effect="leads", plan_target="follower", in_default_plan=("transfer-leader",), button="Make leader",
        ),
    )
}  # fmt: skip


def undoing() -> frozenset[str]:
    """Return the commands that undo faults, and do none."""
    return frozenset({HEAL, *(kind.undone_by for kind in KINDS.values() if kind.undone_by)})


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """What to do.

    Attributes:
        kind: one of KINDS.
        target: see the module.
        options: values of the kind's options by name; those with a default may be left out.
    """

    kind: str
    target: str
    options: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"there is no fault {self.kind!r}: choose from {', '.join(KINDS)}")
        options = KINDS[self.kind].options
        for name in self.options.keys() - {option.name for option in options}:
            raise UsageError(f"{self.kind} takes no option {name!r}")
        for option in options:
            value = self.options.get(option.name, option.default)
            if value is None or not option.is_valid(value):
                raise UsageError(option.bounds)

    @property
    def values(self) -> tuple[float, ...]:
        """The values of its options, in the order of the kind's."""
        return tuple(self.options.get(each.name, each.default or 0.0) for each in KINDS[self.kind].options)


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """A member as a fault finds it.

    Attributes:
        name: of the member.
        state: ``running``, ``paused`` or ``down``.
        isolated: whether it is cut off from its peers.
        disk: ``slow``, ``stuck``, ``failing`` or ``full``; empty where no fault was done to it.
    """

    name: str
    state: str = "running"
    isolated: bool = False
    disk: str = ""

    @property
    def answers(self) -> bool:
        """Whether it tells its status, which hangs soon where its disk is stuck."""
        return self.state == "running" and self.disk != "stuck"

    @property
    def takes_part(self) -> bool:
        """Whether it can vote."""
        return self.state == "running" and not self.isolated and self.disk in ("", "slow")


@dataclasses.dataclass(frozen=True, slots=True)
class Action:
    """One call of a method on one member."""

    method: str
    member: str
    values: tuple[float, ...] = ()


def plan(fault: Fault, members: Sequence[Subject], leader: str | None, rng: random.Random) -> tuple[Action, ...]:
    """Return what to do, in order.

    Takes the members as they are, who leads (None: nobody), and where chance comes from. Raises UsageError, saying
    what to do, for an unknown target and for a fault that does not apply to a member.
    """
    chosen = _choose(fault, members, leader, rng)
    for subject in chosen:
        reason, advice = refusal(fault.kind, subject, len(members), leader)
        if reason:
            raise UsageError(f"{reason}: {advice}" if advice else reason)
    return tuple(
        Action(method, subject.name, fault.values)
        for method in KINDS[fault.kind].methods
        for subject in chosen
        if not (_STATE_AFTER.get(method) == "down" and subject.state == "down")
    )


def healing(members: Sequence[Subject], disturbed: Collection[str] = ()) -> tuple[Action, ...]:
    """Return what undoes everything. Takes the members, and the names of those whose links are delayed or lossy."""
    calming = [(kind.methods[0], kind.calm) for kind in KINDS.values() if kind.calm]
    actions = [Action(method, name, values) for method, values in calming for name in sorted(disturbed)]
    actions += [Action("join", member.name) for member in members if member.isolated]
    actions += [Action("mend_disk", member.name) for member in members if member.disk]
    actions += [Action("resume", member.name) for member in members if member.state == "paused"]
    actions += [Action("start", member.name) for member in members if member.state == "down"]
    return tuple(actions)


def after(members: Sequence[Subject], actions: Sequence[Action]) -> tuple[Subject, ...]:
    """Return the members as they are when the actions were done."""
    found = {member.name: member for member in members}
    for action in actions:
        old = found[action.member]
        isolated = _ISOLATED_AFTER.get(action.method, old.isolated)
        disk = _DISK_AFTER.get(action.method, old.disk)
        found[old.name] = Subject(old.name, _STATE_AFTER.get(action.method, old.state), isolated, disk)
    return tuple(found[member.name] for member in members)


def quorum(count: int) -> int:
    """Return how many of so many members make a quorum."""
    return count // 2 + 1


def refusal(kind_name: str, subject: Subject, members: int, leader: str | None) -> tuple[str, str]:
    """Return why a fault does not apply to a member of a cluster of so many, and what to do; twice "" where it does."""
    kind, name = KINDS[kind_name], subject.name
    if subject.state not in kind.applies_to:
        if "running" not in kind.applies_to:
            return f"{name} is {subject.state}, not {' or '.join(kind.applies_to)}", f"nothing to {kind.name}"
        if subject.state == "down":
            return f"{name} is down already", f"`raftload cluster start {name}`"
        return f"{name} is paused", f"`raftload cluster resume {name}`"
    if kind.on_links and members == 1:
        return "a cluster of one has no links between members", ""
    if subject.isolated and "isolate" in kind.methods:
        return f"{name} is cut off already", "`raftload cluster heal`"
    if kind.on_disk and subject.disk:
        return f"the disk of {name} is {subject.disk} already", "`raftload cluster heal`"
    if (kind.name == "start" or kind.effect == "leads") and subject.disk not in ("", "slow"):
        return f"the disk of {name} is {subject.disk}, with which it would not serve", "`raftload cluster heal`"
    if kind.effect == "leads":
        if leader is None:
            return "there is no leader now, so none can transfer its leadership", "`raftload cluster heal` first"
        if subject.isolated:
            return f"{name} is cut off", "`raftload cluster heal`"
        if name == leader:
            return f"{name} leads already", "name a follower"
    return "", ""


def _choose(fault: Fault, members: Sequence[Subject], leader: str | None, rng: random.Random) -> list[Subject]:
    by_name = {member.name: member for member in members}
    target = fault.target.strip()
    fitting = [each for each in members if not refusal(fault.kind, each, len(members), leader)[0]]
    if target == "leader":
        if leader is None:
            raise UsageError("there is no leader now: name a member, or `raftload cluster heal` first")
        return [by_name[leader]]
    if target in ("follower", "random"):
        pool = [each for each in fitting if target == "random" or (each.name != leader and each.takes_part)]
        if not pool:
            raise UsageError(f"there is no member to {fault.kind} ({target}): see `raftload cluster status`")
        return [rng.choice(pool)]
    if target == "all":
        if not fitting:
            raise UsageError(f"there is no member to {fault.kind}: see `raftload cluster status`")
        return fitting
    if target in ("majority", "minority"):
        size = quorum(len(members)) if target == "majority" else len(members) - quorum(len(members))
        if size == 0:
            raise UsageError(f"a cluster of {len(members)} can spare no member: it has no minority")
        if len(fitting) < size:
            raise UsageError(
                f"only {len(fitting)} members to {fault.kind}, a {target} is {size}: `raftload cluster heal`"
            )
        picked = {each.name for each in rng.sample(fitting, size)}
        return [each for each in members if each.name in picked]
    names = [name.strip() for name in target.split(",")]
    for name in names:
        if name not in by_name:
            raise UsageError(f"no member {name!r}: there are {', '.join(by_name)}; or {', '.join(TARGETS)}")
    return [by_name[name] for name in dict.fromkeys(names)]
