"""report.html as a person opens it: from a file, in light and dark, narrow, by keyboard, on paper, without scripts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from loadgen.result import document as results
from tests.support.contrast import RATIO
from viz.report import charts, compare, rundata
from viz.report import page as report

pytestmark = pytest.mark.browser
RECORDED = Path(__file__).parent.parent / "data" / "runs" / "leader-killed"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = Path(shutil.copytree(RECORDED, tmp_path_factory.mktemp("runs") / "leader-killed"))
    report.write(copy, result=results.write(copy))
    return copy


def opened(page: Page, path: Path) -> list[str]:
    """Open a file and return what the page asked for from then on."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    return asked


def test_it_asks_for_nothing_and_shows_the_results_figures(page: Page, folder: Path) -> None:
    asked = opened(page, folder / "report.html")
    result = json.loads((folder / "result.json").read_text())
    shown = page.eval_on_selector_all(
        "data[data-field]", "all => all.map(each => [each.dataset.field, each.value, each.textContent])"
    )
    fields = {field: text for field, _, text in shown}
    for f in ("put", "get", "txn", "total"):
        row = result["results"][f]
        assert fields[f"results.{f}.operations"] == f"{row['operations']:,}"
        assert fields[f"results.{f}.latency.p99_ms"] == charts.significant(row["latency"]["p99_ms"])
    assert page.locator("figure.chart").count() == 9
    assert page.locator("svg.ladder").count() == 1
    assert asked == [(folder / "report.html").as_uri()]
    # What the page has not allowed itself does not run and does not load, even if somebody puts it there.
    blocked = page.evaluate(
        """async () => {
            const seen = [];
            document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
            const image = document.createElement("img");
            image.src = "data:image/gif;base64,R0lGODlhAQABAAAAACw=";
            document.body.append(image);
            for (let n = 0; n < 100 && !seen.length; n += 1) await new Promise((done) => setTimeout(done, 20));
            image.remove();
            return seen;
        }"""
    )
    assert blocked == ["img-src"]


@pytest.fixture
def wrong() -> list[str]:
    """As everywhere, but the message about the image above, which is the point of that test."""

    class Wrong(list[str]):
        def append(self, text: str) -> None:
            if "data:image/gif;base64,R0lGOD" not in text:
                super().append(text)

    return Wrong()


def test_the_pointer_says_values_in_all_charts_over_time(page: Page, folder: Path) -> None:
    opened(page, folder / "report.html")
    area = page.locator("#latency .area")
    area.hover(position={"x": 300, "y": 50})
    for chart in ("latency", "throughput", "lag", "wal_fsync"):
        assert page.locator(f"#{chart} output").first.text_content() != ""
        assert page.locator(f"#{chart} .cursor").get_attribute("visibility") == "visible"
    assert page.locator("#percentiles output").first.text_content() == ""
    assert "ms" in (page.locator("#latency output").nth(1).text_content() or "")


def test_by_keyboard_alone(page: Page, folder: Path) -> None:
    opened(page, folder / "report.html")
    page.locator("#throughput .area").focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#throughput output").all_text_contents()
    page.keyboard.press("ArrowRight")
    assert page.locator("#throughput output").all_text_contents() != first
    ticks = page.locator("#latency .xticks text").all_text_contents()
    page.keyboard.press("+")
    assert page.locator("#latency .xticks text").all_text_contents() != ticks
    page.keyboard.press("Escape")
    assert page.locator("#latency .xticks text").all_text_contents() == ticks
    page.locator("#throughput button.key").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#throughput path.line").first.is_hidden()


def test_a_drag_zooms_and_a_double_click_undoes_it(page: Page, folder: Path) -> None:
    opened(page, folder / "report.html")
    area = page.locator("#lag .area")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    whole = page.locator("#lag .draw").first.get_attribute("viewBox")
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 50)
    page.mouse.up()
    x, _, width, _ = map(float, (page.locator("#latency .draw").first.get_attribute("viewBox") or "").split())
    assert (x, width) == (pytest.approx(400, abs=5), pytest.approx(200, abs=5))
    area.dblclick()
    assert page.locator("#lag .draw").first.get_attribute("viewBox") == whole


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(new_page: Callable[..., Page], folder: Path, scheme: str) -> None:
    page = new_page(color_scheme=scheme)
    opened(page, folder / "report.html")
    for selector in ("h1", "td", ".sub", "figcaption"):
        assert page.locator(selector).first.evaluate(CONTRAST) >= 4.5, selector


def test_nothing_is_wider_than_a_narrow_screen(new_page: Callable[..., Page], folder: Path) -> None:
    page = new_page(viewport={"width": 400, "height": 800})
    opened(page, folder / "report.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator("#latency .area").evaluate("area => area.getBoundingClientRect().width") > 280


def test_on_paper_the_charts_are_there_and_the_buttons_are_not(
    new_page: Callable[..., Page], folder: Path, tmp_path: Path
) -> None:
    page = new_page(color_scheme="dark")
    opened(page, folder / "report.html")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("button.copy").is_hidden()
    assert page.locator("footer").inner_text() == "raftload.", "what is for a pointer is not for paper"
    assert page.locator("#latency path.line").first.is_visible()
    assert page.locator("td").first.evaluate(CONTRAST) >= 7
    paper = page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert paper.startswith(b"%PDF")


@pytest.mark.parametrize("name", ["report.html", "comparison.html"])
def test_no_page_break_is_between_a_title_and_its_picture(
    new_page: Callable[..., Page], folder: Path, name: str
) -> None:
    if name == "comparison.html":
        data = rundata.load(folder)
        compare.write(data, data, folder / name)
    page = new_page(viewport={"width": 700, "height": 1000})
    opened(page, folder / name)
    page.emulate_media(media="print")
    # A column breaks as a page does, and can be asked about; so many heights that each place is one for a break.
    for height in range(700, 1100, 20):
        page.evaluate(COLUMNS, height)
        assert page.evaluate(TORN) == [], height


@pytest.mark.parametrize(("width", "media"), [(400, "screen"), (1280, "screen"), (660, "print")])
def test_every_label_is_whole_and_apart_from_the_next(
    new_page: Callable[..., Page], tmp_path: Path, width: int, media: Any
) -> None:
    shown = new_page(viewport={"width": width, "height": 800})
    marked = (charts.Band(1.0, 2.0, "1"), charts.Band(9.99, 10.0, "12"))
    loads = charts.Line("p99", "p99", ((1.0, 2.0), (10.0, 5.0)), dots=True, labels=("1,000/s", "30,000/s"))
    nines = tuple(10.0**n for n in range(7))
    axes = {
        "short": charts.linear(0, 10, "s"),
        "long": charts.linear(0, 80_000, "s"),
        "odd": charts.linear(0, 14.2, "s"),
        "nines": charts.Axis(1, 1e6, nines, "log", "", tuple(f"{100 * (1 - 1 / each):.10g}%" for each in nines)),
    }
    parts = [
        charts.render(charts.Chart(name, name, x, charts.up_to(5), "ms", (loads,), marked, group=name))
        for name, x in axes.items()
    ]
    spans = [charts.Span(0, 8, "t0", "leader, term 7"), charts.Span(8.8, 10, "silent", "does not answer")]
    rows = charts.Chart("rows", "rows", axes["short"], charts.Axis(0, 1, ()), "", (), group="rows", height=50)
    (tmp_path / "page.html").write_text(
        report.page("page", [*parts, charts.render_rows(rows, [("etcd-node1", spans)], "")])
    )
    opened(shown, tmp_path / "page.html")
    shown.emulate_media(media=media)
    beside = 0 if media == "print" else 12
    for step in ("", "+", "+"):
        if step:
            for name in axes:
                shown.locator(f"#{name} .area").focus()
                shown.keyboard.press(step)
        assert shown.locator(".xticks text:visible").count() >= 12
        assert shown.evaluate(CUT, beside) == [], step
    assert shown.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_all_of_it_is_there(new_page: Callable[..., Page], folder: Path) -> None:
    page = new_page(java_script_enabled=False)
    opened(page, folder / "report.html")
    assert page.locator("figure.chart path.line").count() >= 15
    assert page.locator("button.copy").is_hidden()
    assert page.locator("footer").inner_text() == "raftload."
    assert "raftload bench --duration 14s" in (page.locator("pre").text_content() or "")


def test_two_runs_over_each_other(page: Page, folder: Path, tmp_path: Path) -> None:
    data = rundata.load(folder)
    compare.write(data, data, tmp_path / "comparison.html")
    opened(page, tmp_path / "comparison.html")
    assert page.locator("figure.chart").count() == 3
    assert page.locator("td", has_text="total.p99_ms").count() == 1


COLUMNS = """height => {
    const {style} = document.querySelector("main");
    Object.assign(style, {columns: "700px", columnGap: "0", columnFill: "auto", width: "700px", height: `${height}px`});
}"""
# What is in another column than what belongs to it, and figures in two.
TORN = """() => {
    const column = (box) => Math.floor(box.left / 700);
    const first = (element) => column(element.getClientRects()[0]);
    const last = (element) => column([...element.getClientRects()].at(-1));
    const torn = [...document.querySelectorAll("figure, tr")].filter((each) => first(each) !== last(each));
    for (const title of document.querySelectorAll("h2, h3, summary, thead")) {
        let after = title.nextElementSibling;
        while (after.matches("p") && after.nextElementSibling) after = after.nextElementSibling;
        if (after.matches("tbody")) after = after.firstElementChild;
        if (last(title) !== first(after)) torn.push(title);
    }
    for (const note of document.querySelectorAll(".scroll + p.dim")) {
        if (last(note.previousElementSibling) !== first(note)) torn.push(note);
    }
    return torn.map((each) => each.textContent);
}"""
# Texts of charts that run over the right end of the page's text, or into the next label of the axis.
CUT = """beside => {
    const seen = (each) => getComputedStyle(each).display !== "none" && getComputedStyle(each).visibility !== "hidden";
    const all = [...document.querySelectorAll(".area text")].filter(seen);
    const end = document.querySelector("figure").getBoundingClientRect().right + beside;
    const found = all.filter((each) => each.getBoundingClientRect().right > end);
    for (const ticks of document.querySelectorAll(".xticks")) {
        const labels = [...ticks.querySelectorAll("text")].filter(seen);
        const boxes = labels.map((each) => each.getBoundingClientRect());
        found.push(...labels.filter((_, n) => n && boxes[n - 1].right > boxes[n].left));
    }
    return found.map((each) => each.textContent);
}"""
# A text's contrast against the page.
CONTRAST = f"""element => {{
    {RATIO}
    return ratio(getComputedStyle(element).color, getComputedStyle(document.body).backgroundColor);
}}"""
