"""The image that the members run: the one given, the official one, or one built from a local binary.

A given image is used or refused, never replaced. The official one of a version is asked of its registries for a
bounded time; only where none can be reached is an image built from an etcd on this machine, and the answer says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cluster.base.binary import EtcdBinary, find_etcd, version_note
from cluster.base.errors import ClusterError, RaftloadError
from cluster.base.versions import CURRENT, parse_version

if TYPE_CHECKING:
    from cluster.docker.sdk import Api, Client, PullLine

REGISTRIES = ("gcr.io/etcd-development/etcd", "quay.io/coreos/etcd")
BUILT = "raftload-etcd"
LABEL_BUILT = "io.raftload.image"
SILENCE_S = 15.0
_NOT_THERE = re.compile(r"manifest unknown|not found|does not exist|denied", re.IGNORECASE)
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """An image that is on the Engine.

    Attributes:
        reference: how the Engine knows it.
        source: ``given``, ``official``, or ``built`` from a local binary.
        requested_version: the etcd version that was asked for, ``3.6.14``; None where an image or a binary was.
        detail: where it came from, for people.
    """

    reference: str
    source: Literal["given", "official", "built"]
    requested_version: str | None
    detail: str


class ImageNotFound(ClusterError):  # noqa: N818
    """A registry answered that it has no such image."""


class RegistryUnreachable(ClusterError):  # noqa: N818
    """No answer of a registry, or none in time."""


def find_image(
    docker: Client,
    *,
    image: str | None,
    version: str | None,
    binary: str | None,
    say: Say,
    named_by: str = "argument",
    pull: bool = False,
    pull_timeout_s: float = 300.0,
) -> Image:
    """Return the image to run, on the Engine.

    Takes the Docker client; an image, a version and a binary as asked for, None where not; where to report progress
    to; who named the binary, for people; whether to ask registries although an image built in their absence is there;
    and the seconds that a pull may take. An image wins over a binary, that over a version. Raises UsageError for a
    malformed version, ImageNotFound, RegistryUnreachable, and ClusterError where neither an image nor a
    binary can be had.
    """
    wanted = parse_version(version) if version else None
    if image:
        if not _has(docker, image):
            _pull(docker, image, say, pull_timeout_s)
        return Image(image, "given", wanted, image)
    if binary:
        return _build(docker, find_etcd(binary, named_by=named_by), wanted, say)
    wanted = wanted or CURRENT
    official = [f"{registry}:v{wanted}" for registry in REGISTRIES]
    for reference in official:
        if _has(docker, reference):
            return Image(reference, "official", wanted, reference)
    if not pull and (built := _built_before(docker, wanted)):
        release = _release(wanted)  # it may have come since, where the image was built from another version
        return _build(docker, release, wanted, say) if release else built
    answers: list[ClusterError] = []
    for reference in official:
        try:
            _pull(docker, reference, say, pull_timeout_s)
            return Image(reference, "official", wanted, reference)
        except (ImageNotFound, RegistryUnreachable) as exc:
            answers.append(exc)
            say(str(exc))
    if any(isinstance(answer, ImageNotFound) for answer in answers):
        raise ImageNotFound(f"no registry has an image of etcd {wanted}: give another ETCD_VERSION, or --image")
    try:
        found = _release(wanted) or find_etcd()
    except RaftloadError as exc:
        raise ClusterError(f"no registry answers for an image of etcd {wanted}, and {exc}; or give --image") from exc
    say(f"no registry answers: building an image from {found.path} (etcd {found.version}, asked for {wanted})")
    if found.version != wanted:
        say(f"`raftload etcd get {wanted}` before would build it from the official release")
    return _build(docker, found, wanted, say)


def _release(wanted: str) -> EtcdBinary | None:
    """Return the release of a version in the user's cache; None where there is none that runs in a container."""
    try:
        found = find_etcd(wanted)
    except ClusterError:
        return None
    return found if _is_elf(Path(found.path)) else None


def _has(docker: Client, reference: str) -> bool:
    from docker.errors import ImageNotFound as NotThere

    try:
        docker.images.get(reference)
    except NotThere:
        return False
    return True


def built(docker: Client) -> list[str]:
    """Return the images that were built from binaries of this machine, and are still on the Engine."""
    return sorted(tag for image in docker.images.list(name=BUILT) for tag in image.tags)


# Pulled


def _pull(docker: Client, reference: str, say: Say, within_s: float) -> None:
    """Pull, telling of progress. Raises ImageNotFound, RegistryUnreachable."""
    import requests
    import urllib3.exceptions
    from docker.errors import APIError, DockerException

    repository, _, tag = reference.rpartition(":")
    if not repository or "/" in tag:  # no tag, but perhaps a registry's port
        repository, tag = reference, "latest"
    if "@" in reference:
        repository, tag = reference, ""
    say(f"pulling {reference}")
    deadline = time.monotonic() + within_s
    try:
        with _patient(docker.api, min(SILENCE_S, within_s)):
            lines = docker.api.pull(repository, tag=tag or None, stream=True, decode=True)
            _follow(lines, reference, deadline, within_s, say)
    except APIError as exc:
        text = str(exc.explanation or exc)
        if exc.status_code == 404 or _NOT_THERE.search(text):
            raise ImageNotFound(f"no image {reference}: {_line(text)}") from exc
        raise RegistryUnreachable(f"cannot pull {reference}: {_line(text)}") from exc
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, DockerException, OSError) as exc:
        raise RegistryUnreachable(f"cannot pull {reference}: no answer within {SILENCE_S:g} s") from exc


@contextlib.contextmanager
def _patient(api: Api, silence_s: float) -> Iterator[None]:
    """Bound every wait for bytes, also in a pull, for which the SDK insists on no bound."""
    send = api.send

    def bounded(request: object, **options: object) -> object:
        return send(request, **{**options, "timeout": silence_s})

    api.send = bounded
    try:
        yield
    finally:
        del api.send


def _follow(lines: Generator[PullLine, None, None], reference: str, deadline: float, within_s: float, say: Say) -> None:
    layers: dict[str, tuple[int, int]] = {}
    told = time.monotonic()
    try:
        for line in lines:
            if "error" in line:
                text = str(line["error"])
                kind = ImageNotFound if _NOT_THERE.search(text) else RegistryUnreachable
                raise kind(f"cannot pull {reference}: {_line(text)}")
            detail = line.get("progressDetail") or {}
            if line.get("status") == "Downloading" and detail.get("total"):
                layers[line["id"]] = (detail["current"], detail["total"])
            now = time.monotonic()
            if now > deadline:
                raise RegistryUnreachable(
                    f"{reference} was not pulled within {within_s:g} s: give a longer --pull-timeout, or pull it first"
                )
            if now - told >= 1 and layers:
                told = now
                done, size = (sum(values) / 1e6 for values in zip(*layers.values(), strict=True))
                say(f"pulling {reference}: {done:.0f} of {size:.0f} MB")
    finally:
        lines.close()


def _line(text: str) -> str:
    return " ".join(text.split())[:200]


# Built


def _built_before(docker: Client, wanted: str) -> Image | None:
    for image in docker.images.list(name=BUILT):
        labels = image.labels or {}
        if wanted in labels.get(f"{LABEL_BUILT}.instead-of", "").split(",") and image.tags:
            detail = f"built before from {labels.get(f'{LABEL_BUILT}.binary')}; --pull asks the registries again"
            return Image(image.tags[0], "built", wanted, detail)
    return None


def _build(docker: Client, binary: EtcdBinary, wanted: str | None, say: Say) -> Image:
    """Return an image of a binary, etcdctl and what they are linked with. Raises ClusterError."""
    files, note = _files(binary)
    if note:
        say(note)
    if caveat := version_note(binary.version):
        say(f"note: {caveat}")
    digest = hashlib.sha256(repr(wanted).encode())
    for inside in sorted(files):
        digest.update(inside.encode() + files[inside].read_bytes())
    tag = f"v{binary.version.partition('+')[0]}-{digest.hexdigest()[:12]}"
    reference = f"{BUILT}:{tag}"
    if not _has(docker, reference):
        changes = [
            "ENV PATH=/usr/local/bin",
            f"LABEL {LABEL_BUILT}=1",
            f'LABEL {LABEL_BUILT}.binary="{binary.path}"',
            f'LABEL {LABEL_BUILT}.instead-of="{wanted or ""}"',
        ]
        docker.api.import_image_from_data(_tar(files), repository=BUILT, tag=tag, changes=changes)
        if not _has(docker, reference):
            raise ClusterError(f"the Docker Engine did not accept the image built from {binary.path}")
    return Image(reference, "built", wanted, f"built from {binary.path} (from {binary.source})")


def _files(binary: EtcdBinary) -> tuple[dict[str, Path], str]:
    """Path in the image to path here, and what is to be said about it."""
    etcd = Path(binary.path)
    if not _is_elf(etcd):
        raise ClusterError(f"{etcd} is not a Linux program, so it does not run in a container: give --image")
    files, note = {"usr/local/bin/etcd": etcd}, ""
    beside = [etcd.with_name("etcdctl"), Path(shutil.which("etcdctl") or "/nowhere")]
    with contextlib.suppress(ClusterError):
        beside.append(Path(find_etcd(env={}).path).with_name("etcdctl"))
    etcdctl = next((path for path in beside if _is_elf(path)), None)
    if etcdctl is None:
        note = f"no etcdctl beside {etcd} or on PATH: `docker exec … etcdctl` will not work in this image"
    else:
        files["usr/local/bin/etcdctl"] = etcdctl
    for program in list(files.values()):
        for library in _libraries(program):
            files[str(library).lstrip("/")] = library
    return files, note


def _is_elf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def _libraries(program: Path) -> list[Path]:
    """Return what it is linked with, the loader included; nothing for a static one."""
    try:
        done = subprocess.run(["ldd", str(program)], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ClusterError(f"cannot tell what {program} is linked with (ldd: {exc}): give --image") from exc
    text = done.stdout.decode(errors="replace")
    return [Path(path) for path in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", text, re.MULTILINE)]


def _tar(files: dict[str, Path]) -> bytes:
    """Return the same bytes for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folders = {"tmp", *(str(parent) for name in files for parent in Path(name).parents if str(parent) != ".")}
        for folder in sorted(folders):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        for name, path in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = os.stat(path).st_size, 0o755  # noqa: PTH116 (follows links, as is meant)
            with path.open("rb") as file:
                tar.addfile(info, file)
    return buffer.getvalue()
