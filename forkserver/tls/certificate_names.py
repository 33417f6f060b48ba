"""The host names that a certificate is for, read from the certificate itself.

dNSNames are found wherever they stand, and the common name where there are none. Whether the certificate is good,
OpenSSL says.

Source: RFC 5280 sections 4.1 and 4.2.1.6, ITU-T X.690 (DER); RFC 6125 section 6.4.4 on the common name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from forkserver.linux.common.records import NamedTuple

_SEQUENCE_OF_FIELDS: Final = frozenset((0x30, 0x31, 0xA0, 0xA3))  # SEQUENCE, SET, and the certificate's [0] and [3]
_OCTETS: Final = 0x04
_OID: Final = 0x06
_DNS_NAME: Final = 0x82  # GeneralName ::= CHOICE { dNSName [2] IA5String, … }
_ALTERNATIVES: Final = bytes.fromhex("551d11")  # id-ce-subjectAltName, 2.5.29.17
_COMMON_NAME: Final = bytes.fromhex("550403")  # id-at-commonName, 2.5.4.3
_DEEPEST: Final = 16  # a name and an extension have their values at a depth of four
_SUBJECT: Final = 5  # of TBSCertificate, where the version stands first


class _Value(NamedTuple):
    tag: int
    content: bytes


def names(der: bytes) -> list[str]:
    """The host names of the certificate ``der``, in lower case, ``*.`` at the front of some. Raises ValueError."""
    # Certificate ::= SEQUENCE { tbsCertificate, … }, whose last field are the extensions, where there are any.
    fields = list(_values(_only(_only(_Value(0x30, der)))))
    if len(fields) <= _SUBJECT:
        raise ValueError("not a certificate of version 3")
    found = [
        value.content.decode("ascii").lower()
        for extension in _below(fields[-1])
        if _names(extension, _ALTERNATIVES)
        for octets in _values(extension)
        if octets.tag == _OCTETS
        for value in _values(_only(octets))
        if value.tag == _DNS_NAME
    ]
    if found:
        return found
    common = [list(_values(each))[-1] for each in _below(fields[_SUBJECT]) if _names(each, _COMMON_NAME)]
    return [value.content.decode("utf-8", "replace").lower() for value in common]


def _only(value: _Value) -> _Value:
    """The first value within ``value``."""
    for found in _values(value):
        return found
    raise ValueError("an empty place in a certificate")


def _names(value: _Value, oid: bytes) -> bool:
    """Whether ``value`` is a sequence that begins with ``oid``."""
    return value.tag == 0x30 and next(_values(value), None) == _Value(_OID, oid)


def _below(value: _Value, depth: int = _DEEPEST) -> Iterator[_Value]:
    """Everything within ``value``, to ``depth``. Raises ValueError where there is more."""
    if not depth:
        raise ValueError("a certificate with places in places without end")
    for each in _values(value):
        yield each
        if each.tag in _SEQUENCE_OF_FIELDS:
            yield from _below(each, depth - 1)


def _values(value: _Value) -> Iterator[_Value]:
    """The values within ``value``, in their order. Raises ValueError."""
    data, at = value.content, 0
    while at < len(data):
        if at + 2 > len(data):
            raise ValueError("a certificate that ends early")
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            more = length & 0x7F
            length, at = int.from_bytes(data[at : at + more]), at + more
        if at + length > len(data):
            raise ValueError("a certificate that ends early")
        yield _Value(tag, data[at : at + length])
        at += length
