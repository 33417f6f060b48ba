"""The requested path, divided into SCRIPT_NAME and PATH_INFO."""

from __future__ import annotations

from typing import Any

import pytest

from forkserver.http1.headers import SCRIPT_NAME
from forkserver.server.wsgi.script_name import ScriptName
from harness.asking import ok


def divided(root: str | None, path: str, **said: str) -> tuple[str | None, str]:
    """SCRIPT_NAME and PATH_INFO as the application meets them."""
    environ: dict[str, Any] = {"PATH_INFO": path, **said}

    def app(seen: dict[str, Any], start_response: Any) -> Any:
        assert SCRIPT_NAME not in seen, "the field itself is not for the application"
        return ok(seen, start_response)

    assert b"".join(ScriptName(app, root)(environ, lambda *_: None)) == b"ok"
    return environ.get("SCRIPT_NAME"), environ["PATH_INFO"]


@pytest.mark.parametrize(
    ("path", "rest"),
    [("/shop", ""), ("/shop/", "/"), ("/shop/cart", "/cart"), ("/cart", "/cart"), ("/shopping", "/shopping"),
     ("/shop/shop", "/shop"), ("", ""), ("/", "/")],
)  # fmt: skip
def test_the_root_is_cut_off_where_the_proxy_has_not_done_so(path: str, rest: str) -> None:
    assert divided("/shop", path) == ("/shop", rest)


def test_a_root_beyond_ascii_is_as_pep_3333_has_paths() -> None:
    assert divided("/ä", "/\xc3\xa4/x") == ("/\xc3\xa4", "/x")


def test_the_field_of_a_trusted_proxy_goes_before_the_setting() -> None:
    assert divided("/shop", "/blog/1", **{SCRIPT_NAME: "/blog"}) == ("/blog", "/1")
    assert divided(None, "/blog/1", **{SCRIPT_NAME: "/blog"}) == ("/blog", "/1")
    assert divided("/shop", "/shop/1", **{SCRIPT_NAME: ""}) == ("", "/shop/1")


def test_without_root_and_field_a_request_is_passed_on_as_it_is() -> None:
    assert divided(None, "/shop/1") == (None, "/shop/1")
