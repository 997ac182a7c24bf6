"""The search for the highest rate at which every goal holds. Pure: no clock and no I/O.

A `Search` says at which rate the load is to go (`Search.rate`), takes what came of it in one block of time after the
other (`Search.add`), and says when it knows enough. A goal is a share of operations that may be bad: that the p99 is
below 20 ms means that at most 1 % of the operations take longer. How long a stay at a rate lasts is up to a sequential
test, which may look after every block:

- The test is Robbins' mixture of binomial likelihoods (H. Robbins, "Statistical methods related to the law of the
  iterated logarithm", Ann. Math. Statist. 41, 1970): the chance that it ever decides wrongly is bounded, however often
  one looks. Bad operations come in bursts, so counts are divided by how much more the blocks differ than independent
  operations would (the variance inflation of quasi-likelihood: P. McCullagh, J. Nelder, "Generalized Linear Models",
  1989, section 4.5), as it was seen in all stays so far.
- An operation that is open for longer than a goal's bound is bad before it returns. So a server that falls behind, or
  answers nothing, is found out within a block or two.
- Operations in flight that become more from block to block mean that the rate is not sustained, even where the goals
  allow the latency of that moment (a t test over the differences).

The rate doubles until a goal breaks, then the bracket between the highest rate that holds and the lowest that does not
is halved until it is as narrow as was asked for. Where the first rate breaks it goes down to a half, then to a quarter
of that and to a 16th each time, so that it is soon known whether any rate holds. After a stay that broke a goal, the
load is low until the backlog is gone. Both ends are then measured again, at another time and the lower one for longer:
one disturbance of some seconds rarely decides.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
from collections.abc import Iterator, Sequence

# The chance that one stay ends with the wrong decision, where its blocks are as the test takes them; and that stays at
# neighbouring rates do so together.
ERROR, BRACKET_ERROR = 0.005, 0.025
# Blocks after a change of rate that are not counted: operations that were due before it come back in them.
SETTLING = 1
# The same at the load's beginning, when connections are new and caches cold.
WARMING = 4
# Blocks of a stay, at least before it may hold or break, and at the most; and where the answer is confirmed.
LEAST_HOLD, LEAST_BREAK, MOST = 3, 2, 16
CONFIRM_LEAST, CONFIRM_MOST = 20, 40
# Doubling, and how far a hint from an overload may be off at first, in units of the precision.
GROWTH = 2.0
# By which factor it goes down at the most where nothing has held yet.
STEEPEST = 16.0
# How often a confirmation may send the search back before the capacity is said to move.
MOST_RETURNS = 4
# Blocks in which a backlog has to drain.
MOST_DRAINING = 120
# With so many blocks of this weight the variance inflation begins, before anything was seen.
FIRST_INFLATION, INFLATION_WEIGHT = 2.0, 4.0
# Of the in-flight growth: how many differences, their t, and the least share of what was due.
LEAST_GROWTHS, GROWTH_T, LEAST_GROWTH = 5, 6.0, 0.003
# Operations in flight that are no backlog.
FEW_IN_FLIGHT = 8
# Where the bracket is made narrower once the answer is there, as factors of that, and by how many stays at the most.
TIGHTENING, MOST_TIGHTENING = (1.08, 1.2, 1.5), 4


@dataclasses.dataclass(frozen=True, slots=True)
class Goal:
    """What is to hold.

    Attributes:
        share: of the operations that may be bad, 0 or more and less than 1.
        bound_s: from how many seconds on an operation is bad; None where it is bad for another reason.
    """

    share: float
    bound_s: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """What came of the load in some time at one rate.

    Attributes:
        seconds: how long it was.
        due: how many operations were due in it; ``dropped``: how many of these were never sent.
        returned: how many came back, failures among them.
        in_flight: how many were open at its end.
        counts: for each goal, how many operations came back that it is about, and how many of them were bad.
        is_late: whether it was the generator that was late, by its own measure.
    """

    seconds: float
    due: int
    dropped: int
    returned: int
    in_flight: int
    counts: tuple[tuple[int, int], ...]
    is_late: bool = False


class Decision(enum.Enum):
    """What a stay at a rate came to: all goals hold, one breaks, or one breaks and the generator was late."""

    HOLDS = "holds"
    BREAKS = "breaks"
    LATE = "late"


class Phase(enum.Enum):
    """What the search is at."""

    PROBING = "probing"
    NARROWING = "narrowing"
    CONFIRMING = "confirming"
    TIGHTENING = "tightening"
    DRAINING = "draining"
    DONE = "done"


@dataclasses.dataclass(slots=True)
class Stay:
    """Some time at one rate.

    Attributes:
        rate: operations per second that were asked for.
        phase: what for.
        blocks: those that count.
        decision: None while it goes on.
        is_sure: whether the test decided, and not that there was no more time.
        broken: the goals that broke, by number; of a stay that was cut at its most, those that looked so.
        is_growing: whether operations in flight became more and more.
    """

    rate: float
    phase: Phase
    blocks: list[Block] = dataclasses.field(default_factory=list)
    decision: Decision | None = None
    is_sure: bool = False
    broken: tuple[int, ...] = ()
    is_growing: bool = False
    settling: int = SETTLING

    @property
    def seconds(self) -> float:
        """How long it was."""
        return sum(each.seconds for each in self.blocks)

    @property
    def sent(self) -> int:
        """How many operations were sent."""
        return sum(each.due - each.dropped for each in self.blocks)

    @property
    def achieved(self) -> float:
        """Operations per second that were sent."""
        return self.sent / self.seconds if self.blocks else 0.0


class Search:
    """See the module.

    Takes the goals; the first rate and the highest one that may be tried, in operations per second; how far the two
    ends of the bracket may be apart, as a share; and after how many seconds of load to end.

    Attributes:
        rate: at which the load is to go now; None at the end.
        phase: what the search is at.
        stays: all of them, the one that goes on being the last.
        low: the highest rate that holds by now, None without one; ``high``: the lowest above it that does not.
        reason: why it ended without an answer, in a sentence; empty where there is one, or it goes on.
    """

    NONE_HOLDS = "not even the lowest rate holds"

    def __init__(
        self, goals: Sequence[Goal], *, start_rate: float, max_rate: float, precision: float = 0.02,
        least_rate: float = 1.0, limit_s: float = math.inf,
    ) -> None:  # fmt: skip
        self.goals = tuple(goals)
        self._max_rate, self._least_rate = max_rate, least_rate
        self._precision, self._limit_s = precision, limit_s
        self.stays: list[Stay] = []
        self.low: float | None = None
        self.high: float | None = None
        self.reason = ""
        self.phase = Phase.PROBING
        self.rate: float | None = None
        self._spent_s = 0.0
        # By which factor to go down where nothing has held yet; it is squared each time, up to `STEEPEST`.
        self._descent = GROWTH
        # How far from the last rate to try the next, after a hint of where the capacity is.
        self._stride: float | None = None
        self._hinted: float | None = None
        self._inflation = _Inflation(len(self.goals))
        self._calm = FEW_IN_FLIGHT
        self._drained = 0
        self._after_drain: tuple[float, Phase] | None = None
        self._returns = self._tightened = 0
        self._confirmed_high: float | None = None
        self._answer: float | None = None
        # What each goal is about, as a share of all operations.
        self._about = [[0, 0] for _ in self.goals]
        self._go(min(start_rate, max_rate), Phase.PROBING)
        self.stays[0].settling = WARMING

    # -- the answer -----------------------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to ask."""
        return self.phase is Phase.DONE

    @property
    def answer(self) -> float | None:
        """The highest rate that holds, as it was sent and confirmed; None without one."""
        if self._answer is None:
            return None
        return min(self._answer, max((each.achieved for each in self._at(self._answer, Decision.HOLDS)), default=0.0))

    @property
    def limit(self) -> Stay | None:
        """The stay at the lowest rate that broke a goal above the answer, the latest of these; None without one.

        One that broke without the generator's doing comes before one with it, where both are as good as at one rate.
        """
        above = [
            each for each in self.stays
            if each.decision in (Decision.BREAKS, Decision.LATE) and each.rate > (self.low or 0.0)
        ]  # fmt: skip
        lowest = min((each.rate for each in above), default=0.0)
        near = [each for each in above if each.rate <= lowest * (1 + 2 * self._precision)]
        return min(reversed(near), key=lambda each: (each.decision is Decision.LATE, each.rate), default=None)

    def bracket(self) -> tuple[float | None, float | None]:
        """Return the highest rate that the tests saw hold and the lowest that they saw break; None without one.

        A rate is the lower end where the goals were decided to hold at it, or the stays from it on up to a higher rate
        decide so together; the upper end is found likewise. It takes some seconds in all, since what lasts for less
        says little, however many operations it has. It is no confidence interval: what disturbs a server more seldom
        than a stay is long is not in it.
        """
        rates = sorted({each.rate for each in self.stays if each.blocks})
        low = high = None
        for at, rate in enumerate(rates):
            if any(self._pooled(rates[at:end]) is Decision.HOLDS for end in range(at + 1, len(rates) + 1)):
                low = rate
        for at, rate in reversed([*enumerate(rates)]):
            if any(self._pooled(rates[begin : at + 1]) is Decision.BREAKS for begin in range(at + 1)):
                high = rate
        if self._answer is not None:
            # What moved while it was measured can contradict itself; the last word is the confirmation's.
            low = min(low, self._answer) if low is not None else None
            high = max(high, self._answer) if high is not None else None
        return low, high

    # -- the search -----------------------------------------------------------------------------------------

    def add(self, block: Block) -> bool:
        """Take the next block, at the present rate. Returns whether there is another rate now, or the end."""
        before, stays = self.rate, len(self.stays)
        self._spent_s += block.seconds
        if self.phase is Phase.DRAINING:
            self._drain(block)
        elif not self.is_done:
            stay = self.stays[-1]
            if stay.settling:
                stay.settling -= 1
            else:
                self._count(stay, block)
        self.note_time(self._spent_s)
        return self.rate != before or len(self.stays) != stays

    def note_time(self, load_s: float) -> None:
        """End where there was no more time. Takes the seconds of load by now, also those that no block tells of."""
        if load_s > self._limit_s:
            self.end(f"there was no more time after {load_s:,.0f} s")

    def end(self, reason: str) -> None:
        """End early, with what is known by now. Takes why."""
        if not self.is_done:
            self.reason = "" if self._answer is not None else reason
            self.phase, self.rate = Phase.DONE, None
            if self.stays and self.stays[-1].decision is None and not self.stays[-1].blocks:
                self.stays.pop()

    def _go(self, rate: float, phase: Phase) -> None:
        self.rate, self.phase = rate, phase
        self.stays.append(Stay(rate, phase))

    def _drain(self, block: Block) -> None:
        assert self._after_drain is not None
        self._drained += 1
        if block.in_flight <= self._calm:
            self._go(*self._after_drain)
        elif self._drained >= MOST_DRAINING:
            self.end("operations were still open long after a rate that broke a goal: the backlog did not drain")

    def _count(self, stay: Stay, block: Block) -> None:
        stay.blocks.append(block)
        for about, (count, _) in zip(self._about, block.counts, strict=True):
            about[0] += count
            about[1] += block.returned
        decision = self._decide(stay)
        if decision is None:
            return
        stay.decision = decision
        self._inflation.learn(stay)
        # What is to be tried next.
        if decision is Decision.HOLDS:
            self._calm = max(self._calm, *(each.in_flight for each in stay.blocks))
        self._next(stay)

    def _decide(self, stay: Stay) -> Decision | None:
        """Return what a stay has come to by now; None where it has to go on."""
        verdicts = [self._test(number, [stay]) for number in range(len(self.goals))]
        count = len(stay.blocks)
        stay.broken = tuple(number for number, each in enumerate(verdicts) if each is Decision.BREAKS)
        stay.is_growing = _grows(stay)
        # Where a confirmation failed, stays were too short for this server.
        least, most = min(LEAST_HOLD << self._returns, MOST), MOST
        if stay.phase is Phase.CONFIRMING and stay.rate == self.low:
            least, most = CONFIRM_LEAST, CONFIRM_MOST
        if (stay.broken and count >= LEAST_BREAK) or stay.is_growing:
            stay.is_sure = True
            stay.broken = stay.broken or self._over(stay)
            return self._broken(stay)
        if count >= least and not _may_grow(stay):
            stay.is_sure = all(each is Decision.HOLDS for each in verdicts)
            if stay.is_sure or (stay.phase is Phase.PROBING and self._looks_fine(stay)):
                return Decision.HOLDS
        if count < most:
            return None
        stay.broken = self._over(stay)
        if not stay.broken and any(self._is_unknown(number, stay) for number in range(len(self.goals))):
            self.end(f"no operation that a threshold is about came back in {stay.seconds:,.0f} s at {stay.rate:,.4g}/s")
            return None
        return self._broken(stay) if stay.broken else Decision.HOLDS

    def _is_unknown(self, number: int, stay: Stay) -> bool:
        """Tell whether operations came back, and none that a goal is about: then nothing says that it breaks."""
        return any(each.returned for each in stay.blocks) and not sum(row[0] for row in self._tally(number, stay))

    def _over(self, stay: Stay) -> tuple[int, ...]:
        """Return the goals of which a larger share is bad than may be, sure or not."""
        return tuple(
            number for number, goal in enumerate(self.goals)
            if self._share(number, [stay]) > goal.share and not self._is_unknown(number, stay)
        )  # fmt: skip

    def _looks_fine(self, stay: Stay) -> bool:
        """Tell whether far fewer operations are bad than may be: enough for a first look."""
        counts = [sum(row[0] for row in self._tally(number, stay)) for number in range(len(self.goals))]
        return all(
            count * goal.share >= 1 and self._share(number, [stay]) < goal.share / 4
            for number, (goal, count) in enumerate(zip(self.goals, counts, strict=True))
        )

    def _broken(self, stay: Stay) -> Decision:
        late = sum(each.is_late for each in stay.blocks)
        return Decision.LATE if 2 * late >= len(stay.blocks) else Decision.BREAKS

    def _next(self, stay: Stay) -> None:
        """Go on to what follows from a stay that is decided."""
        holds = stay.decision is Decision.HOLDS
        phase = stay.phase
        if phase is Phase.TIGHTENING:
            self._tighten(stay)
            return
        if phase is Phase.CONFIRMING and stay.rate == self.low:
            if holds:
                self._answer = stay.rate
                self._tighten(stay)
                return
            self._go_back(stay)
        elif holds:
            self.low = max(self.low or 0.0, stay.rate)
            if self.high is not None and self.high <= self.low:
                # It broke before, and does not any more.
                self.high = min((each.rate for each in self._broken_above(self.low)), default=None)
                self._confirmed_high = None
        else:
            if phase is Phase.CONFIRMING:
                self._confirmed_high = stay.rate
            self.high = stay.rate if self.high is None else min(self.high, stay.rate)
            self._hint(stay)
        self._choose(stay)

    def _broken_above(self, rate: float) -> Iterator[Stay]:
        """Yield the stays that broke above a rate, but at rates where a later stay held."""
        for at, each in enumerate(self.stays):
            later = (other for other in self.stays[at + 1 :] if other.decision is Decision.HOLDS)
            broke = each.rate > rate and each.decision in (Decision.BREAKS, Decision.LATE)
            if broke and not any(other.rate >= each.rate for other in later):
                yield each

    def _go_back(self, stay: Stay) -> None:
        """Take back that the lower end holds: it did not in its confirmation."""
        self._returns += 1
        below = stay.rate / (1 + self._precision * (1 << self._returns) / 2)
        self.high, self._confirmed_high = stay.rate, stay.rate
        self._stride = 2 * self._precision
        held = [each.rate for each in self.stays if each.decision is Decision.HOLDS and each.rate < below]
        # What failed twice is not found out by going up to it once more: from there on down, further each time.
        self.low = below if self._is_descending else max(held, default=None)

    @property
    def _is_descending(self) -> bool:
        return self._returns > 1

    def _hint(self, stay: Stay) -> None:
        """Note what an overloaded server did per second, which is not far from what it can."""
        done = sum(each.returned for each in stay.blocks) / stay.seconds * (1 - self._precision / 2)
        is_overload = stay.phase is Phase.PROBING and (self.low or 0.0) < done < stay.rate * 0.95
        self._hinted = done if is_overload else None

    def _choose(self, stay: Stay) -> None:
        low, high = self.low, self.high
        if self._returns > MOST_RETURNS:
            self.end("what held did not hold when it was measured again, time after time: the capacity moves")
        elif high is None:
            assert low is not None
            if low >= self._max_rate:
                self._move(low, Phase.CONFIRMING, stay)
            else:
                self._move(min(low * GROWTH, self._max_rate), Phase.PROBING, stay)
        elif low is None:
            if high <= self._least_rate:
                self.end(self.NONE_HOLDS)
            else:
                self._move(max(high / self._descent, self._least_rate), Phase.PROBING, stay)
                self._descent = min(self._descent**2, STEEPEST)
        elif self._is_descending or high <= low * (1 + self._precision * (1 if stay.is_sure else 2 << self._returns)):
            # Where a stay could not decide, a narrower bracket says no more.
            if self._confirmed_high != high:
                self._move(high, Phase.CONFIRMING, stay)
            else:
                self._move(low, Phase.CONFIRMING, stay)
        else:
            self._move(self._between(low, high, stay), Phase.NARROWING, stay)

    def _between(self, low: float, high: float, stay: Stay) -> float:
        """Return the next rate to try between two."""
        middle = math.sqrt(low * high)
        hinted, self._hinted = self._hinted, None
        if hinted is not None and low < hinted < high:
            self._stride = 2 * self._precision
            return hinted
        if self._stride is not None:
            far = self._stride
            self._stride = 2 * far
            rate = low * (1 + far) if stay.decision is Decision.HOLDS else high / (1 + far)
            if low < rate < high and (rate < middle) == (stay.decision is Decision.HOLDS):
                return rate
            self._stride = None
        return middle

    def _move(self, rate: float, phase: Phase, stay: Stay) -> None:
        """Go to another rate, once the backlog of a stay is gone."""
        if stay.decision is Decision.HOLDS:
            self._go(rate, phase)
            return
        self.phase = Phase.DRAINING
        self._drained = 0
        self._after_drain = (rate, phase)
        self.rate = max(self._least_rate, (self.low or stay.rate / 4) / 4)

    def _tighten(self, stay: Stay) -> None:
        """Measure between the answer and what bounds it by the tests, where that is far off; else end."""
        answer = self._answer
        assert answer is not None
        low, high = self.bracket()
        for factor in TIGHTENING:
            below, above = answer / factor, answer * factor
            tried = [each.rate for each in self.stays if each.phase is Phase.TIGHTENING]
            if self._tightened >= MOST_TIGHTENING:
                break
            if (low is None or low < below) and below not in tried:
                wanted = below
            elif high is not None and self.high is not None and above < high and above not in tried:
                wanted = above
            else:
                continue
            self._tightened += 1
            self._move(wanted, Phase.TIGHTENING, stay)
            return
        self.phase, self.rate = Phase.DONE, None

    # -- the test -------------------------------------------------------------------------------------------

    def _at(self, rate: float, decision: Decision) -> list[Stay]:
        return [each for each in self.stays if each.rate == rate and each.decision is decision]

    def _pooled(self, rates: Sequence[float]) -> Decision | None:
        """Return what the stays at some rates decide together."""
        stays = [each for each in self.stays if each.rate in rates and each.blocks]
        blocks = sum(len(each.blocks) for each in stays)
        if any(each.is_growing for each in stays):
            # Said of each of them, not of what they have in common.
            return Decision.BREAKS if all(each.is_growing for each in stays) else None
        verdicts = [self._test(number, stays, BRACKET_ERROR) for number in range(len(self.goals))]
        if Decision.BREAKS in verdicts:
            return Decision.BREAKS if blocks >= 2 * LEAST_BREAK else None
        return Decision.HOLDS if blocks >= MOST and all(each is Decision.HOLDS for each in verdicts) else None

    def _tally(self, number: int, stay: Stay) -> list[tuple[float, float]]:
        """Return for each block of a stay how many operations count for a goal, and how many of them were bad."""
        goal, (about, of) = self.goals[number], self._about[number]
        weight = about / of if of else 1.0
        rows = [
            (counts[number][0] + weight * dropped, counts[number][1] + weight * dropped)
            for counts, dropped in ((block.counts, block.dropped) for block in stay.blocks)
        ]
        if goal.bound_s is not None and stay.blocks:
            # Those that are open and older than the bound: they were due before the last `bound_s` seconds.
            over = weight * max(0.0, stay.blocks[-1].in_flight - stay.rate * goal.bound_s)
            count, bad = rows[-1]
            rows[-1] = count + over, bad + over
        return rows

    def _share(self, number: int, stays: Sequence[Stay]) -> float:
        rows = [row for stay in stays for row in self._tally(number, stay)]
        count = sum(row[0] for row in rows)
        return sum(row[1] for row in rows) / count if count else 1.0

    def _test(self, number: int, stays: Sequence[Stay], error: float = ERROR) -> Decision | None:
        """Return whether stays decide that a goal holds or breaks; None where they do not."""
        goal = self.goals[number]
        tallies = [self._tally(number, stay) for stay in stays]
        count = sum(row[0] for rows in tallies for row in rows)
        bad = sum(row[1] for rows in tallies for row in rows)
        if not count:
            return None
        inflation = self._inflation.of(number, tallies)
        share = max(goal.share, 1e-6)
        if _evidence(count / inflation, bad / inflation, share) < math.log(1 / error):
            # What may never happen has broken when it has.
            return Decision.BREAKS if bad and not goal.share else self._never(goal, count, bad)
        return Decision.HOLDS if bad / count < share else Decision.BREAKS

    def _never(self, goal: Goal, count: float, bad: float) -> Decision | None:
        """Return HOLDS for what may never happen and has not in a thousand operations: more cannot be shown."""
        return Decision.HOLDS if not goal.share and not bad and count >= 1000 else None


def _evidence(count: float, bad: float, share: float) -> float:
    """Return the logarithm of how much likelier a count of bad ones is for a mixture of shares than for this share.

    The mixture is a Beta distribution with the mean ``share``.
    """
    a, b = 0.5, 0.5 / share - 0.5
    mixed = _log_beta(a + bad, b + max(0.0, count - bad)) - _log_beta(a, b)
    return mixed - bad * math.log(share) - max(0.0, count - bad) * math.log1p(-share)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


class _Inflation:
    """How much more blocks differ than they would if operations were bad independently of each other, by goal."""

    def __init__(self, goals: int) -> None:
        self._known = [(FIRST_INFLATION * INFLATION_WEIGHT, INFLATION_WEIGHT) for _ in range(goals)]
        self._goals = goals

    def of(self, number: int, tallies: Sequence[Sequence[tuple[float, float]]]) -> float:
        """Return that of some stays; what was seen before counts as `INFLATION_WEIGHT` blocks."""
        total, weight = self._known[number]
        squares, freedom = _dispersion(tallies)
        before = total / weight
        return max(1.0, (before * INFLATION_WEIGHT + squares) / (INFLATION_WEIGHT + freedom))

    def learn(self, stay: Stay) -> None:
        """Take a stay that is over into account, where bad operations are rare: an overload says nothing."""
        for number in range(self._goals):
            rows = [each.counts[number] for each in stay.blocks]
            bad, count = sum(each[1] for each in rows), sum(each[0] for each in rows)
            if bad and bad < 0.2 * count:
                squares, freedom = _dispersion([rows])
                total, weight = self._known[number]
                self._known[number] = total + squares, weight + freedom


def _dispersion(tallies: Sequence[Sequence[tuple[float, float]]]) -> tuple[float, float]:
    """Return Pearson's statistic of blocks about the share of each stay, and its degrees of freedom."""
    squares = freedom = 0.0
    for rows in tallies:
        count, bad = sum(row[0] for row in rows), sum(row[1] for row in rows)
        if not 0 < bad < count or len(rows) < 2:
            continue
        share = bad / count
        squares += sum((b - n * share) ** 2 / (n * share * (1 - share)) for n, b in rows if n)
        freedom += len(rows) - 1
    return squares, freedom


def _growth(stay: Stay) -> tuple[float, float]:
    """Return by how many operations per block those in flight become more on average, and the t of that."""
    levels = [each.in_flight for each in stay.blocks]
    steps = [b - a for a, b in itertools.pairwise(levels)]
    if len(steps) < 2:
        return 0.0, 0.0
    mean = sum(steps) / len(steps)
    # A count of whole operations at some moment is off by half of one, whatever the server does.
    variance = max(0.5, sum((each - mean) ** 2 for each in steps) / (len(steps) - 1))
    return mean, mean / math.sqrt(variance / len(steps))


def _grows(stay: Stay) -> bool:
    """Tell whether operations in flight become more and more."""
    mean, t = _growth(stay)
    enough = len(stay.blocks) > LEAST_GROWTHS and stay.blocks[-1].in_flight > FEW_IN_FLIGHT
    return enough and t > GROWTH_T and mean > LEAST_GROWTH * stay.rate * stay.seconds / len(stay.blocks)


def _may_grow(stay: Stay) -> bool:
    """Tell whether operations in flight may become more and more, so that a stay has to go on."""
    mean, t = _growth(stay)
    per_block = stay.rate * stay.seconds / len(stay.blocks)
    return t > GROWTH_T / 2 and mean > LEAST_GROWTH * per_block and stay.blocks[-1].in_flight > FEW_IN_FLIGHT
