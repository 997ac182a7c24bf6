"""The folder of a run: what stays of one that did not begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.base.errors import ClusterError, UsageError
from cluster.base.files import FileError, writing
from cluster.base.signals import Interrupted
from cluster.local.layout import FolderError
from loadgen.result import latest
from loadgen.run import run_folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def fail(error: BaseException, *files: str, exact: bool = False) -> list[str]:
    """Have a run write files into its folder and fail; return what is there then, by its path in that folder."""
    with pytest.raises(type(error)), run_folder.for_a_run(Path("runs/one"), exact=exact, say=print) as folder:
        (folder / "logs" / "worker-1.log").write_text("ready\n")
        for file in files:
            (folder / file).write_text("x")
        raise error
    return sorted(str(path.relative_to("runs/one")) for path in Path("runs/one").rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "error",
    [
        ClusterError("no endpoint answers"), UsageError("no such mix"), Interrupted(2),
        FileError("cannot write", refers_to=Path("runs/one/run.json")),
        FolderError("cannot write to the log folder", refers_to=Path("runs/one/logs")),
    ],
    ids=str,
)  # fmt: skip
def test_a_run_that_did_not_begin_leaves_nothing(error: BaseException, here: Path) -> None:
    """What `latest` means is still this run, so that no older one is taken for it."""
    fail(error, "members.csv")
    assert list(here.iterdir()) == []
    assert (latest.remembered() or ("", 0))[0] == here / "runs" / "one"


def test_a_run_that_nobody_could_remember_stays(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "file"))
    assert fail(ClusterError("no endpoint answers")) == ["logs/worker-1.log"]


def test_what_cannot_be_written_leaves_no_logs_of_members() -> None:
    assert fail(FileError("it is full", refers_to=Path("runs/one")), "logs/etcd-node1.log") == []


def test_what_was_there_before_stays() -> None:
    Path("runs/one").mkdir(parents=True)
    assert fail(ClusterError("no endpoint answers"), exact=True) == []
    assert [path.name for path in Path("runs").iterdir()] == ["one"]
    Path("runs/other").mkdir()
    Path("runs/one").rmdir()
    fail(ClusterError("no endpoint answers"))
    assert [path.name for path in Path("runs").iterdir()] == ["other"]


@pytest.mark.parametrize(
    ("error", "file"),
    [
        (ClusterError("etcd-node1 ended"), "logs/etcd-node1.log"),
        (ClusterError("see its log", refers_to=Path("runs/one/logs/worker-1.log")), "members.csv"),
        (FileError("it is full", refers_to=Path("runs/one")), "run.json"),
        (ClusterError("the cluster is gone"), "run.json"),
        (RuntimeError("a bug"), "logs/master.log"),
    ],
)
def test_what_says_why_stays(error: BaseException, file: str) -> None:
    assert fail(error, file) == sorted([file, "logs/worker-1.log"])


def test_an_error_refers_to_a_folder_by_any_path(here: Path) -> None:
    """That of the process that holds the cluster is absolute."""
    error = ClusterError("see the logs", refers_to=here / "runs" / "x" / ".." / "one" / "logs")
    assert fail(error) == ["logs/worker-1.log"]


@pytest.mark.parametrize(
    "error",
    [
        ClusterError("unix:runs/one/etcd.sock does not answer"),
        ClusterError("see its log", refers_to=Path("runs/one-2/logs/worker-1.log")),
        ClusterError("see the folder", refers_to=Path("runs")),
    ],
    ids=str,
)
def test_a_path_that_looks_alike_refers_to_another_folder(error: ClusterError) -> None:
    assert fail(error) == []


def test_a_folder_whose_name_is_in_the_line_of_the_error_is_no_folder_to_look_at(here: Path) -> None:
    with pytest.raises(ClusterError), run_folder.for_a_run(Path("e"), exact=True, say=print):
        raise ClusterError("no endpoint answers")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("where", ["file", "words"])
def test_what_cannot_be_written_is_what_the_error_refers_to(where: str, here: Path) -> None:
    path = here / "missing" / "run.json"
    with pytest.raises(FileError) as caught, writing(*([path] if where == "file" else ["into missing", path])):
        path.write_text("{}")
    assert caught.value.refers_to == path


def test_a_mistake_leaves_no_logs_of_members() -> None:
    assert fail(UsageError("--value-size is too large"), "logs/etcd-node1.log") == []
