"""Times as logs write them: in any zone and precision, without a zone, and without a year."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

# What months begin with in English, German, French, Spanish, Italian and Portuguese, in which journalctl writes too.
_MONTHS = {begin: number for number, begins in enumerate((
    "jan gen ene", "feb fév fev", "mar mär mrz", "apr avr abr", "may mai mag", "jun juin giu", "jul juil lug",
    "aug aoû aou ago", "sep set", "oct okt ott out", "nov", "dec dez déc dic",
), 1) for begin in begins.split()}  # fmt: skip
# Hours of the abbreviations that mean one zone only: CST, IST and BST are used for several.
_ABBREVIATIONS = {"Z": 0, "UTC": 0, "GMT": 0, "WET": 0, "WEST": 1, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "MSK": 3,
                  "EST": -5, "EDT": -4, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7, "JST": 9, "KST": 9}  # fmt: skip
_CLOCK = (
    r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]+))?"
    r"(?:[ \u00a0\u202f]?(?P<half>[AaPp])\.?[Mm]\b\.?)?"
)
_ZONE = rf"(?:\s?(?P<zone>[+-][0-9]{{2}}(?::?[0-9]{{2}})?(?![0-9:])|(?:[Zz]|{'|'.join(_ABBREVIATIONS)})(?!\w)))?"
_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTHS, key=len, reverse=True))})"
_STAMPS = (
    re.compile(rf"(?<![0-9])(?P<year>[0-9]{{4}})[-/](?P<month>[0-9]{{2}})[-/](?P<day>[0-9]{{2}})[T _]{_CLOCK}{_ZONE}"),
    # Syslog's, also with a year, as `date` and Kibana have it: ``Sep 11 2021 14:34:50``, ``Sep 11, 2021 @ 14:34:50``.
    re.compile(
        rf"(?<![^\W_]){_MONTH}[^\W\d_]{{0,6}}\.? {{1,2}}(?P<day>[0-9]{{1,2}}),?(?: (?P<year>[0-9]{{4}}))?,?(?: @| at)? "
        rf"{_CLOCK}{_ZONE}(?: (?P<year_after>[0-9]{{4}})(?![0-9]))?",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?<![0-9])(?P<day>[0-9]{{1,2}})[/ -]{_MONTH}[^\W\d_]{{0,6}}[/ -](?P<year>[0-9]{{4}}),?[: ]{_CLOCK}{_ZONE}",
        re.IGNORECASE,
    ),
    # With points the day comes first everywhere; with slashes it depends on the country, so nobody knows.
    re.compile(rf"(?<![0-9.])(?P<day>[0-9]{{1,2}})\.(?P<month>[0-9]{{1,2}})\.(?P<year>[0-9]{{4}}),? {_CLOCK}{_ZONE}"),
    re.compile(rf"(?<![0-9])(?P<month>[0-9]{{1,2}})月 {{1,2}}(?P<day>[0-9]{{1,2}}) {_CLOCK}"),  # Chinese and Japanese
    re.compile(rf"(?:^|\s)[IWEF](?P<month>[0-9]{{2}})(?P<day>[0-9]{{2}}) {_CLOCK}"),  # klog's
)
_SINCE_1970 = re.compile(
    r"(?<![\w.:-])(?P<seconds>1[0-9]{9}(?:\.[0-9]+)?|1[0-9]{12}(?:[0-9]{3}(?:[0-9]{3})?|\.[0-9]+)?"
    r"|1\.[0-9]+e\+(?:09|9|12|15|18))(?![\w.:-])"  # as Go writes a float
)
_HAS_FRACTION = re.compile(r":[0-9]{2}[.,][0-9]")
_OFFSET = re.compile(r"(?:UTC|GMT)?(?P<sign>[+-])(?P<hours>[0-9]{1,2})(?::?(?P<minutes>[0-9]{2}))?")
_LEAP_YEAR = 1972  # where times without a year stand until theirs is known
_DAY_S = 86_400.0
_RACE_S = 1.0  # lines may be out of order by less than so much


@dataclasses.dataclass(frozen=True, slots=True)
class Stamp:
    """A time as it was written.

    Attributes:
        at: seconds since 1970; of a time without a year, what they were in 1972.
        coarse: it is in whole seconds.
        zoned: it says its zone.
        yearless: it says no year.
    """

    at: float
    coarse: bool = False
    zoned: bool = True
    yearless: bool = False


def parse_time(text: str, zone: tzinfo = UTC) -> float:
    """Return seconds since 1970. Takes a time of ISO 8601, in ``zone`` where it does not say, or a number since 1970:
    of seconds, or of milli-, micro- or nanoseconds, as its size tells.

    Raises ValueError.
    """
    return parse_stamp(text, zone).at


def parse_stamp(text: str, zone: tzinfo = UTC) -> Stamp:
    """Return the same with what was said of it. Raises ValueError."""
    try:
        number = float(text if text.isascii() else "")  # no digits of other scripts
    except ValueError:
        pass
    else:
        return Stamp(_seconds(number), coarse="." not in text and 0 < number < 1e11)
    try:
        when = datetime.fromisoformat(text if text.isascii() else "")
    except ValueError:
        found = find_stamp(text, zone)
        if found is None or found.yearless:
            raise
        return found
    coarse = _HAS_FRACTION.search(text) is None
    return Stamp(_timestamp(when, zone), coarse, when.tzinfo is not None)


def find_stamp(text: str, zone: tzinfo = UTC) -> Stamp | None:
    """Return the last time that stands in a text; None where there is none."""
    last: re.Match[str] | None = None
    for pattern in _STAMPS:
        for found in pattern.finditer(text):
            if last is None or found.start() > last.start():
                last = found
    if last is not None:
        return _stamp(last.groupdict(), zone)
    since = _SINCE_1970.search(text)
    return Stamp(_seconds(float(since["seconds"])), len(since["seconds"]) == 10) if since else None


def without_times(text: str) -> str:
    """Return a text without the times in it."""
    for pattern in (*_STAMPS, _SINCE_1970):
        text = pattern.sub(" ", text)
    return text


def after(stamp: Stamp, before: float, zone: tzinfo) -> Stamp:
    """Return a time without a zone as the second one of its clock, where the first would be before ``before``.

    When summer ends, clocks of most zones show an hour twice, and logs go on.
    """
    if stamp.zoned or stamp.yearless or stamp.at > before - _RACE_S or isinstance(zone, timezone):
        return stamp
    second = datetime.fromtimestamp(stamp.at, zone).replace(fold=1).timestamp()
    return dataclasses.replace(stamp, at=second) if second > before - _RACE_S else stamp


def in_a_year(at: float, zone: tzinfo, near: float, *, past: bool) -> float:
    """Return a time without a year, as `Stamp` has it, in the year that brings it nearest to another time.

    With ``past``, the last one that is at most a day after it: what was written before a file was last changed.
    """
    naive = datetime.fromtimestamp(at, UTC).replace(tzinfo=None)
    year = datetime.fromtimestamp(near, UTC).year
    found = []
    for each in range(year - 4, year + 5):  # of five years in a row one has the 29 February
        try:
            found.append(naive.replace(year=each, tzinfo=zone).timestamp())
        except (ValueError, OverflowError):
            continue
    if past:
        return max((each for each in found if each <= near + _DAY_S), default=found[0])
    return min(found, key=lambda each: abs(each - near))


def parse_zone(text: str) -> tzinfo:
    """Return a time zone. Takes ``local``, ``UTC``, an offset such as ``+05:30``, or a name such as ``Asia/Tokyo``.

    Raises ValueError.
    """
    wanted = text.strip()
    if wanted.lower() == "local":
        return _Local()
    found = _OFFSET.fullmatch(wanted.upper())
    if found is not None:
        minutes = 60 * int(found["hours"]) + int(found["minutes"] or 0)
        if int(found["minutes"] or 0) < 60 and minutes <= 18 * 60:
            return timezone(timedelta(minutes=minutes if found["sign"] == "+" else -minutes))
    if wanted.upper() in _ABBREVIATIONS:
        return timezone(timedelta(hours=_ABBREVIATIONS[wanted.upper()]))
    try:
        return ZoneInfo(wanted)
    except (ValueError, OSError, KeyError) as exc:  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"{text!r} is no time zone: write Europe/Berlin, +02:00, UTC or local") from exc


class _Local(tzinfo):
    """The zone of this machine, whose offset is that of each time."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        """Return how far ahead of UTC it is at a time by its own clock."""
        if when is None:
            return timedelta(0)
        naive = when.replace(tzinfo=None)
        return naive.astimezone().utcoffset() or timedelta(0)

    def fromutc(self, when: datetime) -> datetime:
        """Return a time of UTC by its clock."""
        return when.replace(tzinfo=UTC).astimezone().replace(tzinfo=self)

    def dst(self, when: datetime | None) -> timedelta | None:
        """Return None: the offset has it in it."""
        return None

    def tzname(self, when: datetime | None) -> str:
        """Return its name."""
        return time.tzname[0]


def _seconds(number: float) -> float:
    for scale, least in ((1.0, 0.0), (1e3, 1e11), (1e6, 1e14), (1e9, 1e17)):
        if least <= number < max(least, 1e11) * (1e3 if least else 1):
            return number / scale
    raise ValueError(f"no time: {number}")


def _stamp(parts: dict[str, str | None], zone: tzinfo) -> Stamp | None:
    year = parts.get("year") or parts.get("year_after")
    month = str(parts["month"]).lower()
    fraction = parts["fraction"] or ""
    try:
        when = datetime(
            int(year or _LEAP_YEAR), _MONTHS.get(month) or int(month), int(str(parts["day"])),
            _hour(int(str(parts["hour"])), parts.get("half")), int(str(parts["minute"])),
            min(59, int(str(parts["second"]))), int(fraction[:6].ljust(6, "0")),
        )  # fmt: skip
        said = parse_zone(written) if (written := parts.get("zone")) else None
        if year is None:
            return Stamp(when.replace(tzinfo=UTC).timestamp(), not fraction, zoned=False, yearless=True)
        return Stamp(_timestamp(when.replace(tzinfo=said), zone), not fraction, said is not None)
    except (ValueError, OverflowError):
        return None


def _hour(hour: int, half: str | None) -> int:
    """Return the hour of a clock of 24 hours. Takes the ``a`` or ``p`` of one of 12. Raises ValueError."""
    if half is None:
        return hour
    if not 1 <= hour <= 12:
        raise ValueError(f"no hour of half a day: {hour}")
    return hour % 12 + 12 * (half.lower() == "p")


def _timestamp(when: datetime, zone: tzinfo) -> float:
    seconds = (when if when.tzinfo else when.replace(tzinfo=zone)).timestamp()
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"no time: {when}")
    return seconds
