"""Lists in settings: addresses, peers, paths, header fields and environment variables.

A list is written once with commas (variables: with blanks, as in a shell), as several flags, or as a TOML list.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Final

from forkserver.config.values import bind_address, ip_allowlist
from forkserver.config.values.value_type import RefusedError, ValueType, plain_text, show_texts
from forkserver.config.values.words import one_of

_NAME: Final = re.compile(r"[A-Z]{1,15}(?:_[A-Z0-9]{1,15}){0,5}")
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62})(?:\.[a-z0-9_]([a-z0-9_-]{0,62}))*")
# Names and values of variables that are not to be shown: not every one is a secret, but secrets look so.
_SECRET_NAME: Final = re.compile(
    r"SECRET|TOKEN|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE|APIKEY|(?:^|_)(?:PASS|PWD|PW|KEYS?|DSN|AUTH|SALT|SIGNATURE)(?:_|$)",
    re.IGNORECASE,
)
_SECRET_VALUE: Final = re.compile(
    r"://[^/?#\s]*@|(?:^|[?&;,\s])(?:password|passwd|pwd|secret|token|api_?key|sig(?:nature)?)=|-----BEGIN ",
    re.IGNORECASE,
)


def _items(raw: object, split: Callable[[str], list[str]]) -> list[str]:
    """What was written once, several times, or as a TOML list, as one list."""
    parts = raw if isinstance(raw, list) else split(plain_text(raw))
    return [text for text in map(plain_text, parts) if text]


def _at_commas(text: str) -> list[str]:
    return text.split(",")


def _addresses(raw: object) -> list[str]:
    items = _items(raw, _at_commas)
    found = []
    for item in items:
        try:
            found.append(bind_address.canonical(item))
        except ValueError as error:
            raise RefusedError(f"{item!r}: {error}" if len(items) > 1 else str(error)) from None
    if not found:
        raise RefusedError("nothing to listen on; write such as 127.0.0.1:8000")
    for at, text in enumerate(found):
        # Port 0 is the kernel's choice, another one each time.
        if text in found[:at] and not text.endswith(":0"):
            raise RefusedError(f"{text} is listed twice; name it once")
    return found


def _peers(raw: object) -> list[str]:
    found = []
    for item in _words(raw):
        try:
            found.append(ip_allowlist.canonical(item))
        except ValueError as error:
            way_out = "write such as 10.0.0.7, 10.0.0.0/8, 2001:db8::/32, unix, or * for every sender"
            raise RefusedError(f"{item!r}: {error}; {way_out}") from None
    return found


def _host_names(raw: object) -> list[str]:
    found = []
    for item in _words(raw):
        name = item.lower().rstrip(".")
        if not _HOST.fullmatch(name):
            raise RefusedError(f"{item!r}: not the name of a host; write such as metrics.example.org, without a port")
        found.append(name)
    return found


def _field_names(raw: object, names: tuple[str, ...]) -> list[str]:
    return [one_of(item, names) for item in _words(raw)]


def field_names(*names: str) -> ValueType[list[str]]:
    """Any of ``names``, as a list in lower case."""
    return ValueType("header fields", lambda raw: _field_names(raw, names), show_texts)


def _shell_words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise RefusedError(f"{str(error).lower()}; close every quote") from None


def _words(raw: object) -> list[str]:
    """As ``_items``, where no item of a list has a comma either."""
    return [word.strip() for item in _items(raw, _at_commas) for word in _at_commas(item) if word.strip()]


def _variables(raw: object) -> list[str]:
    pairs = [f"{key}={plain_text(value)}" for key, value in raw.items()] if isinstance(raw, dict) else raw
    # Split as a shell does, not at commas: values may hold those. Not stripped: they may mean their spaces.
    found = pairs if isinstance(pairs, list) else _shell_words(plain_text(pairs))
    for number, pair in enumerate(found, 1):
        plain_text(pair)
        if not re.match(r"[^=\s]+=", pair):
            # A word without "=" may well be a value that lost its name: only what can be no secret is shown.
            word = repr(pair) if _NAME.fullmatch(pair) else f"entry {number} of {len(found)}, which is not shown,"
            raise RefusedError(f"{word} is not KEY=VALUE; write such as DJANGO_SETTINGS_MODULE=mysite.settings")
    return list(found)


def looks_secret(pair: str) -> bool:
    """Whether the value of ``pair``, KEY=VALUE, looks like a secret: by its key, or as a URL with a password in it."""
    key, _, value = pair.partition("=")
    return bool(_SECRET_NAME.search(key) or _SECRET_VALUE.search(value))


addresses: Final = ValueType("addresses", _addresses, show_texts)
host_names: Final = ValueType("names of hosts", _host_names, show_texts)
peers: Final = ValueType("addresses and networks", _peers, show_texts)
paths: Final = ValueType("paths", _words, show_texts)
variables: Final = ValueType("KEY=VALUE", _variables, show_texts, secret=True)
