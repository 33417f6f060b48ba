"""What is known of a client beside its request, and the interim answer that it may get."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from forkserver.errors import AppError
from forkserver.http1 import response
from forkserver.http1.headers import SCRIPT_NAME
from forkserver.server.handoff.queue import HandedConnection, Handoff
from forkserver.server.proxy.client_address import ProxiedAddress, distinguished, sender, variables
from forkserver.server.wsgi.script_name import ScriptName

NAME = ((("countryName", "DE"),), (("organizationName", 'A, "B"'),), (("commonName", "x"), ("emailAddress", "a@b")))


class Shown:
    """A connection in TLS whose client has shown a certificate."""

    sni = "shop.example"

    def version(self) -> str:
        return "TLSv1.3"

    def cipher(self) -> tuple[str, str, int]:
        return "TLS_AES_256_GCM_SHA384", "TLSv1.3", 256

    def getpeercert(self, binary_form: bool = False) -> Any:
        if binary_form:
            return b"DER"
        return {
            "subject": ((("commonName", "Jörg,O=root\n"),),),
            "issuer": NAME,
            "serialNumber": "0A",
            "notBefore": "May  1 00:00:00 2026 GMT",
            "notAfter": "May  1 00:00:00 2027 GMT",
            "subjectAltName": (("DNS", "a"), ("email", "j@x"), ("DNS", "b")),
        }


def test_a_certificate_is_told_by_the_names_of_mod_ssl() -> None:
    found = variables(Shown())
    assert found["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert found["SSL_CLIENT_I_DN"] == 'CN=x+emailAddress=a@b,O=A\\, \\"B\\",C=DE'
    assert (found["SSL_CLIENT_SAN_DNS_0"], found["SSL_CLIENT_SAN_DNS_1"]) == ("a", "b")
    assert found["SSL_CLIENT_SAN_Email_0"] == "j@x"
    assert found["SSL_CLIENT_CERT"].startswith("-----BEGIN CERTIFICATE-----")
    assert found["SSL_TLS_SNI"] == "shop.example"
    assert found["wsgi.url_scheme"] == "https"


def test_a_name_cannot_be_made_to_look_like_more() -> None:
    """An owner who may choose a common name must not get an organisation, or a line of the log, with it."""
    found = variables(Shown())
    assert found["SSL_CLIENT_S_DN"].encode("latin-1").decode() == "CN=Jörg\\,O\\=root\\0A"


def test_no_name_of_a_certificate_acts_in_a_log_or_a_header() -> None:
    """An authority may sign what its clients write; applications log these values, and send them on."""
    evil = "ann\r\nX-Admin: 1\x1b[2J\u202e"
    shown = Shown()
    facts = shown.getpeercert() | {
        "subject": ((("commonName", evil),),),
        "subjectAltName": (("DNS", evil), ("email", evil)),
    }
    shown.getpeercert = lambda binary_form=False: b"DER" if binary_form else facts  # type: ignore[method-assign]
    found = variables(shown)
    escaped = r"ann\0D\0AX-Admin: 1\1B[2J\E2\80\AE"
    for name in ("S_DN_CN", "SAN_DNS_0", "SAN_Email_0"):
        assert found[f"SSL_CLIENT_{name}"] == escaped
    assert found["SSL_CLIENT_S_DN"] == f"CN={escaped}"
    assert all(value.isprintable() for key, value in found.items() if key != "SSL_CLIENT_CERT")


@pytest.mark.parametrize(("value", "written"), [("#x ", "\\#x\\ "), (" x", "\\ x"), ("a+b<c>;", "a\\+b\\<c\\>\\;")])
def test_special_characters_are_escaped(value: str, written: str) -> None:
    assert distinguished(((("organizationName", value),),)) == f"O={written}"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("secure", [True, False])
def test_what_a_proxy_has_told_goes_along_with_a_connection(known: bool, secure: bool) -> None:
    """A sibling that took an unnamed client for a trusted peer would believe its fields."""
    queue = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    handoff = Handoff(*(each.detach() for each in queue))
    mine, theirs = socket.socketpair()
    peer = ProxiedAddress(("192.0.2.1", 5) if known else ("", 0))
    peer.known, peer.secure = known, secure
    with mine, theirs:
        assert handoff.give(mine, HandedConnection(1, peer, 2.0, 0.0, b"data"))
        taken = handoff.take()
        assert taken is not None
        taken[0].close()
        found = taken[1].peer
    handoff.close()
    assert isinstance(found, ProxiedAddress)
    assert (tuple(found), found.known, found.secure) == (tuple(peer), known, secure)
    assert sender(found) == ("192.0.2.1" if known else None)


def test_an_interim_answer_has_its_headers_and_no_others() -> None:
    said = response.early_hints([("Link", "</a>; rel=preload"), ("X", "y")])
    assert said == b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nX: y\r\n\r\n"


@pytest.mark.parametrize("headers", [[("X", "a\r\nB: c")], [("A B", "c")], [("Content-Length", "3")], "X: y", [("X",)]])
def test_an_interim_answer_that_would_break_out_is_refused(headers: Any) -> None:
    with pytest.raises(AppError):
        response.early_hints(headers)


@pytest.mark.parametrize(
    ("asked", "path"),
    [("/shop", ""), ("/shop/", "/"), ("/shop/a", "/a"), ("/shopping", "/shopping"), ("/a", "/a"), ("/", "/"), ("", "")],
)
def test_an_application_below_a_path_sees_the_rest(asked: str, path: str) -> None:
    seen: dict[str, Any] = {"PATH_INFO": asked, "SCRIPT_NAME": ""}
    assert ScriptName(lambda environ, _start: [environ["PATH_INFO"].encode()], "/shop")(seen, print) == [path.encode()]
    assert seen["SCRIPT_NAME"] == "/shop"


@pytest.mark.parametrize("root", [None, "/other"])
@pytest.mark.parametrize(
    ("said", "asked", "path"),
    [("/shop", "/shop/a", "/a"), ("/shop", "/a", "/a"), ("/shop", "/shopping", "/shopping"), ("", "/a", "/a")],
)
def test_the_path_that_a_request_names_goes_before_the_settings(
    root: str | None, said: str, asked: str, path: str
) -> None:
    seen: dict[str, Any] = {"PATH_INFO": asked, "SCRIPT_NAME": "", SCRIPT_NAME: said}
    ScriptName(lambda environ, _start: [], root)(seen, print)
    assert seen == {"PATH_INFO": path, "SCRIPT_NAME": said}


def test_a_request_that_names_no_path_is_passed_on_where_the_settings_name_none_either() -> None:
    seen: dict[str, Any] = {"PATH_INFO": "/shop/a", "SCRIPT_NAME": "/of base_environ"}
    ScriptName(lambda environ, _start: [], None)(seen, print)
    assert seen == {"PATH_INFO": "/shop/a", "SCRIPT_NAME": "/of base_environ"}
