"""Formats of the access log: JSON, and gunicorn's atoms with some of ours. The combined format is access_log.py's own.

A format is compiled once, into a template and a reader for each of its atoms. Readers give text that is escaped where a
client has a say in it. Within quotes that is what ends quotes; elsewhere blanks too, and each mark that the format
itself has between its fields. So a client cannot end a field, whatever divides the fields.

Source: gunicorn's setting access_log_format; RFC 8259; RFC 3339.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from forkserver.linux.common.records import NamedTuple
from forkserver.logs.client_text import cut, decoded, escaped_with, fair_share, is_plain, json_string

COMBINED: Final = "combined"
AUTO: Final = "auto"  # combined, but for a person at a terminal
JSON: Final = "json"
# As gunicorn writes its default, which is the combined format.
_SPELLED: Final = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
_ATOM: Final = re.compile(r"%(?:%|\((?:\{([^{}()\"\s]{1,256})\}([ioe])|(\w{1,32}))\)s)")


class FormatError(Exception):
    """A format that cannot be meant; the text says where, and what can stand there."""


class Facts(NamedTuple):
    """What is known of an answer beside the fields of the combined format.

    ``whole_at`` is when the request was whole (CLOCK_MONOTONIC in seconds), ``waited`` how long it then waited for the
    application and ``called`` how long that was called; None where it was not. ``values`` are those that the format
    asks for by name, None for each that there is not.
    """

    request_id: str = ""
    host: str = ""
    whole_at: float | None = None
    waited: float | None = None
    called: float | None = None
    values: tuple[str | None, ...] = ()


NO_FACTS: Final = Facts()


class Line(NamedTuple):
    """All that a format is made of; ``seconds`` from when the request was whole until its answer was sent."""

    peer: str
    user: str
    request: str
    status: int
    size: int
    referer: str
    agent: str
    facts: Facts
    seconds: float | None
    now: float  # seconds since 1970
    date: str  # the same as the combined format has it, with a blank behind it
    worker: int
    generation: int
    pid: int


Reader = Callable[[Line], str | None]  # None for what there is not
# What the extension makes a line of: literals, and atoms, each with the marks that its value cannot have unescaped
# (None for a string of JSON), and with the name of a field (bytes in lower case) or of a variable.
Part: TypeAlias = bytes | tuple[str, bytes | None, bytes | str | None]
Named = tuple[str, str]  # i, o or e, and a name: a field of the request or the answer, or a variable of the environ


class Format:
    """One of them. ``named`` are the values that it asks for by name."""

    named: tuple[Named, ...] = ()

    def write(self, line: Line, most: int) -> str:
        """``line`` as text of ASCII with a line feed, of ``most`` bytes at most."""
        raise NotImplementedError

    def parts(self, worker: int, generation: int, pid: int) -> tuple[Part, ...]:
        """The same for the extension, in that worker; empty where Python writes each line."""
        return ()


def combined_parts() -> tuple[Part, ...]:
    """Of the combined format."""
    return AtomFormat(_SPELLED).parts(0, 0, 0)


def compiled(text: str) -> Format | None:
    """The format that ``text`` says; None for the combined one. Raises FormatError."""
    if text in (COMBINED, AUTO, _SPELLED):
        return None
    return JsonFormat() if text == JSON else AtomFormat(text)


# Atoms


def _whole(factor: int) -> Reader:
    return lambda line: None if line.seconds is None else str(int(line.seconds * factor))


def _decimal(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.6f}"


# What the server says of a request, and what a client has a say in.
_OURS: Final[dict[str, Reader]] = {
    "t": lambda line: line.date[:-1],
    "s": lambda line: str(line.status),
    "b": lambda line: str(line.size) if line.size else None,
    "B": lambda line: str(line.size),
    "l": lambda _line: None,
    "T": _whole(1),
    "M": _whole(1000),
    "D": _whole(1_000_000),
    "L": lambda line: _decimal(line.seconds),
    "p": lambda line: f"<{line.pid}>",
    "wait": lambda line: _decimal(line.facts.waited),
    "app": lambda line: _decimal(line.facts.called),
    "id": lambda line: line.facts.request_id,
    "worker": lambda line: str(line.worker),
    "generation": lambda line: str(line.generation),
}
_CLIENTS: Final[dict[str, Reader]] = {
    "h": lambda line: line.peer,
    "u": lambda line: line.user,
    "r": lambda line: line.request,
    "m": lambda line: _parts(line.request)[0],
    "U": lambda line: _parts(line.request)[1].partition("?")[0],
    "q": lambda line: _parts(line.request)[1].partition("?")[2],
    "H": lambda line: _parts(line.request)[2],
    "f": lambda line: line.referer,
    "a": lambda line: line.agent,
}
ATOMS: Final = (*_CLIENTS, *_OURS)


def _parts(request: str) -> tuple[str, str, str]:
    """Method, target and version of a request line; of one that was refused, what there is of them."""
    words = request.split(" ")
    if len(words) < 2:
        return "", request, ""
    return words[0], " ".join(words[1:-1]) if len(words) > 2 else words[1], words[-1] if len(words) > 2 else ""


class AtomFormat(Format):
    """A format in gunicorn's atoms and ours. Raises FormatError."""

    def __init__(self, text: str) -> None:
        self._template = ""
        self._readers: list[tuple[Reader, str | None]] = []  # with the marks that are escaped besides
        self._parts: list[Part] = []
        named: list[Named] = []
        # Where a blank divides two fields, no other mark can: blanks are escaped.
        dividing = "".join(each for each in self._literals(text) if not set(each) & set(" \t"))
        bare = "".join(sorted({each for each in dividing if not each.isalnum()} | {" "}))
        at, quotes = 0, 0
        for match in _ATOM.finditer(text):
            self._add(text[at : match.start()])
            quotes += text[at : match.start()].count('"')
            at = match.end()
            key, kind, atom = match.groups()
            if kind:
                reader = _value(len(named))
                named.append((kind, key.lower() if kind == "o" else _variable(key) if kind == "i" else key))
            elif atom:
                reader = _OURS.get(atom) or _CLIENTS[atom]
            else:
                self._add("%")
                continue
            marks = None if atom in _OURS else "" if quotes % 2 else bare
            self._template += "{}"
            self._readers.append((reader, marks))
            name = key if kind == "e" else key.lower().replace("_", "-").encode("latin-1", "replace") if kind else None
            self._parts.append((kind or atom, (marks or "").encode(), name))
        self._add(text[at:])
        self._has_bare = any(marks for _, marks in self._readers)
        self.named = tuple(named)

    def _add(self, literal: str) -> None:
        self._template += literal.replace("{", "{{").replace("}", "}}")
        self._parts.append(literal.encode("ascii"))

    @staticmethod
    def _literals(text: str) -> list[str]:
        """What stands between the atoms. Raises FormatError."""
        found, at = [], 0
        if not any(match[2] or match[3] for match in _ATOM.finditer(text)):
            raise FormatError(f'no format: use {AUTO}, {COMBINED}, {JSON}, or atoms such as %(h)s %(t)s "%(r)s" %(s)s')
        for match in [*_ATOM.finditer(text), None]:
            literal = text[at : match.start() if match else len(text)]
            for offset, character in enumerate(literal):
                if character == "%":
                    shown = text[at + offset :][:12]
                    raise FormatError(f"column {at + offset + 1}: {shown!r} is no atom: write %(NAME)s, or %% for a %")
                if character != "\t" and not (character.isascii() and character.isprintable()):
                    raise FormatError(f"column {at + offset + 1}: {character!r} cannot stand there: use visible ASCII")
            found.append(literal)
            if match:
                at = match.end()
                if match[3] and match[3] not in ATOMS:
                    known = ", ".join(ATOMS)
                    raise FormatError(
                        f"column {match.start() + 1}: there is no %({match[3]})s: use one of {known}, or "
                        "%({NAME}i)s for a field of the request, {NAME}o of the answer, {NAME}e of the environ"
                    )
        return found

    def parts(self, worker: int, generation: int, pid: int) -> tuple[Part, ...]:
        known = {"l": "-", "worker": str(worker), "generation": str(generation), "p": f"<{pid}>"}
        return _joined(
            known[part[0]].encode() if isinstance(part, tuple) and part[0] in known else part
            for part in (*self._parts, b"\n")
        )

    def write(self, line: Line, most: int) -> str:
        raw = [reader(line) or "" for reader, _ in self._readers]
        if self._has_bare or not is_plain("".join(raw)):
            raw = [
                value if marks is None else escaped_with(marks, value)
                for value, (_, marks) in zip(raw, self._readers, strict=True)
            ]
        values = [value or "-" for value in raw]
        text = self._template.format(*values)
        if len(text) >= most:
            sizes = [len(value) for value in values]
            share = fair_share(sizes, most - 1 - (len(text) - sum(sizes)))
            text = self._template.format(*(cut(value, share) for value in values))
            text = cut(text, most - 1)  # literals, and the least of many fields, may have no room
        return text + "\n"


def _value(number: int) -> Reader:
    return lambda line: line.facts.values[number] if number < len(line.facts.values) else None


def _joined(parts: Iterable[Part]) -> tuple[Part, ...]:
    """``parts`` with neighbouring literals as one, and without empty ones."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += part
        elif part:
            found.append(part)
    return tuple(found)


def _variable(field: str) -> str:
    """The name of a request's ``field`` in an environ."""
    name = field.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


# JSON


class JsonFormat(Format):
    """One object a line. Its names stay as they are; what is not known is null."""

    def __init__(self) -> None:
        self._second: tuple[int, str] = -1, ""

    def write(self, line: Line, most: int) -> str:
        facts, request = line.facts, line.request
        method, target, _ = _parts(request)
        texts = (
            line.peer, line.user, request, method, target.partition("?")[0], facts.host, line.referer, line.agent,
            facts.request_id,
        )  # fmt: skip
        # One look at all of them, which are plain as a rule.
        shown = [f'"{text}"' if text else "null" for text in texts] if is_plain("".join(texts)) else _strings(texts)
        text = self._object(line, shown)
        if len(text) > most:
            sizes = [len(each) for each in shown]
            text = self._object(line, _strings(texts, fair_share(sizes, most - (len(text) - sum(sizes)))))
        return text

    def _object(self, line: Line, shown: list[str]) -> str:
        client, user, request, method, path, host, referer, agent, request_id = shown
        return (
            f'{{"time":"{self._time(line.now)}","client":{client},"user":{user},"request":{request},"method":{method},'
            f'"path":{path},"host":{host},"status":{line.status},"bytes":{line.size},"referer":{referer},'
            f'"user_agent":{agent},"request_id":{request_id},"seconds":{_number(line.seconds)},'
            f'"wait_seconds":{_number(line.facts.waited)},"app_seconds":{_number(line.facts.called)},'
            f'"worker":{line.worker},"generation":{line.generation},"pid":{line.pid}}}\n'
        )

    def parts(self, worker: int, generation: int, pid: int) -> tuple[Part, ...]:
        names = {
            "h": "client", "u": "user", "r": "request", "m": "method", "U": "path", "host": "host", "s": "status",
            "B": "bytes", "f": "referer", "a": "user_agent", "id": "request_id", "L": "seconds",
            "wait": "wait_seconds", "app": "app_seconds",
        }  # fmt: skip
        found: list[Part] = [b'{"time":"', ("time", b"", None), b'"']
        for atom, name in names.items():
            found += [f',"{name}":'.encode(), (atom, None, None)]
        return _joined([*found, f',"worker":{worker},"generation":{generation},"pid":{pid}}}\n'.encode()])

    def _time(self, now: float) -> str:
        milliseconds = int(now * 1000)
        second, shown = self._second
        if second != milliseconds // 1000:
            second = milliseconds // 1000
            shown = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second, shown
        return f"{shown}.{milliseconds % 1000:03}Z"


def _strings(texts: Iterable[str], most: int = 1 << 20) -> list[str]:
    return [json_string(decoded(text), most) if text else "null" for text in texts]


def _number(seconds: float | None) -> str:
    return "null" if seconds is None else f"{seconds:.6f}"
