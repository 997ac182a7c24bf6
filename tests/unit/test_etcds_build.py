"""`.ci/etcds` with a Go that builds nothing: what it asks Go for, and what it makes of what cannot be had."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import ROOT

RELEASE = "3.5.30"  # not pinned
SERVER, CTL, UTL = "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/etcdctl/v3", "go.etcd.io/etcd/etcdutl/v3"
# It resolves a go.mod that requires nothing of $GONE, and builds programs that say which release they are of.
GO = """\
#!/bin/sh
echo "$*" >>"$LOG"
modfile=go.mod out=
for word; do
    case $word in
        -modfile=*) modfile=${word#*=} ;;
        */bin/) out=$word ;;
    esac
done
case $1 in
    env) echo go1.26.0 ;;
    mod) for gone in $GONE; do if grep -q "$gone v" "$modfile"; then echo "$gone: there is none"; exit 1; fi; done ;;
    build)
        mkdir -p "$out"
        for package; do
            case $package in
                ./*) grep -q server/v3 "$modfile" && [ -f "$package/main.go" ] || exit 1 ;;
                go.etcd.io/etcd/etcdutl/v3) package=etcdutl ;;
                *) continue ;;
            esac
            printf '#!/bin/sh\\necho "etcd Version: %s"\\n' "$RELEASE" >"$out${package##*/}"
            chmod +x "$out${package##*/}"
        done ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with such a Go in ``bin``."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(GO)
    go.chmod(0o755)
    return tmp_path


def build(machine: Path, *gone: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": f"{machine}/bin:/usr/bin:/bin", "XDG_CACHE_HOME": str(machine), "LOG": str(machine / "log"),
        "GONE": " ".join(gone), "RELEASE": RELEASE,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, ROOT / ".ci" / "etcds", RELEASE], env=env, capture_output=True, text=True, check=False
    )


def programs(machine: Path) -> set[str]:
    return {path.name for path in (machine / "raftload" / "etcds" / RELEASE).iterdir()}


def asked(machine: Path, what: str) -> int:
    """Return how often Go was asked to do something."""
    return len(re.findall(f"^{what} ", (machine / "log").read_text(), re.MULTILINE))


def test_all_programs_of_a_release_are_built_once(machine: Path) -> None:
    for _ in range(2):
        done = build(machine)
        assert (done.returncode, "alone" in done.stderr) == (0, False), done.stderr
    assert programs(machine) == {"etcd", "etcdctl", "etcdutl"}
    assert (asked(machine, "mod"), asked(machine, "build")) == (1, 1)


@pytest.mark.parametrize("gone", [(CTL,), (UTL,), (CTL, UTL)])
def test_the_server_alone_is_built_where_the_others_cannot_be_had(gone: tuple[str, ...], machine: Path) -> None:
    said = f"etcd {RELEASE}: etcdctl and etcdutl cannot be had, so its server alone is built\n"
    first, again = build(machine, *gone), build(machine, *gone)
    assert first.returncode == 0, first.stderr
    assert first.stderr.count(said) == 1
    assert programs(machine) == {"etcd", "server-alone"}
    assert first.stdout.startswith(f"export RAFTLOAD_TEST_ETCDS='{machine}/raftload/etcds/{RELEASE}/etcd'\n")
    # It is not tried anew, and not built anew, and what it has is said again.
    assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, said)
    assert (asked(machine, "mod"), asked(machine, "build")) == (2, 1)


def test_a_release_without_its_server_is_an_error(machine: Path) -> None:
    done = build(machine, SERVER)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.endswith(f".ci/etcds: the modules of etcd {RELEASE}: {SERVER}: there is none\n")
    assert [path.name for path in (machine / "raftload" / "etcds").iterdir()] == [".lock"]
