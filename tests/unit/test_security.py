"""Options and environment names about TLS and users, as etcdctl means them; and passwords that stay ours."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from cluster.base.security import Security, SecurityError, add_arguments, given, masked
from loadgen.client.login import expiry_s
from tests.support.certificates import Authority


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def pem(tmp_path: Path) -> str:
    """A file that is a certificate and its key."""
    made = Authority(tmp_path / "made").sign("etcd.example")
    file = tmp_path / "file.pem"
    file.write_bytes(Path(made.cert).read_bytes() + Path(made.key).read_bytes())
    return str(file)


def test_nothing_said() -> None:
    assert Security.from_arguments(parsed(), {}) == Security()
    assert Security.from_environment({"ETCDCTL_CACERT": "", "ETCDCTL_USER": ""}) == Security()
    assert Security().url("h:1") == "h:1"
    assert given(parsed()) is None


def test_options_come_before_the_environment(pem: str) -> None:
    env = {
        "ETCDCTL_CACERT": "/none", "ETCDCTL_CERT": pem, "ETCDCTL_KEY": pem, "ETCDCTL_USER": "bob",
        "ETCDCTL_PASSWORD": "p", "ETCDCTL_INSECURE_SKIP_TLS_VERIFY": "true", "ETCDCTL_DIAL_TIMEOUT": "1m1.5s",
    }  # fmt: skip
    security = Security.from_arguments(parsed("--cacert", pem, "--user", "alice"), env)
    assert security == Security(pem, pem, pem, True, "alice", "p", 61.5)
    assert Security.from_environment(security.to_environment()) == security


@pytest.mark.parametrize(
    ("user", "password", "expected"),
    [
        # As etcdctl has it (ctlv3/command/global.go, authCfgFromCmd).
        ("system:master", "pw", ("system:master", "pw")), ("alice:a:b", "", ("alice", "a:b")),
        ("alice", "p", ("alice", "p")), ("a:b:c", "p:q", ("a:b:c", "p:q")), ("alice:", "p", ("alice:", "p")),
    ],
)  # fmt: skip
def test_a_user_is_split_at_the_colon_only_without_a_password(
    user: str, password: str, expected: tuple[str, str]
) -> None:
    env = {"ETCDCTL_USER": user, "ETCDCTL_PASSWORD": password}
    for security in (Security.from_environment(env), Security.from_arguments(parsed("--user", user), env)):
        assert (security.user, security.password) == expected
        assert Security.from_environment(security.to_environment()) == security


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100us", 1e-4), (".5s", 0.5), ("5000000ns", 0.005), ("+2s", 2.0), ("1m30s", 90.0), ("2.s", 2.0), ("0", 5.0)],
)
def test_the_dial_timeout_is_one_of_gos(text: str, seconds: float) -> None:
    security = Security.from_environment({"ETCDCTL_DIAL_TIMEOUT": text})
    assert security.dial_timeout_s == seconds
    assert Security.from_environment(security.to_environment()) == security


def test_paths_are_absolute_for_those_in_another_folder(pem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(pem).parent)
    assert Security(cacert="file.pem").to_environment() == {"ETCDCTL_CACERT": pem}


def test_tls_is_spoken_where_files_are_given_and_nothing_else_is_said() -> None:
    assert Security(cacert="x").url("h:1") == "https://h:1"
    assert Security(cacert="x").url("http://h:1") == "http://h:1"
    assert Security(insecure_skip_tls_verify=True, user="u", password="p").url("h:1") == "h:1"


@pytest.mark.parametrize(
    ("words", "env", "message"),
    [
        (["--cert", "/dev/null"], {}, "--cert and --key go together"),
        (["--user", "root"], {}, "--user needs a password"),
        (["--cacert", "/none"], {}, "--cacert /none: No such file"),
        (["--key", "/", "--cert", "/dev/null"], {}, "--key /: Is a directory"),
        ([], {"ETCDCTL_DIAL_TIMEOUT": "2"}, r"\$ETCDCTL_DIAL_TIMEOUT: '2' is not a duration; write numbers with units"),
        ([], {"ETCDCTL_DIAL_TIMEOUT": "٢s"}, r"\$ETCDCTL_DIAL_TIMEOUT: '٢s' is not a duration"),
        ([], {"ETCDCTL_DIAL_TIMEOUT": "9999999h"}, "longer than the longest one"),
        ([], {"ETCDCTL_INSECURE_SKIP_TLS_VERIFY": "yes"}, "write true or false"),
    ],
)
def test_mistakes_are_one_line(words: list[str], env: dict[str, str], message: str) -> None:
    with pytest.raises(SecurityError, match=message) as caught:
        Security.from_arguments(parsed(*words), env)
    assert "\n" not in str(caught.value)


def test_files_that_are_of_no_use_are_found_before_anything_begins(pem: str, tmp_path: Path) -> None:
    """Not PEM, another certificate's key, a certificate in the place of a key, and an encrypted key."""
    text, authority = tmp_path / "text", Authority(tmp_path / "other")
    text.write_text("no PEM")
    other = authority.sign("other")
    locked = tmp_path / "locked.pem"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n")
    for words, message in (
        (("--cacert", text), "--cacert .*: not certificates in PEM"),
        (("--cert", text, "--key", pem), "not a certificate and its key in PEM"),
        (("--cert", pem, "--key", text), "not a certificate and its key in PEM"),
        (("--cert", pem, "--key", other.key), "KEY_VALUES_MISMATCH"),
        (("--cert", other.cert, "--key", other.cert), "not a certificate and its key in PEM"),
        (("--cert", other.cert, "--key", locked), "not a certificate and its key in PEM"),
    ):
        with pytest.raises(SecurityError, match=message) as caught:
            Security.from_arguments(parsed(*map(str, words)), {})
        assert "\n" not in str(caught.value) and "_ssl.c" not in str(caught.value)
    good = parsed("--cacert", authority.cert, "--cert", other.cert, "--key", other.key)
    assert Security.from_arguments(good, {}) == Security(authority.cert, other.cert, other.key)


def test_passwords_are_not_shown() -> None:
    security = Security(user="root", password="secret")
    assert "secret" not in repr(security) + str(security) + security.describe()
    for command in (["x", "--user", "root:secret"], ["x", "--user=root:secret"], ["x", "--us", "root:secret"]):
        assert "secret" not in "".join(masked(command, parsed(*command[1:])))
        assert "root:***" in "".join(masked(command, parsed(*command[1:])))
    assert masked(["x", "--user", "root"], parsed("--user", "root")) == ("x", "--user", "root")
    assert given(parsed("--user", "root:secret")) == "--user"


@pytest.mark.parametrize(
    ("token", "end"),
    [
        ("xpLnNVwNrsyhtdJR.7", None),
        ("e30.eyJleHAiOjE3MDAwMDAwMDB9.sig", 1_700_000_000.0),
        ("e30.eyJleHAiOiJ4In0.sig", None),
        ("a.%%%.c", None),
        ("a.e30.c", None),
        ("a.MQ.c", None),
        ("", None),
    ],
)
def test_when_a_token_ends(token: str, end: float | None) -> None:
    assert expiry_s(token) == end
