"""The documentation's commands run as they stand there, and its diagrams and the processes that it names are real.

Each page is one script. What cannot run here is named below, with the reason and with what covers it instead.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.base.security import Security
from cluster.base.topology import ServerTls
from cluster.base.versions import release_name
from cluster.local import seccomp
from cluster.local.cluster import LocalCluster
from loadgen.client.etcd import EtcdClient
from loadgen.diagnose.answer import WORDS
from loadgen.history.operation import Outcome
from tests.support import command, guides
from tests.support.certificates import Authority
from tests.support.command import ROOT, ClusterCommands
from tests.support.guides import Command
from tests.support.leftovers import SESSION
from tests.support.mermaid import run_mermaid
from tests.support.missing import require
from tests.support.ports import take_ports
from tests.support.release_page import file_entry, pack
from tests.support.waiting import until

# Commands by how they begin: why they are not run, and what runs them.
NOT_RUN = {
    "make test": ("it runs this test", ".ci/run: make test"),
    "pipx install .": (
        "it would install into the home folder",
        "tests/integration/test_packages.py: def test_an_installation_of_the_wheel_works",
    ),
    "uvx --from . raftload bench": (
        "it installs packages of the network",
        "tests/integration/test_packages.py: def test_an_installation_of_the_wheel_works",
    ),
    "gh run download": ("it asks GitHub", "docs/guides/gate.md"),
    "docker build -f docs/deploy/Dockerfile": (
        "it builds an image from packages of the network",
        "tests/docker/test_compose.py: def assert_the_image_works_alone",
    ),
    **dict.fromkeys(
        ("docker run --rm", "mkdir -p runs && docker run"),
        ("they need that image", "tests/docker/test_compose.py: def assert_the_image_works_alone"),
    ),
    "pip install .": ("it would install into the tests' Python", "tests/docker/test_compose.py: pip_wheel(context"),
    "raftload bench --endpoints 10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379 --bind": (
        "it waits for eight other machines",
        "tests/integration/test_many_machines.py: def test_workers_report_from_elsewhere_and_share_the_operations",
    ),
    "raftload worker --master-host": (
        "its master is on another machine",
        "tests/integration/test_many_machines.py: def test_workers_report_from_elsewhere_and_share_the_operations",
    ),
    **dict.fromkeys(
        ("raftload perf --load s", "raftload perf --like-etcdctl --endpoints"),
        ("it takes a minute", "tests/integration/test_perf.py: def test_the_load_is_etcdctls"),
    ),
    **dict.fromkeys(
        ("raftload bugs --etcd /usr/bin/etcd", "raftload bugs --etcd 3."),
        ("it tries all bugs, for minutes", "tests/integration/test_bugs.py: def test_a_certain_scenario_shows_its_bug"),
    ),
    "docker compose": (
        "it builds an image from packages of the network",
        "tests/docker/test_compose.py: def test_the_compose_file_runs_a_cluster_a_master_and_workers",
    ),
}
NOT_RUN |= {
    f"python - <<'END'\n{first}from loadgen.run import": (
        "a test of its own runs it and looks at the results",
        "tests/integration/test_library.py: def test_several_runs_one_after_the_other",
    )
    for first in ("", "import os\nfrom pathlib import Path\n\n")
}
# What takes minutes is made shorter, and what says how fast a machine must be is made true; no option is left out.
# Where a page does not say how many workers and members there are, one may do: more cost more than so short a run. The
# README's main job has two workers and three members.
SHORTER = {
    "raftload bench --operations 10000 --output run ": "raftload bench --operations 200 --output run --workers 1 ",
    "--operations 10000": "--operations 200",
    "for n in 1 2 3 4 5 6;": "for n in 1;",
    "for n in 1 2 3 4;": "for n in 1;",
    "for n in $RUNS;": "for n in 1;",
    "--duration 20s": "--operations 200 --workers 1",
    "raftload gate new/* --baseline base/* --figure": "raftload gate new/* --baseline ../base/* --figure",
    "raftload bench\n": "raftload bench --operations 200\n",
    "raftload bench --output run ": "raftload bench --operations 200 --output run --workers 1 ",
    "raftload bench --etcd 3.6.14": "raftload bench --etcd 3.6.14 --operations 200 --workers 1 --nodes 1",
    "--concurrency 100 --workers 1": "--concurrency 100 --workers 1 --operations 200 --nodes 1",
    "2379 --duration 30s": "2379 --duration 1s --concurrency 4 --workers 1",
    "--workers 4": "--workers 2",
    "--balance leader": "--balance leader --operations 200 --workers 1",
    "put.p99_ms < 500": "put.p99_ms < 60000",
    "throughput_ops_s > 500": "throughput_ops_s > 1",
    "--duration 5m --warmup 10s": "--duration 1s --warmup 1s --workers 1",
    "--rate 1000": "--rate 100",
    "--concurrency 256 --duration 4m": "--concurrency 4 --duration 3s --workers 1",
    "--step 500:8000:500/15s": "--step 50:100:50/1s --workers 1",
    "--concurrency 64 --duration 70s": "--concurrency 4 --duration 3s --workers 1 --nodes 1",
    "--step 500:4000:500/10s": "--step 50:100:50/1s --workers 1 --nodes 1",
    "--history --duration 30s": "--history --duration 1s --concurrency 4 --workers 1 --nodes 1",
    "--rate 2000 --duration 30s": "--rate 100 --duration 1s --workers 1 --nodes 1",
    "--stages 10s:500,30s:2000,10s:0": "--stages 1s:100,1s:0 --workers 1 --nodes 1",
    "--rate 300": "--rate 100 --workers 1",
    "--duration 1h --abort-on": "--duration 1s --workers 1 --nodes 1 --abort-on",
    "--duration 10m --rate 2000 --metrics-listen :9464": "--duration 1s --rate 100 --nodes 1 --metrics-listen :0",
    "--duration 30s --progress": "--duration 1s --workers 1 --nodes 1 --progress",
    "--duration 22s": "--duration 9s",
    "sleep 8": "until grep -qs '^,Aggregated,[1-9]' failure/locust_stats.csv; do sleep 0.1; done",
    "sleep 6": "sleep 1",
    "-t 10s": "-t 1s",
    "--every 5s --rounds 30 --concurrency 60": "--every 1s --rounds 1 --concurrency 4 --workers 1",
    "pause-follower --rounds 3": "pause-follower --rounds 1 --every 1s --concurrency 4 --workers 1",
    "chaos --track 13766": "chaos --track 13766 --rounds 1 --concurrency 4 --workers 1",
    "cluster test": "cluster test --only kv",
    "raftload capacity --slo": "raftload capacity --max-rate 200 --time-limit 5s --nodes 1 --workers 1 --slo",
    "--pairs 9 --turn 500ms": "--pairs 3 --turn 500ms",
    "raftload ab --connections 1": "raftload ab --pairs 1 --operations 100 --nodes 1 --workers 1 --connections 1",
    "raftload perf --datascale s": "raftload perf --datascale s --nodes 1 --workers 1",
    "follower,kill-random": "follower,kill-random --rounds 1 --every 1s --concurrency 4 --workers 1",
    "raftload chaos\n": "raftload chaos --rounds 1 --every 1s --concurrency 4\n",
}
# First words of lines that a sample may have and a run need not: by how much leases outlived their TTL, where one
# ended; and what was slow and is to be done about it, which is said of no run as short as these.
MAY_LACK = {"leases", "what", *(f"{word}:" for word in WORDS)}
RELEASES = ("3.5.16", "3.6.14")
# Folders of finished runs that the pages read.
RUNS = ("runs/20260102T030405Z-kv", "runs/before", "runs/after")


def recipe(target: str) -> str:
    """Return what `make` runs for a target, with this checkout's programs."""
    lines = (ROOT / "Makefile").read_text().partition(f"\n{target}: ")[2].splitlines()
    return lines[1].strip().replace("$(BIN)/", "")


def kept(page: str) -> list[Command]:
    """Return the commands of a page that are run, at their full length."""
    all_of_it = guides.commands(page)
    shown = {each.text for each in all_of_it if each.sample}  # with its output, which is the one to run
    return [
        each
        for each in all_of_it
        if not each.docker and not each.text.startswith(tuple(NOT_RUN)) and (each.sample or each.text not in shown)
        and longer_elsewhere(page, each.block) is None
    ]  # fmt: skip


@functools.cache
def blocks() -> dict[tuple[str, int], list[Command]]:
    """Return the blocks of all pages that need no Docker, by page and number."""
    found: dict[tuple[str, int], list[Command]] = {}
    for page in guides.pages():
        for each in guides.commands(page):
            if not each.docker:
                found.setdefault((page, each.block), []).append(each)
    return found


def longer_elsewhere(page: str, number: int) -> list[Command] | None:
    """Return another page's block that has all commands of this one in this order, and more or more of their output."""
    this = blocks().get((page, number), [])
    for (other, _), block in blocks().items():
        rest = iter(each.text for each in block)
        if other != page and size(block) > size(this) and all(each.text in rest for each in this):
            return block
    return None


def size(block: list[Command]) -> tuple[int, int]:
    """Return the number of commands of a block, and the length of the output that it shows."""
    return len(block), sum(len(each.sample) for each in block)


def with_its_group(page: str) -> Any:
    """Return a page as a parameter, in a group of its own or of those that read a finished run.

    Each has ports, folders and a state of its own, so pages may run at the same time.
    """
    reads = any(name in each.text for each in kept(page) for name in RUNS)
    return pytest.param(page, marks=pytest.mark.xdist_group("guides-runs" if reads else f"guides-{Path(page).stem}"))


PAGES = [with_its_group(page) for page in guides.pages() if kept(page)]


def test_what_is_not_run_is_there_and_is_covered() -> None:
    texts = [each.text for page in guides.pages() for each in guides.commands(page)]
    for beginning, (_, cover) in NOT_RUN.items():
        assert any(text.startswith(beginning) for text in texts), f"no page has: {beginning}"
        path, _, what = cover.partition(": ")
        assert what in (ROOT / path).read_text(), cover
    for found in SHORTER:
        assert any(found in f"{text}\n" for text in texts), f"no page has: {found}"


def test_what_two_pages_show_is_the_same() -> None:
    """A block that another page has in a longer one is run there, so its output is held against that page's."""
    found = [(block, longer) for place, block in blocks().items() if (longer := longer_elsewhere(*place))]
    assert any(each.sample for block, _ in found for each in block)
    for block, longer in found:
        samples = {each.text: each.sample for each in longer}
        for each in block:
            missing = set(each.sample.splitlines()) - {*samples[each.text].splitlines(), guides.ELLIPSIS}
            assert not missing, f"{each.place} shows what {longer[0].place} does not: {missing}"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory, etcd_binary: str) -> str:
    """Return a mirror of etcd's releases with those that the pages fetch: the tests' etcd under their versions."""
    root = tmp_path_factory.mktemp("mirror")
    for release in RELEASES:
        name, folder = release_name(release), root / f"v{release}"
        version = f'[ "$1" = --version ] && echo "etcd Version: {release}" && exit'
        program = f'#!/bin/sh\n{version}\nexec "{etcd_binary}" "$@"\n'
        content = pack([file_entry(f"{name}/{each}", program.encode()) for each in ("etcd", "etcdctl")])
        folder.mkdir()
        (folder / f"{name}.tar.gz").write_bytes(content)
        (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(content).hexdigest()}  {name}.tar.gz\n")
    return root.as_uri()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, etcd_single: LocalCluster) -> Path:
    """Return the folder of a run, for the pages that read one."""
    folder = tmp_path_factory.mktemp("finished")
    words = ("bench", "--operations", "200", "--workers", "1", "--endpoints", ",".join(etcd_single.endpoints))
    done = command.run(*words, "--output", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@contextlib.contextmanager
def secured(folder: Path, etcd: str, work: Path, members: int, *, auth: bool) -> Iterator[LocalCluster]:
    """Yield a cluster that speaks TLS and wants client certificates, or the password of the user root.

    Takes a folder for the authority, one for the files that the pages name, and how many members it has.
    """
    authority = Authority(folder)
    server, client = authority.sign("server", "127.0.0.1"), authority.sign("client", common_name=not auth)
    for path, name in ((authority.cert, "ca"), (client.cert, "client"), (client.key, "client-key")):
        shutil.copy(path, work / f"{name}.pem")
    tls = ServerTls(server.cert, server.key, client_ca=None if auth else authority.cert)
    security = Security(cacert=authority.cert, cert=client.cert, key=client.key)
    with LocalCluster(members, binary=etcd, tls=tls, security=security) as cluster:
        if auth:
            with contextlib.closing(EtcdClient(cluster.endpoints, security=security)) as admin:
                asked = (
                    admin.user_add("root", "secret"),
                    admin.role_add("root"),
                    admin.user_grant_role("root", "root"),
                )
                assert {each.outcome for each in (*asked, admin.auth_enable())} == {Outcome.OK}
        yield cluster


def members_named(script: list[Command]) -> int:
    """Return how many members of a cluster that is there commands name."""
    text = "\n".join(each.text for each in script)
    numbers = (int(number) for number in re.findall(r"\b10\.0\.0\.(\d):2379", text))
    return max(numbers, default=int("127.0.0.1:2379" in text))


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page(
    page: str, tmp_path: Path, etcd_binary: str, mirror: str, request: pytest.FixtureRequest
) -> None:
    """They exit as their page says, and print what it shows."""
    script = kept(page)
    if any(each.text.startswith("jq ") or "$(jq " in each.text for each in script) and shutil.which("jq") is None:
        require("jq", "no jq on PATH")
    work = tmp_path / "work"
    work.mkdir()
    for name in RUNS if any(name in each.text for each in script for name in RUNS) else ():
        shutil.copytree(request.getfixturevalue("finished"), work / name)
    with contextlib.ExitStack() as stack:
        named, endpoints = members_named(script), []
        if named:
            if any("ca.pem" in each.text for each in script):
                auth = any("ETCDCTL_PASSWORD" in each.text for each in script)
                cluster = stack.enter_context(secured(tmp_path / "authority", etcd_binary, work, named, auth=auth))
            else:
                cluster = request.getfixturevalue("etcd_single" if named == 1 else "etcd_cluster")
            endpoints = [member.endpoint for member in cluster.members]
        first, web = take_ports(8), take_ports(1)
        replaced = {
            "make bench": recipe("bench"),
            **SHORTER,
            **{f"10.0.0.{number}:2379": endpoint for number, endpoint in enumerate(endpoints, 1)},
            **({"127.0.0.1:2379": endpoints[0]} if endpoints else {}),
            "cluster up": f"cluster up --base-port {first}",
            "raftload web": f"raftload web --web-port {web}",
            "locust -f locustfiles/kv.py": f"locust -f locustfiles/kv.py --web-port {web}",
            "--backend local --down": f"--backend local --base-port {first} --down",
            "ETCDCTL_PASSWORD=…": "ETCDCTL_PASSWORD=secret",
        }
        ended = guides.run(script, tmp_path, replaced, RAFTLOAD_ETCD_BASE_URL=mirror)
    assert ended.code == 0, ended.text[-6000:]
    assert not ended.unexpected, ended.text[-6000:]
    for each in script:
        if each.sample:
            missing = guides.missing_lines(each.sample, ended.outputs[each.place])
            assert missing <= MAY_LACK, f"{each.place} shows lines that `{each.text}` does not print: {missing}"


def test_nothing_is_left_of_a_page_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leftovers_after: Callable[[float], set[str]]
) -> None:
    """Of its load neither, which is no child of its shell where it was forked."""
    monkeypatch.setattr(guides, "_HANG_S", 4.0)
    load = Command("a page:1", "raftload bench --duration 600s --workers 1 --nodes 1 --output run")
    with pytest.raises(subprocess.TimeoutExpired):
        guides.run([load], tmp_path, {})
    assert not leftovers_after(60)


PARSER = r"""
import { JSDOM } from "jsdom";
const dom = new JSDOM("<!DOCTYPE html><body></body>", { pretendToBeVisual: true });
globalThis.window = dom.window; globalThis.document = dom.window.document;
const { default: mermaid } = await import("mermaid");
mermaid.initialize({ startOnLoad: false, securityLevel: "strict" });
const chunks = []; for await (const chunk of process.stdin) chunks.push(chunk);
for (const [name, source] of Object.entries(JSON.parse(Buffer.concat(chunks).toString()))) {
  let error = "";
  try { await mermaid.parse(source); } catch (wrong) { error = String(wrong.message ?? wrong); }
  process.stdout.write(JSON.stringify([name, error]) + "\n");
}
process.exit(0);
"""


def test_mermaid_reads_every_diagram_of_the_pages(tmp_path: Path) -> None:
    sources = {
        f"{path.name} {number}": source
        for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
        for number, source in enumerate(re.findall(r"^```mermaid\n(.*?)^```$", path.read_text(), re.M | re.S), 1)
    }
    assert sum(name.startswith("architecture.md") for name in sources) == 4
    found = dict(
        json.loads(line) for line in run_mermaid(PARSER, {**sources, "a wrong one": "sequenceDiagram\n a->"}, tmp_path)
    )
    assert found.pop("a wrong one")
    assert found == dict.fromkeys(sources, "")


def processes() -> dict[str, str]:
    """Return the processes that docs/architecture.md names, with how `ps` shows each."""
    table = (ROOT / "docs" / "architecture.md").read_text().partition("| how `ps` shows it |\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]
    return {row[0]: row[3].strip("`") for row in rows}


def running() -> Iterator[str]:
    """How `ps` shows each process that has a mark of this test session: its name or its command line."""
    mark = f"{SESSION}={os.environ[SESSION]}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes():
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield f"{(folder / 'comm').read_text().strip()} {words}"


def test_the_processes_that_the_architecture_names_are_there(tmp_path: Path) -> None:
    named = processes()
    assert set(named) == {"master", "worker", "observer", "driver", "keeper", "strike process", "member", "daemon"}
    local = ClusterCommands(tmp_path)
    options = ["--disk-faults"]
    if seccomp.why_not():
        del named["strike process"], options[:]
    local.run("up", "--backend", "local", "--nodes", "1", "--base-port", str(take_ports(1)), *options)
    try:
        # As pip installs it.
        program = tmp_path / "bin" / "raftload"
        program.parent.mkdir()
        program.write_text("import sys\nfrom loadgen.cli.entry import raftload\nsys.exit(raftload())\n")
        words = ("chaos", "--nodes", "1", "--faults", "", "--duration", "60s", "--workers", "1", "--output", "run")
        with subprocess.Popen(
            [sys.executable, program, *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as chaos:  # fmt: skip
            try:
                seen: list[str] = []

                def missing() -> set[str]:
                    assert chaos.poll() is None, chaos.communicate()
                    seen[:] = running()
                    return {name for name, shown in named.items() if not any(shown in each for each in seen)}

                until(lambda: not missing(), f"{named} among {seen}")
            finally:
                chaos.terminate()
                chaos.communicate(timeout=120)
    finally:
        local.run("down")
