"""An application that misuses what it has of the master: the channel, the scoreboard, the queue of the hand-off.

``GET /lie/NUMBER`` tells the lie of that number from a worker. In a template, each file ``LIES/NUMBER`` is a lie to
tell while it is imported, and ``LIES/forked-PID`` a pid to name, just before each fork, for every row there is.
"""

from __future__ import annotations

import gc
import mmap
import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from forkserver.ipc import messages
from forkserver.ipc.channel import Channel

T = TypeVar("T")
KEPT: list[Any] = []
OF_TEMPLATE: list[Channel] = []
ROWS = 64
TEMPLATE = os.getpid()


def channels() -> list[Channel]:
    """This process's own; a template that is about to fork has the worker's, too, which is made later."""
    return [OF_TEMPLATE[0]] if OF_TEMPLATE and OF_TEMPLATE[0].fileno() >= 0 else _open_channels()


def _objects(kind: type[T]) -> list[T]:
    """Every object of that kind here. Raises LookupError where there is none: nothing would be lied about."""
    gc.unfreeze()  # else those that were made before are not shown
    found = [each for each in gc.get_objects() if isinstance(each, kind)]
    if not found:
        raise LookupError(kind)
    return found


def _open_channels() -> list[Channel]:
    return [each for each in _objects(Channel) if each.fileno() >= 0]


def report(data: bytes, announced: int | None = None) -> None:
    """Put a frame of ``data`` into the ring as if it were a message, and announce it, or so many bytes."""
    frame = struct.pack("=I", len(data)) + data
    for each in channels():
        outbox = each._outbox
        outbox._ring.write(outbox._written, frame)
        outbox._written += len(frame)
        with suppress(BlockingIOError):
            os.eventfd_write(outbox._bell, len(frame) if announced is None else announced)


def sockets() -> Iterator[socket.socket]:
    """Every Unix socket that this process has, as copies."""
    for number in sorted(map(int, os.listdir("/proc/self/fd"))):
        with suppress(OSError):
            made = socket.socket(fileno=os.dup(number))
            if made.family == socket.AF_UNIX and made.type & 0xF == socket.SOCK_SEQPACKET:
                yield made
            made.close()


def lingering() -> int:
    """A descriptor of a connection that lingers for an hour with what it has not sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sending = socket.create_connection(listener.getsockname())
        KEPT.append(listener.accept()[0])
    sending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    sending.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            sending.send(bytes(1 << 16))
    return sending.detach()


def memory(name: str) -> Iterator[int]:
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):
            if name in os.readlink(f"/proc/self/fd/{number}"):
                yield number


def value(name: str, kind: str, code: str, chance: random.Random) -> Any:
    if kind == "str":
        return "".join(chr(chance.randrange(1, 0x3000)) for _ in range(chance.choice((0, 1, 20, 5000))))
    if code == "?":
        return chance.random() < 0.5
    if code == "d":
        return chance.choice((0.0, -1.0, float("nan"), float("inf"), 1e308))
    if name == "pid":
        return chance.choice((-1, 0, 1, os.getpid(), os.getppid(), int(os.environ["BYSTANDER"]), (1 << 31) - 1))
    top = {"B": 255, "I": (1 << 32) - 1, "Q": (1 << 64) - 1}[code]
    return chance.choice((0, 1, 2, chance.randrange(top), top))


def some(kind: type[messages.Message], chance: random.Random) -> bytes:
    """A message of that kind, with anything in its fields."""
    codes = iter(messages._WIRE[messages._CODES[kind]][1].format.lstrip("="))
    annotated = kind.__annotations__
    values = [
        value(name, annotated[name], "" if annotated[name] == "str" else next(codes), chance) for name in kind._fields
    ]
    return messages.encode(kind(*values))


def every_message(chance: random.Random, kinds: Iterable[type[messages.Message]]) -> None:
    for kind in kinds:
        report(some(kind, chance))


def attach(chance: random.Random) -> None:
    """A lingering descriptor on every channel; in the queue of the hand-off, where workers take it, another."""
    ours = [os.fstat(each.fileno()).st_ino for each in channels()]
    for sock in sockets():
        # Not closed here, where it would linger, too.
        number = lingering() if os.fstat(sock.fileno()).st_ino in ours else 0
        KEPT.append(number)
        with suppress(OSError):
            socket.send_fds(sock, [some(messages.Ready, chance)], [number], socket.MSG_DONTWAIT)


def flood(_chance: random.Random) -> None:
    """Reports without end, from beside the calls."""
    flooding = list(range(200_000))

    def go_on() -> None:
        while flooding:
            flooding.pop()
            for each in channels():
                each.send(messages.LogsAdopted())

    threading.Thread(target=go_on, daemon=True).start()


def cut(_chance: random.Random) -> None:
    for name in ("scoreboard", "reports"):
        for number in memory(name):
            for size in (0, 1 << 30):
                with suppress(PermissionError):
                    os.ftruncate(number, size)
                    raise AssertionError("it can be cut off")


def scribble(chance: random.Random) -> None:
    """Anything in every word that is shared: header, rows, rings."""
    from forkserver.ipc import scoreboard  # the module; its objects are found by their class

    boards = [each._map for each in _objects(scoreboard.Scoreboard)]
    for shared in [*boards, *(each._outbox._ring._map for each in channels())]:
        write_all(shared, chance)


def write_all(shared: mmap.mmap, chance: random.Random) -> None:
    shared[:] = chance.randbytes(len(shared))


def steal(_chance: random.Random) -> None:
    """Make the master's reads wait, if they can: the flags of a descriptor are shared, and so is what is read."""
    for each in channels():
        os.set_blocking(each._outbox._bell, True)
        each.send(messages.RecyclingDue("stolen"))
        os.set_blocking(each._outbox._bell, False)
        with suppress(BlockingIOError):
            os.eventfd_read(each._outbox._bell)
        os.set_blocking(each._outbox._bell, True)


def hang_up(_chance: random.Random) -> None:
    for sock in sockets():
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _frame(data: bytes, announced: int | None = None) -> Callable[[random.Random], None]:
    return lambda _: report(data, announced)


_KINDS = [kind for _, (kind, _) in sorted(messages._WIRE.items())]
LIES: list[Callable[[random.Random], None]] = [
    *((lambda chance, kind=kind: every_message(chance, [kind])) for kind in _KINDS),  # type: ignore[misc]
    lambda chance: every_message(chance, chance.sample(_KINDS, len(_KINDS))),
    lambda chance: report(chance.randbytes(chance.randrange(1, 2000))),
    _frame(b""),
    _frame(b"\xff"),
    _frame(b"x" * 60_000),
    _frame(b"", 1),
    _frame(b"", 1 << 40),
    _frame(b"", (1 << 64) - 2),
    attach,
    flood,
    cut,
    scribble,
    steal,
    hang_up,
]


def tell(number: int) -> None:
    LIES[number % len(LIES)](random.Random(number))


def _name_strangers() -> None:
    """In a template, before it forks: its row was ordered and has no pid yet."""
    if os.getpid() != TEMPLATE:
        return  # the process between, which forks as well and has the worker's channel only
    for name in os.listdir(os.environ["LIES"]):
        if name.startswith("forked-"):
            for row in range(ROWS):
                report(messages.encode(messages.Forked(row, int(name.removeprefix("forked-")))))


OF_TEMPLATE = _open_channels()
for _name in sorted(os.listdir(os.environ["LIES"])):
    if _name.isdecimal():
        tell(int(_name))
os.register_at_fork(before=_name_strangers)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    kind, _, number = environ["PATH_INFO"].lstrip("/").partition("/")
    if kind == "lie":
        tell(int(number))
    body = str(len(LIES)).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
