"""The id of a request: whose word counts, and what an id made here is."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkserver.server.proxy.client_address import ProxiedAddress
from forkserver.server.proxy.forwarded_headers import TrustedProxies
from forkserver.server.proxy.request_id import MOST_CHARS, RequestIds, trace_id
from harness.plain_reading import OURS

PROXY, STRANGER, UNIX = ("127.0.0.1", 4711), ("192.0.2.7", 4712), ("",)
TRUST = TrustedProxies(["127.0.0.1", "unix"], [])
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def ids(*fields: str, clock: Any = None) -> RequestIds:
    names = fields or ("x-request-id", "traceparent")
    return RequestIds(TRUST, names, *([clock] if clock else []))


class Clock:
    """Seconds since 1970, which the test sets."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("peer", [PROXY, UNIX])
def test_the_id_of_a_trusted_proxy_is_taken(peer: tuple[Any, ...]) -> None:
    assert ids().of({"HTTP_X_REQUEST_ID": "Root=1-5e/a:b@c;d+e~f_g.h"}, peer) == "Root=1-5e/a:b@c;d+e~f_g.h"


@pytest.mark.parametrize("peer", [STRANGER, ProxiedAddress.of(("", 0), 4), ProxiedAddress.of(("127.0.0.1", 1), 4)])
def test_another_peer_cannot_name_a_request(peer: tuple[Any, ...]) -> None:
    """The last are clients that a PROXY header does not name."""
    assert OURS.fullmatch(ids().of({"HTTP_X_REQUEST_ID": "chosen", "HTTP_TRACEPARENT": PARENT}, peer))


def test_without_trusted_proxies_no_peer_can() -> None:
    assert OURS.fullmatch(RequestIds(None, ["x-request-id"]).of({"HTTP_X_REQUEST_ID": "chosen"}, PROXY))


@pytest.mark.parametrize("bad", ["", "a b", 'a"b', "a\\b", "a,b", "ä", "a\x1b", "a%0a", "a'b", "x" * (MOST_CHARS + 1)])
def test_an_id_that_could_act_in_a_log_is_replaced(bad: str) -> None:
    assert OURS.fullmatch(ids().of({"HTTP_X_REQUEST_ID": bad}, PROXY))


@given(st.text(max_size=80))
def test_whatever_a_proxy_sends_an_id_is_short_and_harmless(text: str) -> None:
    found = ids().of({"HTTP_X_REQUEST_ID": text, "HTTP_TRACEPARENT": text}, PROXY)
    assert 0 < len(found) <= MOST_CHARS
    assert found.isascii()
    assert not set(found) & set(" \"'\\,<>%&$`(){}[]!*?#|^")


def test_the_field_that_is_named_first_goes_first() -> None:
    fields = {"HTTP_TRACEPARENT": PARENT, "HTTP_X_REQUEST_ID": "own"}
    assert ids("x-request-id", "traceparent").of(fields, PROXY) == "own"
    assert ids("traceparent", "x-request-id").of(fields, PROXY) == TRACE
    assert ids("x-correlation-id", "traceparent").of(fields, PROXY) == TRACE


def test_a_bad_field_leaves_the_word_to_the_next_one() -> None:
    assert ids().of({"HTTP_X_REQUEST_ID": "two words", "HTTP_TRACEPARENT": PARENT}, PROXY) == TRACE


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PARENT, TRACE),
        (PARENT.replace("00-", "cc-", 1) + "-more", TRACE),
        (PARENT.replace("00-", "cc-", 1), TRACE),
        (PARENT + "-more", None),
        (PARENT.replace("00-", "ff-", 1), None),
        (PARENT.upper(), None),
        (PARENT.replace(TRACE, "0" * 32), None),
        (PARENT.replace("00f067aa0ba902b7", "0" * 16), None),
        (PARENT[:-1], None),
        (PARENT + "x", None),
        (PARENT.replace("00-", "cc-", 1) + "x", None),
        ("", None),
    ],
)
def test_a_traceparent_gives_its_trace_id_where_it_is_well_formed(text: str, found: str | None) -> None:
    assert trace_id(text) == found


def test_an_id_of_ours_is_a_uuid_with_the_time() -> None:
    clock = Clock()
    made = uuid.UUID(ids(clock=clock).of({}, STRANGER))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == int(clock.now * 1000)


def test_ids_of_ours_sort_by_time_and_none_comes_twice() -> None:
    clock = Clock()
    maker, found = ids(clock=clock), []
    for _ in range(5000):
        clock.now += 0.001
        found.append(maker.of({}, STRANGER))
    assert found == sorted(found)
    clock.now += 0.001
    assert len({maker.of({}, STRANGER) for _ in range(4096)} | set(found)) == 9096


def test_two_processes_make_no_id_twice() -> None:
    """A forked child has all that its parent had."""
    clock = Clock()
    parent, child = ids(clock=clock), ids(clock=clock)
    assert len({each.of({}, STRANGER) for each in (parent, child) for _ in range(2000)}) == 4000
    before = {parent.of({}, STRANGER) for _ in range(4096)}
    parent.reseed()
    assert not before & {parent.of({}, STRANGER) for _ in range(4096)}


def test_a_clock_that_is_set_back_brings_no_id_again() -> None:
    clock = Clock()
    maker = ids(clock=clock)
    before = {maker.of({}, STRANGER) for _ in range(4096)}
    clock.now += 1
    maker.of({}, STRANGER)
    clock.now -= 1
    assert not before & {maker.of({}, STRANGER) for _ in range(4096)}
