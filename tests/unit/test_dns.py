"""DNS SRV: what etcdctl would find, asked of nameservers of our own over real sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.base import dns
from cluster.base.dns import NoNameserver, Resolver, Server, Service, endpoints_of
from cluster.base.errors import ClusterError, UsageError
from tests.support.command import called
from tests.support.nameserver import Manner, nameserver
from tests.support.ports import closed_port
from tests.support.waiting import HANG_S

PLAIN, TLS = "_etcd-client._tcp.example.com.", "_etcd-client-ssl._tcp.example.com."
ONE = [(0, 0, 2379, "n1.example.com.")]


def at(*ports: int, search: tuple[str, ...] = (), ndots: int = 1) -> Resolver:
    return Resolver(tuple(("127.0.0.1", port) for port in ports), search, ndots)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for answers as long as it takes."""
    monkeypatch.setattr(dns, "ANSWER_S", HANG_S)


def questions(monkeypatch: pytest.MonkeyPatch, silent: int = 0) -> list[int]:
    """Return the ports of the nameservers that are asked from now on; wait shortly for one that says nothing."""
    real = dns._ask
    asked: list[int] = []

    def ask(server: Server, query: bytes) -> list[Service]:
        asked.append(server[1])
        with monkeypatch.context() as waits:
            waits.setattr(dns, "ANSWER_S", 0.1 if server[1] == silent else HANG_S)
            return real(server, query)

    monkeypatch.setattr(dns, "_ask", ask)
    return asked


def test_both_services_count_tls_first_in_the_order_of_priority_and_weight() -> None:
    records = {
        PLAIN: [(0, 0, 2381, "n3.example.com.")],
        TLS: [(20, 0, 4, "d."), (10, 1, 3, "c."), (10, 5, 2379, "n1.example.com."), (0, 0, 1, "a.")],
    }
    with nameserver(records) as server:
        assert endpoints_of("example.com", resolver=at(server.port)) == [
            "https://a.:1", "https://n1.example.com.:2379", "https://c.:3", "https://d.:4", "http://n3.example.com.:2381",
        ]  # fmt: skip
        assert server.asked == [("udp", TLS), ("udp", PLAIN)]


def test_a_name_is_a_suffix_of_both_services() -> None:
    with nameserver({"_etcd-client-blue._tcp.example.com.": ONE, PLAIN: [(0, 0, 1, "x.")]}) as server:
        assert endpoints_of("example.com", "blue", at(server.port)) == ["http://n1.example.com.:2379"]
        assert [name for _, name in server.asked] == [
            "_etcd-client-ssl-blue._tcp.example.com.", "_etcd-client-blue._tcp.example.com."
        ]  # fmt: skip


def test_an_answer_that_is_cut_is_asked_for_over_tcp() -> None:
    many = [(number, 0, 2379, f"n{number}.{'x' * 50}.example.com.") for number in range(60)]
    with nameserver({PLAIN: many}, "cut") as server:
        assert len(endpoints_of("example.com", resolver=at(server.port))) == 60
        assert ("tcp", PLAIN) in server.asked


def test_an_answer_to_another_question_is_not_taken() -> None:
    with nameserver({PLAIN: ONE}, "stranger") as server:
        assert endpoints_of("example.com", resolver=at(server.port)) == ["http://n1.example.com.:2379"]


@pytest.mark.parametrize("manner", ["refusing", "silent", "garbled"])
def test_the_next_nameserver_is_asked(manner: Manner, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = int(closed_port().rpartition(":")[2])
    with nameserver({PLAIN: ONE}, manner) as bad, nameserver({PLAIN: ONE}) as good:
        asked = questions(monkeypatch, bad.port if manner == "silent" else 0)
        found = endpoints_of("example.com", resolver=at(dead, bad.port, good.port))
        assert found == ["http://n1.example.com.:2379"]
        # One that says nothing comes last from then on.
        assert asked.count(bad.port) == (1 if manner == "silent" else 2)


def test_a_nameserver_that_says_nothing_is_not_asked_for_each_suffix_and_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with nameserver({}, "silent") as server:
        asked = questions(monkeypatch, server.port)
        with pytest.raises(ClusterError, match=r"^no endpoints of a\.b by DNS SRV: no nameserver .*: no answer$"):
            endpoints_of("a.b", resolver=at(server.port, search=("one", "two")))
        assert asked == [server.port] * dns.ATTEMPTS


def test_a_nameserver_that_refuses_one_name_is_asked_for_the_next() -> None:
    with nameserver({}, "refusing") as server:
        with pytest.raises(ClusterError, match=r"_etcd-client\._tcp\.a\.b: no nameserver answers: .*: REFUSED$"):
            endpoints_of("a.b", resolver=at(server.port, search=("one", "two")))
        assert len(server.asked) == dns.ATTEMPTS * 2 * 3


def test_a_nameserver_that_answers_over_udp_alone_is_asked_for_the_next_name() -> None:
    with nameserver({PLAIN: ONE}, "deaf") as server:
        with pytest.raises(ClusterError, match=r"_etcd-client\._tcp\.example\.com: no nameserver .*: over TCP: "):
            endpoints_of("example.com", resolver=at(server.port))
        assert len(server.asked) == dns.ATTEMPTS * 2


def test_the_target_that_says_that_there_is_no_such_service() -> None:
    with (
        nameserver({PLAIN: [(0, 0, 0, ".")]}) as server,
        pytest.raises(ClusterError, match=r"_etcd-client\._tcp\.example\.com: no such record"),
    ):
        endpoints_of("example.com", resolver=at(server.port))


def test_what_is_not_there_is_one_line_with_both_names() -> None:
    with nameserver({}) as server, pytest.raises(ClusterError) as caught:
        endpoints_of("example.com", resolver=at(server.port))
    where = f"NXDOMAIN from 127.0.0.1:{server.port}"
    assert str(caught.value) == (
        f"no endpoints of example.com by DNS SRV: _etcd-client-ssl._tcp.example.com: {where}; "
        f"_etcd-client._tcp.example.com: {where}"
    )


def test_a_nameserver_that_is_not_there_is_named() -> None:
    port = int(closed_port().rpartition(":")[2])
    with pytest.raises(NoNameserver, match=rf"^no nameserver answers: 127\.0\.0\.1:{port}: Connection refused$"):
        at(port).services("x.example.com")


@pytest.mark.parametrize("domain", ["", "a..b", "x" * 64, ".", "a." * 130])
def test_what_is_no_domain(domain: str) -> None:
    with pytest.raises(UsageError, match="is not a domain name"):
        endpoints_of(domain, resolver=at(1))


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("a.b", ["a.b.", "a.b.one.", "a.b.two."]), ("a", ["a.one.", "a.two.", "a."]), ("a.b.", ["a.b."]),
        ("a.b.c", ["a.b.c.", "a.b.c.one.", "a.b.c.two."]),
    ],
)  # fmt: skip
def test_suffixes_are_tried_as_resolv_conf_says(name: str, names: list[str]) -> None:
    assert list(at(1, search=("one", "two.")).names(name)) == names


def test_a_domain_within_the_search_list_is_found() -> None:
    """As in a pod of Kubernetes, where the service's domain is short and ndots is 5."""
    with nameserver({"_etcd-client._tcp.etcd.svc.cluster.local.": ONE}) as server:
        resolver = at(server.port, search=("default.svc.cluster.local", "svc.cluster.local"), ndots=5)
        assert endpoints_of("etcd", resolver=resolver) == ["http://n1.example.com.:2379"]


@pytest.mark.parametrize(
    ("text", "resolver"),
    [
        ("", Resolver((("127.0.0.1", 53),))),
        ("nameserver 10.0.0.1\nnameserver ::1\n", Resolver((("10.0.0.1", 53), ("::1", 53)))),
        (
            "# a\nnameserver 10.0.0.1\nsearch a.b c.d\noptions timeout:1 ndots:5\n",
            Resolver((("10.0.0.1", 53),), ("a.b", "c.d"), 5),
        ),
        ("search .\nnameserver\noptions ndots:x\nnonsense", Resolver((("127.0.0.1", 53),))),
    ],
)
def test_resolv_conf(text: str, resolver: Resolver) -> None:
    assert Resolver.from_text(text) == resolver


def test_where_the_system_says_to_ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(dns.NAMESERVER, raising=False)
    monkeypatch.setattr(dns, "RESOLV_CONF", tmp_path / "resolv.conf")
    assert Resolver.of_system().servers == (("127.0.0.1", 53),)
    (tmp_path / "resolv.conf").write_text("nameserver 10.0.0.9\n")
    assert Resolver.of_system().servers == (("10.0.0.9", 53),)
    for text, server in (
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("[::1]:53", ("::1", 53)),
        ("10.1.1.1", ("10.1.1.1", 53)),
    ):
        monkeypatch.setenv(dns.NAMESERVER, text)
        assert Resolver.of_system().servers == (server,)
    monkeypatch.setenv(dns.NAMESERVER, "http://x/y")
    with pytest.raises(UsageError, match="write the address of a nameserver"):
        Resolver.of_system()


@pytest.mark.parametrize(
    "words",
    [
        ("bench", "--backend", "embedded"), ("chaos", "--backend", "embedded"), ("cluster", "test", "--nodes", "3"),
        ("viz", "--type", "timeline", "--observed", "--log-timezone", "UTC"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_that_exclude_each_other_are_refused_before_anybody_is_asked(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAFTLOAD_NAMESERVER", closed_port())
    done = called(capsys, *words, "--discovery-srv", "example.com")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "example.com" not in done.stderr
