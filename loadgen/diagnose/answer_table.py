"""A diagnosis as an operator reads it on a terminal: the word, a row for each member, and what to do. Pure: no I/O."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from cluster.base.console import Painter, columns, pad, printable
from cluster.base.console import width as width_of
from loadgen.diagnose.answer import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.schema.diagnose_documents import (
        DiagnosisDocument,
        FigureDocument,
        MemberEvidenceDocument,
        MemberVerdictDocument,
        VerdictDocument,
        Word,
    )

# How a terminal shows a word; what is not in it is red.
_STYLES: dict[Word, str] = {"healthy": "green", "unsure": "yellow", "client": "yellow"}
_HEAD = ("MEMBER", "ROLE", "ANSWER", "WHAT DECIDES")
_LABEL = 12
_NARROWEST, _WIDEST = 60, 120
# Of a run's time in which a member led, what makes it the leader of the table.
_LED = 0.5


def render(document: DiagnosisDocument, *, color: bool, width: int = 100) -> str:
    """Return a diagnosis as text of at most ``width`` columns (60 at least), without a final newline.

    One line says what is slow, and a table who; then stand the next best answer, what to do, and notes.
    """
    width = max(_NARROWEST, min(width, _WIDEST))
    paint = Painter(color)
    lines = [*headline(document["cluster"], paint, width), "", *_table(document, paint, width), ""]
    for label, text in _below(document):
        lines += _labelled(label, text, paint, width)
    return "\n".join(lines)


def headline(answer: VerdictDocument, paint: Painter, width: int) -> list[str]:
    """Return an answer in lines of so many columns, mostly one.

    Such as ``disk: etcd-node2's syncs of its log take 61 ms (p90; 10 ms are usual)``.
    """
    text = printable(f"{answer['word']}: {answer['why']}" if answer["why"] else answer["word"])
    first, *more = textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False)
    style = _STYLES.get(answer["word"], "red")
    return [paint(first, "bold", style), *(paint(line, style) for line in more)]


def figure_text(figure: FigureDocument) -> str:
    """Return a figure in words: ``sync of the log, p99: 61 ms (10 ms are usual)``."""
    unit = f" {figure['unit']}" if figure["unit"] else ""
    text = f"{figure['name']}: {number(figure['value'])}{unit}"
    if figure["limit"] is None:
        return printable(text)
    return printable(f"{text} ({number(figure['limit'])}{unit} {'is' if not unit else 'are'} usual)")


def next_text(answer: VerdictDocument) -> str:
    """Return the next best answer in words, ``network (explains 4.1 times less)``; empty where there is none."""
    if answer["next"] is None:
        return ""
    margin = answer["margin"]
    return answer["next"] + ("" if margin is None else f" (explains {margin:.1f} times less)")


def _table(document: DiagnosisDocument, paint: Painter, width: int) -> list[str]:
    evidence = {each["name"]: each for each in document["evidence"]["members"]}
    members = document["members"]
    heads = [(printable(each["name"]), _role(evidence.get(each["name"])), each["word"]) for each in members]
    sizes = [max(map(width_of, cells)) for cells in zip(_HEAD[:3], *heads, strict=True)]
    head, *_ = columns([_HEAD, *((*cells, "") for cells in heads)])
    lines = [paint(head, "dim")]
    left = sum(sizes) + 2 * len(sizes)
    for cells, member in zip(heads, members, strict=True):
        name, role, word = (pad(cell, size) for cell, size in zip(cells, sizes, strict=True))
        first, *more = _decides(member, max(20, width - left)) or [""]
        lines.append(f"{name}  {role}  {paint(word, _STYLES.get(member['word'], 'red'))}  {first}".rstrip())
        lines += [" " * left + line for line in more]
    return lines


def _role(member: MemberEvidenceDocument | None) -> str:
    if member is None:
        return "-"
    return "learner" if member["learns"] else "leader" if member["leads"] >= _LED else "follower"


def _decides(member: MemberVerdictDocument, width: int) -> list[str]:
    """Return the figures of a member, as many to a line as there is room for."""
    lines: list[str] = []
    for text in map(figure_text, member["figures"]):
        if lines and width_of(lines[-1]) + 2 + width_of(text) <= width:
            lines[-1] += f"; {text}"
        else:
            lines += textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False)
    return lines or textwrap.wrap(printable(member["why"]), width, break_long_words=False)


def _below(document: DiagnosisDocument) -> Sequence[tuple[str, str]]:
    cluster, evidence = document["cluster"], document["evidence"]
    count = len(evidence["members"])
    seconds = f"{document['seconds']:,.0f} s"
    members = f"{count} member{'' if count == 1 else 's'}"
    what = f"{seconds} of probes at {members}" if document["source"] == "probes" else f"{seconds} of a run, {members}"
    texts = [
        ("next best", next_text(cluster)),
        ("what to do", cluster["advice"]),
        *(("note", note) for note in document["notes"]),
        ("evidence", what),
    ]
    return [(label, printable(text)) for label, text in texts if text]


def _labelled(label: str, text: str, paint: Painter, width: int) -> list[str]:
    first, *more = textwrap.wrap(text, width - _LABEL, break_long_words=False)
    return [paint(label.ljust(_LABEL), "dim") + first, *(" " * _LABEL + line for line in more)]
