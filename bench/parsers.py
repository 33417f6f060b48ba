"""How forkserver and its peers answer the raw requests of tests/corpus, as the tables of docs/parsers.md.

    python -m bench parsers [--all] [--quiet-seconds 1] [SERVER...]

Servers: forkserver gunicorn-gthread waitress granian; what is not installed in the environment of this Python is left
out. Each has one worker and an application that reads the body and answers 200. Each request is sent at once with a
good one behind it. Only cases where a peer is stricter or laxer than forkserver are printed, ``--all``: every one.
"""

from __future__ import annotations

import argparse
import itertools
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench import machine
from bench.machine import HOST, TOP
from bench.peers import PEERS, PeerError, Setup
from bench.servers import running

sys.path.insert(0, str(TOP / "tests"))
from harness.corpus import CORPUS, GOOD, INDEX, raw  # after its folder is on the path

AT_ONCE = 8  # connections; a server that waits for more bytes keeps its thread
SETUP = Setup(app="parsers_app:app", threads=8, every_core=True)  # one worker each
SERVERS = ("forkserver", "gunicorn-gthread", "waitress", "granian")  # gunicorn's other kind closes after each answer
ANSWER = re.compile(rb"HTTP/1\.[0-9] ([2-5][0-9][0-9])[ \r](?:(?!\r\n\r\n)[\s\S])*")  # a final answer's head
ANSWERED = re.compile(rb"(?i)x-target: behind\r\n[\s\S]*ok\n")  # the good one, which is the last
TARGET = re.compile(rb"(?i)x-target: (\w+)")


@dataclass(frozen=True)
class Outcome:
    """What came back: the first status, or what happened instead; and which of the targets behind it were reached."""

    status: str
    behind: bool
    smuggled: bool

    @property
    def accepted(self) -> bool:
        return self.status.startswith("2")

    def __str__(self) -> str:
        return self.status + " **+**" * self.behind + " **smuggled**" * self.smuggled


def ask(port: int, data: bytes, quiet_seconds: float) -> Outcome:
    """The outcome of ``data``; a server that says nothing for ``quiet_seconds`` waits for more."""
    received, end = b"", "waits"
    with socket.create_connection((HOST, port), timeout=quiet_seconds) as connection:
        try:
            connection.sendall(data)
            while not ANSWERED.search(received):
                piece = connection.recv(65536)
                if not piece:
                    end = "closes"
                    break
                received += piece
        except TimeoutError:
            pass  # it waits
        except (ConnectionResetError, BrokenPipeError):
            end = "resets"
    return outcome(received, end)


def outcome(received: bytes, end: str) -> Outcome:
    answers = [(match[1].decode(), TARGET.search(match[0])) for match in ANSWER.finditer(received)]
    targets = [found[1] if found else b"" for _, found in answers]
    first_is_behind = targets[:1] == [b"behind"]  # the case itself was passed over without a word
    status = "none" if first_is_behind else answers[0][0] if answers else end
    return Outcome(status, b"behind" in targets, b"smuggled" in targets)


def answers_of(name: str, cases: list[tuple[str, str]], quiet_seconds: float) -> list[Outcome]:
    with running(PEERS[name], SETUP) as server, ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda case: ask(server.port, raw(*case) + GOOD, quiet_seconds), cases))


def families() -> Iterator[tuple[str, str, str]]:
    """``(kind, family, name)`` of every case; a family is a comment of the index, up to its sources."""
    kind = family = ""
    for line in (CORPUS / "index.toml").read_text().splitlines():
        if line.startswith("["):
            kind = line[1 : line.index("]")]
        elif line.startswith("# "):
            family = line[2:].partition(" (")[0]
        elif kind and " = " in line:
            name = line.partition(" = ")[0].strip('"')
            assert name in INDEX[kind], name
            yield kind, family, name


def differs(kind: str, own: Outcome, peer: Outcome) -> bool:
    """Whether one lets through what the other does not; which status a refusal has is not counted."""
    if own.accepted != peer.accepted or own.smuggled != peer.smuggled:
        return True
    return own.behind != peer.behind if kind == "reject" else peer.behind > own.behind


def print_tables(names: list[str], results: dict[tuple[str, str], list[Outcome]], everything: bool) -> None:
    for (kind, family), group in itertools.groupby(families(), lambda each: each[:2]):
        rows: dict[tuple[str, ...], list[str]] = {}
        for _, _, case in group:
            own, *peers = results[kind, case]
            if everything or any(differs(kind, own, peer) for peer in peers):
                rows.setdefault(tuple(map(str, (own, *peers))), []).append(case)
        if rows:
            print(f"\n### {kind.capitalize()}: {family}\n")
            print(f"| request | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
            for cells, cases in rows.items():
                print(f"| {', '.join(cases)} | {' | '.join(cells)} |")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "python -m bench parsers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("servers", nargs="*", default=SERVERS, metavar="SERVER", help=", ".join(SERVERS))
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--quiet-seconds", type=float, default=1.0)
    options = parser.parse_args(arguments)
    versions = dict(installed(options.servers))
    cases = [(kind, name) for kind, _, name in families()]
    columns = [answers_of(name, cases, options.quiet_seconds) for name in versions]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    print(f"{len(cases)} requests, {machine.description()}: {named}")
    results = dict(zip(cases, map(list, zip(*columns, strict=True)), strict=True))
    print_tables(list(versions), results, options.all)
    for name, column in zip(versions, columns, strict=True):
        print(f"{name}: {tally(cases, column)}", file=sys.stderr)
    return 0


def installed(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """``(name, version)`` of those that can be compared."""
    for name in names:
        try:
            yield name, PEERS[name].version()
        except PeerError as error:
            print(f"without {name}: {error}", file=sys.stderr)


def tally(cases: list[tuple[str, str]], column: list[Outcome]) -> str:
    bad = [each for (kind, _), each in zip(cases, column, strict=True) if kind == "reject"]
    good = [each for (kind, _), each in zip(cases, column, strict=True) if kind == "accept"]
    return (
        f"of {len(bad)} bad requests {sum(each.accepted for each in bad)} accepted, the good one behind "
        f"{sum(each.behind for each in bad)} of them answered; of {len(good)} good ones "
        f"{sum(not each.accepted for each in good)} not answered with 2xx"
    )
