"""`raftload etcd`: official releases, from a release page on loopback, whole or not at all; and who runs them."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster import schema
from cluster.base.binary import find_etcd
from cluster.base.errors import ClusterError, EtcdBroken, EtcdNotFound, UsageError
from cluster.base.versions import cached_binary, parse_version, release_name, version_or_path
from cluster.releases import archive
from tests.support import command
from tests.support.certificates import Authority
from tests.support.ports import take_ports
from tests.support.release_page import (
    ConnectProxy,
    ReleasePage,
    file_entry,
    link_entry,
    make_archive,
    pack,
    small_archive,
)

HUNG_S = 60
VERSION = "9.9.9"
RELEASE = release_name(VERSION)
NAME = f"{RELEASE}.tar.gz"
PATH, SUMS = f"v{VERSION}/{NAME}", f"v{VERSION}/SHA256SUMS"


@pytest.fixture(scope="module")
def version(etcd_binary: str) -> str:
    """Return the version of the etcd at hand, as its release would be called."""
    return find_etcd(etcd_binary).version.partition("+")[0]


@pytest.fixture(scope="module")
def official(etcd_binary: str, version: str) -> bytes:
    """Return an archive of the etcd at hand, as its release would be packed."""
    return make_archive(release_name(version), Path(etcd_binary).parent)


@pytest.fixture(scope="module")
def small() -> bytes:
    """Return a small archive of VERSION, for what does not depend on which etcd it is."""
    return small_archive(RELEASE, VERSION)


@pytest.fixture
def page() -> Iterator[ReleasePage]:
    with ReleasePage() as made:
        yield made


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache of the test's own, and nothing in the environment that leads elsewhere; returns the releases'
    folder.
    """
    for name in list(os.environ):
        if (
            name.lower().endswith("_proxy")
            or name.startswith(("ETCD_", "ETCDCTL_", "RAFTLOAD_ETCD"))
            or name == "NODES"
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "raftload" / "releases"


def kept(cache: Path) -> list[str]:
    """Return what is in the folder of releases."""
    return sorted(each.name for each in cache.iterdir() if each.name != ".lock") if cache.exists() else []


class Ended:
    """A command that ran in this process."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def error(self) -> str:
        """Its last line on stderr."""
        return self.err.splitlines()[-1]


Raftload = Callable[..., Ended]


@pytest.fixture
def raftload(capsys: pytest.CaptureFixture[str]) -> Raftload:
    """Run a command line in this process, which is quicker than a process of its own."""

    def run(*words: str) -> Ended:
        done = command.called(capsys, *words)
        assert "Traceback" not in done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


def getting(version: str, page: ReleasePage, tmp_path: Path, **env: str) -> subprocess.Popen[str]:
    """`etcd get` in a process of its own."""
    return command.start("etcd", "get", version, "--base-url", page.url, cwd=tmp_path, **env)


# It gets one


def test_get_list_path_run_remove(
    version: str, official: bytes, page: ReleasePage, cache: Path, raftload: Raftload, tmp_path: Path
) -> None:
    name = f"{release_name(version)}.tar.gz"
    page.add(version, "etcd-v0-other.zip", b"another platform's")
    page.add(version, name, official)
    done = raftload("etcd", "get", f"v{version}", "--base-url", page.url + "/")
    path = cache / release_name(version) / "etcd"
    assert (done.code, done.out) == (0, f"{path}\n"), done.err
    assert "checksum verified" in done.err and " MB/s" in done.err
    assert f"--etcd {version}" in done.error
    assert page.asked == [f"v{version}/SHA256SUMS", f"v{version}/{name}"]
    assert kept(cache) == [release_name(version)]
    assert {each.name for each in path.parent.iterdir()} <= {*archive.PROGRAMS, "release.json"}

    again = raftload("etcd", "get", version, "--base-url", page.url)
    assert (again.code, again.out) == (0, f"{path}\n") and "is in the cache already" in again.err
    assert len(page.asked) == 2, "it asked for what it had"

    listed = json.loads(raftload("etcd", "list", "--json").out)
    jsonschema.validate(listed, schema.load("releases"))
    (release,) = listed["releases"]
    assert (release["version"], release["path"]) == (version, str(path))
    assert release["sha256"] == hashlib.sha256(official).hexdigest()
    assert release["size_bytes"] == sum(each.stat().st_size for each in path.parent.iterdir())
    head, row = raftload("etcd", "list").out.splitlines()
    assert head.split() == ["version", "platform", "size", "path"] and f"{release['size_bytes'] / 1e6:.1f} MB" in row
    assert raftload("etcd", "path", version).out == f"{path}\n"

    assert find_etcd(version).source == find_etcd(env={**os.environ, "RAFTLOAD_ETCD": f"v{version}"}).source
    ran = command.run(
        "bench", "--etcd", version, "--nodes", "1", "--operations", "20", "--workers", "1", "--concurrency", "2",
        "--json", "--output", str(tmp_path / "run"), cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert f"etcd {version} from the official release" in ran.stderr
    target = json.loads(ran.stdout)["target"]
    assert (target["etcd_version"], target["requested_version"]) == (version, version)

    gone = raftload("etcd", "remove", version)
    assert gone.code == 0 and str(path.parent) in gone.out
    assert kept(cache) == []
    for word, advice in (("path", f"`raftload etcd get {version}`"), ("remove", "`raftload etcd list`")):
        missing = raftload("etcd", word, version)
        assert missing.code == 4 and advice in missing.error
    empty = raftload("etcd", "list")
    assert (empty.code, empty.out) == (0, "") and "no release is in" in empty.err


def test_a_mirror_in_a_folder_by_the_environment(
    small: bytes, cache: Path, raftload: Raftload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a mirror" / f"v{VERSION}"
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(small)
    # As `sha256sum -b ./*` writes it, in capitals for good measure.
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(small).hexdigest().upper()} *./{NAME}\r\n")
    monkeypatch.setenv("RAFTLOAD_ETCD_BASE_URL", folder.parent.as_uri())
    done = raftload("etcd", "get", VERSION)
    assert done.code == 0, done.err
    assert kept(cache) == [RELEASE]
    missing = raftload("etcd", "get", "9.9.8")
    assert missing.code == 4 and "there is no etcd 9.9.8 at file:///" in missing.error


def test_an_address_that_leads_elsewhere(small: bytes, page: ReleasePage, cache: Path, raftload: Raftload) -> None:
    page.add(VERSION, NAME, small)
    page.files["elsewhere"] = small
    page.moved[PATH] = f"{page.url}/elsewhere?signature=1"
    page.files["elsewhere?signature=1"] = small
    with_user = page.url.replace("http://", "http://reader:secret@")
    done = raftload("etcd", "get", VERSION, "--base-url", with_user)
    assert done.code == 0, done.err
    assert page.headers[0]["Authorization"].startswith("Basic ")
    facts = (cache / RELEASE / "release.json").read_text()
    assert "secret" not in done.err + facts and page.url in facts


# It fails, in one line, and keeps nothing


def _fails(page: ReleasePage, small: bytes, how: str) -> None:
    """Lets a page be wrong in one way."""
    page.add(VERSION, NAME, small)
    if how == "a wrong checksum":
        page.files[SUMS] = f"{'0' * 64}  {NAME}\n".encode()
    elif how == "a changed archive":
        page.files[PATH] = small[:-1] + bytes([small[-1] ^ 1])
    elif how == "a cut archive":
        page.cut.add(PATH)
    elif how == "cut checksums":
        page.cut.add(SUMS)
    elif how == "no line for this platform":
        page.files[SUMS] = f"{'0' * 64}  {NAME}.asc\n{'0' * 63}  {NAME}\n".encode()
    elif how == "a login page":
        page.files[SUMS] = b"<html>please log in</html>"
    elif how == "no archive":
        del page.files[PATH]
    elif how == "a busy server":
        page.codes[SUMS] = 503
    elif how == "circles":
        page.moved[SUMS] = f"{page.url}/{SUMS}"
    elif how == "a way to another protocol":
        page.moved[PATH] = "ftp://127.0.0.1/etcd"
    elif how == "no archive at all":
        page.files = {}
        page.add(VERSION, NAME, b"no archive at all")
    elif how == "a broken archive":
        page.files = {}
        page.add(VERSION, NAME, small[: len(small) // 2])
    elif how == "an archive of another etcd":
        page.files = {}
        page.add(VERSION, NAME, small_archive(RELEASE, "1.2.3"))
    elif how == "programs elsewhere":
        page.files = {}
        page.add(VERSION, NAME, pack([file_entry(each, b"") for each in ("etcd", "x/etcd", "etcdctl")]))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("a wrong checksum", "has the checksum {digest}, not 0000"),
        ("a changed archive", "not {digest} as SHA256SUMS says"),
        (
            "a cut archive",
            "was cut after {half:,} of {size:,} bytes (the connection was closed): run",
        ),
        ("cut checksums", "SHA256SUMS was cut after "),
        ("no line for this platform", "has no checksum of {name}"),
        ("a login page", "or this is not a release page"),
        ("no archive", "{name} does not exist"),
        ("a busy server", "SHA256SUMS answers 503 Service Unavailable: try again later"),
        ("circles", "redirects in a loop"),
        ("a way to another protocol", "cannot be reached"),
        ("no archive at all", "{name} cannot be read"),
        ("a broken archive", "{name} cannot be read"),
        ("programs elsewhere", "{name} has no file {release}/etcd"),
        ("an archive of another etcd", "holds etcd 1.2.3"),
    ],
)
def test_what_cannot_be_had(
    small: bytes, page: ReleasePage, cache: Path, raftload: Raftload, how: str, reason: str
) -> None:
    _fails(page, small, how)
    done = raftload("etcd", "get", VERSION, "--base-url", page.url)
    expected = reason.format(
        digest=hashlib.sha256(small).hexdigest(), release=RELEASE, name=NAME, half=len(small) // 2, size=len(small)
    )
    assert done.code == 4 and done.out == ""
    assert expected in done.error and done.error.startswith("raftload: error: ")
    assert [line for line in done.err.splitlines() if "downloading" not in line and " MB, " not in line] == [done.error]
    assert kept(cache) == []
    assert raftload("etcd", "path", VERSION).code == 4


def test_an_unknown_version(page: ReleasePage, cache: Path, raftload: Raftload) -> None:
    done = raftload("etcd", "get", "v9.9.8", "--base-url", page.url)
    assert done.code == 4 and kept(cache) == []
    assert f"there is no etcd 9.9.8 at {page.url} (no v9.9.8/SHA256SUMS): give another version" in done.error


def test_no_network(cache: Path, raftload: Raftload) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens, and nobody else gets the port
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        done = raftload("etcd", "get", "3.6.14", "--base-url", url)
        assert done.code == 4 and kept(cache) == []
        assert "SHA256SUMS cannot be reached (Connection refused): check the network and https_proxy" in done.error
        assert "--base-url" in done.error
    nowhere = raftload("etcd", "get", "3.6.14", "--base-url", "https://no-such-host.invalid")
    assert nowhere.code == 4 and "cannot be reached (" in nowhere.error and "HTTPSConnection" not in nowhere.error


def test_a_server_that_says_nothing(small: bytes, page: ReleasePage, cache: Path, raftload: Raftload) -> None:
    page.add(VERSION, NAME, small)
    page.stalled.add(PATH)
    done = raftload("etcd", "get", VERSION, "--base-url", page.url, "--timeout", "300ms")
    assert done.code == 4 and kept(cache) == []
    assert "(no data for 0.3 s)" in done.error
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = raftload("etcd", "get", VERSION, "--base-url", url, "--timeout", "300ms")
    assert done.code == 4 and "does not answer within 0.3 s" in done.error


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting a small disk needs root")
def test_a_full_disk(small: bytes, page: ReleasePage, cache: Path, raftload: Raftload) -> None:
    page.add(VERSION, NAME, small)
    cache.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", cache], check=True)
    try:
        done = raftload("etcd", "get", VERSION, "--base-url", page.url)
        assert done.code == 4 and kept(cache) == []
        assert f"cannot write to {cache}: No space left on device; make room there, or set XDG_CACHE_HOME" in done.error
    finally:
        subprocess.run(["umount", cache], check=True)


def test_a_cache_that_is_no_folder(cache: Path, raftload: Raftload) -> None:
    cache.parent.parent.write_text("a file")
    done = raftload("etcd", "get", "3.6.14", "--base-url", "http://127.0.0.1:1")
    assert done.code == 4 and "cannot write to" in done.error and "XDG_CACHE_HOME" in done.error


@pytest.mark.skipif(shutil.which("setarch") is None, reason="no setarch, which makes this machine another one")
def test_no_such_platform(cache: Path, tmp_path: Path) -> None:
    with command.start("etcd", "get", "3.6.14", cwd=tmp_path, before=("setarch", "i686")) as process:
        _, err = process.communicate(timeout=HUNG_S)
    if "setarch:" in err:
        pytest.skip(err)
    assert process.returncode == 4
    assert err.count("\n") == 1 and "there is no official etcd for Linux on i" in err and "RAFTLOAD_ETCD" in err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("get", "3.6"), "'3.6' is not an etcd version: write it like v3.6.14"),
        (("get", "../3.6.1"), "is not an etcd version"),
        (("path", "latest"), "'latest' is not an etcd version"),
        (("remove", ""), "is not an etcd version"),
        (("get", "3.6.14", "--base-url", "ftp://mirror"), "'ftp://mirror' is not a base address"),
        (("get", "3.6.14", "--base-url", "mirror.example/etcd"), "is not a base address"),
        (("get", "3.6.14", "--base-url", "https://mirror/etcd?a=b"), "is not a base address"),
        (("get", "3.6.14", "--base-url", "http://mirror:port/"), "is not an address"),
        (("get", "3.6.14", "--timeout", "soon"), "--timeout: 'soon' is not a duration; write numbers with units"),
        (("get", "3.6.14", "--timeout", "0"), "--timeout: must be at least 0.001s, not 0"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], reason: str, cache: Path, raftload: Raftload) -> None:
    done = raftload("etcd", *words)
    assert done.code == 2 and reason in done.error and done.err.count("\n") == 1
    assert not cache.exists()


# Archives that lead out of their folder


def test_only_the_named_files_are_taken(page: ReleasePage, cache: Path, raftload: Raftload, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    device = tarfile.TarInfo(f"{RELEASE}/null")
    device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
    program = f"#!/bin/sh\necho etcd Version: {VERSION}\n".encode()
    page.add(VERSION, NAME, pack([
        file_entry("../escaped", b"x"), file_entry(f"{RELEASE}/../../escaped", b"x"),
        file_entry(f"{RELEASE}/../../../../../escaped", b"x"), file_entry(str(outside / "absolute"), b"x"),
        link_entry(f"{RELEASE}/way", str(outside)), file_entry(f"{RELEASE}/way/escaped", b"x"),
        link_entry(f"{RELEASE}/etcdutl", str(outside / "absolute")), (device, b""),
        file_entry(f"./{RELEASE}/etcd", program), file_entry(f"{RELEASE}/etcdctl", b"first"),
        file_entry(f"{RELEASE}/etcdctl", b"second"),
    ]))  # fmt: skip
    before = _tree(tmp_path)
    done = raftload("etcd", "get", VERSION, "--base-url", page.url)
    assert done.code == 0, done.err
    new = _tree(tmp_path) - before
    assert {str(each.relative_to(cache)) for each in new if each.is_file() or each.is_symlink()} == {
        ".lock", f"{RELEASE}/etcd", f"{RELEASE}/etcdctl", f"{RELEASE}/release.json"
    }  # fmt: skip
    assert (cache / RELEASE / "etcd").read_bytes() == program


@pytest.mark.parametrize("to", ["/bin/sh", "../../../../escaped", "etcdctl"])
def test_a_link_is_no_program(page: ReleasePage, cache: Path, raftload: Raftload, to: str) -> None:
    entries = [link_entry(f"{RELEASE}/etcd", to), file_entry(f"{RELEASE}/etcdctl", b"x")]
    page.add(VERSION, NAME, pack(entries))
    done = raftload("etcd", "get", VERSION, "--base-url", page.url)
    assert done.code == 4 and f"has no file {RELEASE}/etcd" in done.error
    assert kept(cache) == []


def test_the_zip_of_macos(tmp_path: Path) -> None:
    release = release_name("3.6.14", "Darwin", "arm64")
    path = tmp_path / archive.archive_name(release)
    link = zipfile.ZipInfo(f"{release}/etcdutl")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(f"{release}/etcd", b"the program")
        made.writestr(f"{release}/etcdctl", b"the client")
        made.writestr(link, "/bin/sh")
        made.writestr("../escaped", b"x")
        made.writestr(str(tmp_path / "absolute"), b"x")
    assert path.name == "etcd-v3.6.14-darwin-arm64.zip"
    (into := tmp_path / "deep" / "into").mkdir(parents=True)
    archive.unpack(path, release, into)
    assert {each.name: each.read_bytes() for each in into.iterdir()} == {
        "etcd": b"the program", "etcdctl": b"the client"
    }  # fmt: skip
    assert os.access(into / "etcd", os.X_OK)
    assert _tree(tmp_path) == {path, into, into.parent, into / "etcd", into / "etcdctl"}
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(archive.BadArchive, match="cannot be read"):
        archive.unpack(path, release, into)


def _tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


# Signals, and processes beside each other


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_mid_download(
    small: bytes, page: ReleasePage, cache: Path, tmp_path: Path, number: int, code: int
) -> None:
    page.add(VERSION, NAME, small)
    page.stalled.add(PATH)
    with getting(VERSION, page, tmp_path) as process:
        assert page.halfway.wait(HUNG_S)
        assert kept(cache) == [f".{RELEASE}.part"], "it is in the middle of it"
        process.send_signal(number)
        out, err = process.communicate(timeout=HUNG_S)
    assert (process.returncode, out) == (code, "")
    assert err.splitlines()[-1] == f"raftload: interrupted by {signal.Signals(number).name}; " + (
        "the cache has no partial download"
    )
    assert "Traceback" not in err and kept(cache) == []


def test_what_a_killed_get_left_is_swept(
    small: bytes, page: ReleasePage, cache: Path, raftload: Raftload, tmp_path: Path
) -> None:
    page.add(VERSION, NAME, small)
    page.stalled.add(PATH)
    with getting(VERSION, page, tmp_path) as process:
        assert page.halfway.wait(HUNG_S)
        process.kill()
    assert kept(cache) == [f".{RELEASE}.part"]
    assert raftload("etcd", "path", VERSION).code == 4, "a half-written release passed for one"
    assert json.loads(raftload("etcd", "list", "--json").out)["releases"] == []
    assert raftload("etcd", "get", "9.9.8", "--base-url", page.url).code == 4
    assert kept(cache) == [], "the next one, of whatever version, removes it"
    page.stalled.clear()
    assert raftload("etcd", "get", VERSION, "--base-url", page.url).code == 0
    assert kept(cache) == [RELEASE]


def test_two_at_once_fetch_it_once(small: bytes, page: ReleasePage, cache: Path, tmp_path: Path) -> None:
    page.add(VERSION, NAME, small)
    page.stalled.add(PATH)
    with getting(VERSION, page, tmp_path) as first:
        assert page.halfway.wait(HUNG_S)
        with getting(VERSION, page, tmp_path) as second:
            assert second.stderr is not None
            assert second.stderr.readline() == f"raftload: process {first.pid} is downloading etcd {VERSION}: " + (
                "waiting for it\n"
            )
            page.go.set()
            outs = [each.communicate(timeout=HUNG_S)[0] for each in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert outs == [f"{cache / RELEASE / 'etcd'}\n"] * 2
    assert page.asked == [SUMS, PATH]
    assert kept(cache) == [RELEASE]


def test_the_second_takes_over_where_the_first_fails(
    small: bytes, page: ReleasePage, cache: Path, tmp_path: Path
) -> None:
    page.add(VERSION, NAME, small)
    page.stalled.add(PATH)
    with getting(VERSION, page, tmp_path) as first:
        assert page.halfway.wait(HUNG_S)
        with getting(VERSION, page, tmp_path) as second:
            assert second.stderr is not None and "waiting" in second.stderr.readline()
            page.stalled.clear()
            first.send_signal(signal.SIGINT)
            out, err = second.communicate(timeout=HUNG_S)
        assert first.wait(HUNG_S) == 130
    assert second.returncode == 0, err
    assert out == f"{cache / RELEASE / 'etcd'}\n"
    assert kept(cache) == [RELEASE]


# Proxies and TLS


def test_proxies_are_honoured(
    small: bytes, cache: Path, raftload: Raftload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "ca")
    with ReleasePage(authority.sign("mirror", "releases.invalid")) as page:
        page.add(VERSION, NAME, small)
        proxy = ConnectProxy(page.port)
        try:
            monkeypatch.setenv("https_proxy", proxy.url)
            get = ("etcd", "get", VERSION, "--base-url", "https://releases.invalid/etcd")
            untrusted = raftload(*get)
            assert untrusted.code == 4 and "set REQUESTS_CA_BUNDLE" in untrusted.error and kept(cache) == []
            assert "cannot be trusted" in untrusted.error and "certificate" in untrusted.error.lower()
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority.cert)
            monkeypatch.setenv("no_proxy", "releases.invalid")
            seen = len(proxy.asked)
            around = raftload(*get)
            assert around.code == 4 and "cannot be reached" in around.error, "no_proxy was not honoured"
            assert len(proxy.asked) == seen
            monkeypatch.setenv("no_proxy", "elsewhere.invalid")
            done = raftload(*get)
            assert done.code == 0, done.err
            assert {line.rpartition(" ")[0] for line in proxy.asked} == {"CONNECT releases.invalid:443"}
            assert kept(cache) == [RELEASE]
            raftload("etcd", "remove", VERSION)
            with ReleasePage() as plain:
                plain.add(VERSION, NAME, small)
                page.moved[PATH] = f"{plain.url}/{PATH}"
                done = raftload(*get)
            assert done.code == 4 and "redirects to an address without TLS" in done.error and kept(cache) == []
        finally:
            proxy.close()
        dead = raftload(*get)
        assert dead.code == 4 and "check https_proxy" in dead.error and "the proxy does not connect to" in dead.error


def test_a_proxy_for_plain_http(
    small: bytes, page: ReleasePage, raftload: Raftload, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.add(VERSION, NAME, small)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{page.port}")  # it answers as a proxy does
    done = raftload("etcd", "get", VERSION, "--base-url", "http://releases.invalid/etcd")
    assert done.code == 0, done.err
    assert {each["Host"] for each in page.headers} == {"releases.invalid"}


# Progress


@pytest.mark.parametrize(("env", "colours"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_the_bar(small: bytes, page: ReleasePage, tmp_path: Path, env: dict[str, str], colours: bool) -> None:
    page.add(VERSION, NAME, small)
    outer, inner = pty.openpty()
    words = [sys.executable, "-m", "loadgen.cli", "etcd", "get", VERSION, "--base-url", page.url]
    every = {**os.environ, "PYTHONPATH": str(command.ROOT), "TERM": "xterm", "COLUMNS": "140", **env}
    if colours:
        every.pop("NO_COLOR", None)
    with subprocess.Popen(words, env=every, stdout=subprocess.DEVNULL, stderr=inner, cwd=tmp_path) as process:
        os.close(inner)
        text = _all(outer)
    assert process.returncode == 0
    assert ("\x1b[32m" in text) is colours
    drawn = [part for part in text.split("\r\x1b[2K") if " s left" in part]
    assert bool(drawn) is ("TERM" not in env)
    size = f"{len(small) / 1e6:.1f} MB"
    assert all(f" of {size}  " in part and " MB/s  " in part and "%" in part and "[" in part for part in drawn)
    assert "\r\x1b[2K" not in text.splitlines()[-1]


def _all(terminal: int) -> str:
    found = b""
    try:
        while data := os.read(terminal, 1 << 16):
            found += data
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(terminal)
    return found.decode()


# Who runs them


@pytest.mark.parametrize(
    ("words", "env"),
    [
        (("bench", "--etcd", "v9.9.9"), {}),
        (("bench", "--nodes", "1"), {"RAFTLOAD_ETCD": "9.9.9"}),
        (("web", "--etcd", "9.9.9"), {}),
        (("chaos", "--etcd", "9.9.9"), {}),
        (("chaos",), {"RAFTLOAD_ETCD": "v9.9.9"}),
        (("cluster", "up", "--backend", "local", "--etcd", "9.9.9"), {}),
        (("cluster", "up", "--backend", "local"), {"ETCD_VERSION": "v9.9.9"}),
        (("cluster", "up", "--backend", "local", "--binary", "9.9.9"), {}),
        (("cluster", "test", "--backend", "embedded", "--etcd", "9.9.9"), {}),
        (("cluster", "test", "--backend", "embedded"), {"ETCD_VERSION": "9.9.9"}),
        (("cluster", "test", "--backend", "local"), {"ETCD_VERSION": "9.9.9"}),
    ],
)
def test_a_release_that_is_not_there(
    words: tuple[str, ...], env: dict[str, str], raftload: Raftload, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    done = raftload(*words)
    assert done.code == 4 and done.err.count("\n") == 1
    assert "etcd 9.9.9" in done.error and "run `raftload etcd get 9.9.9`" in done.error
    assert _tree(tmp_path) == set(), "it left a run folder"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("bench", "--etcd", "3.6"), "'3.6' is not an etcd version"),
        (("bench", "--etcd", "3.6.1", "--endpoints", "127.0.0.1:1"), "--etcd and --endpoints exclude each other"),
        (("chaos", "--etcd", "3.6.1", "--endpoints", "127.0.0.1:1"), "--etcd and --endpoints exclude each other"),
        (("chaos", "--etcd", "3.6.1", "--backend", "local"), "--etcd is for a cluster that is started for this run"),
        (("chaos", "--etcd", "3.6.x", "--backend", "docker"), "'3.6.x' is not an etcd version"),
        (("cluster", "up", "--etcd", "3.6.1", "--binary", "/x"), "--etcd and --binary exclude each other"),
        (("cluster", "up", "--etcd", "3.6.1", "--etcd-version", "3.6.2"), "--etcd and --etcd-version exclude"),
        (("cluster", "up", "--etcd", "3.6"), "'3.6' is not an etcd version"),
        (("cluster", "test", "--etcd", "3.6"), "'3.6' is not an etcd version"),
        (
            ("cluster", "test", "--etcd", "3.6.1", "--endpoints", "127.0.0.1:1"),
            "--endpoints is for an existing cluster",
        ),
    ],
)
def test_what_makes_no_sense(
    words: tuple[str, ...], reason: str, raftload: Raftload, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    done = raftload(*words)
    assert done.code == 2 and reason in done.error and done.err.count("\n") == 1


def test_a_version_or_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, etcd_binary: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert [version_or_path(text) for text in ("v3.6.14", "3.6.14", " 3.7.0-rc.1 ")] == [
        "3.6.14", "3.6.14", "3.7.0-rc.1"
    ]  # fmt: skip
    assert [version_or_path(text) for text in ("etcd", "./3.6.14", "/opt/3.6")] == [
        Path("etcd"), Path("3.6.14"), Path("/opt/3.6")
    ]  # fmt: skip
    for text in ("3.6", "v3", "3.6.14.1", "3.x"):
        with pytest.raises(UsageError, match="not an etcd version"):
            version_or_path(text)
    Path("3.6").symlink_to(etcd_binary)
    assert find_etcd("3.6").path == str(tmp_path / "3.6")
    with pytest.raises(EtcdNotFound, match=r"\(from RAFTLOAD_ETCD\).*raftload etcd get 3\.6\.14"):
        find_etcd(env={**os.environ, "RAFTLOAD_ETCD": "3.6.14"})
    with pytest.raises(UsageError):
        find_etcd(env={"RAFTLOAD_ETCD": "3"})


def test_names_of_releases() -> None:
    assert release_name("3.6.14", "Linux", "aarch64") == "etcd-v3.6.14-linux-arm64"
    assert release_name("3.6.14", "Darwin", "x86_64") == "etcd-v3.6.14-darwin-amd64"
    for system, machine in (("Linux", "riscv64"), ("FreeBSD", "amd64")):
        with pytest.raises(ClusterError, match="no official etcd for"):
            release_name("3.6.14", system, machine)


def test_a_release_that_is_another_one(cache: Path, etcd_binary: str) -> None:
    (cache / release_name("9.9.9")).mkdir(parents=True)
    (cache / release_name("9.9.9") / "etcd").symlink_to(etcd_binary)
    with pytest.raises(EtcdBroken, match=r"not 9\.9\.9: run `raftload etcd remove 9\.9\.9`, then"):
        find_etcd("9.9.9")


def test_a_local_cluster_of_a_release(
    version: str, official: bytes, page: ReleasePage, raftload: Raftload, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, etcd_binary: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    page.add(version, f"{release_name(version)}.tar.gz", official)
    assert raftload("etcd", "get", version, "--base-url", page.url).code == 0
    release = cached_binary(version)
    words = ("cluster", "up", "--backend", "local", "--nodes", "1", "--base-port", str(take_ports(1)), "--json")

    def up(*more: str) -> Any:
        done = raftload(*words, *more)
        assert done.code == 0, done.err
        return json.loads(done.out)

    try:
        with monkeypatch.context() as patch:
            patch.setenv("ETCD_VERSION", f"v{version}")
            made = up()
        assert (made["done"], made["requested_version"]) == ("created", version)
        assert made["source"] == f"{release} (from official release)"
        in_use = raftload("etcd", "remove", version)
        assert in_use.code == 4 and "runs this release: `raftload cluster down` first" in in_use.error
        assert raftload(*words, "--etcd", "9.9.9").code == 4
        assert up("--etcd", version)["done"] == "found", "it went though no other one could come"
        # A relative path is one of this folder, not of the process that stays.
        monkeypatch.chdir(tmp_path)
        Path("own-etcd").symlink_to(etcd_binary)
        replaced = up("--etcd", "./own-etcd")
        assert (replaced["done"], replaced["requested_version"]) == ("replaced", None)
        assert replaced["source"].startswith(f"{tmp_path / 'own-etcd'} (")
    finally:
        assert raftload("cluster", "down").code == 0


def test_the_note_names_the_command(version: str, etcd_binary: str) -> None:
    note = find_etcd(etcd_binary).note
    if parse_version(version) in ("3.5.0", "3.5.1", "3.5.2"):
        assert note is not None and "`raftload etcd get 3.6.14`" in note and "RAFTLOAD_ETCD=3.6.14" in note
    else:
        assert note is None
