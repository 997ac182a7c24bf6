"""Options that have had another name: one name in all commands, and the old ones still work."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from cluster.base.parser import OLD_NAMES, Parser
from loadgen.cli.main import build_parser
from tests.support.command import assert_refused, refusal

COMMANDS = [
    # what is typed with the old name, and with the new one
    (("bench", "--cluster", "docker"), ("bench", "--backend", "docker")),
    (("bench", "--cluster=embedded", "--seed", "7"), ("bench", "--backend=embedded", "--seed", "7")),
    (("chaos", "--cluster", "local"), ("chaos", "--backend", "local")),
    (("web", "--peer-links", "relay", "--cluster=docker"), ("web", "--links", "relay", "--backend=docker")),
    (("cluster", "status", "--cluster", "local"), ("cluster", "status", "--backend", "local")),
    (("cluster", "up", "--peer-links=direct"), ("cluster", "up", "--links=direct")),
    (("bench", "--etcd-version", "3.6.14"), ("bench", "--etcd", "3.6.14")),
    (("cluster", "test", "--binary", "/x/etcd"), ("cluster", "test", "--etcd", "/x/etcd")),
]


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in dict.fromkeys(action.choices.values()):
                yield from parsers(child)


@pytest.mark.parametrize(("old", "new"), COMMANDS, ids=" ".join)
def test_an_old_name_is_the_same_as_the_new_one(old: tuple[str, ...], new: tuple[str, ...]) -> None:
    parser = build_parser()
    assert vars(parser.parse_args(old)) == vars(parser.parse_args(new))


def test_no_help_shows_an_old_name() -> None:
    commands = list(parsers(build_parser()))
    assert len(commands) > 20
    shown = {name for each in commands for name in OLD_NAMES if f"{name} " in each.format_help()}
    assert shown == set()
    # What each of them is called now is there, with one set of values for the members' connections.
    options = {option: action for each in commands for option, action in each._option_string_actions.items()}
    assert set(OLD_NAMES.values()) <= set(options)
    links = [each._option_string_actions["--links"] for each in commands if "--links" in each._option_string_actions]
    assert {frozenset(each.choices or ()) for each in links} == {frozenset({"relay", "direct"})} and len(links) == 2


def test_every_command_that_loads_a_cluster_takes_each_backend(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("bench", "web", "chaos"):
        parser = build_parser(name)
        for backend in ("embedded", "docker", "local"):
            assert parser.parse_args([name, "--backend", backend]).backend == backend
        assert_refused(refusal(capsys, name, "--cluster", "podman"), "argument --backend: invalid choice: 'podman'")


def test_old_names_do_not_make_abbreviations_ambiguous() -> None:
    """`--bind` would meet `--binary`, and `--et` `--etcd-version`."""
    args = build_parser("bench").parse_args(["bench", "--bi", "10.0.0.9", "--et", "3.6.14", "--back", "embedded"])
    assert (args.bind, args.etcd, args.backend) == ("10.0.0.9", "3.6.14", "embedded")


def test_a_name_that_a_command_has_itself_is_left_alone() -> None:
    parser = Parser(prog="x")
    parser.add_argument("--cluster")
    parser.add_argument("--backend")
    parser.add_argument("words", nargs="*")
    assert vars(parser.parse_args(["--cluster", "a"])) == {"cluster": "a", "backend": None, "words": []}
    other = Parser(prog="x")
    other.add_argument("--backend")
    other.add_argument("words", nargs="*")
    assert other.parse_args(["--cluster=a=b", "--", "--cluster"]).words == ["--cluster"]
    assert other.parse_args(["--cluster=a=b"]).backend == "a=b"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("bench", "--clustr", "docker"), "did you mean --backend?"),
        (("web", "--peer-link=relay", "--frobnicate"), "unrecognized arguments: --peer-link=relay --frobnicate; did"),
        (("cluster", "down", "--cluter", "docker"), "did you mean --backend?"),
    ],
)
def test_what_is_near_an_old_name_is_told_the_new_one(
    words: tuple[str, ...], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = refusal(capsys, *words)
    assert_refused(done, hint)
    assert not any(f"mean {old}?" in done.stderr for old in OLD_NAMES)


@pytest.mark.parametrize("name", ["bench", "web", "chaos"])
def test_a_cluster_that_is_there_is_not_made_anew(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option, value in (("--nodes", "5"), ("--etcd", "3.6.14")):
        done = refusal(capsys, name, "--backend", "local", option, value)
        assert_refused(
            done, f"{option} is for a cluster that is started for this run: give it to `raftload cluster up`"
        )
