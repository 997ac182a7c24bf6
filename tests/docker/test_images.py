"""The image that runs: given, pulled or built, and the message where it cannot be had."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import ImageNotFound as NotThere

from cluster.base.binary import find_etcd
from cluster.base.errors import UsageError
from cluster.base.versions import release_name, releases_dir
from cluster.docker import images
from cluster.docker.cluster import find
from cluster.docker.images import ImageNotFound, RegistryUnreachable, find_image
from cluster.lifecycle.up import open_docker_cluster
from tests.docker.conftest import Docker
from tests.support.registry import Registry

pytestmark = pytest.mark.docker


@pytest.fixture
def client(engine: Docker) -> Any:
    """Return the Docker SDK's, for one test at a time: the images that they make have fixed names."""
    return engine.client


@pytest.fixture
def registry(etcd_binary: str) -> Iterator[Registry]:
    files, _ = images._files(find_etcd(etcd_binary))
    made = Registry(files)
    yield made
    made.close()


def _ask(client: Any, said: list[str], **request: Any) -> images.Image:
    return find_image(client, **{"image": None, "version": None, "binary": None, "say": said.append, **request})


def test_a_given_image_is_pulled(engine: Docker, client: Any, registry: Registry) -> None:
    said: list[str] = []
    reference = f"{registry.address}/etcd:v0.0.1"
    try:
        found = _ask(client, said, image=reference, binary="/nowhere")
        assert (found.source, found.reference) == ("given", reference)
        # On a slow machine it says how far it is, too.
        assert said[0] == f"pulling {reference}"
        assert all(re.fullmatch(rf"pulling {re.escape(reference)}: \d+ of \d+ MB", each) for each in said[1:])
        assert engine.json("up", "--nodes", "1", "--image", reference)["image"] == reference
        engine.run("down")
        said.clear()
        _ask(client, said, image=reference)
        assert said == []  # it is there
    finally:
        client.images.remove(reference, force=True)


def test_a_given_image_never_falls_back(client: Any, registry: Registry) -> None:
    with pytest.raises(ImageNotFound, match=r"no image|cannot pull"):
        _ask(client, [], image=f"{registry.address}/etcd:v9.9.9")
    with pytest.raises(RegistryUnreachable, match="cannot pull"):
        _ask(client, [], image="127.0.0.1:1/etcd:v3.6.0")


def test_the_official_image_of_a_version(client: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "REGISTRIES", ("127.0.0.1:1/etcd", f"{registry.address}/etcd"))
    said: list[str] = []
    try:
        found = _ask(client, said, version="0.0.1")
        assert (found.source, found.requested_version) == ("official", "0.0.1")
        assert found.reference == f"{registry.address}/etcd:v0.0.1"
    finally:
        client.images.remove(f"{registry.address}/etcd:v0.0.1", force=True)
    with pytest.raises(ImageNotFound, match=r"no registry has an image of etcd 0\.0\.2"):
        _ask(client, [], version="v0.0.2")


def test_built_where_no_registry_answers(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "REGISTRIES", ("127.0.0.1:1/etcd",))
    said: list[str] = []
    found = _ask(client, said, version="v0.0.3")
    try:
        assert (found.source, found.requested_version) == ("built", "0.0.3")
        assert any("no registry answers: building an image from" in line for line in said)
        said.clear()
        assert _ask(client, said, version="v0.0.3").reference == found.reference
        assert said == []  # not asked again
        _ask(client, said, version="v0.0.3", pull=True)
        assert any(line.startswith("pulling") for line in said)
    finally:
        client.images.remove(found.reference, force=True)


def test_built_from_the_release_that_was_fetched(
    client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, etcd_binary: str
) -> None:
    monkeypatch.setattr(images, "REGISTRIES", ("127.0.0.1:1/etcd",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wanted = "0.0.4"
    made: list[str] = []
    try:
        said: list[str] = []
        made.append(_ask(client, said, version=wanted).reference)
        assert any(f"`raftload etcd get {wanted}` before" in line for line in said)
        # The same program, but that it gives the version that was asked for, as a release does.
        version = find_etcd(etcd_binary).version.encode()
        release = releases_dir() / release_name(wanted)
        release.mkdir(parents=True)
        program = Path(etcd_binary).read_bytes()
        (release / "etcd").write_bytes(program.replace(version, wanted.encode().ljust(len(version))))
        (release / "etcd").chmod(0o755)
        assert find_etcd(wanted).version == wanted
        found = _ask(client, [], version=wanted)
        made.append(found.reference)
        assert (found.source, found.requested_version) == ("built", wanted)
        assert str(release / "etcd") in found.detail, "the image that was built from another version was kept"
        client.images.remove(made[0], force=True)
        client.images.remove(made.pop(), force=True)
        found = _ask(client, [], version=wanted)
        made[:] = [found.reference]
        assert str(release / "etcd") in found.detail
    finally:
        for reference in made:
            with contextlib.suppress(NotThere):
                client.images.remove(reference, force=True)


def test_a_silent_registry_does_not_hold_us(etcd_binary: str, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "SILENCE_S", 1.0)
    silent = Registry({}, silent=True)
    try:
        with pytest.raises(RegistryUnreachable, match="no answer within 1 s"):
            _ask(client, [], image=f"{silent.address}/etcd:v0.0.1")
    finally:
        silent.close()


def test_a_cluster_for_a_block(engine: Docker, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", engine.env["XDG_STATE_HOME"])
    monkeypatch.setenv("ETCD_BINARY", engine.env["ETCD_BINARY"])
    with pytest.raises(ZeroDivisionError), open_docker_cluster(1) as made:
        assert len(made.endpoints) == 1
        raise ZeroDivisionError
    assert find(client) is None
    engine.run("up", "--nodes", "1")
    with open_docker_cluster() as found:
        assert len(found.members) == 1
    assert find(client) is not None
    with pytest.raises(UsageError, match="a Docker cluster of 1 is there, not of 3"), open_docker_cluster(3):
        pass
    with open_docker_cluster(etcd=engine.env["ETCD_BINARY"]) as found:
        assert len(found.members) == 1
    other = pytest.raises(UsageError, match=r"a Docker cluster of etcd \S+ is there, not of 9\.9\.9: leave --etcd out")
    with other, open_docker_cluster(etcd="9.9.9"):
        pass
