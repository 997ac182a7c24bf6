"""Rendered pictures as Mermaid, Graphviz and a reader of our ASCII read them, against their models.

For every type, variant and size, with hostile names. Mermaid is the real one from npm, installed once into the user's
cache. Starting it takes seconds and starting Graphviz a tenth of one, so
each is started once and reads all pictures, the damaged ones too.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import pytest

from cluster.base.console import width
from tests.support.mermaid import run_mermaid
from tests.support.missing import require
from viz.diagrams import ascii as text_picture
from viz.diagrams import dot, elections, mermaid, observed
from viz.diagrams.model import (
    START,
    Chart,
    ClusterSnapshot,
    Lane,
    MemberView,
    Message,
    Model,
    Note,
    Row,
    Sequence,
    Span,
    SpanKind,
    State,
    StateGraph,
    Transition,
    clean_name,
)
from viz.diagrams.raft import DIAGRAMS, diagram

HOSTILE = (
    "end",
    'a "quoted"; name # 1',
    "Łódź 節点 🚀 e\u0301",
    "line\nbreak <b>x</b> <br/>",
    "%%{init: {}}%% --> | : ->> x",
    "1. `code` \\n $x$ [*] {a} (b)",
    "- &amp; #59; \u202e | +--+ [note]",
)
PLAIN = tuple(f"etcd-node{number}" for number in range(1, 8))

# Structures, the same whoever found them: the title, the names of the nodes, the edges in order and the rest.


@dataclasses.dataclass(frozen=True)
class Structure:
    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int, str, str], ...]  # from, to, text, kind; -1 is the start
    notes: tuple[tuple[int, str], ...] = ()  # lane (-1 for all), text


def expected(model: Model) -> Structure:
    if isinstance(model, StateGraph):
        place = {START: -1} | {state.id: number for number, state in enumerate(model.states)}
        nodes = tuple(" ".join(filter(None, (state.label, state.detail))) for state in model.states)
        edges = [(place[each.source], place[each.target], each.text, "call") for each in model.transitions]
        return Structure(nodes, tuple(sorted(edges)))  # a graph's edges have no order
    if isinstance(model, Sequence):
        place = {lane.id: number for number, lane in enumerate(model.lanes)}
        messages = [(place[each.source], place[each.target], each.text, each.kind) for each in model.messages]
        notes = [
            (-1 if item.lane is None else place[item.lane], item.text)
            for item in model.items
            if not isinstance(item, Message)
        ]
        return Structure(tuple(lane.label for lane in model.lanes), tuple(messages), tuple(notes))
    if isinstance(model, ClusterSnapshot):
        names = tuple(" ".join(member.lines) for member in model.members)
        return Structure(names, tuple(sorted((*link, "call") for link in model.links)))
    return Structure(tuple(row.label for row in model.rows), (), tuple(chart_notes(model)))


def chart_notes(model: Chart) -> Iterator[tuple[int, str]]:
    for number, row in enumerate(model.rows):
        for span in row.spans:
            yield number, span.text


def cluster(names: tuple[str, ...]) -> ClusterSnapshot:
    shown = [clean_name(name) for name in names]
    views = [
        MemberView(name, f"127.0.0.1:{2379 + 10 * number}", "follower", 3, 120, 118, 2, 20480, "3.5.1", 0.4)
        for number, name in enumerate(shown)
    ]
    views[0] = dataclasses.replace(views[0], role="leader", lag=0)
    if len(views) > 2:
        views[1] = MemberView(shown[1], "127.0.0.1:1", "no answer", alarms=("127.0.0.1:1: Connection refused",))
        views[2] = dataclasses.replace(views[2], role="learner", alarms=('memberID:1 alarm:NOSPACE "; #',))
    return ClusterSnapshot(f"etcd cluster: leader {shown[0]} in term 3", tuple(views))


def chart(names: tuple[str, ...]) -> Chart:
    rows = [
        Row(clean_name(name), (Span(0, 2.5, "follower", f"follower: term {number}; # {clean_name(name)}"),))
        for number, name in enumerate(names)
    ]
    spans = (Span(0, 1, "down", "down"), Span(1, 1.2, "candidate", "candidate in term 2"), Span(1.2, 4, "leader", "L"))
    return Chart("who led: and when", "2026-01-31T12:00:00.000Z", 4.0, (*rows[1:], Row(rows[0].label, spans)))


@functools.cache
def wordy(text: str) -> Sequence:
    """Return lanes, messages to each side and to the sender, a lost one, and notes, all with the same text."""
    lanes = tuple(Lane(f"m{number}", text) for number in (1, 2, 3))
    pairs = (("m1", "m2"), ("m3", "m2"), ("m1", "m3"), ("m2", "m2"), ("m1", "m1"), ("m3", "m3"))
    messages = tuple(Message(*pair, text) for pair in pairs)
    lost = (Message("m2", "m3", text, "lost"), Message("m3", "m1", text, "lost"))
    notes = (Note(text, lane.id) for lane in lanes)
    return Sequence("words", lanes, (*messages, *lost, *notes))


@functools.cache
def models() -> dict[str, Model]:
    """All models, by their names. They do not change, so they are made once."""
    found: dict[str, Model] = {}
    # Hostile names of every size, plain ones of a few: they differ from those in nothing that grows with the size.
    sizes = [
        *itertools.product((1, 3, 7), [("plain", PLAIN)]),
        *itertools.product((1, 2, 3, 4, 5, 7), [("hostile", HOSTILE)]),
    ]
    for size, (kind, names) in sizes:
        some = names[:size]
        for name, variants in DIAGRAMS.items():
            for variant in variants:
                now = {"leader": some[:1], "follower": some[1:]}
                for leader in sorted({0, size - 1}):
                    model = diagram(name, some, variant, leader, now if kind == "hostile" else None)
                    found[f"{name} {variant} {size} {kind} {leader}"] = model
        found[f"cluster-status {size} {kind}"] = cluster(some)
        found[f"timeline {size} {kind}"] = chart(some)
        notes = ("12 of 412 periods are left out", 'the logs\' times; # "have" no year')
        found[f"timeline with notes {size} {kind}"] = dataclasses.replace(chart(some), notes=notes)
    for folder in sorted(
        path for path in (Path(__file__).parents[1] / "data" / "raft-logs").iterdir() if path.is_dir()
    ):
        seen = elections.read_files(sorted(folder.glob("*.log")))
        found[f"observed election {folder.name}"] = observed.sequence(seen, seen.elections[-1:])
        found[f"observed all {folder.name}"] = observed.sequence(seen, seen.elections, most=60)
        found[f"observed states {folder.name}"] = observed.state_graph(seen)
        found[f"observed timeline {folder.name}"] = observed.timeline(seen)
    # Bars of every length, a point of the picture being a second; texts of a font's widest and narrowest characters.
    wordings = ("Leader, term 7", "WWWW", "mmmmm", "%@%@", "~~~~~", "iiiiii", "節", "🚀", "e\u0301e\u0301")
    for term, step in ((4, 1), (88, 1), (1234, 1), (None, 7)):
        ends = [end for end in itertools.accumulate(range(0, 640, step)) if end <= 640]
        rows = []
        for wording, kind in zip(wordings, itertools.cycle(get_args(SpanKind)), strict=False):
            role = kind if term else "leader"  # whose bars may hold the whole wording
            spans = (Span(start, end, role, wording, term) for start, end in itertools.pairwise(ends))
            rows.append(Row(wording, tuple(spans)))
        found[f"timeline of bars {term}"] = Chart("bars", "2026-01-31T12:00:00.000Z", 640.0, tuple(rows))
    for wording in wordings:
        found[f"sequence of {wording}"] = wordy(" ".join([wording] * 6))
    counted = tuple(Transition(a, b, "x" * 40, 3) for a, b in itertools.product("abc", repeat=2))
    found["counted graph"] = StateGraph("counts", tuple(State(each, each.upper()) for each in "abc"), counted)
    return found


def check_all(names: Iterable[str], check: Callable[[str], None]) -> None:
    """Check each of the models; raise all that was wrong, with the models' names."""
    wrong = []
    for name in names:
        try:
            check(name)
        except Exception as exc:
            exc.add_note(f"the model: {name}")
            wrong.append(exc)
    if wrong:
        raise ExceptionGroup(f"{len(wrong)} models are drawn as something else", wrong)


# The comparison itself: a renderer that is damaged in any of these ways is found out.

SAMPLE = "log-replication slow-follower 3 plain 0"
DAMAGE: dict[str, Callable[[str], str]] = {
    "a message is missing": lambda text: text.replace(
        next(line for line in text.splitlines() if "heartbeat" in line) + "\n", "", 1
    ),
    "a label is cut": lambda text: text.replace("matches up to 8", "matches up to", 1),
    "an arrow is turned round": lambda text: (
        re.sub(r"\|(-+)>\|", r"|<\1|", text, count=1)
        .replace("m2->>m3", "m3->>m2", 1)
        .replace("a3 -> b3", "b3 -> a3", 1)
    ),
    "a reply is a call": lambda text: (
        re.sub(r"(?<=- )(?=-)|(?<=-) (?=-)", "-", text)
        .replace("-->>", "->>", 1)
        .replace('[id="e6", style=dashed]', '[id="e6"]', 1)
    ),
    "a lane has another name": lambda text: text.replace("etcd-node3", "etcd-node4", 1),
    "a note is missing": lambda text: text.replace("answers late", "", 1),
}


def damaged(render: Callable[[Model], str]) -> dict[str, str]:
    """Return the sample's picture, damaged in each of the ways."""
    right = render(models()[SAMPLE])
    return {damage: change(right) for damage, change in DAMAGE.items()}


def pictures(render: Callable[[Model], str]) -> dict[str, str]:
    """Return the pictures of all models, and the damaged ones."""
    return {name: render(model) for name, model in models().items()} | damaged(render)


# Mermaid

PARSER = r"""
import { JSDOM } from "jsdom";
import { load } from "js-yaml"; // what Mermaid reads its front matter with
const dom = new JSDOM("<!DOCTYPE html><body></body>", { pretendToBeVisual: true });
globalThis.window = dom.window; globalThis.document = dom.window.document;
const { default: mermaid } = await import("mermaid");
mermaid.initialize({ startOnLoad: false, securityLevel: "strict" });
const chunks = []; for await (const chunk of process.stdin) chunks.push(chunk);
for (const [name, source] of Object.entries(JSON.parse(Buffer.concat(chunks).toString()))) {
  let out;
  try {
    // parse() takes as long as this does again, and knows no more of the picture but its settings.
    const { db, type } = await mermaid.mermaidAPI.getDiagramFromText(source);
    const parsed = name.includes(" 7 hostile") ? await mermaid.parse(source) : { diagramType: type };
    out = { type: parsed.diagramType, title: load(source.split("\n---\n")[0].slice(4)).title };
    if (parsed.diagramType === "sequence") {
      out.actors = [...db.getActors().values()].map(a => [a.name, a.description]);
      out.messages = db.getMessages().map(m => [m.from, m.to, m.message, m.type]);
    } else if (parsed.diagramType === "stateDiagram") {
      out.states = [...db.getStates().values()].map(s => [s.id, s.type, s.descriptions]);
      out.relations = db.getRelations().map(r => [r.id1, r.id2, r.relationTitle]);
    } else if (parsed.diagramType.startsWith("flowchart")) {
      out.vertices = [...db.getVertices().values()].map(v => [v.id, v.text]);
      out.edges = db.getEdges().map(e => [e.start, e.end, e.text]);
    } else {
      out.sections = db.getSections();
      out.tasks = db.getTasks().map(t => [t.section, t.task, t.startTime.getTime(), t.endTime.getTime()]);
    }
  } catch (error) { out = { error: String(error.message ?? error) }; }
  process.stdout.write(JSON.stringify([name, out]) + "\n");
}
process.exit(0);
"""


@pytest.fixture(scope="module")
def read_by_mermaid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the real Mermaid finds in the pictures of all models, and in the damaged ones."""
    lines = run_mermaid(PARSER, pictures(mermaid.render), tmp_path_factory.mktemp("mermaid"))
    return dict(json.loads(line) for line in lines)


def decode(text: object) -> str:
    """Mermaid's own stand-ins for entities, and those, as a browser would show them."""
    shown = str(text).replace("\ufb02\xb0\xb0", "&#").replace("\ufb02\xb0", "&").replace("\xb6\xdf", ";")
    return " ".join(html.unescape(shown).split())


def read_mermaid(found: dict[str, Any]) -> Structure:
    assert "error" not in found, found["error"]
    if found["type"] == "sequence":
        lanes = {name: number for number, (name, _) in enumerate(found["actors"])}
        kinds = {0: "call", 1: "reply", 3: "lost"}
        messages, notes = [], []
        for source, target, text, kind in found["messages"]:
            if kind in kinds:
                messages.append((lanes[source], lanes[target], decode(text), kinds[kind]))
            else:
                notes.append((lanes[source] if source == target else -1, decode(text)))
        return Structure(tuple(decode(label) for _, label in found["actors"]), tuple(messages), tuple(notes))
    if found["type"] == "stateDiagram":
        states = [state for state in found["states"] if state[0] != "root_start"]
        place = {"root_start": -1} | {state[0]: number for number, state in enumerate(states)}
        edges = [(place[source], place[target], decode(text), "call") for source, target, text in found["relations"]]
        return Structure(tuple(decode(" ".join(state[2])) for state in states), tuple(sorted(edges)))
    if found["type"].startswith("flowchart"):
        place = {name: number for number, (name, _) in enumerate(found["vertices"])}
        edges = [(place[source], place[target], decode(text), "call") for source, target, text in found["edges"]]
        names = tuple(decode(text.replace("<br>", " ").replace("<br/>", " ")) for _, text in found["vertices"])
        return Structure(names, tuple(sorted(edges)))
    order = [decode(section) for section in found["sections"]]
    return Structure(
        tuple(order), (), tuple((order.index(decode(each[0])), decode(each[1])) for each in found["tasks"])
    )


def loosened(structure: Structure, model: Model) -> Structure:
    """With the one thing that a format cannot say left out: with one lane, whether a note is of it or of all."""
    if isinstance(model, Sequence) and len(model.lanes) == 1:
        return dataclasses.replace(structure, notes=tuple((0, text) for _, text in structure.notes))
    return structure


def test_the_real_mermaid_finds_what_the_model_says(read_by_mermaid: dict[str, Any]) -> None:
    def check(name: str) -> None:
        model, found = models()[name], read_by_mermaid[name]
        assert loosened(read_mermaid(found), model) == loosened(expected(model), model)
        assert decode(found["title"]) == "; ".join((model.title, *getattr(model, "notes", ())))

    assert read_by_mermaid.keys() == models().keys() | DAMAGE.keys()
    check_all(models(), check)


def test_the_real_mermaid_finds_the_times_of_a_timeline(read_by_mermaid: dict[str, Any]) -> None:
    began = round(datetime.fromisoformat("2026-01-31T12:00:00.000Z").timestamp() * 1000)
    tasks = read_by_mermaid["timeline 1 plain"]["tasks"]
    assert [each[2:] for each in tasks] == [
        [began, began + 1000],
        [began + 1000, began + 1200],
        [began + 1200, began + 4000],
    ]


# Graphviz


@pytest.fixture(scope="module")
def read_by_dot() -> dict[str, Any]:
    """Return what Graphviz makes of the pictures of all models, and of the damaged ones."""
    if shutil.which("dot") is None:
        require("graphviz", "no Graphviz on PATH")
    drawn = pictures(dot.render)
    done = subprocess.run(
        ["dot", "-Tjson"], input="\n".join(drawn.values()).encode(), capture_output=True, timeout=600, check=False
    )
    assert done.returncode == 0 and not done.stderr, done.stderr.decode()
    documents, text, at = [], done.stdout.decode().rstrip(), 0
    blanks = re.compile(r"\s*")
    while at < len(text):
        document, at = json.JSONDecoder().raw_decode(text, blanks.match(text, at).end())  # type: ignore[union-attr]
        documents.append(document)
    return dict(zip(drawn, documents, strict=True))


def shown(text: str) -> str:
    """Return what Graphviz draws: entities are read first, then its escapes."""
    return re.sub(r"\\(.)", lambda found: "\n" if found.group(1) in "nlr" else found.group(1), html.unescape(text))


def label(thing: dict[str, Any]) -> str:
    return " ".join(shown(thing.get("label", "")).split())


def read_dot(found: dict[str, Any], model: Model) -> Structure:
    objects = {thing["name"]: thing for thing in found["objects"]}
    edges = found.get("edges", [])
    names = [thing["name"] for thing in found["objects"]]
    if isinstance(model, StateGraph | ClusterSnapshot):
        prefix = "s" if isinstance(model, StateGraph) else "m"
        nodes = sorted(
            (name for name in objects if re.fullmatch(prefix + r"\d+", name)), key=lambda name: int(name[1:])
        )
        place = {"start": -1} | {name: number for number, name in enumerate(nodes)}
        ends = [(place[names[each["tail"]]], place[names[each["head"]]], label(each), "call") for each in edges]
        return Structure(tuple(label(objects[name]) for name in nodes), tuple(sorted(ends)))

    def at(name: str) -> float:
        return float(objects[name]["pos"].split(",")[0])

    if isinstance(model, Chart):
        rows = sorted((name for name in objects if name[0] == "r"), key=lambda name: int(name[1:]))
        heights = [float(objects[name]["pos"].split(",")[1]) for name in rows]
        notes = []
        for name in objects:
            if name[0] == "p":
                height = float(objects[name]["pos"].split(",")[1])
                row = min(range(len(rows)), key=lambda number: abs(heights[number] - height))
                notes.append((row, float(objects[name]["pos"].split(",")[0]), shown(objects[name]["tooltip"])))
        return Structure(tuple(label(objects[name]) for name in rows), (), tuple((n, t) for n, _, t in sorted(notes)))
    lanes = sorted((name for name in objects if re.fullmatch(r"l\d+", name)), key=lambda name: int(name[1:]))
    xs = [at(name) for name in lanes]
    arrows = {each["id"]: each for each in edges if "id" in each}
    messages = []
    for number in range(1, len(arrows) + 1):
        edge = arrows[f"e{number}"]
        kind = "lost" if edge.get("arrowhead") == "tee" else "reply" if edge.get("style") == "dashed" else "call"
        ends = at(f"a{number}"), at(f"b{number}")
        source, target = (min(range(len(xs)), key=lambda lane, x=x: abs(xs[lane] - x)) for x in ends)  # type: ignore[misc]
        assert names[edge["head"]] == f"b{number}"
        messages.append((source, target, label(objects[f"t{number}"]), kind))
    notes = []
    for name in sorted((each for each in objects if re.fullmatch(r"n\d+", each)), key=lambda each: int(each[1:])):
        near = [lane for lane, x in enumerate(xs) if abs(x - at(name)) < 0.01]
        notes.append((near[0] if near else -1, label(objects[name])))
    return Structure(tuple(label(objects[name]) for name in lanes), tuple(messages), tuple(notes))


def middle_is_all(structure: Structure, model: Model) -> Structure:
    """Return a note over all lanes stands in their middle, where there may be a lane: told apart by its text alone."""
    if not isinstance(model, Sequence):
        return structure
    everywhere = {item.text for item in model.items if not isinstance(item, Message) and item.lane is None}
    return dataclasses.replace(
        structure, notes=tuple((-1 if text in everywhere else lane, text) for lane, text in structure.notes)
    )


def test_graphviz_finds_what_the_model_says(read_by_dot: dict[str, Any]) -> None:
    def check(name: str) -> None:
        model, found = models()[name], read_by_dot[name]
        assert middle_is_all(read_dot(found, model), model) == expected(model)
        assert shown(found["label"]) == model.title

    check_all(models(), check)


@pytest.mark.parametrize(
    "name", ["cluster-status 7 hostile", "leader-election normal 7 hostile 0", "timeline 7 hostile"]
)
def test_every_word_of_the_model_is_drawn_in_the_svg(name: str) -> None:
    if shutil.which("dot") is None:
        require("graphviz", "no Graphviz on PATH")
    model = models()[name]
    drawn = subprocess.run(["dot", "-Tsvg"], input=dot.render(model).encode(), capture_output=True, check=True).stdout
    texts = ["".join(each.itertext()) for each in ElementTree.fromstring(drawn).iter() if each.tag.endswith("}text")]
    everything = " ".join(" ".join(texts).split())
    for node in expected(model).nodes:
        assert node in everything


# ASCII: a reader by columns, which knows nothing of the renderer but the picture's rules.


@functools.lru_cache(maxsize=10_000)
def cells(line: str) -> tuple[str, ...]:
    """Return what stands in each column: after a wide character, one with nothing."""
    found: list[str] = []
    for char in line:
        if width(char) == 0:
            found[-1] += char
        else:
            found += [char] + [""] * (width(char) - 1)
    return tuple(found)


def cut(line: str, start: int, end: int | None = None) -> str:
    return "".join(cells(line)[start:end])


def read_lanes(picture: str) -> Structure:
    title, blank, top, *rest = picture.splitlines()
    assert title and not blank and set(top) <= set("+- ")
    corners = [match.start() for match in re.finditer(r"\+", top)]
    boxes = list(zip(corners[::2], corners[1::2], strict=True))
    height = next(number for number, line in enumerate(rest) if set(line) <= set("+- "))
    heads = [" ".join(cut(line, left + 1, right).strip() for line in rest[:height]) for left, right in boxes]
    columns = [number for number, char in enumerate(rest[-1]) if char == "|"]
    assert len(columns) == len(boxes) and set(rest[-1]) <= {" ", "|"}
    groups: list[list[str]] = []
    for line in rest[height + 1 : -1]:
        if line == rest[-1]:
            groups.append([])
        else:
            groups[-1].append(line)
    edges, notes = [], []
    for number, group in enumerate(groups):
        mark = group[0][:4].strip()
        if mark == "*":
            opening = [x for x, char in enumerate(cells(group[0])) if char == "["]
            start = next((x for x in (4, *columns) if x in opening), opening[0])
            text = [bare(cut(line, start + 1), start + 1, columns) for line in group]
            assert text[-1].endswith("]")
            # One without a lane at its opening bracket has it at its closing one.
            lane = start if start in (4, *columns) else len(cells(group[-1])) - 1
            notes.append((-1 if lane == 4 else columns.index(lane), " ".join(text)[:-1].rstrip()))
            continue
        assert int(mark) == number + 1 - len(notes)
        arrow = cells(group[-1])
        loop = next((x for x in columns if "".join(arrow[x : x + 4]) in ("|<-'", "|<-x")), None)
        if loop is not None:
            text = [bare(cut(line, loop + 2), loop + 2, columns) for line in group[:-2]]
            here = columns.index(loop)
            edges.append((here, here, " ".join(text), "lost" if arrow[loop + 3] == "x" else "call"))
            continue
        back = next((x for x in columns if "".join(arrow[x - 3 : x + 1]) in ("'->|", "x->|")), None)
        if back is not None:
            here = columns.index(back)
            text = [cut(line, columns[here - 1] + 1, back).strip() for line in group[:-2]]
            edges.append((here, here, " ".join(text), "lost" if arrow[back - 3] == "x" else "call"))
            continue
        head = next(x for x, char in enumerate(arrow) if char in "<>x")
        drawn = [x for x, char in enumerate(arrow) if char in "-<>x"]
        left, right = max(x for x in columns if x < drawn[0]), min(x for x in columns if x > drawn[-1])
        ends = (left, right) if head == drawn[-1] else (right, left)
        kind = "lost" if arrow[head] == "x" else "reply" if " " in arrow[left:right] else "call"
        text = [bare(cut(line, left + 2), left + 2, columns) for line in group[:-1]]
        edges.append((columns.index(ends[0]), columns.index(ends[1]), " ".join(text), kind))
    return Structure(tuple(heads), tuple(edges), tuple(notes))


def bare(text: str, start: int, columns: list[int]) -> str:
    """Return a label's line without the lifelines after it, each in a column of its own after a blank."""
    found = cells(text)
    for column in reversed([each - start for each in columns]):
        if 0 < column == len(found) - 1 and found[column] == "|" and found[column - 1] == " ":
            found = cells("".join(found[:column]).rstrip())
    return "".join(found).rstrip()


def read_table(lines: list[str]) -> list[list[str]]:
    rule = next(number for number, line in enumerate(lines) if line and set(line) <= {"-", " "})
    spans = [match.span() for match in re.finditer("-+", lines[rule])]
    rows = itertools.takewhile(bool, lines[rule + 1 :])
    return [[cut(line, *span).strip() for span in spans] for line in rows]


def check_ascii(picture: str, model: Model) -> None:
    lines = picture.splitlines()
    assert lines[0] == model.title
    if isinstance(model, Chart):
        rows = read_table(lines)
        assert [(row[0], row[4]) for row in rows] == [(r.label, s.text) for r in model.rows for s in r.spans]
        assert [row[1] for row in rows] == [f"{s.start:.3f}" for r in model.rows for s in r.spans]
        signs = {"leader": "#", "candidate": "?", "follower": "-", "down": "x"}
        for line, row in zip(lines[2:], model.rows, strict=False):
            # What takes less than two columns may share one with its like; the table below has it all the same.
            long = [span for span in row.spans if span.end - span.start >= model.duration / 30]
            assert {signs[span.kind] for span in long} <= set(cut(line, -62))
    elif isinstance(model, ClusterSnapshot):
        rows = read_table(lines)
        assert [(row[0], row[1]) for row in rows] == [(each.name, each.role) for each in model.members]
        assert [row[5] for row in rows] == ["?" if each.lag is None else str(each.lag) for each in model.members]
        alarms = [line[2:] for line in lines if line.startswith("! ")]
        assert alarms == [f"{each.name}: {alarm}" for each in model.members for alarm in each.alarms]
    else:
        want = expected(model)
        starts = isinstance(model, StateGraph) and any(each.source == START for each in model.transitions)
        if starts:
            edges = tuple((a + 1, b + 1, text, kind) for a, b, text, kind in want.edges)
            want = dataclasses.replace(want, nodes=("(start)", *want.nodes), edges=edges)
        got = read_lanes(picture)
        if isinstance(model, StateGraph):
            got = dataclasses.replace(got, edges=tuple(sorted(got.edges)))
        nodes = tuple(" ".join(node.split()) for node in got.nodes)
        assert dataclasses.replace(got, nodes=nodes) == want


def test_a_reader_of_ascii_finds_what_the_model_says() -> None:
    check_all(models(), lambda name: check_ascii(text_picture.render(models()[name]), models()[name]))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("form", ["mermaid", "dot", "ascii"])
def test_a_damaged_renderer_is_found_out(form: str, damage: str, request: pytest.FixtureRequest) -> None:
    model = models()[SAMPLE]
    render = {"mermaid": mermaid.render, "dot": dot.render, "ascii": text_picture.render}[form]
    wrong = damaged(render)[damage]
    assert wrong != render(model)

    def compare(name: str) -> None:
        """Compare what was found in the picture of this name, which the model's right one is or a damaged one."""
        if form == "ascii":
            check_ascii(render(model) if name == SAMPLE else wrong, model)
        elif form == "mermaid":
            assert read_mermaid(request.getfixturevalue("read_by_mermaid")[name]) == expected(model)
        else:
            assert middle_is_all(read_dot(request.getfixturevalue("read_by_dot")[name], model), model) == expected(
                model
            )

    compare(SAMPLE)
    with pytest.raises((AssertionError, LookupError, ValueError, StopIteration)):
        compare(damage)


def box(thing: dict[str, Any]) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of what Graphviz placed, in points."""
    x, y = map(float, thing["pos"].split(","))
    wide, high = float(thing["width"]) * 36, float(thing["height"]) * 36
    return x - wide, x + wide, y - high, y + high


def apart(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    """Return whether two boxes have no area in common."""
    return a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2]


def test_no_label_runs_into_another_or_into_an_end(read_by_dot: dict[str, Any]) -> None:
    def check(name: str) -> None:
        model = models()[name]
        assert isinstance(model, Sequence)
        placed = {thing["name"]: box(thing) for thing in read_by_dot[name]["objects"]}
        labels = {key: at for key, at in placed.items() if key[0] in "tn" or (key[0] == "l" and key[-1] != "e")}
        for (one, a), (other, b) in itertools.combinations(labels.items(), 2):
            assert apart(a, b), (one, other, a, b)
        for number, item in enumerate(model.messages, 1):
            if item.kind == "lost" and item.source != item.target:
                text, end = placed[f"t{number}"], placed[f"b{number}"]
                assert text[1] + 4 <= end[0] or end[1] + 4 <= text[0], (number, text, end)

    sequences = [name for name, model in models().items() if isinstance(model, Sequence) and model.messages]
    assert len(sequences) > 100
    check_all(sequences, check)


def test_no_text_of_a_chart_runs_into_another_or_over_a_bar(read_by_dot: dict[str, Any]) -> None:
    """Graphviz itself warns of a text that is wider than the bar around it: a bar's size is fixed."""

    def check(name: str) -> None:
        placed = {thing["name"]: box(thing) for thing in read_by_dot[name]["objects"]}
        assert all(
            thing["fixedsize"] == "true"
            for thing in read_by_dot[name]["objects"]
            if re.fullmatch(r"p\d+", thing["name"])
        )
        bars = [at for key, at in placed.items() if key[0] == "p"]
        texts = {key: at for key, at in placed.items() if key[0] in "kruqxf"}
        assert len(bars) + len(texts) + sum(key[0] == "g" for key in placed) == len(placed)
        for (one, a), (other, b) in itertools.combinations(texts.items(), 2):
            assert apart(a, b), (one, other, a, b)
        for key, at in texts.items():
            assert all(apart(at, bar) for bar in bars), (key, at)

    charts = [name for name, model in models().items() if isinstance(model, Chart)]
    assert len(charts) > 20
    check_all(charts, check)


def test_a_text_stands_in_a_bar_that_has_room_for_it_and_a_term_above_any_other(read_by_dot: dict[str, Any]) -> None:
    for term in (4, 88, 1234):
        objects = read_by_dot[f"timeline of bars {term}"]["objects"]
        inside = [thing for thing in objects if thing["name"][0] == "p" and label(thing)]
        above = [thing for thing in objects if thing["name"][0] == "u"]
        assert inside and above and {label(thing) for thing in above} == {str(term)}
        assert min(float(thing["width"]) for thing in inside) > max(float(thing["width"]) for thing in above)
    texts = {label(thing) for thing in read_by_dot["timeline of bars None"]["objects"] if thing["name"][0] == "p"}
    rows = models()["timeline of bars None"].rows  # type: ignore[union-attr]
    assert texts == {"", *(row.label for row in rows)}
