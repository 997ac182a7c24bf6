"""Endpoints as people write them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster.base.endpoint import Endpoint, read_endpoints, split_endpoints
from cluster.base.security import Security
from cluster.base.topology import Member

MALFORMED = [
    "", "host", ":2379", "host:", "host:0", "host:99999", "host:port", "ftp://h:1", "::1:2379", "h:1/v3",
    "http://h:1/path", "a b:1", "h:1,i:2", "http://", "u@h:1", "[::1:2379", "a..b:1", ".:1", f"{'x' * 64}:1",
    f"{'x.' * 130}:1", "h:٢٣٧٩", "h:+1", "h:1_0", "http://h:1?q", "http://h:1#f",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "endpoint", "url"),
    [
        ("127.0.0.1:2379", Endpoint("127.0.0.1", 2379), "http://127.0.0.1:2379"),
        ("http://etcd-1:2379/", Endpoint("etcd-1", 2379), "http://etcd-1:2379"),
        (" [::1]:2379 ", Endpoint("::1", 2379), "http://[::1]:2379"),
        ("https://h:1", Endpoint("h", 1, tls=True), "https://h:1"),
        ("http://H.example.:1//", Endpoint("h.example.", 1), "http://h.example.:1"),
        ("[fe80::1%25eth0]:1", Endpoint("fe80::1%eth0", 1), "http://[fe80::1%eth0]:1"),
    ],
)
def test_what_is_one(text: str, endpoint: Endpoint, url: str) -> None:
    assert Endpoint.parse(text) == endpoint
    assert str(endpoint) == url
    assert url.endswith("://" + endpoint.authority)


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_none_is_one_clear_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"malformed endpoint .*expected host:port") as caught:
        Endpoint.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("::1:2379", "write an IPv6 address in brackets"), ("::1", "write an IPv6 address in brackets"),
        ("fe80::1%eth0:2379", "write an IPv6 address in brackets"), ("h:0", "its port is no number from 1 to 65535"),
        ("h:65536", "its port is no number from 1 to 65535"), ("h:2379;", "its port is no number from 1 to 65535"),
        ("h:\u0661", "its port is no number from 1 to 65535"), ("'http://h:1'", "quotation marks are around it"),
        ('"h:1', "quotation marks are around it"), ("http://u@h:1", "a user belongs into --user"),
        ("http://h", "no port"), ("http://:1", "no host"), ("h:1/v3", "more than a host and a port"),
        ("[::1:1", "brackets are for an IPv6 address"), ("http://[h]:1", "brackets are for an IPv6 address"),
        ("h\u2100:1", "no host has such a name"),
    ],
)  # fmt: skip
def test_what_is_none_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^malformed endpoint .*: {re.escape(why)}; expected host:port"):
        Endpoint.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://u:secret@h:1", "u:secret@h:1", "http://u:secret/secret@h:1", "u:@secret@h",
        # Of these the standard library's own message shows the password.
        "http://u:secret\u2100@h:1", "http://u:[secret]@h:1",
    ],
)  # fmt: skip
def test_a_password_in_one_is_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"malformed endpoint .*\*\*\*@h") as caught:
        Endpoint.parse(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "path", "url"),
    [
        # As etcd and etcdctl read them (client/v3/internal/endpoint/endpoint.go).
        ("unix:///run/e.sock", "/run/e.sock", "unix:///run/e.sock"),
        ("unixs:///run/e.sock", "/run/e.sock", "unixs:///run/e.sock"),
        ("unix:/run/e.sock", "/run/e.sock", "unix:///run/e.sock"),
        ("unix://e.sock", "HERE/e.sock", "unix://HERE/e.sock"), ("unix:e.sock", "HERE/e.sock", "unix://HERE/e.sock"),
        ("unix://localhost:2379", "HERE/localhost:2379", "unix://HERE/localhost:2379"),
        ("unix:///run/../a b.sock", "/a b.sock", "unix:///a b.sock"),
    ],
)  # fmt: skip
def test_unix_sockets(text: str, path: str, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    endpoint = Endpoint.parse(text)
    assert endpoint == Endpoint("", 0, text.startswith("unixs"), path.replace("HERE", str(tmp_path)))
    assert str(endpoint) == endpoint.authority == endpoint.bare == url.replace("HERE", str(tmp_path))
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert endpoint.http_host == "localhost"
    assert read_endpoints(text, Security(cacert="ca.pem")) == (str(endpoint),)
    assert Member("m", str(endpoint), "", "").endpoint == str(endpoint)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("unix://", "no path"),
        ("unix:", "no path"),
        ("unix:///run/", "no path"),
        ("unix:///" + "x" * 107, "at most 107"),
    ],
)
def test_what_is_no_unix_socket(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^malformed endpoint .*{why}"):
        Endpoint.parse(text)
    Endpoint.parse("unix:///" + "x" * 106)


@pytest.mark.parametrize(
    ("text", "http_host", "tls_name"),
    [
        ("h:1", "h:1", "h"), ("h.:1", "h.:1", "h"), ("[::1]:1", "[::1]:1", "::1"),
        ("[fe80::1%eth0]:1", "[fe80::1]:1", "fe80::1"), ("unixs:///run/e.sock", "localhost", "e.sock"),
        ("unixs://localhost:1", "localhost", "localhost"),
    ],
)  # fmt: skip
def test_what_http_and_certificates_name(text: str, http_host: str, tls_name: str) -> None:
    endpoint = Endpoint.parse(text)
    assert (endpoint.http_host, endpoint.tls_name) == (http_host, tls_name)


def test_one_that_is_written_in_two_ways_stands_once() -> None:
    assert read_endpoints("a:1,http://a:1,http://A:1/,https://a:1,a.:1", Security()) == ("a:1", "https://a:1", "a.:1")


def test_several_stand_with_commas_each_once() -> None:
    assert split_endpoints(" a:1, http://b:2,a:1,") == ("a:1", "http://b:2")
    assert split_endpoints(None) == ()
    assert read_endpoints("a:1,b:2", Security()) == ("a:1", "b:2")
    assert read_endpoints("a:1,http://b:2", Security(cacert="ca.pem")) == ("https://a:1", "http://b:2")


@pytest.mark.parametrize(("text", "message"), [(",", "no endpoint is named"), ("a:1,b", "malformed endpoint 'b'")])
def test_none_and_malformed_ones_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_endpoints(text, Security())
