"""A comparison as a table for people, and for CI systems as Markdown and JUnit XML. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.base.console import Painter, columns, printable
from loadgen.compare.verdict import Word, change, percent

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
    lines += ["", paint(f"NEW {'' if word is Word.CANNOT_TELL else 'is '}{document['words']}", "bold", word.style)]
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
