"""Which client the application sees behind proxies, and what a client can make up: fields in, environ out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from forkserver.errors import ProtocolError
from forkserver.http1.headers import SCRIPT_NAME
from forkserver.server.proxy.forwarded_headers import (
    FOR,
    FORWARDED,
    HIDDEN,
    KEYS,
    Node,
    TrustedProxies,
    elements,
    node,
)
from harness.forwarded import PEER, TRUSTED, X_FIELDS, Heard, forwarded, seen


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("192.0.2.1", ("192.0.2.1", "")),
        ("192.0.2.1:4711", ("192.0.2.1", "4711")),
        ("2001:db8::1", ("2001:db8::1", "")),
        ("[2001:DB8:0::1]", ("2001:db8::1", "")),
        ("[2001:db8::1]:4711", ("2001:db8::1", "4711")),
        ("::ffff:192.0.2.1", ("192.0.2.1", "")),
        ("192.0.2.1:_port", ("192.0.2.1", "")),
        ("192.0.2.1:0", ("192.0.2.1", "")),
        ("192.0.2.1:65536", ("192.0.2.1", "")),
        *(
            (text, HIDDEN)
            for text in ("", "unknown", "_hidden", "_hidden:80", "localhost", "256.1.1.1", "1.2.3", "::1::")
        ),
        *(
            (text, HIDDEN)
            for text in ("010.1.1.1", "1.2.3.4:", "[::1", "::1]", "[1.2.3.4]", "1.2.3.4 5", "fe80::1%eth0")
        ),
        *((text, HIDDEN) for text in ("1.2.3.4:99999999", "[::1]:x", "\u0661.2.3.4", "1.2.3.4\n", '"1.2.3.4"')),
    ],
)
def test_a_client_is_an_address_or_hidden(text: str, named: tuple[str, str]) -> None:
    """What is no address to the letter is not guessed at: a client may have made it up to be guessed at."""
    assert node(text) == Node(*named)


def test_the_client_is_the_last_that_is_not_trusted() -> None:
    found = seen(x_forwarded_for="203.0.113.9, 198.51.100.7, 10.0.0.3,10.0.0.2")
    assert found["REMOTE_ADDR"] == "198.51.100.7"
    assert "REMOTE_PORT" not in found  # of the proxy, not of the client


def test_what_the_client_made_up_is_not_in_the_list_either() -> None:
    """Applications that take the first entry, as many do, are right too."""
    assert seen(x_forwarded_for="forged, 198.51.100.7:99,\t10.0.0.2")[FOR] == "198.51.100.7:99,\t10.0.0.2"


def test_the_port_of_the_client_comes_with_it() -> None:
    assert seen(x_forwarded_for="[2001:db9::1]:99")["REMOTE_PORT"] == "99"


def test_of_trusted_entries_alone_the_first_is_the_client() -> None:
    assert seen(x_forwarded_for="10.9.9.9, 10.0.0.2")["REMOTE_ADDR"] == "10.9.9.9"


@pytest.mark.parametrize("entry", ["unknown", "_secret", "garbage", "999.0.0.1"])
def test_a_client_that_the_proxy_does_not_name_has_no_address(entry: str) -> None:
    """The proxy's own address has rights in many applications; an unknown client must not have them."""
    found = seen(x_forwarded_for=f"203.0.113.9, {entry}, 10.0.0.2")
    assert found["REMOTE_ADDR"] == ""
    assert found[FOR] == f"{entry}, 10.0.0.2"


def test_an_empty_list_says_nothing() -> None:
    found = seen(x_forwarded_for=" ,, ")
    assert found["REMOTE_ADDR"] == PEER
    assert FOR not in found


@pytest.mark.parametrize("peer", ["203.0.113.1", "::1", None, "garbage"])
def test_fields_of_untrusted_peers_are_gone(peer: str | None) -> None:
    """Not only ignored: an application that reads them itself would believe them."""
    forged: dict[str, Any] = {
        "forwarded": "for=1.1.1.1",
        "x_forwarded_for": "1.1.1.1",
        "x_forwarded_proto": "https",
        "x_forwarded_host": "evil",
        "x_forwarded_port": "443",
    }
    for fields in (X_FIELDS, ("forwarded",), ()):
        assert seen(peer, fields, **forged) == seen(peer, fields)


def test_fields_that_the_proxy_is_not_known_to_set_are_gone() -> None:
    """A proxy that sets one of them passes on what a client says in the others."""
    found = seen(
        fields=["x-forwarded-for"], x_forwarded_for="1.1.1.1", x_forwarded_host="evil", forwarded="for=2.2.2.2"
    )
    assert found["REMOTE_ADDR"] == "1.1.1.1"
    assert found["HTTP_HOST"] == "own"
    assert not (KEYS - {FOR}) & set(found)


def test_a_proxy_on_a_unix_socket_can_be_trusted() -> None:
    assert seen("", x_forwarded_for="1.1.1.1")["REMOTE_ADDR"] == "1.1.1.1"
    assert seen("", trusted=["127.0.0.1"], x_forwarded_for="1.1.1.1")["REMOTE_ADDR"] == ""


def test_an_ipv4_proxy_is_known_on_an_ipv6_listener() -> None:
    assert seen("::ffff:10.0.0.1", x_forwarded_for="1.1.1.1")["REMOTE_ADDR"] == "1.1.1.1"
    assert seen("10.0.0.1", trusted=["::ffff:10.0.0.0/104"], x_forwarded_for="1.1.1.1")["REMOTE_ADDR"] == "1.1.1.1"


# Every sender believed


def test_with_every_sender_trusted_the_last_entry_is_the_client() -> None:
    """A client can write all entries before the one that the proxy has added."""
    found = seen("203.0.113.5", trusted=["*"], x_forwarded_for="1.1.1.1, 2.2.2.2")
    assert (found["REMOTE_ADDR"], found[FOR]) == ("2.2.2.2", "2.2.2.2")
    found = seen("203.0.113.5", ["forwarded"], ["*"], forwarded="for=1.1.1.1;proto=https, for=2.2.2.2;proto=http")
    assert (found["REMOTE_ADDR"], found.get("HTTPS")) == ("2.2.2.2", None)


def test_proxies_that_are_listed_besides_are_passed_over() -> None:
    found = seen("203.0.113.5", trusted=["*", "10.0.0.0/8"], x_forwarded_for="1.1.1.1, 2.2.2.2, 10.0.0.3")
    assert (found["REMOTE_ADDR"], found[FOR]) == ("2.2.2.2", "2.2.2.2, 10.0.0.3")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("2.2.2.2", []),
        ("10.0.0.3", []),
        ("1.1.1.1, 2.2.2.2", []),
        ("1.1.1.1, unknown", []),
        ("1.1.1.1, 10.0.0.3", [("203.0.113.5", "10.0.0.3")]),
        ("1.1.1.1, fd00::1", [("203.0.113.5", "fd00::1")]),
    ],
)
def test_a_client_that_may_be_another_proxy_is_told_of(said: str, told: list[tuple[str, str]]) -> None:
    """A private address behind another one is rather a proxy's than a client's."""
    heard = Heard()
    seen("203.0.113.5", trusted=["*"], heard=heard, x_forwarded_for=said)
    assert heard.inner == told
    listed = Heard()
    seen(PEER, heard=listed, x_forwarded_for=said)
    assert listed.inner == []


# Fields of senders that are not believed


@pytest.mark.parametrize("peer", ["203.0.113.1", "::1", "garbage"])
def test_fields_that_would_count_are_told_of_when_they_are_dropped(peer: str) -> None:
    heard = Heard()
    seen(peer, ["x-forwarded-for"], heard=heard, x_forwarded_for="1.1.1.1", x_forwarded_host="a")
    seen(peer, ["x-forwarded-for"], heard=heard, x_forwarded_host="a", forwarded="for=1.1.1.1")
    seen(peer, heard=heard)
    assert heard.fields == [(peer, {FOR})]


def test_nothing_is_told_of_fields_that_no_setting_would_make_count() -> None:
    heard = Heard()
    seen(PEER, ["x-forwarded-for"], heard=heard, x_forwarded_for="1.1.1.1", x_forwarded_host="a")
    seen(None, heard=heard, x_forwarded_for="1.1.1.1")  # its writer is not known
    assert heard.fields == []


# What the application may have besides


@pytest.mark.parametrize("trusted", [TRUSTED, ["*"]])
def test_the_list_is_kept_whole_where_it_is_asked_for(trusted: list[str]) -> None:
    """ProxyFix(x_for=2) counts from the end, and knows of proxies that the settings do not."""
    text = "6.6.6.6, 203.0.113.9,198.51.100.7"
    found = seen(fields=["x-forwarded-for=whole"], trusted=trusted, x_forwarded_for=text)
    assert found["REMOTE_ADDR"] == "198.51.100.7"
    assert found[FOR] == text


def test_a_whole_list_of_an_untrusted_sender_is_gone_all_the_same() -> None:
    heard = Heard()
    assert FOR not in seen("203.0.113.1", ["x-forwarded-for=whole"], heard=heard, x_forwarded_for="1.1.1.1")
    assert heard.fields == [("203.0.113.1", {FOR})]
    assert FOR not in seen(fields=["x-forwarded-for=whole"], x_forwarded_for=" ,, ")


def script_name(said: str, peer: str | None = PEER, fields: Iterable[str] = ("script_name",)) -> dict[str, str]:
    environ = {"REMOTE_ADDR": peer or "", SCRIPT_NAME: said}
    TrustedProxies(TRUSTED, fields).apply(environ, peer)
    return environ


@pytest.mark.parametrize(
    ("said", "root"),
    [("/shop", "/shop"), ("/a/b", "/a/b"), ("/shop/", "/shop"), ("/", ""), ("", ""), ("/\xe4", "/\xe4")],
)
def test_a_trusted_proxy_says_the_path_of_the_application(said: str, root: str) -> None:
    assert script_name(said)[SCRIPT_NAME] == root


@pytest.mark.parametrize(
    "said", ["shop", "//evil.example", "/\\evil.example", "/a//b", "/a?b", "/a#b", "/%61", "/a b", "http://evil/"]
)
def test_a_path_that_could_mean_something_else_refuses_the_request(said: str) -> None:
    """A link that begins with // leads to another site; for a browser, so does one with a backslash."""
    with pytest.raises(ProtocolError) as refused:
        script_name(said)
    assert refused.value.status == 400


@pytest.mark.parametrize("peer", ["203.0.113.1", None])
def test_the_path_of_an_untrusted_sender_is_gone(peer: str | None) -> None:
    assert SCRIPT_NAME not in script_name("/evil", peer)
    assert SCRIPT_NAME not in script_name("//not even a path", peer)


# One value


@pytest.mark.parametrize(
    ("said", "https"), [("https", True), ("HTTPS", True), ("http", False), ("http, https", True), ("https,http", False)]
)
def test_the_scheme_is_what_the_nearest_proxy_says(said: str, https: bool) -> None:
    """The entries before the last may be the client's."""
    found = seen(x_forwarded_proto=said)
    assert (found.get("HTTPS") == "on") is https
    assert "," not in found["HTTP_X_FORWARDED_PROTO"]


@pytest.mark.parametrize("said", ["", "ftp", "https:", "on", "https http"])
def test_a_scheme_that_is_none_is_gone(said: str) -> None:
    assert seen(x_forwarded_proto=said) == seen()


def test_host_and_port_are_taken_over() -> None:
    found = seen(x_forwarded_host="evil, shop.example:8443", x_forwarded_port="8443")
    assert found["HTTP_HOST"] == found["HTTP_X_FORWARDED_HOST"] == "shop.example:8443"
    assert found["SERVER_PORT"] == "8443"


@pytest.mark.parametrize("said", ["", "a b", "a/b", "user@a", "a:99999", "[::1", "ä"])
def test_a_host_that_is_none_is_gone(said: str) -> None:
    assert seen(x_forwarded_host=said) == seen()


@pytest.mark.parametrize("said", ["", "0", "65536", "-1", "80x", "1234567", "¹"])
def test_a_port_that_is_none_is_gone(said: str) -> None:
    assert seen(x_forwarded_port=said) == seen()


# Forwarded


def test_what_stands_in_quotes_is_one_value() -> None:
    text = 'for="[2001:db9::1]:99";host="a,b;c" , , For=unknown;by=_x;'
    assert [element.pairs for element in elements(text)] == [
        {"for": "[2001:db9::1]:99", "host": "a,b;c"},
        {"for": "unknown", "by": "_x"},
    ]


def test_what_the_outermost_trusted_proxy_wrote_is_taken() -> None:
    """Its scheme and host are those that the client used; those of the inner hops are our own network's."""
    found = forwarded(
        'for=203.0.113.9;proto=ftp, for="198.51.100.7:99";proto=https;host=shop.example, for=10.0.0.2;proto=http;host=x'
    )
    assert (found["REMOTE_ADDR"], found["REMOTE_PORT"]) == ("198.51.100.7", "99")
    assert (found["HTTPS"], found["HTTP_HOST"]) == ("on", "shop.example")
    assert found[FORWARDED].startswith('for="198.51.100.7:99"')


@pytest.mark.parametrize("text", ["for=unknown", 'for="_x";proto=https', "for=garbage"])
def test_a_client_hidden_in_forwarded_has_no_address(text: str) -> None:
    assert forwarded(text)["REMOTE_ADDR"] == ""


@pytest.mark.parametrize(
    "text",
    [
        'for="1.1.1.1, for=2.2.2.2',  # the client's quote would swallow what the proxy adds
        'for="1.1.1.1\\", for=2.2.2.2',
        'for=", for="[2001:db9::1]:99"',
        "for=1.1.1.1;for=2.2.2.2",
        "for=1.1.1.1;FOR=2.2.2.2",
        "for",
        "for=",
        "=1.1.1.1",
        "for = 1.1.1.1",
        "for=1.1.1.1 for=2.2.2.2",
        'for="1.1.1.1"x',
    ],
)
def test_a_forwarded_that_cannot_be_read_refuses_the_request(text: str) -> None:
    """To drop it would make the client seem to be the proxy."""
    with pytest.raises(ProtocolError) as refused:
        forwarded(text)
    assert refused.value.status == 400
    assert FORWARDED not in forwarded(text, "203.0.113.1")  # of an untrusted peer it is not read
