"""What is known of a client beside its request: by TLS, and by a PROXY header.

The variables have the names that mod_ssl and nginx have made known; values are escaped, so that a certificate's owner
cannot make one look like several.

Source: mod_ssl's "Environment Variables", RFC 4514 for names, PEP 3333 for strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

Name = Iterable[Iterable[tuple[str, str]]]  # as ssl.SSLSocket.getpeercert has it

_SHORT: Final = {
    "commonName": "CN", "countryName": "C", "domainComponent": "DC", "localityName": "L", "organizationName": "O",
    "organizationalUnitName": "OU", "stateOrProvinceName": "ST", "streetAddress": "STREET", "userId": "UID",
}  # fmt: skip
_SPECIAL: Final = re.compile(r'[,+"\\<>;=]|^[ #]| $')  # RFC 4514 section 2.4


class ProxiedAddress(tuple[Any, ...]):
    """A client's address that a proxy has told. It is a tuple, as ``client_address`` is documented to be.

    ``known`` is False where the proxy could not name the client, who may have written any header field; ``secure`` is
    True where it came to the proxy by TLS.
    """

    known = True
    secure = False

    @property
    def flags(self) -> int:
        """What it says beside the address, in one byte that is not 0."""
        return 4 | 2 * self.known | self.secure

    @classmethod
    def of(cls, address: tuple[Any, ...], flags: int) -> ProxiedAddress:
        """Made of an address and such a byte."""
        self = cls(address)
        self.known, self.secure = bool(flags & 2), bool(flags & 1)
        return self


SECURE: Final[dict[str, Any]] = {"HTTPS": "on", "wsgi.url_scheme": "https"}


def sender(peer: tuple[Any, ...]) -> str | None:
    """The peer that sent the header fields: an address, "" for a Unix socket, None where it is not known."""
    return None if isinstance(peer, ProxiedAddress) and not peer.known else str(peer[0])


def variables(tls: Any) -> dict[str, Any]:
    """The environ's variables of a connection ``tls``, an ssl.SSLObject or ssl.SSLSocket after its handshake."""
    cipher = tls.cipher()
    found = SECURE | {"SSL_PROTOCOL": tls.version(), "SSL_CIPHER": cipher[0] if cipher else ""}
    if name := getattr(tls, "sni", None):
        found["SSL_TLS_SNI"] = _native(name)
    shown = tls.getpeercert(binary_form=True)
    # One that was not found good has ended the handshake.
    found["SSL_CLIENT_VERIFY"] = "SUCCESS" if shown else "NONE"
    if shown:
        import ssl  # there is a TLS connection, so it is loaded

        found.update(_certificate(tls.getpeercert(), ssl.DER_cert_to_PEM_cert(shown)))
    return found


def _certificate(facts: dict[str, Any], text: str) -> dict[str, str]:
    common = [value for part in facts["subject"] for name, value in part if name == "commonName"]
    found = {
        "SSL_CLIENT_S_DN": distinguished(facts["subject"]),
        "SSL_CLIENT_I_DN": distinguished(facts["issuer"]),
        "SSL_CLIENT_S_DN_CN": common[-1] if common else "",
        "SSL_CLIENT_M_SERIAL": facts["serialNumber"],
        "SSL_CLIENT_V_START": facts["notBefore"],
        "SSL_CLIENT_V_END": facts["notAfter"],
    }
    for kind in ("DNS", "Email"):
        names = [value for key, value in facts.get("subjectAltName", ()) if key.lower() == kind.lower()]
        found.update({f"SSL_CLIENT_SAN_{kind}_{number}": value for number, value in enumerate(names)})
    found = {key: _hexed(value) for key, value in found.items()}
    found["SSL_CLIENT_CERT"] = text
    return {key: _native(value) for key, value in found.items()}


def distinguished(name: Name) -> str:
    """``name`` as RFC 4514 writes it, the most special part first: ``CN=someone,O=Example``."""
    parts = ["+".join(f"{_SHORT.get(key, key)}={_escaped(value)}" for key, value in part) for part in name]
    return ",".join(reversed(parts))


def _escaped(text: str) -> str:
    return _hexed(_SPECIAL.sub(r"\\\g<0>", text))


def _hexed(text: str) -> str:
    """``text`` with what is not printable as RFC 4514 escapes octets: it could act in a log, a header or a terminal."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else "".join(map("\\{:02X}".format, _octets(one))) for one in text)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _native(text: str) -> str:
    """``text`` as PEP 3333 has strings: bytes as latin-1."""
    return _octets(text).decode("latin-1")
