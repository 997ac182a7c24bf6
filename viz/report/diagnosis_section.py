"""The diagnosis in a report: a line at its top, and the members' answers with what decides them."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from viz.report import sections
from viz.report.charts import significant

if TYPE_CHECKING:
    from cluster.schema.diagnose_documents import FigureDocument, VerdictDocument, Word
    from cluster.schema.run_documents import Result

_CODE = re.compile(r"`([^`]+)`")
_LOOKS: dict[Word, str] = {"healthy": "pass", "unsure": "unknown", "client": "unknown"}


def line(result: Result) -> str:
    """Return what was slow in one line, as HTML; nothing where that is not known."""
    found = result.get("diagnosis")
    return f'<p class="diagnosis">{_said(found["cluster"])}: {escape(found["cluster"]["why"])}</p>' if found else ""


def section(result: Result) -> str:
    """Return each member's answer with its figures, the next best one and what to do, as HTML.

    Nothing where nothing was slow, or where that is not known.
    """
    found = result.get("diagnosis")
    if not found or (found["cluster"]["word"] == "healthy" and not found["notes"]):
        return ""
    cluster = found["cluster"]
    rows = [
        (escape(each["name"]), _said(each), escape("; ".join(map(_figure, each["figures"])) or each["why"]))
        for each in found["members"]
    ]
    next_best = ""
    if cluster["next"] is not None and cluster["margin"] is not None:
        next_best = f"Next best: {cluster['next']}, which explains {cluster['margin']:.1f} times less. "
    notes = "".join(f"<li>{escape(note)}</li>" for note in found["notes"])
    return (
        sections.table(("member", "answer", "what decides"), rows, (1, 2))
        + (f"<p><b>What to do</b>: {_with_code(cluster['advice'])}</p>" if cluster["advice"] else "")
        + f'<p class="dim">{escape(next_best)}{_with_code("`raftload diagnose RUN` shows the evidence.")}</p>'
        + (f'<ul class="dim">{notes}</ul>' if notes else "")
    )


def _with_code(text: str) -> str:
    """Return a text as HTML, with what stands in it between backticks as code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _said(answer: VerdictDocument) -> str:
    word = answer["word"]
    return f'<b class="{_LOOKS.get(word, "fail")}">{escape(word)}</b>'


def _figure(figure: FigureDocument) -> str:
    unit = f" {figure['unit']}" if figure["unit"] else ""
    usual = f" ({figure['limit']:g}{unit} are usual)" if figure["limit"] is not None else ""
    return f"{figure['name']}: {significant(figure['value'])}{unit}{usual}"
