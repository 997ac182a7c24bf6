"""Endpoints as people write them."""

from __future__ import annotations

import pytest

from cluster.base.endpoint import Endpoint, read_endpoints, split_endpoints
from cluster.base.security import Security

MALFORMED = [
    "", "host", ":2379", "host:", "host:0", "host:99999", "host:port", "ftp://h:1", "::1:2379", "h:1/v3",
    "http://h:1/path", "a b:1", "h:1,i:2", "http://", "u@h:1", "[::1:2379",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "endpoint", "url"),
    [
        ("127.0.0.1:2379", Endpoint("127.0.0.1", 2379), "http://127.0.0.1:2379"),
        ("http://etcd-1:2379/", Endpoint("etcd-1", 2379), "http://etcd-1:2379"),
        (" [::1]:2379 ", Endpoint("::1", 2379), "http://[::1]:2379"),
        ("https://h:1", Endpoint("h", 1, tls=True), "https://h:1"),
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


def test_several_stand_with_commas_each_once() -> None:
    assert split_endpoints(" a:1, http://b:2,a:1,") == ("a:1", "http://b:2")
    assert split_endpoints(None) == ()
    assert read_endpoints("a:1,b:2", Security()) == ("a:1", "b:2")
    assert read_endpoints("a:1,http://b:2", Security(cacert="ca.pem")) == ("https://a:1", "http://b:2")


@pytest.mark.parametrize(("text", "message"), [(",", "no endpoint is named"), ("a:1,b", "malformed endpoint 'b'")])
def test_none_and_malformed_ones_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_endpoints(text, Security())
