"""Addresses to listen on, in one canonical spelling.

Two texts that mean the same address become the same text, so that a reload can tell what is new. No name is resolved
here: linux/sockets/ does that when it binds.

Source: RFC 3986, section 3.2.2 (IPv6 in brackets), unix(7), gunicorn's ``bind`` setting.
"""

from __future__ import annotations

import ipaddress
import os
import re

from forkserver.linux.sockets.socket_file import SUN_PATH_BYTES


def canonical(text: str) -> str:
    """``text`` in one canonical way: ``HOST:PORT``, ``[V6]:PORT``, ``*:PORT``, ``unix:PATH``, ``unix:@NAME``, ``fd://N``.

    Raises ValueError, whose text is ``reason; way out``.
    """
    if text.startswith("unix:"):
        return _unix_address(text.removeprefix("unix:"))
    if text.startswith("fd://"):
        if not re.fullmatch(r"fd://[0-9]{1,6}", text):
            raise ValueError("not a descriptor's number; write such as fd://3")
        return f"fd://{int(text[5:])}"
    text = text.removeprefix("tcp://")
    if "/" in text:
        raise ValueError("not an address; write HOST:PORT without http://, or unix:PATH, or fd://N")
    return _tcp_address(text)


def _port(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError(f"port {text!r} is not a number from 0 to 65535; write such as 127.0.0.1:8000")
    return str(int(text))


def _unix_address(path: str) -> str:
    path = path.removeprefix("//")
    if not path.removeprefix("@"):
        raise ValueError("no path; write unix:/run/myapp.sock, or unix:@myapp for an abstract socket")
    if path.startswith("@") and not path.isprintable():
        raise ValueError("an abstract socket's name with a character that cannot be shown; write such as unix:@myapp")
    if len(os.fsencode(path)) > SUN_PATH_BYTES:
        raise ValueError(f"path longer than {SUN_PATH_BYTES} bytes, the kernel's limit; use a shorter one")
    return f"unix:{path}"


def _tcp_address(text: str) -> str:
    if match := re.fullmatch(r"\[([^\]]*)\]:(.*)", text):
        try:
            return f"[{ipaddress.IPv6Address(match[1])}]:{_port(match[2])}"
        except ipaddress.AddressValueError:
            raise ValueError(f"{match[1]!r} is not an IPv6 address; write such as [::1]:8000") from None
    host, colon, port = text.rpartition(":")
    if ":" in host:
        raise ValueError("an IPv6 address needs brackets; write such as [::1]:8000")
    if not colon and not text.isdigit():
        raise ValueError(f"no port; write {text or '127.0.0.1'}:8000")
    if host != "*" and not re.fullmatch(r"[\w.-]*", host):
        raise ValueError(f"host {host!r} is not a name or an address; write such as 127.0.0.1:8000")
    # As gunicorn has it, ":8000" is every interface; a mere number is the safe reading, this machine only.
    return f"{host or ('*' if colon else '127.0.0.1')}:{_port(port)}"
