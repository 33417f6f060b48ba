"""What proxies say of their clients: X-Forwarded-For, -Proto, -Host and -Port, and Forwarded.

The application meets these fields only where a trusted peer sent them, and of them only the part that trusted peers
have written: what a client made up is not there.

A list is read from its end, where the nearest proxy has written. Each entry names the peer that its writer saw; the
first one from the end that is not trusted is the client. Where every sender is trusted (``*``) that says nothing of the
entries: only those addresses are passed over that are listed besides, so with ``*`` alone the last entry is the client.

Source: RFC 7239; for X-Forwarded-* and SCRIPT_NAME, the custom.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from functools import cache, partial
from ipaddress import IPv6Address
from typing import Any, Final, Protocol

from forkserver.config.values.ip_allowlist import IpAllowlist, is_public, plain
from forkserver.errors import ProtocolError
from forkserver.http1 import grammar
from forkserver.http1.headers import SCRIPT_NAME
from forkserver.linux.common.records import NamedTuple

FORWARDED: Final = "HTTP_FORWARDED"
FOR: Final = "HTTP_X_FORWARDED_FOR"
PROTO: Final = "HTTP_X_FORWARDED_PROTO"
HOST: Final = "HTTP_X_FORWARDED_HOST"
PORT: Final = "HTTP_X_FORWARDED_PORT"
KEYS: Final = frozenset((FORWARDED, FOR, PROTO, HOST, PORT, SCRIPT_NAME))  # in which a proxy speaks for its client

Environ = dict[str, Any]
IsTrusted = Callable[[str], bool]

# node = nodename [ ":" node-port ]; nodename = IPv4address / "[" IPv6address "]" / "unknown" / obfnode  RFC 7239, 6
# X-Forwarded-For has IPv6 addresses without brackets, too.
_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4_AND_PORT: Final = re.compile(rf"({_OCTET}(?:\.{_OCTET}){{3}}):([0-9]{{1,5}}|_[A-Za-z0-9._-]+)")
_IPV6: Final = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\](?::([0-9]{1,5}|_[A-Za-z0-9._-]+))?|([0-9A-Fa-f:.]{2,45})")
# forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] ); forwarded-pair = token "=" value    RFC 7239, 4
# value = token / quoted-string; what is not quoted may hold ":" and "[" here, which many forget to quote.
# Possessive: what one part has taken no other part may take in its place, or blanks are divided in every way there is.
# Single characters alone are repeated so: CPython before 3.11.5 goes on from the middle of a group that did not match
# (gh-106052), and would take "for=" for nothing at all.
_PAIR: Final = re.compile(
    r"[ \t]*+(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]++)="
    r'(?:"((?:[\t !\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t -\x7e\x80-\xff])*)"|([!\x23-+\--:<-\x5b\x5d-\x7e]++))[ \t]*+)?'
    r"([;,]|\Z)"
)
# A decoded path without empty segments; "//host" would lead a browser to another site (RFC 3986, 4.2), and browsers
# read a backslash as a slash (WHATWG URL Standard, "relative slash state").
_SCRIPT_NAME: Final = re.compile(r"((?:/[^\x00-\x20\x7f/?#%\\]+)*)/?")
_MOST_ENTRIES: Final = 64  # looked at in a list; more proxies are not in a row, and a client can write thousands
# Of Forwarded, which is read from its start, because a quoted string may hold a comma: each costs about a microsecond.
_MOST_PAIRS: Final = 400  # of a hundred proxies that each say for, by, host and proto
_MOST_CHARACTERS: Final = 8192  # of all lines together; what most proxies take for one field
WHOLE: Final = "=whole"  # what follows the name of a field whose list the application gets whole


class Node(NamedTuple):
    """A client as its proxy names it; ``host`` is "" where it names none, ``port`` too."""

    host: str
    port: str


class Element(NamedTuple):
    """What one proxy has added to Forwarded: its pairs, names in lower case, and the place of its text."""

    pairs: dict[str, str]
    start: int
    end: int


_make_node: Final = partial(tuple.__new__, Node)  # of a tuple; for the usual case, in a fourth of the time
HIDDEN: Final = Node("", "")
PASSED_ON: Final = "forkserver.passed_on"  # in an environ: a proxy has spoken of the client, believed or not


def node(text: str) -> Node:
    """The client that ``text`` names; HIDDEN for "unknown", for an identifier of the proxy's own, and for garbage."""
    if ":" not in text:
        return _make_node((text, "")) if _is_ipv4(text) else HIDDEN
    match = _IPV4_AND_PORT.fullmatch(text)
    if match is not None:  # and in the form in which it is shown
        host, port = match.groups()
    else:
        match = _IPV6.fullmatch(text)
        if match is None:
            return HIDDEN
        host, port, bare = match.groups("")
        try:
            host = str(plain(IPv6Address(host or bare)))
        except ValueError:
            return HIDDEN
    return Node(host, port if port.isdigit() and 0 < int(port) < 65536 else "")


def _is_ipv4(text: str) -> bool:
    """Whether ``text`` is four octets in the one form in which they are shown: inet_pton(3) knows no other."""
    try:
        socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):  # the latter for NUL
        return False
    return True


def client_of(text: str, is_trusted: IsTrusted) -> tuple[Node | None, str]:
    """The client that an X-Forwarded-For names, and the part of it that trusted peers wrote.

    None where it names no client at all; entries that are empty do not count (RFC 9110 section 5.6.1.2).
    """
    if "," not in text:  # as a rule
        entry = text.strip(" \t")
        return node(entry) if entry else None, entry
    client, start, left = None, len(text), _MOST_ENTRIES
    while start > 0 and left > 0:
        comma = text.rfind(",", 0, start)
        if entry := text[comma + 1 : start].strip(" \t"):
            client = node(entry)
            if not client.host or not is_trusted(client.host):
                return client, text[comma + 1 :].strip(" \t")
        start, left = comma, left - 1
    if not left:
        return client or HIDDEN, text[start + 1 :].strip(" \t")
    return client, text.strip(" \t")


def elements(text: str) -> list[Element]:
    """The elements of a Forwarded field in their order, empty ones left out. Raises ProtocolError."""
    if len(text) > _MOST_CHARACTERS:
        raise ProtocolError(400, f"Forwarded longer than {_MOST_CHARACTERS} characters")
    found, pairs, start, at = [], {}, 0, 0
    for _ in range(_MOST_PAIRS):
        match = _PAIR.match(text, at)
        if match is None:
            raise ProtocolError(400, "malformed Forwarded")
        name, quoted, bare, mark = match.groups()
        if name is not None:
            if name.lower() in pairs:
                raise ProtocolError(400, "a parameter twice in Forwarded")
            pairs[name.lower()] = bare if quoted is None else _unescaped(quoted)
        at = match.end()
        if mark != ";":
            if pairs:
                found.append(Element(pairs, start, at - len(mark)))
            if not mark:
                return found
            pairs, start = {}, at
    raise ProtocolError(400, f"more than {_MOST_PAIRS} parameters in Forwarded")


def _unescaped(text: str) -> str:
    """The content of a quoted string: each backslash stands before the character that is meant (RFC 9110, 5.6.4)."""
    return "\\".join(part.replace("\\", "") for part in text.split(r"\\"))


def outermost(found: list[Element], is_trusted: IsTrusted) -> int:
    """Which of ``found``, of which there is one at least, the outermost trusted proxy has written."""
    at = len(found) - 1
    least = max(0, at - _MOST_ENTRIES)
    while at > least:
        client = node(found[at].pairs.get("for", ""))
        if not client.host or not is_trusted(client.host):
            break
        at -= 1
    return at


class ForwardedNotices(Protocol):
    """The error log."""

    def dropped(self, sender: str, keys: list[str]) -> None:
        """Fields of a sender that is not trusted were dropped; ``keys`` as in the environ."""

    def took_inner(self, sender: str, client: str) -> None:
        """Every sender is trusted, and of several addresses the last was taken, which is no public one."""


class TrustedProxies:
    """The peers that are trusted, as ``forwarded_allow_ips`` lists them, and the fields that they are known to set.

    ``fields`` are names of header fields in lower case. ``trusts(host)`` says whether a peer is listed. ``notes``: what
    they say, or would, is noted in the environ as PASSED_ON.
    """

    def __init__(self, listed: Iterable[str], fields: Iterable[str], notes: bool = False) -> None:
        self._notes = notes
        peers = IpAllowlist(listed)
        self.trusts, self._passes, self._any_sender = peers.have, peers.name, peers.any_sender
        fields = set(fields)
        self.fields = frozenset(name.removesuffix(WHOLE) for name in fields)
        self._named = named = {key_of(name) for name in fields}
        whole = {key_of(name) for name in fields if name.endswith(WHOLE)}
        known = KEYS if SCRIPT_NAME in named else KEYS - {SCRIPT_NAME}
        self._known = known
        self._unnamed = known - named
        self._readers = [_read_for_whole if key in whole else reader for key, reader in _READERS if key in named]

    def apply(self, environ: Environ, host: str | None, notices: ForwardedNotices | None = None) -> None:
        """Set what ``environ`` says of the client to what the peer ``host`` says; drop what is not to be trusted.

        ``host`` is "" for a Unix socket, None where the writer of the fields is not known. ``notices`` is told what the
        operator may want to set otherwise. Raises ProtocolError for a Forwarded or SCRIPT_NAME that cannot be read.
        """
        if self._notes:
            environ[PASSED_ON] = True
        if host is None or not self.trusts(host):
            if notices is not None and host is not None and not self._named.isdisjoint(environ):
                notices.dropped(host, [key for key in self._named if key in environ])
            for key in self._known:
                environ.pop(key, None)
            return
        for key in self._unnamed:
            if key in environ:
                del environ[key]
        several = self._any_sender and ("," in environ.get(FOR, "") or "," in environ.get(FORWARDED, ""))
        for reader in self._readers:
            reader(environ, self._passes)
        if several and notices is not None and _is_inner(client := environ["REMOTE_ADDR"]):
            notices.took_inner(host, client)


@cache
def trusted_proxies(listed: tuple[str, ...], fields: tuple[str, ...], notes: bool = False) -> TrustedProxies:
    """The Trust of such settings, made once: workers share what their template has made."""
    return TrustedProxies(listed, fields, notes)


def key_of(name: str) -> str:
    """The key that the field ``name`` of the setting ``forwarded_fields`` has in an environ."""
    name = name.removesuffix(WHOLE)
    return SCRIPT_NAME if name == "script_name" else f"HTTP_{name.upper().replace('-', '_')}"


def _is_inner(host: str) -> bool:
    """Whether ``host`` is an address that a client on the Internet cannot have."""
    return host != "" and not is_public(host)


def _read_for(environ: Environ, is_trusted: IsTrusted) -> None:
    if FOR in environ:
        client, environ[FOR] = client_of(environ[FOR], is_trusted)
        if client is None:
            del environ[FOR]
        else:
            _set_client(environ, client)


def _read_for_whole(environ: Environ, is_trusted: IsTrusted) -> None:
    """As _read_for, for an application that counts the list's entries from its end by itself."""
    text = environ.get(FOR)
    _read_for(environ, is_trusted)
    if FOR in environ:
        environ[FOR] = text


def _read_script_name(environ: Environ, _: IsTrusted) -> None:
    """Leave it for ``Mounted``, which knows the path."""
    if SCRIPT_NAME in environ:
        match = _SCRIPT_NAME.fullmatch(environ[SCRIPT_NAME])
        if match is None:
            raise ProtocolError(400, "malformed SCRIPT_NAME")
        environ[SCRIPT_NAME] = match[1]


def _read_proto(environ: Environ, _: IsTrusted) -> None:
    if PROTO in environ and not _set_scheme(environ, _last(environ, PROTO)):
        del environ[PROTO]


def _read_host(environ: Environ, _: IsTrusted) -> None:
    if HOST in environ and not _set_host(environ, _last(environ, HOST)):
        del environ[HOST]


def _read_port(environ: Environ, _: IsTrusted) -> None:
    if PORT in environ:
        port = _last(environ, PORT)
        if port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536:
            environ["SERVER_PORT"] = port
        else:
            del environ[PORT]


def _read_forwarded(environ: Environ, is_trusted: IsTrusted) -> None:
    if FORWARDED not in environ:
        return
    text = environ[FORWARDED]
    found = elements(text)
    if not found:
        del environ[FORWARDED]
        return
    element = found[outermost(found, is_trusted)]
    environ[FORWARDED] = text[element.start :].strip(" \t")
    pairs = element.pairs
    if "for" in pairs:
        _set_client(environ, node(pairs["for"]))
    _set_scheme(environ, pairs.get("proto", ""))
    _set_host(environ, pairs.get("host", ""))


_READERS: Final = (
    (FOR, _read_for),
    (PROTO, _read_proto),
    (HOST, _read_host),
    (PORT, _read_port),
    (FORWARDED, _read_forwarded),
    (SCRIPT_NAME, _read_script_name),
)


def _last(environ: Environ, key: str) -> str:
    """The last of a list's values, which the nearest proxy has written; the field is cut to it."""
    value: str = environ[key].rpartition(",")[2].strip(" \t")
    environ[key] = value
    return value


def _set_client(environ: Environ, client: Node) -> None:
    """A client that the proxy does not name has no address, rather than the proxy's, which may have rights."""
    environ["REMOTE_ADDR"] = client.host
    environ.pop("REMOTE_PORT", None)
    if client.port:
        environ["REMOTE_PORT"] = client.port


def _set_scheme(environ: Environ, scheme: str) -> bool:
    match scheme.lower():
        case "https":
            environ["HTTPS"] = "on"
        case "http":
            environ.pop("HTTPS", None)
        case _:
            return False
    return True


def _set_host(environ: Environ, host: str) -> bool:
    if not grammar.is_host(host):
        return False
    environ["HTTP_HOST"] = host
    return True
