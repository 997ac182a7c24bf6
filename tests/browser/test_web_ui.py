"""`raftload web` as a person uses it: fields, a run, the Cluster page, a dead leader, the files of the run."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
from playwright.sync_api import Locator, Page, expect

from cluster.local import seccomp
from loadgen import schema
from loadgen.webui.pages import GROUPS
from tests.support import command
from tests.support.contrast import RATIO
from tests.support.waiting import until

pytestmark = pytest.mark.browser
# What stood on the page while nobody looked: Playwright asks too rarely for what lasts a second.
REMEMBER = """() => {
  window.said = [];
  const element = document.getElementById("leader");
  new MutationObserver(() => window.said.push(element.textContent)).observe(element, {childList: true, subtree: true});
}"""
# The seconds of the load that the page draws, as it is told them: see `loadgen.webui.seconds.Point`.
POINTS = """() => new Promise(done => {
  const source = new EventSource(document.querySelector("meta[name=raftload-events]").content);
  source.onmessage = message => { source.close(); done(JSON.parse(message.data).load.points); };
})"""


# Of a minute's picture: its lines, its times, and whether they are whole; the last one stands at its right edge.
LAST_TIME = """() => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", "chart");
    document.querySelector("#timeline").after(svg);
    Charts.timeline(svg, [], [], 60, 120);
    const times = [...svg.querySelectorAll("text")], {left, right} = svg.getBoundingClientRect();
    const boxes = times.map((each) => each.getBoundingClientRect());
    const ends = [...boxes.slice(1).map((box) => box.left), right];
    const whole = boxes.every((box, n) => left <= box.left && box.right <= ends[n]);
    const found = [svg.querySelectorAll("line").length, times.length, whole];
    svg.remove();
    return found;
}"""
# Whether a box scrolls, and whether it says so.
SCROLLS = """box => [box.scrollWidth > box.clientWidth, getComputedStyle(box, "::before").content !== "none"]"""
# Texts that do not stand out from their ground, by WCAG 2.2; but for buttons that are greyed out.
PALE = (
    """() => {
"""
    + RATIO
    + """
    const ground = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const color = getComputedStyle(each).backgroundColor;
            if (!color.startsWith("rgba(0, 0, 0, 0")) return color;
        }
    };
    const texts = [...document.querySelectorAll("body *")].filter((element) =>
        [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())
        && !element.closest("script, style, [aria-disabled=true], .in, title") && element.getClientRects().length);
    return texts.filter((element) => {
        const style = getComputedStyle(element);
        return ratio(element.closest("svg") ? style.fill : style.color, ground(element)) < 4.5;
    }).map((each) => each.textContent);
}"""
)


class Web(NamedTuple):
    """A running `raftload web`: its address, and the folder that it runs in."""

    url: str
    folder: Path


@pytest.fixture(scope="module")
def web(etcd_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Yield the UI over a cluster of its own, whose members can be cut off from each other."""
    with served(etcd_binary, tmp_path_factory.mktemp("web"), "--links", "relay", "--value-size", "100") as running:
        yield running


@contextlib.contextmanager
def served(etcd_binary: str, folder: Path, *options: str) -> Iterator[Web]:
    """Run `raftload web` over an embedded cluster, with these options, until the block ends."""
    process = command.start(
        "web", "--web-port", "0", "--backend", "embedded", "--workers", "1", "--output", "runs", *options,
        cwd=folder, RAFTLOAD_ETCD=etcd_binary,
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    while "open http://127.0.0.1:" not in (line := process.stderr.readline()):
        said.append(line)
        assert line, "".join(said)
    try:
        yield Web(line.split()[2], folder)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130


@pytest.fixture
def mended(web: Web, page: Page) -> Iterator[None]:
    """End the load and the faults with the test, also where it fails: the next one begins without."""
    yield
    with urllib.request.urlopen(f"{web.url}/stop", data=b""):
        pass
    page.goto(f"{web.url}/cluster/")
    page.get_by_role("button", name="Heal all").click()
    expect(page.locator("tr[data-role=follower]")).to_have_count(2)


@pytest.mark.usefixtures("mended")
def test_a_leader_dies_under_load(web: Web, page: Page) -> None:
    page.goto(web.url)
    page.get_by_role("button", name="Custom parameters").click()
    elsewhere = page.locator("#root a[href^=http]")
    assert [link.inner_text() for link in elsewhere.all() if link.is_visible()] == []
    expect(field(page, "valueSize")).to_have_value("100")
    field(page, "keySize").fill("3")
    start(page)
    refused = page.get_by_text("Key Size must be at least 12, not 3")
    expect(refused).to_be_visible()
    expect(field(page, "keySize")).to_have_accessible_description("Key Size must be at least 12, not 3")
    expect(field(page, "keySize")).to_be_focused()
    field(page, "keySize").fill("40")
    expect(refused).to_have_count(0)
    # So many that some ask the leader while it dies, which fails.
    field(page, "userCount").fill("32")
    start(page)
    total = page.get_by_role("row", name="Aggregated").get_by_role("cell")
    expect(total.nth(2)).not_to_have_text("0")
    before = int(total.nth(2).inner_text())
    until(lambda: int(total.nth(2).inner_text()) > before, "more requests", pause_s=0.1)
    # Median, 95, 99, 99.9 %, average, minimum, maximum: with microseconds, as long as chance gives no final zeros.
    shown = [page.get_by_role("row", name=name).get_by_role("cell").nth(4).inner_text() for name in ("put", "get")]
    shown += [total.nth(column).inner_text() for column in range(4, 11)]
    assert sum(len(text.partition(".")[2]) == 3 for text in shown) >= 4, shown
    expect(page.get_by_role("columnheader", name="Max (ms)")).to_be_visible()
    expect(page.get_by_text("Average size")).to_have_count(0)

    page.get_by_role("link", name="Cluster").click()
    expect(page.get_by_text("32 users, running")).to_be_visible()
    for latency in ("#p50", "#p99", "#max"):
        expect(page.locator(latency)).to_have_text(re.compile(r"\d m?s$"))
    leader = name_of(page.locator("tr[data-role=leader]"))
    page.evaluate(REMEMBER)
    button(page, leader, "Kill").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text(f"kill: {leader}; ")
    expect(page.locator("#leader")).not_to_have_text("Leader: NONE")
    heads = page.evaluate("window.said")
    new = name_of(page.locator("tr[data-role=leader]"))
    assert heads[0] == "Leader: NONE"
    assert heads[-1] == page.locator("#leader").inner_text()
    assert new in heads[-1] and new != leader
    expect(page.locator("#rate .fails")).not_to_have_count(0)
    expect(page.locator(".states [data-state=leader] .now")).to_have_text(new)
    expect(page.locator("#events")).to_contain_text(f"s after {leader} was lost, by the members' logs")
    # The latest is first: the fault stands before, so below, what it led to.
    told = page.locator("#events li").all_inner_texts()
    fault, won, seen = (
        next(number for number, text in enumerate(told) if words in text)
        for words in (f"kill: {leader}; ", f"s after {leader} was lost", f"{new} leads term")
    )
    assert fault > won and fault > seen, told
    expect(page.locator("#timeline .span.down")).not_to_have_count(0)
    expect(page.locator("#latency .gap")).not_to_have_count(0)
    expect(row(page, leader)).to_have_attribute("data-role", "down")
    page.get_by_role("button", name="Heal all").click()
    expect(row(page, leader)).to_have_attribute("data-role", "follower")

    page.get_by_role("link", name="Load test").click()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("link", name="Cluster").click()
    download = page.locator("#runs").get_by_role("link", name="result.json")
    expect(download).to_be_visible(timeout=30_000)
    with page.expect_download() as waiting:
        download.click()
    result = json.loads(waiting.value.path().read_text())
    jsonschema.validate(result, schema.load("result"))
    assert waiting.value.suggested_filename == f"{result['run']['id']}-result.json"
    assert (result["run"]["key_size"], result["run"]["users"]) == (40, 32)
    assert result["results"]["total"]["operations"] > before
    assert result["target"]["leader_changes"] >= 1
    # How long an operation waited for the next leader is chance: an election takes a second or two since the dead
    # one's last heartbeat, an operation that succeeds began some time after that. The page shows what it was.
    folder = web.folder / "runs" / result["run"]["id"]
    points = page.evaluate(POINTS)
    assert len(points) >= 3
    with (folder / "series.csv").open() as file:
        rows = [
            (int(float(row["time"])), round(float(row["max_ms"]), 3)) for row in csv.DictReader(file) if row["max_ms"]
        ]
    for at, _, _, _, _, max_ms in points[1:-1]:  # those at the ends count with what they have beside them
        assert max_ms == max((ms for second, ms in rows if second == at), default=None)
    with (folder / "events.csv").open() as file:
        assert [event["fault"] for event in csv.DictReader(file) if event["phase"] == "effect"] == ["kill", "heal"]
    page.get_by_role("link", name="Runs").click()
    run = page.get_by_role("row", name=result["run"]["id"])
    assert (result["verdict"], result["results"]["total"]["failed"] > 0) == ("none", True)
    expect(run.locator(".verdict")).to_have_text("NONE")
    cluster = result["diagnosis"]["cluster"]
    expect(run.locator("td[data-label=Diagnosis]")).to_have_text(f"{cluster['word']}: {cluster['why']}")
    for what, is_grey in ((run.locator(".verdict"), True), (run.locator("td[data-label=Failed]"), False)):
        color = what.evaluate("element => getComputedStyle(element).color").strip("rgb()").split(",")
        assert (max(map(int, color)) - min(map(int, color)) < 30) is is_grey, color
    with page.expect_download() as waiting:
        run.get_by_role("link", name="Download report.html").click()
    assert waiting.value.path().read_bytes().startswith(b"<!DOCTYPE html>")
    run.get_by_role("link", name="report.html", exact=True).click()
    expect(page.get_by_text(result["run"]["id"]).first).to_be_visible()


def test_fields_are_grouped_and_a_refusal_stands_at_its_field(web: Web, page: Page) -> None:
    page.goto(web.url)
    form = page.locator("form:has([name=keySize])")
    new = page.get_by_role("button", name="New", exact=True)  # where a run has ended here before
    expect(form.or_(new)).to_be_visible()
    if new.is_visible():
        new.click()
    expect(form.locator(".raftload-group")).to_have_text(list(GROUPS))
    shown = form.locator("h4, [name]").evaluate_all("all => all.map((each) => each.name || each.textContent)")
    fields = [part for title, names in GROUPS.items() for part in (title, *map(camel, names))]
    assert shown[shown.index("Operations") :] == fields
    # Where the group is folded, the refusal opens it.
    folded = {"mix": "Custom parameters", "runTime": "Advanced options"}
    for name, bad, good, words in (
        ("mix", "del", "put=1", "is not an operation type"),
        ("userCount", "0", "2", "Number Of Users must be at least 1"),
        ("host", "nowhere:port", "127.0.0.1:2379", "malformed endpoint"),
        ("runTime", "soon", "20s", "is no time to run"),
    ):
        field(page, name).evaluate("each => { each.closest('form').noValidate = true; }")
        if name in folded:
            page.get_by_role("button", name=folded[name]).click()
        field(page, name).fill(bad)
        if name in folded:
            page.get_by_role("button", name=folded[name]).click()
        start(page)
        expect(field(page, name)).to_have_accessible_description(re.compile(words))
        expect(field(page, name)).to_be_focused()
        expect(page.get_by_text(words)).to_have_count(1)
        field(page, name).fill(good)
        expect(page.get_by_text(words)).to_have_count(0)


def test_members_are_paused_cut_off_and_made_leader(web: Web, page: Page) -> None:
    page.goto(web.url + "/cluster/")
    leader = name_of(page.locator("tr[data-role=leader]"))
    other = name_of(page.locator("tr[data-role=follower]").first)
    button(page, leader, "Make leader").click(force=True)
    expect(page.locator("#said")).to_have_text(f"Make leader {leader}: not now, {leader} leads already")
    button(page, other, "Make leader").click()
    expect(page.locator("#leader")).to_contain_text(f"Leader: {other}, term ")
    button(page, leader, "Pause").click()
    expect(row(page, leader)).to_have_attribute("data-role", "paused")
    button(page, leader, "Resume").click()
    expect(row(page, leader)).to_have_attribute("data-role", "follower")
    button(page, other, "Partition").click()
    expect(page.locator("#said")).to_contain_text(f"partition: {other}; ")
    expect(row(page, other)).to_contain_text("cut off")
    expect(page.locator("#leader")).not_to_contain_text(other)
    button(page, other, "Heal").click()
    expect(row(page, other)).to_have_attribute("data-role", "follower")
    expect(row(page, other)).not_to_contain_text("cut off")
    assert page.locator("#events li").count() >= 4


@pytest.fixture(scope="module")
def direct(etcd_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Yield the UI over a cluster whose members are connected directly; faults are done to their disks if possible."""
    options = () if seccomp.why_not() else ("--disk-faults",)
    with served(etcd_binary, tmp_path_factory.mktemp("direct"), *options) as running:
        yield running


def test_a_grey_button_names_the_option_that_it_needs(direct: Web, page: Page) -> None:
    page.goto(direct.url + "/cluster/")
    leader = name_of(page.locator("tr[data-role=leader]"))
    partition = button(page, leader, "Partition")
    expect(partition).to_have_attribute("aria-disabled", "true")
    expect(partition).to_have_attribute("title", re.compile("--links relay"))
    partition.click(force=True)
    expect(page.locator("#said")).to_contain_text("`--links relay`")
    expect(button(page, leader, "Kill")).to_have_attribute("aria-disabled", "false")
    page.goto("about:blank")


@pytest.mark.strikes
def test_a_disk_is_stuck_and_healed(direct: Web, page: Page) -> None:
    page.goto(direct.url + "/cluster/")
    other = name_of(page.locator("tr[data-role=follower]").first)
    button(page, other, "Stuck disk").click()
    expect(row(page, other)).to_contain_text("disk stuck")
    expect(page.locator("#said")).to_contain_text(f"stuck-disk: {other}; ")
    expect(button(page, other, "Slow disk")).to_have_attribute("title", re.compile(f"the disk of {other} is stuck"))
    button(page, other, "Heal").click()
    expect(row(page, other)).not_to_contain_text("disk stuck")
    expect(button(page, other, "Slow disk")).to_have_attribute("aria-disabled", "false")
    page.goto("about:blank")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_and_follows_the_theme(web: Web, new_page: Callable[..., Page], theme: Any, tmp_path: Path) -> None:
    for width in (1280, 400):
        page = new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
        for path in ("/", "/cluster/", "/cluster/runs"):
            page.goto(web.url + path)
            expect(page.get_by_role("link", name="Cluster")).to_be_visible()
            if path == "/cluster/":
                expect(page.locator("tr[data-role=leader]")).to_be_visible()
                expect(page.locator("#timeline .span")).not_to_have_count(0)
                assert page.evaluate(LAST_TIME) == [3 if width == 400 else 5] * 2 + [True]
                states = page.locator(".scroll", has=page.locator(".states"))
                assert states.evaluate(SCROLLS) == [width == 400] * 2
            if path != "/":
                assert page.evaluate(PALE) == [], (width, path)
            page.screenshot(path=tmp_path / f"{theme}-{width}{path.replace('/', '-')}.png", full_page=True)
            if path != "/":
                assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            if path == "/cluster/runs":
                expect(page.locator("tbody tr")).not_to_have_count(0)
                assert page.evaluate("document.querySelector('.scroll').scrollWidth") <= width
                ground = page.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgb()").split(",")
                assert (sum(map(int, ground)) > 382) == (theme == "light")
    page.get_by_role("button", name="Switch between light and dark").click()
    page.goto(web.url + "/cluster/")
    assert page.evaluate("document.documentElement.dataset.theme") != theme, "the choice is kept"


def camel(name: str) -> str:
    return re.sub("_(.)", lambda found: found[1].upper(), name)


def field(page: Page, name: str) -> Locator:
    return page.locator(f"input[name={name}]")


def start(page: Page) -> None:
    page.get_by_role("button", name="Start", exact=True).click()


def row(page: Page, member: str) -> Locator:
    return page.locator("#members tr", has=page.get_by_role("rowheader", name=member))


def button(page: Page, member: str, label: str) -> Locator:
    return page.get_by_role("button", name=f"{label}: {member}")


def name_of(row: Locator) -> str:
    return row.get_by_role("rowheader").inner_text()
