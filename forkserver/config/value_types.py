"""What the value of a setting may be: from what a person wrote to a checked value, and back.

It promises that a wrong value is refused with the reason and the way out, whichever source it came from. It refuses to
know which settings there are, and where a value was written.
"""

from __future__ import annotations

import grp
import json
import math
import os
import pwd
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from forkserver.config import bind_address as addresses_module
from forkserver.config import ip_allowlist as peers_module
from forkserver.linux import cgroups

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

NOFILE_AUTO: Final = 0  # of nofile: as many as the connections need
NOFILE_KEEP: Final = -1  # of nofile: the limit stays as it is
AUTO_FREE: Final = -1  # of spool_keep_free: a part of the file system
_SIZE_UNITS: Final = {"": 1, "b": 1, "k": KIB, "kib": KIB, "m": MIB, "mib": MIB, "g": GIB, "gib": GIB}
_TIME_UNITS: Final = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0}
_CERT_REQS: Final = ("none", "optional", "required")


class RefusedError(Exception):
    """A value that cannot be meant; its text is ``reason; way out``."""


class ValueType(NamedTuple):
    """How values of one kind are read and shown.

    ``parse`` takes text, or what TOML holds, and returns the value or raises RefusedError; ``show`` gives the TOML
    literal that ``parse`` reads back. ``choices`` lists the words a choice allows. What is written for a ``secret``
    kind is in no complaint.
    """

    name: str
    parse: Callable[[object], Any]
    show: Callable[[Any], str]
    choices: tuple[str, ...] = ()
    secret: bool = False


def quoted(text: str) -> str:
    """``text`` as a TOML basic string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def nearest(word: str, known: list[str]) -> str | None:
    """The one of ``known`` that ``word`` was probably meant to be."""
    import difflib  # late: a start without a mistake does not wait for it

    return next(iter(difflib.get_close_matches(word, known, 1, 0.7)), None)


def misspelt(word: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``word`` is a misspelling of: with one wrong letter in four at most, and two in all.

    A name that is merely similar is none: --log-config is not --config.
    """
    near = min(known, key=lambda name: _distance(word, name), default="")
    return near if _distance(word, near) <= min(2, len(word.strip("-")) // 4) else None


def _distance(one: str, other: str) -> int:
    """How many letters were left out, added, changed or swapped with their neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, above, row = row, before, [i]
        for j, its in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != its))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == its:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise RefusedError("not text; put it in quotes")
    if "\0" in raw:
        raise RefusedError("holds a NUL byte; leave it out")
    return raw.strip()


def _optional_text(raw: object) -> str | None:
    return _text(raw) or None


def _field_value(raw: object) -> str:
    text = _text(raw)
    if not (text.isascii() and text.isprintable()):
        raise RefusedError("not a header field's value; use visible ASCII characters and blanks")
    return text


def _show_texts(values: list[str]) -> str:
    return "[" + ", ".join(quoted(value) for value in values) + "]"


# Numbers


def _count(raw: object, low: int, high: int, way_out: str) -> int:
    if isinstance(raw, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", raw):
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise RefusedError(f"not a whole number; {way_out}")
    if not low <= raw <= high:
        raise RefusedError(f"out of range; {way_out}")
    return raw


def count(low: int, high: int) -> ValueType:
    """Whole numbers from ``low`` to ``high``."""
    return ValueType("count", lambda raw: _count(raw, low, high, f"give {low} to {high}"), str)


def _workers(raw: object) -> int:
    if isinstance(raw, str) and raw.strip().lower() == "auto":
        return cgroups.usable()
    return _count(raw, 1, 4096, "give 1 to 4096, or auto (as many as processors may be used)")


def _measured(raw: object, units: dict[str, float] | dict[str, int], way_out: str) -> float:
    """A number with a unit from ``units``, in the unit that counts 1."""
    if isinstance(raw, str):
        match = re.fullmatch(r"([+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([a-z]*)", raw.strip().lower())
        if not match or match[2] not in units:
            raise RefusedError(f"not a number with a known unit; {way_out}")
        return float(match[1]) * units[match[2]]
    if isinstance(raw, bool) or not isinstance(raw, int | float) or math.isnan(raw):
        raise RefusedError(f"not a number; {way_out}")
    return raw


def _seconds(raw: object, otherwise: str = "") -> float:
    """Seconds in range; ``otherwise`` says what 0 means, where it is allowed."""
    way_out = f"give seconds, {'' if otherwise else 'or '}write 500ms, 30s, 2m, 1h{otherwise}"
    value = float(_measured(raw, _TIME_UNITS, way_out))
    if otherwise and value == 0:
        return 0.0
    if not 0.001 <= value <= 365 * 86400:
        raise RefusedError(f"out of range; give 0.001 seconds to a year{otherwise}")
    return value


def _seconds_or_never(raw: object) -> float:
    # Infinity, which TOML can write too, compares rightly with every age.
    return math.inf if raw == math.inf else _seconds(raw, ", or 0 for no limit") or math.inf


def _seconds_or_off(raw: object) -> float:
    return _seconds(raw, ", or 0 to switch it off")


def _show_seconds(value: float) -> str:
    if math.isinf(value):
        return "0"
    return str(int(value)) if value.is_integer() else repr(value)


def _size(raw: object, low: int, high: int, otherwise: str = "") -> int:
    way_out = f"give bytes from {_unquoted_size(low)} to {_unquoted_size(high)}, or write 64KiB, 10MiB, 1GiB{otherwise}"
    value = _measured(raw, _SIZE_UNITS, way_out)
    if otherwise and value == 0:
        return 0
    if not low <= value <= high:
        raise RefusedError(f"out of range; {way_out}")
    return int(value)


def _unquoted_size(value: int) -> str:
    for unit, size in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if value and value % size == 0:
            return f"{value // size}{unit}"
    return str(value)


def readable_size(value: int) -> str:
    """``value`` bytes for a message, such as ``1.5 GiB``."""
    for unit, size in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if value >= size:
            return f"{value / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{value} bytes"


def _show_size(value: int) -> str:
    text = _unquoted_size(value)
    return text if text.isdigit() else quoted(text)


def size(low: int, high: int) -> ValueType:
    """Bytes from ``low`` to ``high``, with the suffixes KiB, MiB and GiB (or K, M, G)."""
    return ValueType("bytes", lambda raw: _size(raw, low, high), _show_size)


def size_or_off(low: int, high: int) -> ValueType:
    """Bytes as ``size`` has them, or 0."""
    off = ", or 0 to switch it off"
    return ValueType("bytes, 0 for no limit", lambda raw: _size(raw, low, high, off), _show_size)


def _free_space(raw: object) -> int:
    if isinstance(raw, str) and raw.strip().lower() == "auto":
        return AUTO_FREE
    return _size(raw, 1, 2**62, ", or auto, or 0 to switch it off")


def _open_files(raw: object) -> int:
    word = raw.strip().lower() if isinstance(raw, str) else ""
    if word in ("auto", "keep"):
        return NOFILE_AUTO if word == "auto" else NOFILE_KEEP
    return _count(raw, 64, 2**30, "give 64 to 1073741824, auto (what worker_connections needs) or keep")


def _show_open_files(value: int) -> str:
    return quoted("auto" if value == NOFILE_AUTO else "keep") if value <= NOFILE_AUTO else str(value)


def _mode(raw: object) -> int:
    # TOML's 22 and 0o26 arrive as the same number, so what was meant cannot be told: only text says its base.
    if not isinstance(raw, str):
        raise RefusedError(f"a number whose base cannot be seen; write octal digits in quotes, {_likely_mode(raw)}")
    if not re.fullmatch(r"(0o)?[0-7]{1,4}", raw.strip()) or int(raw, 8) > 0o777:
        raise RefusedError("not octal digits up to 777; write it as chmod does, such as 022 or 660")
    return int(raw, 8)


def _likely_mode(raw: object) -> str:
    """What a mode that was written as the number ``raw`` may mean, in the words of a way out."""
    if isinstance(raw, bool) or not isinstance(raw, int) or raw < 0:
        return 'such as "022"'
    digits = str(raw)
    likely = [f'"{digits:0>4}"'] if re.fullmatch("[0-7]{1,3}", digits) else []
    if raw <= 0o777 and not (likely and raw < 8):
        likely.append(f'"{raw:04o}" where 0o{raw:o} was written')
    return ", or ".join(likely) or 'such as "022"'


# Words


def _auto_or_path(raw: object) -> str | None:
    text = _optional_text(raw)
    if text in (None, "auto", "off"):
        return text
    if len(os.fsencode(os.path.abspath(text))) > addresses_module.SUN_PATH_BYTES:
        raise RefusedError(
            f"path longer than {addresses_module.SUN_PATH_BYTES} bytes, the kernel's limit; use a shorter one"
        )
    return text


def _choice(raw: object, names: tuple[str, ...]) -> str:
    if isinstance(raw, bool) and "on" in names:
        return "on" if raw else "off"
    word = _text(raw).lower()
    if word not in names:
        near = nearest(word, list(names))
        way_out = f"did you mean {near}?" if near else "choose one of them"
        raise RefusedError(f"not one of {', '.join(names)}; {way_out}")
    return word


def choice(*names: str) -> ValueType:
    """One of ``names``."""
    return ValueType("choice", lambda raw: _choice(raw, names), quoted, names)


def _client_certificates(raw: object) -> str:
    if isinstance(raw, int) and not isinstance(raw, bool):
        raw = str(raw)
    # gunicorn writes the numbers of the ssl module.
    return _CERT_REQS[int(raw)] if raw in ("0", "1", "2") else _choice(raw, _CERT_REQS)


def _worker_class(raw: object) -> str:
    word = _text(raw)
    if word not in ("sync", "gthread"):
        raise RefusedError(
            "forkserver has one kind of worker: it keeps slow and idle clients off the app's thread by itself; "
            "leave it out (sync and gthread are accepted, --threads gives threads)"
        )
    return word


def _class_name(raw: object) -> str:
    name = _text(raw)
    if not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name):
        module, _, last = name.rpartition(".")
        meant = f"{module}:{last}" if module and ":" not in name else "such as mypackage:MyClass"
        raise RefusedError(f"not MODULE:CLASS; write {meant}")
    return name


def _module(raw: object) -> str | None:
    name = _optional_text(raw)
    if name is not None and not all(part.isidentifier() for part in name.split(".")):
        meant = name.partition(":")[0].removesuffix(".py").replace("/", ".")
        proper = all(part.isidentifier() for part in meant.split("."))
        raise RefusedError(f"not the name of a module; write {meant if proper else 'such as myapp.hooks'}")
    return name


def _target(raw: object) -> str | None:
    """A request target in origin-form (RFC 9112 section 3.2.1)."""
    target = _optional_text(raw)
    if target is not None and not re.fullmatch(r"/[\x21\x22\x24-\x7e]*", target):
        raise RefusedError("not a path of visible ASCII without #; write such as /healthz, and %20 for a blank")
    return target


def _account(raw: object, find: Callable[[str], object], what: str, command: str) -> str | None:
    name = _optional_text(str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else raw)
    if name is None or re.fullmatch(r"[0-9]{1,10}", name):
        return name
    try:
        find(name)
    except KeyError:
        raise RefusedError(f"no such {what} here; name another, or make it with {command} {name}") from None
    return name


# Lists


def _items(raw: object, split: Callable[[str], list[str]]) -> list[str]:
    """What was written once, several times, or as a TOML list, as one list."""
    parts = raw if isinstance(raw, list) else split(_text(raw))
    return [text for text in map(_text, parts) if text]


def _at_commas(text: str) -> list[str]:
    return text.split(",")


def _addresses(raw: object) -> list[str]:
    items = _items(raw, _at_commas)
    found = []
    for item in items:
        try:
            found.append(addresses_module.canonical(item))
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
            found.append(peers_module.canonical(item))
        except ValueError as error:
            way_out = "write such as 10.0.0.7, 10.0.0.0/8, 2001:db8::/32, unix, or * for everybody"
            raise RefusedError(f"{item!r}: {error}; {way_out}") from None
    return found


def _field_names(raw: object, names: tuple[str, ...]) -> list[str]:
    return [_choice(item, names) for item in _words(raw)]


def field_names(*names: str) -> ValueType:
    """Any of ``names``, as a list in lower case."""
    return ValueType("header fields", lambda raw: _field_names(raw, names), _show_texts)


def _root_path(raw: object) -> str | None:
    path = _target(raw)
    if path is None or path.rstrip("/") == "":
        return None
    if "?" in path or "%" in path or path.endswith("/"):
        raise RefusedError("not the path of an application; write it decoded and without a / at its end, such as /shop")
    return path


def _shell_words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise RefusedError(f"{str(error).lower()}; close every quote") from None


def _words(raw: object) -> list[str]:
    """As ``_items``, where no item of a list has a comma either."""
    return [word.strip() for item in _items(raw, _at_commas) for word in _at_commas(item) if word.strip()]


def _variables(raw: object) -> list[str]:
    pairs = [f"{key}={_text(value)}" for key, value in raw.items()] if isinstance(raw, dict) else raw
    # Split as a shell does, not at commas: values may hold those. Not stripped: they may mean their spaces.
    found = pairs if isinstance(pairs, list) else _shell_words(_text(pairs))
    for number, pair in enumerate(found, 1):
        _text(pair)
        if not re.match(r"[^=\s]+=", pair):
            # A word without "=" may well be a value that lost its name: only what can be no secret is shown.
            word = repr(pair) if _NAME.fullmatch(pair) else f"entry {number} of {len(found)}, which is not shown,"
            raise RefusedError(f"{word} is not KEY=VALUE; write such as DJANGO_SETTINGS_MODULE=mysite.settings")
    return list(found)


_NAME: Final = re.compile(r"[A-Z]{1,15}(?:_[A-Z0-9]{1,15}){0,5}")
# Names and values of variables that are not to be shown: not every one is a secret, but secrets look so.
_SECRET_NAME: Final = re.compile(
    r"SECRET|TOKEN|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE|APIKEY|(?:^|_)(?:PASS|PWD|PW|KEYS?|DSN|AUTH|SALT|SIGNATURE)(?:_|$)",
    re.IGNORECASE,
)
_SECRET_VALUE: Final = re.compile(
    r"://[^/?#\s]*@|(?:^|[?&;,\s])(?:password|passwd|pwd|secret|token|api_?key|sig(?:nature)?)=|-----BEGIN ",
    re.IGNORECASE,
)


def looks_secret(pair: str) -> bool:
    """Whether the value of ``pair``, KEY=VALUE, looks like a secret: by its key, or as a URL with a password in it."""
    key, _, value = pair.partition("=")
    return bool(_SECRET_NAME.search(key) or _SECRET_VALUE.search(value))


workers: Final = ValueType("count or auto", _workers, str)
seconds: Final = ValueType("seconds", _seconds, _show_seconds)
seconds_or_never: Final = ValueType("seconds, 0 for no limit", _seconds_or_never, _show_seconds)
seconds_or_off: Final = ValueType("seconds, 0 for off", _seconds_or_off, _show_seconds)
free_space: Final = ValueType(
    "bytes or auto", _free_space, lambda value: quoted("auto") if value == AUTO_FREE else _show_size(value)
)
open_files: Final = ValueType("count, auto or keep", _open_files, _show_open_files)
text: Final = ValueType("text", _optional_text, quoted)
field_value: Final = ValueType("text", _field_value, quoted)
path: Final = ValueType("path", _optional_text, quoted)
auto_or_path: Final = ValueType("auto, off or path", _auto_or_path, quoted)
mode: Final = ValueType("octal mode", _mode, lambda value: quoted(f"{value:04o}"))
module: Final = ValueType("module", _module, quoted)
target: Final = ValueType("path of a URL", _target, quoted)
root_path: Final = ValueType("path of a URL", _root_path, quoted)
class_name: Final = ValueType("MODULE:CLASS", _class_name, quoted)
client_certificates: Final = ValueType("choice", _client_certificates, quoted, _CERT_REQS)
worker_class: Final = ValueType("sync or gthread", _worker_class, quoted, ("sync", "gthread"))
user: Final = ValueType("user", lambda raw: _account(raw, pwd.getpwnam, "user", "useradd --system"), quoted)
group: Final = ValueType("group", lambda raw: _account(raw, grp.getgrnam, "group", "groupadd --system"), quoted)
addresses: Final = ValueType("addresses", _addresses, _show_texts)
peers: Final = ValueType("addresses and networks", _peers, _show_texts)
paths: Final = ValueType("paths", _words, _show_texts)
variables: Final = ValueType("KEY=VALUE", _variables, _show_texts, secret=True)
