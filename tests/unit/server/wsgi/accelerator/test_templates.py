"""An environ copied from a template is the one that would have been built, and has nothing of another request."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from forkserver.http1.headers import HeadLimits
from forkserver.server.proxy.request_id import VARIABLE
from harness.plain_reading import BASE, PROXY, STRANGER, UNIX, BothReaders

pytestmark = pytest.mark.extension


def head(*fields: str, line: str = "GET /a HTTP/1.1") -> bytes:
    return "\r\n".join([line, "Host: a.example", *fields, "", ""]).encode("latin-1")


SHAPES = (
    (PROXY, ()),
    (STRANGER, ("Accept: text/html;q=0.9", "Cookie: session={0}")),
    (STRANGER, ("Cookie: session={0}", "Accept: text/html;q=0.9")),
    (PROXY, ("X-Forwarded-For: 203.0.113.{0}", "X-Forwarded-Proto: https", "X-Request-Id: {0}-{0}")),
    (PROXY, ("X-Forwarded-For: 203.0.113.{0}", "X-Forwarded-Proto: http", "X-Request-Id: {0}-{0}")),
    (PROXY, ("X-Forwarded-For: 203.0.113.{0}", "X-Request-Id: {0}-{0}")),
    (UNIX, ("Accept-Language: en-{0}", "Referer: https://{0}.example")),
    (PROXY, ("X-Unheard-Of: {0}",)),
    (PROXY, ("Accept-Language: en-{0}, en;q=0.7", "Accept: text/html;q=0.9")),
)
BASES = (
    {},
    {"base": {**BASE, "HTTPS": "on", "REMOTE_PORT": "1"}},
    {"names": ("a.example", "8080")},
    {"extra": {"HTTP_ACCEPT": "of TLS", "SSL_CLIENT": "one"}},
)


@pytest.mark.parametrize("settings", BASES, ids=("plain", "https", "names", "extra"))
def test_a_head_whose_shape_came_before_is_read_as_the_first_one(settings: Any) -> None:
    both = BothReaders(**settings)
    for peer, fields in SHAPES:
        for number in range(4):
            for line in (f"GET /{number}?a={number}", f"PUT /{number}", f"GET /%6{number}"):
                for version in ("HTTP/1.1", "HTTP/1.1", "HTTP/1.0"):
                    made = (field.format(number) for field in fields)
                    assert both.check(head(*made, line=f"{line} {version}"), peer)
    for number in range(4 * len(SHAPES)):
        peer, fields = SHAPES[number % len(SHAPES)]
        assert both.check(head(*(field.format(number) for field in fields)), peer)


def test_a_shape_may_come_of_any_peer() -> None:
    both = BothReaders()
    for peer in (STRANGER, STRANGER, UNIX, UNIX, PROXY, STRANGER, UNIX):
        assert both.check(head("Accept: text/html;q=0.9"), peer)


ORDINARY = (
    "accept", "accept-charset", "accept-encoding", "accept-language", "cache-control", "cookie", "dnt", "from",
    "if-match", "if-modified-since", "if-none-match", "keep-alive", "origin", "pragma", "priority", "range",
    "sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site",
    "sec-fetch-user", "sec-gpc", "te", "upgrade-insecure-requests", "via", "x-csrftoken", "x-real-ip",
    "x-requested-with", "referer", "user-agent", "tracestate", "upgrade", "x-request-id", "x-correlation-id",
    "traceparent", "x-amzn-trace-id",
)  # fmt: skip


def test_heads_of_many_fields_are_read_alike_each_time() -> None:
    """One of more than thirty has no template."""
    both = BothReaders(HeadLimits(request_line=100, fields=100, field_size=100, head=8000))
    for count in range(27, len(ORDINARY) + 1):
        for number in range(3):
            assert both.check(head(*(f"{name}: {number} of {name}" for name in ORDINARY[:count])))


def test_what_the_base_has_of_late_is_in_each_environ() -> None:
    both = BothReaders()
    for number in range(4):
        for _ in range(3):
            assert both.check(head("Accept: text/html;q=0.9"))
        both.base.set("wsgi.errors", f"errors {number}")
        both.base.follow({**both.base.source, f"NEW_{number}": "new"})


def test_what_an_application_does_to_its_environ_is_not_in_the_next_one() -> None:
    both = BothReaders()
    for _ in range(4):
        request = both.by_extension(head("Accept: text/html;q=0.9", "Cookie: session=abcdef0123"), PROXY)
        request.environ["HTTP_ACCEPT"] = request.environ["REQUEST_METHOD"] = "changed"
        del request.environ["HTTP_COOKIE"]
        request.finish()
        assert both.check(head("Accept: text/html;q=0.9", "Cookie: session=abcdef0123"))


def test_nothing_that_one_client_alone_says_is_kept_for_the_next_one() -> None:
    both = BothReaders()
    data = head("Accept: text/html;q=0.9", "Cookie: session=abcdef0123", line="GET /secret?secret HTTP/1.1")
    for _ in range(3):
        assert both.check(data)
    kept = [each for each in gc.get_referents(both.context) if isinstance(each, dict) and "HTTP_COOKIE" in each]
    assert len(kept) == 1
    for key in ("HTTP_COOKIE", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "RAW_URI", "REMOTE_ADDR", "REMOTE_PORT"):
        assert kept[0][key] is None, key
    for key in (VARIABLE, "wsgi.input", "wsgi.early_hints"):
        assert kept[0][key] is None, key


def test_what_tls_says_of_one_client_is_not_said_of_the_next_one() -> None:
    both = BothReaders()
    for extra in ({"SSL_CLIENT": "one"}, None, {"SSL_CIPHER": "other", "HTTP_ACCEPT": "of TLS"}, None):
        both.extra = extra
        for _ in range(3):
            assert both.check(head("Accept: text/html;q=0.9"))
