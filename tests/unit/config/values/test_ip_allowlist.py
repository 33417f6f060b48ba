"""Which peers a list of addresses and networks names."""

from __future__ import annotations

import pytest

from forkserver.config.values.ip_allowlist import IpAllowlist, as_listed, canonical, is_public

LISTED = IpAllowlist(["127.0.0.1", "10.0.0.0/8", "2001:db8::1", "::ffff:192.0.2.0/120", "unix"])


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.1.2.3", "2001:db8::1", "2001:0db8:0::1", "::ffff:127.0.0.1", "::ffff:10.1.2.3", "192.0.2.7", ""],
)
def test_a_peer_is_known_however_its_address_is_written(host: str) -> None:
    """A listener on [::] sees IPv4 clients as IPv6; "" is the peer of a Unix socket."""
    assert LISTED.have(host)
    assert LISTED.name(host)


@pytest.mark.parametrize("host", ["127.0.0.2", "11.0.0.1", "2001:db8::2", "192.0.3.1", "not an address", "10.0.0"])
def test_another_peer_is_not(host: str) -> None:
    assert not LISTED.have(host)


def test_a_link_local_address_is_compared_without_its_zone() -> None:
    assert IpAllowlist(["fe80::1"]).have("fe80::1%eth0")


def test_unix_is_not_meant_unless_it_is_listed() -> None:
    assert not IpAllowlist(["127.0.0.1"]).have("")


def test_a_star_lets_every_sender_in_and_names_none() -> None:
    """What depends on a proxy that is named must not follow from a star."""
    every = IpAllowlist(["*", "10.0.0.1"])
    assert every.any_sender
    assert every.have("203.0.113.9")
    assert not every.name("203.0.113.9")
    assert every.name("10.0.0.1")


def test_an_empty_list_has_no_peer() -> None:
    assert not IpAllowlist([]).have("127.0.0.1")
    assert not IpAllowlist([]).any_sender


@pytest.mark.parametrize("text", ["10.0.0.1/8", "300.0.0.1", "localhost", "10.0.0.0/33", ""])
def test_what_is_no_address_and_no_network_is_refused(text: str) -> None:
    """Bits behind the prefix: either the address or the prefix is a mistake."""
    with pytest.raises(ValueError, match=r".*"):
        IpAllowlist([text])
    with pytest.raises(ValueError, match=r".*"):
        canonical(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("2001:0DB8::1", "2001:db8::1"), ("10.0.0.0/255.0.0.0", "10.0.0.0/8"), ("unix", "unix"), ("*", "*")],
)
def test_an_item_has_one_spelling(text: str, shown: str) -> None:
    assert canonical(text) == shown


@pytest.mark.parametrize(
    ("host", "written"),
    [("", "unix"), ("::ffff:10.0.0.1", "10.0.0.1"), ("fe80::1%eth0", "fe80::1"), ("proxy.example", None)],
)
def test_a_peer_is_told_as_it_would_be_listed(host: str, written: str | None) -> None:
    assert as_listed(host) == written


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("8.8.8.8", True),
        ("::ffff:8.8.8.8", True),
        ("10.0.0.1", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("", False),
    ],
)
def test_an_address_of_the_internet_is_told_from_the_operators_own(host: str, public: bool) -> None:
    assert is_public(host) is public
