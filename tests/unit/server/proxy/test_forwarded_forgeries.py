"""What a client can make up of forwarded fields: it gets through no proxy, and costs no worker its time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forkserver.config.values.ip_allowlist import IpAllowlist
from forkserver.errors import ProtocolError
from forkserver.server.proxy.forwarded_headers import (
    FOR,
    FORWARDED,
    Node,
    TrustedProxies,
    client_of,
    elements,
    node,
    outermost,
)
from harness.forwarded import PEER, TRUSTED, X_FIELDS, forwarded, seen

addresses = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))
is_trusted = IpAllowlist(TRUSTED).have
strangers = addresses.filter(lambda each: not is_trusted(each))
texts = st.text(st.characters(max_codepoint=255), max_size=60)
scraps = st.text(st.sampled_from(list(' \t,;="\\[]:._-for10abunkw')), max_size=60)


@given(st.one_of(texts, scraps), strangers)
@example(",", "1.1.1.1")
@example('"', "1.1.1.1")
def test_no_client_gets_through_x_forwarded_for(forged: str, real: str) -> None:
    """Whatever a client sends, the proxy adds to its end."""
    found = seen(x_forwarded_for=f"{forged}, {real}")
    assert found["REMOTE_ADDR"] == node(real).host
    assert found[FOR] == real


@given(st.one_of(texts, scraps), addresses)
@example(",", "1.1.1.1")
def test_no_client_gets_through_where_every_sender_is_trusted(forged: str, real: str) -> None:
    """The last entry is the proxy's, also where its client is in a private network."""
    assert seen(trusted=["*"], x_forwarded_for=f"{forged}, {real}")["REMOTE_ADDR"] == node(real).host


@given(st.one_of(texts, scraps), strangers)
@example('for="', "1.1.1.1")
@example("for=1.1.1.1;", "2.2.2.2")
def test_no_client_gets_through_forwarded(forged: str, real: str) -> None:
    """The proxy's element is the client, or the request is refused."""
    own = f'for="[{real}]"' if ":" in real else f"for={real}"
    try:
        found = forwarded(f"{forged}, {own}")
    except ProtocolError:
        return
    assert found["REMOTE_ADDR"] == node(real if ":" not in real else f"[{real}]").host
    assert found[FORWARDED] == own


@given(texts, st.lists(addresses, max_size=8), st.sampled_from([PEER, "203.0.113.1", "", None]))
def test_anything_is_read_or_refused(said: str, hosts: list[str], peer: str | None) -> None:
    refusals = []
    for fields in (X_FIELDS, ["forwarded"]):
        everything: dict[str, Any] = dict.fromkeys(
            ("x_forwarded_proto", "x_forwarded_host", "x_forwarded_port", "forwarded"), said
        )
        try:
            found = seen(peer, fields, x_forwarded_for=",".join([*hosts, said]), **everything)
        except ProtocolError as refused:
            refusals.append((fields, refused.status))
            continue
        assert found["REMOTE_ADDR"] == (peer or "") or node(found["REMOTE_ADDR"]).host == found["REMOTE_ADDR"]
    assert refusals in ([], [(["forwarded"], 400)])


@given(
    st.one_of(texts, scraps),
    st.lists(addresses, max_size=8),
    st.sampled_from([PEER, "203.0.113.1"]),
    st.sampled_from([TRUSTED, ("*",), ("*", "10.0.0.0/8")]),
    st.sampled_from(["x-forwarded-for", "x-forwarded-for=whole"]),
)
def test_what_was_read_once_is_read_so_again(
    said: str, hosts: list[str], peer: str, trusted: tuple[str, ...], whole: str
) -> None:
    """An environ is asked twice where the client's target names a host: that must not raise, nor go further back."""
    fields = [*X_FIELDS, whole, "forwarded"]
    trust = TrustedProxies(trusted, fields)
    text, elements = ",".join([*hosts, said]), ",".join([*map('for="{0}";host="{0}"'.format, hosts), said])
    try:
        once = seen(peer, fields, trusted, x_forwarded_for=text, x_forwarded_host=text, forwarded=elements)
    except ProtocolError:
        return
    again = once.copy()
    trust.apply(again, peer)
    assert again == once


@given(st.lists(addresses, min_size=1, max_size=64))
def test_a_list_of_addresses_is_walked_from_its_end(hosts: list[str]) -> None:
    client, _ = client_of(", ".join(hosts), lambda host: host in [node(each).host for each in hosts[1:]])
    expected = next((each for each in reversed(hosts) if each not in hosts[1:]), hosts[0])
    assert client == node(expected)


quotable = st.text(st.characters(min_codepoint=32, max_codepoint=126))


@given(st.lists(st.dictionaries(st.sampled_from(["for", "by", "host", "proto", "ext"]), quotable, min_size=1)))
def test_quoted_elements_are_read_as_they_were_written(written: list[dict[str, str]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ", ".join(";".join(f"{key}={quoted(value)}" for key, value in pairs.items()) for pairs in written)
    assert [element.pairs for element in elements(text)] == written


class Sliced(str):
    """A string that counts the characters that were copied out of it."""

    copied = 0

    def __getitem__(self, key: object) -> str:
        part = super().__getitem__(key)  # type: ignore[index]
        self.copied += len(part)
        return part


@pytest.mark.parametrize("entry", ["", "10.0.0.1"])
def test_a_long_list_of_clients_is_read_once(entry: str) -> None:
    """Any client may send one through a proxy: at 64 KiB of commas, its square is a tenth of a second of all others."""
    text = Sliced(",".join([entry] * 10_000))
    client_of(text, is_trusted)
    assert text.copied <= 2 * len(text)


def test_no_more_entries_are_looked_at_than_proxies_stand_in_a_row() -> None:
    """A client within a trusted network can write thousands of its addresses; each takes a look at every network."""
    hosts = [f"10.0.{number}.1" for number in range(200)]
    asked: list[str] = []

    def believes(host: str) -> bool:
        asked.append(host)
        return True

    client, written = client_of(", ".join(hosts), believes)
    assert (client, written) == (Node(hosts[-64], ""), ", ".join(hosts[-64:]))
    assert outermost(elements(", ".join(f"for={host}" for host in hosts)), believes) == len(hosts) - 65
    assert len(asked) == 128


LONG_FORWARDED = {
    "elements": "for=10.0.0.1," * 600,
    "parameters": ";".join(f"a{number}=b" for number in range(500)),
    "commas": "," * 500,
    "semicolons": ";" * 500,
    "characters": 'for="' + "\\x" * 5000 + '"',
}


@pytest.mark.parametrize("text", LONG_FORWARDED.values(), ids=LONG_FORWARDED)
def test_a_forwarded_that_no_row_of_proxies_writes_is_refused(text: str) -> None:
    """It is read from its start, for a quoted string may hold a comma, and 53 KiB of it kept a worker for 30 ms."""
    with pytest.raises(ProtocolError) as caught:
        seen(fields=("forwarded",), forwarded=text)
    assert caught.value.status == 400


def test_a_forwarded_of_a_hundred_proxies_that_say_all_they_can_is_read() -> None:
    one = "for=10.0.0.1;by=10.0.0.2;host=a.example;proto=https"
    text = ", ".join(["for=192.0.2.1;by=10.0.0.2;host=a.example;proto=https", *[one] * 50, *["for=10.0.0.1"] * 49])
    assert len(elements(text)) == 100
    assert seen(fields=("forwarded",), forwarded=text)["HTTPS"] == "on"


@given(st.text(alphabet='\\\\\\"ab, ', max_size=12))
@example(r"\a\\b")
@example(r"\\\a")
def test_a_backslash_stands_before_the_character_that_is_meant(meant: str) -> None:
    """RFC 9110, section 5.6.4."""
    written = "".join(f"\\{character}" for character in meant)
    (element,) = elements(f'for="{written}"')
    assert element.pairs == {"for": meant}


def test_a_list_that_ends_with_too_many_empty_entries_names_an_unknown_client() -> None:
    """It does name one, before them: the proxy's own address, which may have rights, would be wrong."""
    assert seen(x_forwarded_for="198.51.100.7" + "," * 100)["REMOTE_ADDR"] == ""
