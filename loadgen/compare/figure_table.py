"""A comparison as a table for people, and for CI systems as Markdown and JUnit XML. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.base.console import Painter, columns, printable
from loadgen.compare.verdict import Word, change, percent
from loadgen.result import junit

if TYPE_CHECKING:
    from cluster.schema.compare_documents import Compared, FigureRow, Side

HEAD = ("", "BASE", "NEW", "difference", "interval", "NEW is")


def render(document: Compared, *, color: bool, width: int = 100) -> str:
    """Return a comparison as text, without a final newline: what was compared, a row for each figure, the verdict.

    ``width`` is taken as all renderers take it; no row depends on it.
    """
    del width
    paint = Painter(color)
    lines = [_side(document["base"]), _side(document["new"])]
    lines += [f"differs: {key}: BASE {base}, NEW {new}" for key, (base, new) in document["differences"].items()]
    lines += [paint(f"warning: {warning}", "yellow") for warning in document["warnings"]]
    if document["figures"]:
        head, *rows = columns([HEAD, *map(cells, document["figures"])], right=(1, 2, 3, 4))
        lines += ["", paint(head, "dim")]
        lines += [
            paint(row, Word(figure["verdict"]).style) if figure["verdict"] in (Word.SLOWER, Word.FASTER) else row
            for row, figure in zip(rows, document["figures"], strict=True)
        ]
    word = Word(document["verdict"])
    lines += ["", paint(_answer(document), "bold", word.style)]
    lines += [f"  {printable(reason)}" for reason in document["reasons"] if reason not in document["words"]]
    return "\n".join([*lines, f"  {how(document)}"])


def how(document: Compared) -> str:
    """Return in one line how sure the intervals are."""
    method = document["method"]
    return (
        f"intervals: {percent(1 - method['alpha'])} for all figures together; same: within {percent(method['within'])}"
    )


def _side(side: Side) -> str:
    ids = [run["id"] for run in side["runs"]]
    shown = ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
    versions = sorted({run["etcd_version"] for run in side["runs"] if run["etcd_version"]})
    etcd = f", etcd {' and '.join(versions)}" if versions else ""
    return printable(f"{side['name']}  {len(ids)} run{'' if len(ids) == 1 else 's'}{etcd}: {shown}")


def to_markdown(document: Compared) -> str:
    """Return a comparison as Markdown, for a GitHub step summary: the verdict, why, and a row for each figure."""
    text = junit.as_markdown
    lines = [f"### raftload compare: {_answer(document)}", ""]
    lines += [f"- {text(reason, _LONGEST)}" for reason in document["reasons"][:_MOST_LINES]]
    lines += [f"- warning: {text(warning, _LONGEST)}" for warning in document["warnings"][:_MOST_LINES]]
    lines += [f"- differs: {text(key)}: BASE {text(base)}, NEW {text(new)}"
              for key, (base, new) in [*document["differences"].items()][:_MOST_LINES]]  # fmt: skip
    lines += ["", f"| {' | '.join(HEAD)} |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    lines += [f"| {' | '.join(map(text, cells(figure)))} |" for figure in document["figures"]]
    return "\n".join([*lines, "", text(how(document), _LONGEST)]) + "\n\n"


def to_xml(document: Compared) -> str:
    """Return a comparison as JUnit XML: a test case for each figure and one for all together.

    What is slower is a ``failure``, what cannot be told an ``error``.
    """
    cases = [
        (
            f"{figure['name']} is not slower", _OUTCOMES[Word(figure["verdict"])],
            f"{change(figure['ratio'])}, {figure['words']}", " ".join(cells(figure)[1:]),
        )
        for figure in document["figures"]
    ]  # fmt: skip
    whole = "; ".join([document["words"], *document["reasons"]])
    cases.append(("NEW is not slower than BASE", _OUTCOMES[Word(document["verdict"])], whole, whole))
    return junit.suite("compare", cases, started_at=_newest(document["new"]))


_LONGEST, _MOST_LINES = 300, 50
_OUTCOMES = {Word.SLOWER: "fail", Word.CANNOT_TELL: "unknown", Word.FASTER: "pass", Word.SAME: "pass"}


def _newest(side: Side) -> str:
    return max((run["started_at"] or "" for run in side["runs"]), default="")


def _answer(document: Compared) -> str:
    """Return the verdict as a sentence."""
    return ("" if Word(document["verdict"]) is Word.CANNOT_TELL else "NEW is ") + document["words"]


def cells(figure: FigureRow) -> tuple[str, str, str, str, str, str]:
    """Return the cells of a figure's row, as in HEAD."""
    between = "-"
    if figure["interval"] is not None:
        low, high = figure["interval"]
        between = f"{change(low)} to {change(high)}"
    base, new = numbers(figure["base"], figure["new"])
    return (printable(figure["name"]), base, new, change(figure["ratio"]), between, figure["words"])


def numbers(*values: float) -> Sequence[str]:
    """Return values of one figure with equal decimals.

    >>> numbers(1.25, 120.0), numbers(25000.0, 24999.6)
    (['1.2', '120.0'], ['25,000', '25,000'])
    """
    largest = max(values)
    digits = 3 if largest < 100 else 1 if largest < 1000 else 0
    return [f"{value:,.{digits}f}" for value in values]
