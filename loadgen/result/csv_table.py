"""CSV files as people hand them on: rows of texts, whatever the encoding, the delimiter and the ends of lines are.

Programs, spreadsheets and mail change all of these, and lose the last newline. A number in quotes is the same number.
What cannot be read for certain is an error; what was passed over is a note.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cluster.base.errors import UsageError

Known = Callable[[Sequence[str]], bool]
"""Tells whether a row is the header."""
Repair = Callable[[str, Sequence[str]], list[list[str]] | None]
"""Takes a text that is no strict CSV and its header; returns the rows below the header, None where it cannot."""

_BOMS = (
    # That of UTF-16 is the beginning of that of UTF-32.
    (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
_DELIMITERS = (",", ";", "\t", "|")
_NO_CSV = "not a CSV file as Locust writes them"
# Files that are no text, by how they begin: what each is, and what to do.
_KINDS = {
    b"PK\x03\x04": "a spreadsheet or another archive of ZIP; save its table as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of Excel; save its table as CSV",
    b"\x1f\x8b": "compressed with gzip; unpack it",
    b"BZh": "compressed with bzip2; unpack it",
    b"\xfd7zXZ": "compressed with xz; unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard; unpack it",
}
# Above the header a spreadsheet may have a title and the hint `sep=;`.
_LATEST_HEADER = 10
_LEAST_CELLS = 3


class ReportError(UsageError):
    """What was given cannot be made into a result; the message is one line that says what and why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """The rows of a file.

    Attributes:
        delimiter: what stands between two cells.
        header: the names of the columns, without blanks around them.
        rows: as wide as the header.
        ended: the last line has its end; else the last cell of the last row may be cut.
        quoted: the file ends with a quotation mark, so a number there is whole.
        cut: the last line ends within its row, which is left out of ``rows``.
        notes: what was passed over, a line each.
    """

    delimiter: str
    header: list[str]
    rows: list[list[str]]
    ended: bool
    quoted: bool
    cut: bool
    notes: list[str]


def read(path: Path, known: Known, repair: Repair, data: bytes | None = None) -> Table:
    """Return the table in a file. Takes what finds its header, and what reads rows that are no strict CSV.

    Takes also the content, of a file that could not be written. Raises ReportError where there is no file, or none that
    can be read for certain.
    """
    try:
        data = path.read_bytes() if data is None else data
        if kind := next((kind for begin, kind in _KINDS.items() if data.startswith(begin)), ""):
            raise ValueError(f"{_NO_CSV}; it is {kind}")
        text, notes = decode(data)
        # A second mark of the byte order, and DOS's end of a file.
        return _table(text.lstrip("\ufeff").rstrip("\x1a"), notes, known, repair)
    except OSError as exc:
        raise ReportError(f"{path}: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise ReportError(f"{path}: {exc}") from exc


def _table(text: str, notes: list[str], known: Known, repair: Repair) -> Table:
    """Return the table in a text. Raises ValueError."""
    if not text.strip():
        raise ValueError("the file is empty")
    # A text of any length is a cell; Python's limit, of the whole process, is half of what a traceback can be.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    delimiter, above, header = _header(text, known)
    ended = text.rstrip(" \t").endswith(("\n", "\r"))
    try:
        rows = list(_rows(text, delimiter))
        # Above the header there may be a title, and rows if a spreadsheet has sorted it among them.
        rows[: above + 1] = [row for row in rows[:above] if sum(bool(cell.strip()) for cell in row) >= _LEAST_CELLS]
        odd = _without_others(rows, header, known, notes) or _odd(rows, header, delimiter, ended)
    except csv.Error as exc:
        inside = str(exc) == "unexpected end of data"
        odd = f"{'it ends within quotation marks' if inside else exc}; the file is truncated or garbled"
        rows = []
    if odd:
        repaired = repair(text, header)
        if repaired is None:
            raise ValueError(odd)
        notes.append("its texts have quotation marks that are not doubled, as Locust 1.0 and earlier write them")
        rows = repaired
    cut = not ended and bool(rows) and len(rows[-1]) < len(header)
    return Table(delimiter, header, rows[:-1] if cut else rows, ended, text.endswith('"'), cut, notes)


def decode(data: bytes) -> tuple[str, list[str]]:
    """Return the text in bytes, and a note where bytes were passed over or read by guess. Raises ValueError."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data[len(bom) :].decode(encoding, errors="replace"), []
    notes = []
    if b"\0" in data:
        if encoding := _wide(data[:200]):
            return data.decode(encoding, errors="replace"), []
        # What a file system makes of what it had not written when the power went.
        whole = data.rstrip(b"\0")
        notes.append(f"its last {len(data) - len(whole):,} bytes are zero, so something is lost")
        data = whole
        if not data:
            raise ValueError("the file is empty but for zero bytes")
        if b"\0" in data:
            raise ValueError(f"{_NO_CSV}; there are zero bytes in it")
    try:
        return data.decode("utf-8"), notes
    except UnicodeDecodeError:
        text = data.decode("utf-8", errors="backslashreplace")
    if text.isascii():  # no character of UTF-8 in it, so it is of another encoding
        notes.append("not UTF-8: its names are read as Windows-1252")
        return data.decode("cp1252", errors="backslashreplace"), notes
    notes.append("some of its bytes are not UTF-8 and stand in the names as \\x..")
    return text, notes


def _wide(head: bytes) -> str:
    """Return UTF-16's byte order where every other byte is zero, as in ASCII text; else an empty text."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if not even and odd > len(head) // 3:
        return "utf-16-le"
    return "utf-16-be" if not odd and even > len(head) // 3 else ""


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    """Yield the rows that are not empty. Raises csv.Error."""
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
        if any(cell and not cell.isspace() for cell in row):
            yield row


def _header(text: str, known: Known) -> tuple[str, int, list[str]]:
    """Return the delimiter, how many rows stand above the header, and the header. Raises ValueError."""
    for delimiter in _DELIMITERS:
        try:
            for above, row in enumerate(itertools.islice(_rows(text, delimiter), _LATEST_HEADER)):
                # A spreadsheet that does not know the delimiter has each line in one cell.
                names = [cell.strip() for cell in _unwrapped(row, 2, delimiter)]
                if known(names):
                    return delimiter, above, names
        except csv.Error:
            continue
    raise ValueError(f"{_NO_CSV} (no column 'Type')")


def _unwrapped(row: list[str], width: int, delimiter: str) -> list[str]:
    """Return a row whose only cell holds a whole line as that line's cells, and any other as it is."""
    if len(row) != 1 or width < 2 or delimiter not in row[0]:
        return row
    try:
        lines = list(_rows(row[0], delimiter))
    except csv.Error:
        return row
    return lines[0] if len(lines) == 1 else row


def _without_others(rows: list[list[str]], header: Sequence[str], known: Known, notes: list[str]) -> str:
    """Remove the header where it stands again, as where files were joined, with a note, and what Markdown adds: a line
    of dashes, and blanks around cells. Return what does not let them be read: another header.
    """
    kept: list[list[str]] = []
    again, markdown, like = 0, False, {name.lower() for name in header if name}
    for row in rows:
        names = [cell.strip() for cell in row]
        if len(like.intersection(map(str.lower, names))) >= _LEAST_CELLS and known(names):
            again += 1
            if names != list(header):
                return "it holds several tables, whose columns differ"
        elif len(names) < _LEAST_CELLS or not any(names) or any(name.strip("-:=") for name in names):
            kept.append(row)
        else:
            markdown = True
    if again:
        notes.append(f"its header stands {again + 1} times, so several files may be joined in it")
    rows[:] = [[cell.strip() for cell in row] for row in kept] if markdown else kept
    return ""


def _odd(rows: list[list[str]], header: Sequence[str], delimiter: str, ended: bool) -> str:
    """Make all rows as wide as the header, but for a last one that is cut; return what does not let them be.

    Empty cells without a name may be missing at the end of a row, and may be too many at the end of all.
    """
    width = len(header)
    named = max(at for at, name in enumerate(header, 1) if name)
    rows[:] = [row if len(row) == width else _unwrapped(row, width, delimiter) for row in rows]
    # In one row alone, a cell too many (half of a figure with a decimal comma) has moved those behind it, and what
    # stands behind the last column now may have been an empty one.
    filled = [len(row) for row in rows if any(cell.strip() for cell in row)]
    alike = len(filled) > 1 and len(set(filled)) == 1
    for number, row in enumerate(rows, 1):
        cells = row
        if not "".join(cells).strip(f" {delimiter}"):  # it is one cell of delimiters alone
            rows[number - 1] = []
            continue
        if len(cells) > width and alike and not any(cell.strip() for cell in cells[width:]):
            cells = cells[:width]
        if width > len(cells) >= named:
            cells = [*cells, *[""] * (width - len(cells))]
        if len(cells) > width or (len(cells) < width and (ended or number < len(rows))):
            return f"row {number} has {len(cells)} fields, not {width}; the file is truncated or garbled"
        rows[number - 1] = cells
    rows[:] = filter(None, rows)
    return ""
