"""The injected causes and the word that is right for each: the ground truth of a diagnosis.

A and B were written down before any rule: rules were made on A, and evaluated once on B, whose causes are of other
kinds, not the same ones with other magnitudes. What B had shown went into the rules, so C was written down before that,
of kinds that neither of them has; and D before C was evaluated, for the same reason. The figure is of D. `injectors.py`
injects them.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, cast

from cluster.schema.diagnose_documents import Word

Half = Literal["A", "B", "C", "D"]
Source = Literal["probes", "run"]
Of = Literal["", "all", "leader", "follower", "followers", "clients", "two"]


@dataclasses.dataclass(frozen=True, slots=True)
class Cause:
    """A cause and its label.

    Attributes:
        name: the half and a number, ``A06``.
        kind: what kind of cause it is, and of which members; no two causes are of one kind.
        label: the word that is right for the cluster.
        of: which members are to blame: ``all``, the ``leader``, one ``follower``, both ``followers``, ``two`` members,
            or the way between all members and their ``clients``. Empty where the label blames no member.
        unsure_allowed: whether ``unsure`` is right, too.
        note: what a note beside the word has to name; empty where none has to.
        sources: the evidence that the label is of: a generator that is busy by its own work makes no prober slow.
        injected: what is done, in words.
    """

    name: str
    kind: str
    label: Word
    of: Of
    injected: str
    unsure_allowed: bool = False
    note: str = ""
    sources: tuple[Source, ...] = ("probes", "run")

    @property
    def half(self) -> Half:
        """The part of the causes that it belongs to."""
        return cast("Half", self.name[0])

    @property
    def right(self) -> frozenset[Word]:
        """The words that are right."""
        return frozenset((self.label, "unsure")) if self.unsure_allowed else frozenset((self.label,))


_HALF_A = (
    Cause("A01", "no load", "healthy", "", "nothing, and no load", sources=("probes",)),
    Cause("A02", "light load in memory", "healthy", "", "light load; the data is in memory"),
    Cause("A03", "light load on five members", "healthy", "", "five members, light load"),
    Cause("A04", "plain disks", "healthy", "", "each sync of all members takes 4 ms longer: a plain cloud disk"),
    Cause("A05", "after a restart", "healthy", "", "light load after a member was killed and started again"),
    Cause("A06", "slow syncs of the leader", "disk", "leader", "each sync of the leader takes 60 ms longer"),
    Cause("A07", "slow syncs of all", "disk", "all", "each sync of all members takes 40 ms longer"),
    Cause("A08", "stuck disk of a follower", "disk", "follower", "syncs of a follower are held and never return"),
    Cause("A09", "now and then stuck disk of the leader", "disk", "leader",
          "a sync of the leader is held for 400 ms every 2 s"),
    Cause("A10", "CPU quota of the leader", "cpu", "leader", "the leader may use 5 % of a processor"),
    Cause("A11", "CPU quota of all", "cpu", "all", "each member may use 8 % of a processor"),
    Cause("A12", "busy neighbours of all", "cpu", "all",
          "all members share one processor with 8 spinning processes of higher priority; the client has another one"),
    Cause("A13", "delay between all", "network", "all", "peer links of all members are delayed by 40 ms"),
    Cause("A14", "delay of a follower", "network", "follower", "peer links of a follower are delayed by 60 ms"),
    Cause("A15", "loss of the leader", "network", "leader", "20 % is lost on the peer links of the leader"),
    Cause("A16", "far clients", "network", "clients",
          "40 ms each way between the client and all members, which are near each other"),
    Cause("A17", "huge values", "overload", "", "puts of 512 KiB as fast as they go"),
    Cause("A18", "huge ranges", "overload", "", "32 users read 20,000 keys each time"),
    Cause("A19", "many users", "overload", "", "a closed loop of 256 users puts as fast as it goes"),
    Cause("A20", "compaction", "overload", "", "300,000 revisions are compacted under load, again and again",
          unsure_allowed=True),
    Cause("A21", "generator without a processor", "client", "",
          "the generator and the prober share one processor with 6 spinning processes; the members have another one"),
    Cause("A22", "leadership that is moved", "unsure", "", "leadership is moved twice a second: nothing else is slow",
          unsure_allowed=True, note="elections"),
    Cause("A23", "quota nearly full under mixed load", "healthy", "", "light load; 95 % of the quota is used",
          note="quota"),
)  # fmt: skip

_HALF_B = (
    Cause("B01", "moderate load", "healthy", "", "400 requests a second"),
    Cause("B02", "one member", "healthy", "", "a cluster of one member, light load"),
    Cause("B03", "TLS and users", "healthy", "", "light load with TLS and a user"),
    Cause("B04", "three zones", "healthy", "",
          "peer links of all members are delayed by 2 ms: one region, three zones"),
    Cause("B05", "quota nearly full under reads", "healthy", "", "a load of reads; 95 % of the quota is used, no alarm",
          note="quota"),
    Cause("B06", "slow syncs of both followers", "disk", "followers", "each sync of both followers takes 80 ms longer"),
    Cause("B07", "slow syncs of a follower", "disk", "follower", "each sync of one follower takes 150 ms longer"),
    Cause("B08", "slow syncs of the database", "disk", "all",
          "each sync of the database of all members takes 250 ms longer; those of the log are as ever"),
    Cause("B09", "now and then stuck logs", "disk", "all",
          "a sync of the log of all members is held for 300 ms every 1.5 s"),
    Cause("B10", "CPU quota of a follower", "cpu", "follower", "a follower may use 5 % of a processor"),
    Cause("B11", "frozen members", "cpu", "all", "all members are frozen for 150 ms of every 500 ms (SIGSTOP)"),
    Cause("B12", "busy neighbours of the leader", "cpu", "leader",
          "the leader alone shares a processor with 8 spinning processes of higher priority"),
    Cause("B13", "Docker's limit of all", "cpu", "all", "containers of all members with `--cpus 0.05`"),
    Cause("B14", "Docker's limit of the leader", "cpu", "leader", "the leader's container with `--cpus 0.05`"),
    Cause("B15", "jitter", "network", "all", "peer links of all members are delayed by 5 to 80 ms at random"),
    Cause("B16", "loss between all", "network", "all", "10 % is lost on the peer links of all members"),
    Cause("B17", "far leader", "network", "leader", "peer links of the leader are delayed by 50 ms"),
    Cause("B18", "narrow links of the leader", "network", "leader",
          "peer links of the leader carry 2 Mbit/s, and values of 16 KiB are put 6 times a second"),
    Cause("B19", "delay one way", "network", "leader", "what the leader sends to both followers is delayed by 60 ms"),
    Cause("B20", "two members far from clients", "network", "two",
          "70 ms each way between the client and two of the members, which are near each other"),
    Cause("B21", "many watchers", "overload", "", "2,000 watchers on one key, which is written 200 times a second"),
    Cause("B22", "lagging watches", "overload", "", "watches far behind catch up, again and again",
          unsure_allowed=True),
    Cause("B23", "large transactions", "overload", "", "128 users send transactions of 128 puts each"),
    Cause("B24", "defragmentation", "overload", "", "200 MB of the leader are defragmented every 3 s under load",
          unsure_allowed=True),
    Cause("B25", "lease storm", "overload", "", "leases are granted and revoked, 2,000 a second or as fast as it goes"),
    Cause("B26", "frozen generator", "client", "",
          "the generator is frozen for 200 ms of every 600 ms (SIGSTOP), and so is the prober"),
    Cause("B27", "busy generator", "client", "",
          "the generator fills its processor by its own work: its scenario computes, at a rate above what it can send",
          sources=("run",)),
    Cause("B28", "flapping links of a follower", "network", "follower",
          "peer links of a follower are cut for 1.5 s of every 4 s, so that it asks for elections"),
)  # fmt: skip

_HALF_C = (
    Cause("C01", "serializable reads", "healthy", "", "1,000 serializable reads a second"),
    Cause("C02", "some watchers", "healthy", "", "100 watchers on a key, which is written 20 times a second"),
    Cause("C03", "leases kept alive", "healthy", "", "light load; 200 leases are kept alive, each once a second"),
    Cause("C04", "snapshots of a small database", "healthy", "",
          "light load; a snapshot of a small database is streamed every 5 s"),
    Cause("C05", "a large value now and then", "healthy", "", "light load; 100 KiB are put once a second"),
    Cause("C06", "two members", "healthy", "", "a cluster of two members, light load"),
    Cause("C07", "delay that nobody meets", "healthy", "", "the link between the two followers is delayed by 80 ms"),
    Cause("C08", "slow syncs of two of five", "disk", "two", "each sync of two followers of five takes 80 ms longer"),
    Cause("C09", "syncs that are slow by chance", "disk", "leader",
          "each sync of the leader is held for 100 ms with a probability of 0.3"),
    Cause("C10", "slow syncs under many users", "disk", "all",
          "each sync of all members takes 30 ms longer, and 64 users put as fast as it goes"),
    Cause("C11", "slow writes of the log", "disk", "leader",
          "each write of the leader to its log takes 40 ms longer; syncs are as ever"),
    Cause("C12", "CPU quota of both followers", "cpu", "followers", "each follower may use 5 % of a processor"),
    Cause("C13", "frozen follower", "cpu", "follower", "a follower is frozen for 300 ms of every second (SIGSTOP)"),
    Cause("C14", "frozen leader", "cpu", "leader", "the leader is frozen for 100 ms of every 300 ms (SIGSTOP)"),
    Cause("C15", "late by chance", "network", "all", "peer links of all members are late by 100 ms or not at all"),
    Cause("C16", "far leader of five", "network", "leader", "peer links of the leader of five are delayed by 50 ms"),
    Cause("C17", "a follower that is cut off", "network", "follower", "peer links of a follower are cut"),
    Cause("C18", "loss of a follower", "network", "follower", "20 % is lost on the peer links of a follower"),
    Cause("C19", "jitter to clients", "network", "clients",
          "30 to 90 ms at random each way between the client and all members"),
    Cause("C20", "connections", "overload", "", "200 clients connect, ask once and hang up, again and again"),
    Cause("C21", "large snapshots", "overload", "", "four snapshots of 200 MB at once are streamed, again and again",
          unsure_allowed=True),
    Cause("C22", "huge counts", "overload", "", "32 users count 300,000 keys each time"),
    Cause("C23", "huge deletes", "overload", "", "10,000 keys are deleted at once and filled in, again and again"),
    Cause("C24", "logins", "overload", "", "20 clients log in with a password, again and again"),
    Cause("C25", "CPU quota of clients", "client", "", "the generator and the prober may use 5 % of a processor"),
    Cause("C26", "stuttering clients", "client", "",
          "the generator and the prober are frozen for 30 ms of every 60 ms (SIGSTOP)"),
    Cause("C27", "leaders that die", "unsure", "", "the leader is killed and started again every 6 s",
          unsure_allowed=True, note="elections"),
)  # fmt: skip

_HALF_D = (
    Cause("D01", "pages", "healthy", "", "100 pages of 100 keys are read a second"),
    Cause("D02", "four members", "healthy", "", "a cluster of four members, light load"),
    Cause("D03", "a large database", "healthy", "", "light load; the database has 300 MB"),
    Cause("D04", "small compactions", "healthy", "", "light load, whose history is compacted every 5 s"),
    Cause("D05", "leadership that was moved before", "healthy", "", "light load after the leadership was moved once"),
    Cause("D06", "values of 4 KiB", "healthy", "", "150 requests a second, values of 4 KiB"),
    Cause("D07", "slow syncs of the leader and one follower", "disk", "two",
          "each sync of the leader and of one follower of two takes 70 ms longer"),
    Cause("D08", "syncs that are late by chance", "disk", "all", "syncs of all members take up to 120 ms longer"),
    Cause("D09", "now and then stuck disk of a follower", "disk", "follower",
          "a sync of a follower is held for 1 s every 4 s"),
    Cause("D10", "slow syncs of the leader's database", "disk", "leader",
          "each sync of the database of the leader takes 300 ms longer; those of the log are as ever"),
    Cause("D11", "slow syncs of larger values", "disk", "all",
          "each sync of all members takes 60 ms longer; values of 16 KiB"),
    Cause("D12", "busy neighbours of a follower", "cpu", "follower",
          "a follower alone shares a processor with 8 spinning processes of higher priority"),
    Cause("D13", "CPU quota of the leader of five", "cpu", "leader", "the leader of five may use 5 % of a processor"),
    Cause("D14", "Docker's limit of a follower", "cpu", "follower", "a follower's container with `--cpus 0.05`"),
    Cause("D15", "a follower's delay one way", "network", "follower", "what a follower sends is delayed by 80 ms"),
    Cause("D16", "flapping links of the leader", "network", "leader",
          "peer links of the leader are cut for 1 s of every 5 s", unsure_allowed=True),
    Cause("D17", "narrow links of all", "network", "all",
          "peer links of all members carry 1 Mbit/s, and values of 8 KiB are put 6 times a second"),
    Cause("D18", "delay of one link", "network", "follower",
          "the link between the leader and one follower is delayed by 80 ms"),
    Cause("D19", "loss and jitter", "network", "all",
          "5 % is lost on the peer links of all members, and they are late by up to 40 ms"),
    Cause("D20", "hashes", "overload", "", "the hash of 200 MB is asked for at each member, again and again"),
    Cause("D21", "sorted ranges", "overload", "", "32 users read 5,000 keys sorted by value each time"),
    Cause("D22", "leases that expire at once", "overload", "",
          "10,000 leases with a key each expire at once, again and again", unsure_allowed=True),
    Cause("D23", "blocking scenario", "client", "",
          "one operation in 20 of the generator's scenario blocks its process for 50 ms", sources=("run",)),
)  # fmt: skip

CAUSES: dict[str, Cause] = {cause.name: cause for cause in (*_HALF_A, *_HALF_B, *_HALF_C, *_HALF_D)}
"""All causes by name."""
