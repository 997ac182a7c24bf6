"""Members' logs as people hand them over: wrapped, coloured, rotated, interleaved, shuffled, compressed, recoded.

Every choice comes from one ``random.Random``, so that a seed repeats a case. Whatever is done to the logs of an
election, the picture of it is the same.
"""

from __future__ import annotations

import bz2
import csv
import dataclasses
import functools
import gzip
import io
import json
import lzma
import random
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from cluster.observe.log_times import find_stamp
from viz.diagrams import elections, observed
from viz.diagrams.elections import History

DATA = Path(__file__).parents[1] / "data" / "raft-logs"
FOLDERS = sorted(each.name for each in DATA.iterdir() if each.is_dir())
HOSTS = ("node-a", "node-b", "node-c", "node-d", "node-e")


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of etcd's as its member wrote it, and when, for what wraps it."""

    text: str
    at: float


Wrapper = Callable[[Line, int], str]


def lines_of(path: Path) -> list[Line]:
    """Return the lines of a member's log."""
    found: list[Line] = []
    for text in path.read_text().splitlines():
        stamp = find_stamp(text.replace('"ts":"', " ").replace('"', " "))
        found.append(Line(text, stamp.at if stamp else found[-1].at))
    return found


def _iso(at: float, digits: int = 9, zone: str = "Z") -> str:
    offset = timedelta(hours=5, minutes=30) if zone == "+05:30" else timedelta(0)
    when = datetime.fromtimestamp(at, UTC).astimezone(timezone(offset))
    text = when.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000"
    return (text[: 20 + digits] if digits else text[:19]) + zone


def _syslog(at: float) -> str:
    when = datetime.fromtimestamp(at, UTC)
    return f"{when:%b} {when.day:2d} {when:%H:%M:%S}"


def _envelope(**fields: object) -> str:
    return json.dumps(fields)


def _cell(*cells: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


# By name: what makes a line of a member's. All say which member it is of but the first few.
WRAPPERS: Mapping[str, Wrapper] = {
    "none": lambda line, n: line.text,
    "quoted in Markdown": lambda line, n: f"> {line.text}",
    "docker logs -t": lambda line, n: f"{_iso(line.at)} {line.text}",
    "CRI": lambda line, n: f"{_iso(line.at, 9, '+05:30')} stderr F {line.text}",
    "json-file": lambda line, n: _envelope(log=line.text + "\n", stream="stderr", time=_iso(line.at)),
    "spreadsheet": lambda line, n: _cell(_iso(line.at, 3), line.text),
    "cat -n": lambda line, n: f"{n + int(line.at) % 1000:6d}\t{line.text}",
    "journald export": lambda line, n: (
        f"__CURSOR=s=1;i={n}\n__REALTIME_TIMESTAMP={round(line.at * 1e6)}\n_HOSTNAME={HOSTS[n]}\nMESSAGE={line.text}\n"
    ),
    "jq": lambda line, n: json.dumps(json.loads(line.text), indent=2),
    "a terminal of 80 columns": lambda line, n: "\n".join(
        line.text[start : start + 80] for start in range(0, len(line.text), 80)
    ),
    "CRI in parts": lambda line, n: (
        f"{_iso(line.at)} stderr P {line.text[:50]}\n{_iso(line.at)} stderr F {line.text[50:]}"
    ),
    "compose": lambda line, n: f"etcd{n}-1  | {line.text}",
    "compose -t": lambda line, n: f"etcd{n}-1  | {_iso(line.at)} {line.text}",
    "swarm": lambda line, n: f"stack_etcd.{n}.x7k2{n}@{HOSTS[n]}    | {line.text}",
    "kubectl": lambda line, n: f"[pod/etcd-{n}/etcd] {line.text}",
    "kubectl --timestamps": lambda line, n: f"[pod/etcd-{n}/etcd] {_iso(line.at)} {line.text}",
    "stern": lambda line, n: f"etcd-{n} etcd {line.text}",
    "stern -t": lambda line, n: f"etcd-{n} etcd {_iso(line.at)} {line.text}",
    "journald": lambda line, n: f"{_syslog(line.at)} {HOSTS[n]} etcd[{1200 + n}]: {line.text}",
    "journald short-iso": lambda line, n: f"{_iso(line.at, 0, '+0000')} {HOSTS[n]} bash[{7 + n}]: {line.text}",
    "journald short-unix": lambda line, n: f"{line.at:.6f} {HOSTS[n]} etcd[{1200 + n}]: {line.text}",
    "journald json-pretty": lambda line, n: json.dumps({"_HOSTNAME": HOSTS[n], "MESSAGE": line.text}, indent="\t"),
    "journald json": lambda line, n: _envelope(
        MESSAGE=line.text, _HOSTNAME=HOSTS[n], __REALTIME_TIMESTAMP=str(round(line.at * 1e6)), PRIORITY="6"
    ),
    "journald json, bytes": lambda line, n: _envelope(MESSAGE=list(line.text.encode()), _HOSTNAME=HOSTS[n]),
    "rsyslog": lambda line, n: f"<30>1 {_iso(line.at, 6)} {HOSTS[n]} etcd {n} - - {line.text}".replace("\t", "#011"),
    "GCP": lambda line, n: _envelope(
        textPayload=line.text, timestamp=_iso(line.at), resource={"labels": {"pod_name": f"etcd-{n}"}}
    ),
    "Elastic": lambda line, n: _envelope(
        _index="logs",
        _source={
            "message": line.text,
            "@timestamp": _iso(line.at, 3),
            "host": {"name": HOSTS[n], "hostname": HOSTS[n]},
        },
    ),
    "Loki": lambda line, n: _envelope(labels={"pod": f"etcd-{n}"}, line=line.text, timestamp=_iso(line.at)),
    "logcli": lambda line, n: f'{_iso(line.at, 0)} {{pod="etcd-{n}"}} {line.text}',
    "grep -H": lambda line, n: f"{HOSTS[n]}/etcd.log:{line.text}",
    "logfmt": lambda line, n: f"time={_iso(line.at)} pod=etcd-{n} log={json.dumps(line.text)}",
}
SAYS_NOT_WHO = tuple(WRAPPERS)[:11]
# What breaks a message that is not JSON.
ONLY_ZAP = ("logfmt", "spreadsheet", "jq", "a terminal of 80 columns")


def as_console(text: str) -> str:
    """Return a JSON line as ``--log-format=console`` writes it."""
    entry = json.loads(text)
    parts = [entry.pop("ts"), entry.pop("level"), entry.pop("logger", ""), entry.pop("caller"), entry.pop("msg")]
    return "\t".join([*filter(None, parts), *([json.dumps(entry)] if entry else [])])


def _restamped(text: str, rng: random.Random, how: str) -> str:
    entry = json.loads(text)
    at = datetime.fromisoformat(entry["ts"]).timestamp()
    entry["ts"] = {
        "offset": _iso(at, 3, "+05:30"), "nanoseconds": _iso(at, 9), "seconds since 1970": round(at, 6),
        "milliseconds since 1970": round(at * 1000), "utc": _iso(at, 6, "+00:00"),
    }[how]  # fmt: skip
    items = list(entry.items())
    rng.shuffle(items)
    return json.dumps(dict(items))


STAMPS = ("offset", "nanoseconds", "seconds since 1970", "milliseconds since 1970", "utc")


def _local(text: str, hours: int) -> str:
    """Return a line of etcd 3.4's text log as a machine writes it that is so many hours from UTC."""
    found = re.search(r"([0-9]{4})(.)([0-9]{2}).([0-9]{2}) ([0-9:]{8})", text)
    assert found is not None
    year, sign, month, day, clock = found.groups()
    when = datetime.fromisoformat(f"{year}-{month}-{day} {clock}") + timedelta(hours=hours)
    return text[: found.start()] + when.strftime(f"%Y{sign}%m{sign}%d %H:%M:%S") + text[found.end() :]


def mangle(
    rng: random.Random, logs: Mapping[str, Sequence[Line]], folder: Path
) -> tuple[list[Path], timezone, list[str]]:
    """Write members' logs into a folder in some way.

    Returns the files in some order, the zone of the times that do not say theirs, and what was done.
    """
    done: list[str] = []
    zone = UTC
    zap = all(lines[0].text.startswith("{") for lines in logs.values())
    texts = {name: list(lines) for name, lines in logs.items()}
    # What etcd writes.
    written = rng.choice(("json", "json", "console", "blanks", "stamps")) if zap else "text"
    if written in ("console", "blanks"):
        texts = {name: [_with(line, as_console(line.text)) for line in lines] for name, lines in texts.items()}
    if written == "blanks":
        texts = {name: [_with(line, line.text.replace("\t", "  ")) for line in lines] for name, lines in texts.items()}
    if written == "stamps":
        how = rng.choice(STAMPS)
        texts = {
            name: [_with(line, _restamped(line.text, rng, how)) for line in lines] for name, lines in texts.items()
        }
        written = f"times in {how}"
    if not zap and rng.random() < 0.4:
        hours = rng.choice((-11, -4, 2, 14))
        texts = {name: [_with(line, _local(line.text, hours)) for line in lines] for name, lines in texts.items()}
        zone = timezone(timedelta(hours=hours))
        written = f"local time, {hours:+d} hours"
    done.append(written)
    # What carries it.
    wrapper = rng.choice(
        [each for each in WRAPPERS if (zap and written not in ("console", "blanks")) or each not in ONLY_ZAP]
    )
    done.append(wrapper)
    wrapped = {
        name: [_with(line, WRAPPERS[wrapper](line, n)) for line in lines]
        for n, (name, lines) in enumerate(texts.items())
    }
    if wrapper in ("none", "compose", "kubectl", "stern", "docker logs -t") and rng.random() < 0.4:
        done.append("coloured")
        wrapped = {name: [_with(line, _coloured(rng, line.text)) for line in lines] for name, lines in wrapped.items()}
    # Which files it is in.
    placed = rng.choice(("a file each", "rotated", "rotated", "interleaved", "one after the other", "tail -f"))
    if placed == "interleaved" and (not zap and wrapper in SAYS_NOT_WHO):
        placed = "a file each"  # such lines name nobody
    files: list[tuple[str, list[str]]] = []
    if placed == "a file each":
        files = [(f"{name}.log", _texts(lines)) for name, lines in wrapped.items()]
    elif placed == "rotated":
        overlap = rng.choice((0, 0, 3))
        done.append(f"overlapping by {overlap}")
        for name, lines in wrapped.items():
            files += _rotated(rng, name, _texts(lines), overlap)
    elif placed == "interleaved":
        files = [("all.log", _interleaved(rng, list(wrapped.values())))]
    elif placed == "tail -f":
        files = [("all.log", _tailed(rng, wrapped))]
    else:
        order = list(wrapped.items())
        rng.shuffle(order)
        files = [("all.log", [text for _, lines in order for text in _texts(lines)])]
    done.append(placed)
    if placed in ("a file each", "interleaved") and rng.random() < 0.2:
        done.append("newest first")
        files = [(name, lines[::-1]) for name, lines in files]
    if rng.random() < 0.2:
        done.append("with lines of others")
        files = [(name, _with_others(rng, lines)) for name, lines in files]
    # What the files are.
    paths = []
    for name, lines in files:
        ends = rng.choice(("\n", "\n", "\r\n"))
        content = "".join(f"{line}{ends}" for line in lines)
        encoding = rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "zeros first"))
        packed = rng.choice(("", "", "gz", "bz2", "xz", "two gz", "tar.gz", "zip"))
        done.append(f"{encoding} {packed}".strip())
        data = b"\0" * 5000 + content.encode() if encoding == "zeros first" else content.encode(encoding)
        paths.append(_packed(rng, folder, name, data, packed))
    rng.shuffle(paths)
    return paths, zone, done


def _with(line: Line, text: str) -> Line:
    return dataclasses.replace(line, text=text)


def _texts(lines: Sequence[Line]) -> list[str]:
    return [line.text for line in lines]


def _coloured(rng: random.Random, text: str) -> str:
    how = rng.randrange(4)
    if how == 0:
        return f"\x1b[36m{text}\x1b[0m"
    if how == 1 and "| " in text:
        head, _, rest = text.partition("| ")
        return f"\x1b[2K\x1b[1;32m{head}|\x1b[0m {rest}"
    if how == 2:
        return text.replace("became", "\x1b[01;31m\x1b[Kbecame\x1b[m\x1b[K")
    return f"\x1b[38;5;117m{text[:7]}\x1b[39m{text[7:]}\x1b[K"


def _rotated(rng: random.Random, name: str, lines: list[str], overlap: int) -> list[tuple[str, list[str]]]:
    """Return parts of a log under the names that logrotate gives, the newest first."""
    cuts = sorted(rng.sample(range(1, len(lines)), min(len(lines) - 1, rng.randrange(1, 5))))
    parts = [lines[max(0, start - overlap) : end] for start, end in zip([0, *cuts], [*cuts, len(lines)], strict=True)]
    return [(f"{name}.log" + (f".{number}" if number else ""), part) for number, part in enumerate(reversed(parts))]


def _interleaved(rng: random.Random, logs: Sequence[Sequence[Line]]) -> list[str]:
    """Return the lines of all, in an order that a collector may have met them in: about by time."""
    queues = [list(lines) for lines in logs]
    found = []
    while any(queues):
        heads = [queue for queue in queues if queue]
        queue = min(heads, key=lambda each: each[0].at + rng.uniform(0, 0.05))
        found.append(queue.pop(0).text)
    return found


def _tailed(rng: random.Random, logs: Mapping[str, Sequence[Line]]) -> list[str]:
    """Return the lines of all as `tail -f` of several files shows them, some of each in turn."""
    queues = {name: _texts(lines) for name, lines in logs.items()}
    found = []
    while any(queues.values()):
        name = rng.choice([name for name, lines in queues.items() if lines])
        size = rng.randrange(1, 9)
        found += [f"==> /var/log/{name}.log <==", *queues[name][:size], ""]
        queues[name] = queues[name][size:]
    return found


OTHERS = (
    "systemd[1]: Started etcd.",
    "-- Boot 3f2a --",
    '{"msg":"not of etcd"}',
    "panic, says somebody",
    "\ufffd\ufffd",
)


def _with_others(rng: random.Random, lines: list[str]) -> list[str]:
    found = list(lines)
    for _ in range(rng.randrange(1, 5)):
        found.insert(rng.randrange(len(found) + 1), rng.choice(OTHERS))
    return found


def _packed(rng: random.Random, folder: Path, name: str, data: bytes, packed: str) -> Path:
    if packed in ("", "gz", "bz2", "xz", "two gz"):
        cut = rng.randrange(len(data) + 1)
        made = {
            "": lambda: data, "gz": lambda: gzip.compress(data), "bz2": lambda: bz2.compress(data),
            "xz": lambda: lzma.compress(data), "two gz": lambda: gzip.compress(data[:cut]) + gzip.compress(data[cut:]),
        }[packed]()  # fmt: skip
        path = folder / (name + (f".{packed[-3:].strip()}" if packed else ""))
        path.write_bytes(made)
        return path
    path = folder / f"{re.sub(r'[.]log', '', name)}.{packed}"
    if packed == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, data)
        return path
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return path


def check_picture(seed: int) -> None:
    """Hand over the logs of an election in the way of a seed, and compare what is made of them."""
    rng = random.Random(seed)
    name = rng.choice(FOLDERS)
    with tempfile.TemporaryDirectory() as folder:
        paths, zone, done = mangle(rng, _logs(name), Path(folder))
        found, right = elections.read_files(paths, zone), _plain(name)
    try:
        assert found.names == right.names
        for member in right.names:
            mine = [event for event in found.events if event.member == member]
            assert mine == [event for event in right.events if event.member == member]
        assert found.elections == right.elections
        assert observed.sequence(found, found.elections) == observed.sequence(right, right.elections)
        assert observed.state_graph(found) == observed.state_graph(right)
        assert observed.timeline(found) == observed.timeline(right)
    except AssertionError as exc:
        exc.add_note(f"check_picture({seed}): {name}: {', '.join(done)}; notes: {found.notes}")
        raise


@functools.cache
def _logs(name: str) -> dict[str, list[Line]]:
    return {path.stem: lines_of(path) for path in sorted((DATA / name).glob("*.log"))}


@functools.cache
def _plain(name: str) -> History:
    return elections.read_files(sorted((DATA / name).glob("*.log")))
