"""How diagnoses are judged, with answers written by hand; and evidence as it is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from loadgen.diagnose.facts import (
    COUNTS,
    HIGHEST,
    HISTOGRAMS,
    PROBES,
    RATES,
    ClientEvidence,
    Evidence,
    LoadEvidence,
    MemberEvidence,
    Times,
)
from tests.diagnose import injectors, judging, rows
from tests.diagnose.causes import CAUSES
from tests.soak import diagnose, record

if TYPE_CHECKING:
    from cluster.schema.diagnose_documents import DiagnosisDocument

NAMES = ("etcd-node1", "etcd-node2", "etcd-node3")


def evidence(source: str, members: int = 3) -> Evidence:
    """Evidence as full as that of a real cluster; the first member has no probe of puts and no peer."""
    took = Times(123, 2, 0.123456, 1.23456, 12.3456, 123.456, 1234.56)
    made = [
        MemberEvidence(
            f"etcd-node{number}", f"127.0.0.1:2{number}379", "3.6.16", leads=float(number == 2),
            probes={name: took for name in PROBES if number > 1 or name != "put"} if source == "probes" else {},
            histograms={name: took for name in HISTOGRAMS if number > 1 or name != "peer_round_trip"},
            rates=dict.fromkeys(RATES, 1234.5678), counts=dict.fromkeys(COUNTS, 0),
            highest=dict.fromkeys(HIGHEST, 123_456_789.0), cpu_wait_share=None,
        )
        for number in range(1, members + 1)
    ]  # fmt: skip
    load = LoadEvidence(151.23456, 1.5, 12.25, 0.0, 3.25, 150.0) if source == "run" else None
    return Evidence(source, 20.03125, tuple(made), 0.0123, ClientEvidence(0.75, 0.12345, False, ""), load)


def row(cause: str, etcd: str = "3.6.16", number: int = 1, of: tuple[str, ...] = ()) -> dict[str, Any]:
    stored = {source: rows.pack(evidence(source).to_json()) for source in judging.SOURCES}
    return {"cause": cause, "etcd": etcd, "run_number": number, "of": list(of), **stored}


def answering(word: str, *accused: str, notes: tuple[str, ...] = ()) -> judging.Diagnose:
    """Return what answers with one word, and with the same for some members."""

    def diagnose(_: Evidence) -> DiagnosisDocument:
        answer = {"word": word, "why": "so", "figures": [], "next": None, "margin": None, "advice": ""}
        members = [{**answer, "name": name, "word": word if name in accused else "healthy"} for name in NAMES]
        return cast("DiagnosisDocument", {"cluster": answer, "members": members, "notes": list(notes)})

    return diagnose


@pytest.mark.parametrize(
    ("cause", "word", "right", "accused"),
    [
        ("A06", "disk", True, False),
        ("A06", "cpu", False, False),
        ("A06", "unsure", False, False),
        ("A20", "overload", True, False),
        ("A20", "unsure", True, False),
        ("A20", "disk", False, False),
        ("A02", "healthy", True, False),
        ("A02", "disk", False, True),
        ("A02", "unsure", False, False),
        ("A22", "unsure", True, False),
        ("A22", "network", False, False),
    ],
)
def test_a_word_is_right_where_it_is_the_label_or_an_unsure_that_is_allowed(
    cause: str, word: str, right: bool, accused: bool
) -> None:
    cases = judging.judge([row(cause)], answering(word))
    assert [case.source for case in cases] == ["probes", "run"]
    assert {(case.is_right, case.is_accused) for case in cases} == {(right, accused)}
    assert all(f"{cause} on 3.6.16, run 1" in str(case) for case in cases)


@pytest.mark.parametrize(
    ("accused", "named"),
    [(("etcd-node2",), True), (("etcd-node1",), False), (("etcd-node1", "etcd-node2"), False), ((), False)],
)
def test_the_member_it_was_done_to_is_named_and_no_other(accused: tuple[str, ...], named: bool) -> None:
    cases = judging.judge([row("A06", of=("etcd-node2",))], answering("disk", *accused))
    assert {case.names_whom for case in cases} == {named}
    assert {case.names_whom for case in judging.judge([row("A06")], answering("cpu"))} == {None}
    assert {case.names_whom for case in judging.judge([row("A19")], answering("overload", *accused))} == {None}


def test_a_note_names_what_it_has_to() -> None:
    noting = answering("healthy", notes=("The quota is nearly full.",))
    for cause, answer, noted in (("A23", noting, True), ("A23", answering("healthy"), False), ("A02", noting, None)):
        assert {case.has_note for case in judging.judge([row(cause)], answer)} == {noted}


def test_a_source_without_evidence_or_label_is_not_judged() -> None:
    assert [case.source for case in judging.judge([row("B27")], answering("client"))] == ["run"]
    assert [case.source for case in judging.judge([{**row("A06"), "run": None}], answering("disk"))] == ["probes"]


def test_the_newest_row_of_a_run_counts_and_only_causes_that_there_are() -> None:
    old, new = {**row("A06"), "of": ["etcd-node1"]}, {**row("A06"), "of": ["etcd-node3"]}
    found = judging.judge([old, row("A99"), new, row("B06"), row("A06", number=2)], answering("disk"), half="A")
    assert [(case.run, sorted(case.of)) for case in found[::2]] == [(1, ["etcd-node3"]), (2, [])]


def test_the_matrix_counts_words_by_label() -> None:
    cases = judging.judge([row("A06"), row("A02"), row("B20")], answering("disk", "etcd-node1"))
    assert {label: dict(words) for label, words in judging.matrix(cases).items()} == {
        "disk": {"disk": 2}, "healthy": {"disk": 2}, "network": {"disk": 2},
    }  # fmt: skip
    lines = judging.table(cases)
    assert lines[0] == "| injected | healthy | disk | cpu | network | overload | client | unsure | right |"
    assert lines[2:] == [
        "| healthy |  | 2 |  |  |  |  |  | 0 of 2 |",
        "| disk |  | 2 |  |  |  |  |  | 2 of 2 |",
        "| network |  | 2 |  |  |  |  |  | 0 of 2 |",
    ]
    assert judging.summary(cases).startswith("right in 2 of 6 (33.3 %); healthy clusters accused: 2; ")
    said = diagnose.report(cases)
    assert "half A, probes: right in 1 of 2" in said
    assert "half B, run: right in 0 of 1" in said
    assert "A02 on 3.6.16, run 1, probes: disk, not healthy" in said


def test_the_table_stands_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "diagnose.md"
    monkeypatch.setattr(diagnose, "PAGE", page)
    cases = judging.judge([row("A06")], answering("disk"))
    with pytest.raises(SystemExit, match="lacks a line"):
        diagnose.write_table(cases)
    page.write_text(f"before\n{diagnose.BEGIN}\nearlier\n{diagnose.END}\nafter\n")
    for _ in range(2):
        diagnose.write_table(cases)
        text = page.read_text()
        assert text.startswith("before\n") and text.endswith("\nafter\n") and "earlier" not in text
        assert text.count("\n| disk |") == 2, "one for each source"


def test_stored_evidence_is_small_and_comes_back_with_three_digits() -> None:
    for source in judging.SOURCES:
        whole = evidence(source)
        back = Evidence.from_json(rows.unpack(json.loads(json.dumps(rows.pack(whole.to_json())))))
        assert back.members[0].probes.keys() == whole.members[0].probes.keys()
        assert back.members[0].histograms["wal_fsync"] == Times(123, 2, 0.123, 1.23, 12.3, 123, 1230)
        assert back.members[1].rates["puts"] == 1230
        assert back.members[1].highest["db_size"] == 123_000_000
        assert (back.source, back.seconds, back.leaderless, back.client.cpu_share) == (source, 20, 0.0123, 0.123)
        assert (back.load is None) == (whole.load is None)
        assert rows.pack(back.to_json()) == rows.pack(whole.to_json())
    assert len(json.dumps(row("A06"))) < 6_000


def test_every_cause_has_an_injector() -> None:
    assert injectors.INJECTORS.keys() == CAUSES.keys()
    sources = injectors.sources()
    assert sources.keys() == CAUSES.keys()
    assert sources["A06"] != sources["A07"]


def test_runs_that_are_stored_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []

    def one(cause: str, _: object) -> tuple[dict[str, Any] | None, str]:
        made.append(cause)
        return (None, "it broke") if cause == "A02" else ({"of": [], "probes": None, "run": None}, "")

    class Etcd:
        version, path = "3.6.16", "/etcd"

    monkeypatch.setattr(record, "FOLDER", tmp_path)
    monkeypatch.setattr(diagnose, "one", one)
    monkeypatch.setattr(injectors, "why_not", lambda name: "no way" if name == "A03" else "")
    chosen = [CAUSES[name] for name in ("A01", "A02", "A03")]
    etcd = cast("Any", Etcd())
    assert diagnose.collect(chosen, [etcd], 2) == 1
    assert made == ["A01", "A02", "A01", "A02"]
    assert "A03 is left out: no way" in capsys.readouterr().out
    made.clear()
    assert diagnose.collect(chosen, [etcd], 2) == 1
    assert made == ["A02", "A02"], "what failed is tried again"
    monkeypatch.setattr(injectors, "sources", lambda: dict.fromkeys(CAUSES, "changed"))
    made.clear()
    diagnose.collect(chosen[:1], [etcd], 1)
    assert made == ["A01"], "an entry that was changed is another one"


@pytest.mark.parametrize(("half", "least"), [("A", 1.0), ("B", 0.98), ("C", 0.98), ("D", 0.97)])
def test_the_rules_are_right_of_the_evidence_that_is_stored(half: str, least: float) -> None:
    """As often as they were, and no healthy cluster is accused of anything."""
    cases = judging.judge(record.recorded(diagnose.NAME, {}), diagnose._diagnose, half)
    assert cases
    wrong = [str(case) for case in cases if not case.is_right]
    assert len(wrong) <= (1 - least) * len(cases), "\n".join(wrong)
    assert [str(case) for case in cases if case.is_accused] == []


def test_the_page_has_the_table_of_the_evidence_that_is_stored() -> None:
    text = diagnose.PAGE.read_text(encoding="utf-8")
    cases = judging.judge(record.recorded(diagnose.NAME, {}), diagnose._diagnose)
    begin, end = text.index(diagnose.BEGIN) + len(diagnose.BEGIN), text.index(diagnose.END)
    assert text[begin:end].strip() == diagnose.tables(cases).strip()
