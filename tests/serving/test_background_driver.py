"""While the application takes its time, everything else goes on.

The slow call is the test itself: it runs in the application, in the main thread, and watches what the driver does.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any

from forkserver import RequestTimeout
from forkserver.ipc.scoreboard import BUSY_SINCE, ROW_WORDS
from harness import BOUND
from harness.worker import Slow, StartTwoWorkers, StartWorker, read, wait_until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = GET.replace(b"/ ", b"/slow ")
BIG = 8_000_000


def test_a_download_goes_on_beside_a_slow_call(worker: StartWorker, app: Slow) -> None:
    """A client that reads must not wait because another's request is slow."""
    server = worker(app)
    big = server.client(GET.replace(b"/ ", b"/big "), receive_buffer=65536)
    server.turn(2)
    got = []
    app.during = lambda _environ: got.append(read(big, 8_000_000))
    slow = server.client(SLOW)
    assert server.until_answered(slow).endswith(b"slow")
    assert len(got[0]) == 8_000_000


def test_a_body_is_collected_beside_a_slow_call(worker: StartWorker, app: Slow) -> None:
    """An upload over a slow line costs no time of the application, nor the application's time the upload's."""
    server = worker(app)
    upload = server.client(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")
    server.turn(2)

    def during(_environ: dict[str, Any]) -> None:
        upload.setblocking(True)
        upload.sendall(b"x" * 300_000)
        upload.setblocking(False)
        wait_until(lambda: server.loop.calls)

    app.during = during
    server.until_answered(server.client(SLOW))
    assert server.until_answered(upload).endswith(b"300000")


def test_deadlines_are_kept_beside_a_slow_call(worker: StartWorker, app: Slow) -> None:
    """A client that dawdles gains nothing by the slowness of others."""
    server = worker(app, header_timeout=10)
    dawdler = server.client(GET[:9])
    server.turn(2)
    answers = []

    def during(_environ: dict[str, Any]) -> None:
        wait_until(lambda: server.loop.tended)
        server.clock.now += 11
        server.loop.wake()
        answers.append(read(dawdler, 12))

    app.during = during
    server.until_answered(server.client(SLOW))
    assert b" 408" in answers[0]


def test_no_client_is_accepted_beside_a_slow_call(worker: StartWorker, app: Slow) -> None:
    """A client that is accepted here would wait for the call; in the kernel's queue a sibling may take it."""
    server = worker(app)
    server.until_answered(server.client(GET), 3)
    seen = []

    def during(_environ: dict[str, Any]) -> None:
        wait_until(lambda: server.loop.tended)
        late.append(server.client(GET))
        upload.sendall(b"def")  # after it, so that the driver has seen both
        wait_until(lambda: server.loop.calls)
        seen.append(len(server.loop.connections))

    late: list[socket.socket] = []
    upload = server.client(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    server.turn(2)
    app.during = during
    server.until_answered(server.client(SLOW))
    assert seen == [3]
    assert server.until_answered(late[0]).endswith(b"quick")


def test_orders_are_heard_beside_a_slow_call(worker: StartWorker, app: Slow) -> None:
    """A worker that is to retire lets go of its clients at once, not when the call is over."""
    server = worker(app)
    reading, writing = os.pipe()
    heard = threading.Event()

    def hear() -> None:
        os.read(reading, 1)
        heard.set()

    server.httpd.watch(reading, hear)
    server.until_answered(server.client(GET), 3)

    def during(_environ: dict[str, Any]) -> None:
        os.write(writing, b"x")
        assert heard.wait(BOUND)

    app.during = during
    assert server.until_answered(server.client(SLOW)).endswith(b"slow")
    server.httpd.unwatch(reading)
    os.close(reading)
    os.close(writing)


def test_a_worker_that_retires_in_a_call_hands_on_what_is_idle(two_workers: StartTwoWorkers, app: Slow) -> None:
    first, second = two_workers(app)
    idle = first.client(GET)
    first.until_answered(idle, 3)
    answers = []

    def during(_environ: dict[str, Any]) -> None:
        with first.loop.loop_lock.mutex:
            first.httpd.retire(30, handoff=True)
        idle.sendall(GET)
        answers.append(second.until_answered(idle, 5))

    app.during = during
    slow = first.client(SLOW)
    assert first.until_answered(slow).endswith(b"slow")
    assert answers[0].endswith(b"quick")
    assert first.httpd.retired
    slow.sendall(GET)
    assert second.until_answered(slow, 5).endswith(b"quick")


def test_what_was_yielded_goes_out_while_the_application_works_on(worker: StartWorker, app: Slow) -> None:
    """PEP 3333: a block is not kept back until the next one; also what the kernel did not take at once."""
    server = worker(app)
    server.until_answered(server.client(GET), 3)
    slow = server.client(SLOW, receive_buffer=65536)
    got = []

    def body() -> Iterator[bytes]:
        wait_until(lambda: server.loop.tended)
        yield b"x" * 8_000_000
        got.append(read(slow, 8_000_000))
        yield b"end"

    app.during = lambda _environ: body()
    server.until_answered(slow)
    assert len(got[0]) == 8_000_000


def test_a_client_that_stops_reading_is_cut_though_the_application_works_on(worker: StartWorker, app: Slow) -> None:
    server = worker(app, write_timeout=10)
    server.until_answered(server.client(GET), 3)
    slow = server.client(SLOW, receive_buffer=65536)

    def overdue() -> bool:
        """Again, for the kernel may take a piece in the very moment, and the client has ten seconds from then."""
        server.clock.now += 11
        server.loop.wake()
        return len(server.loop.connections) == 1

    def body() -> Iterator[bytes]:
        wait_until(lambda: server.loop.tended)
        yield b"x" * 8_000_000
        wait_until(overdue)
        cut.append(slow)
        yield b"no client gets this"

    cut: list[socket.socket] = []
    app.during = lambda _environ: body()
    server.turn(3)
    assert cut == [slow]


def test_without_a_call_there_is_no_background_driver(worker: StartWorker, app: Slow) -> None:
    """A thread that has nothing to do is not started."""
    server = worker(app)
    server.client()
    server.turn(3)
    assert server.loop.background_driver is None


# Calls that last too long


def busy_since(server: Any) -> int:
    busy = server.row.busy()
    assert busy is not None
    return int(busy.since)


def expire(server: Any) -> None:
    """As the channel's order does it, in the driver's thread."""

    def order() -> None:
        with server.loop.loop_lock.mutex:
            assert server.httpd.expire(0, busy_since(server))

    thread = threading.Thread(target=order)
    thread.start()
    thread.join()


def test_a_call_that_lasts_too_long_is_interrupted_and_answered_504(worker: StartWorker, app: Slow) -> None:
    server = worker(app)
    server.until_answered(server.client(GET), 3)

    def during(_environ: dict[str, Any]) -> None:
        wait_until(lambda: server.loop.tended)
        expire(server)
        select.select([], [], [], BOUND)  # ends with the signal

    app.during = during
    assert b" 504 " in server.until_answered(server.client(SLOW))
    assert isinstance(app.caught, RequestTimeout)
    assert server.loop.retiring


def test_an_application_that_does_not_hear_of_it_is_answered_for(worker: StartWorker, app: Slow) -> None:
    """libpq and other C code waits on; the client need not."""
    server = worker(app)
    server.until_answered(server.client(GET), 3)
    slow = server.client(SLOW)
    answers = []

    def during(_environ: dict[str, Any]) -> None:
        wait_until(lambda: server.loop.tended)
        try:
            expire(server)
            threading.Event().wait(BOUND)
        except RequestTimeout:
            server.clock.now += 2
            server.loop.wake()
            answers.append(read(slow, 12))

    app.during = during
    rest = server.until_answered(slow)
    assert answers == [b"HTTP/1.1 504"]
    assert b"200 OK" not in rest
    assert rest.endswith(b"<closed>")


def test_an_answer_that_has_begun_is_cut(worker: StartWorker, app: Slow) -> None:
    """A status line cannot be taken back; a reset says that the answer is not whole."""
    server = worker(app)
    server.until_answered(server.client(GET), 3)

    def body() -> Iterator[bytes]:
        yield b"half"
        wait_until(lambda: server.loop.tended)
        expire(server)
        select.select([], [], [], BOUND)
        yield b"and half"

    app.during = lambda _environ: body()
    answer = server.until_answered(server.client(SLOW))
    assert b"half" in answer
    assert b"and half" not in answer
    assert answer.endswith(b"<reset>")


def test_a_call_that_is_over_cannot_be_ended(worker: StartWorker, app: Slow) -> None:
    """The order may cross the answer: the next request must not pay for it."""
    server = worker(app)
    server.until_answered(server.client(GET), 3)
    assert not server.httpd.expire(0, 1)
    assert not server.loop.retiring
    app.during = lambda _environ: assert_not(server.httpd.expire(0, busy_since(server) - 1))
    assert server.until_answered(server.client(SLOW)).endswith(b"slow")


def assert_not(value: object) -> None:
    assert not value


def test_the_application_may_ask_for_more_time(worker: StartWorker, app: Slow) -> None:
    server = worker(app, timeout=30.0)
    seen = []

    def during(environ: dict[str, Any]) -> None:
        environ["forkserver.extend_deadline"](100)
        busy = server.row.busy()
        seen.append((busy.deadline - server.row.words[ROW_WORDS + BUSY_SINCE]) / 1e9)
        environ["forkserver.extend_deadline"](50)
        assert server.row.busy().deadline == busy.deadline

    app.during = during
    server.until_answered(server.client(SLOW))
    assert 100 <= seen[0] < 100 + BOUND


def test_each_block_that_is_yielded_renews_the_time(worker: StartWorker, app: Slow) -> None:
    """A stream may last for hours, as long as it comes on."""
    server = worker(app, timeout=30.0)
    seen = []

    def body() -> Iterator[bytes]:
        seen.append(server.row.busy().deadline)
        yield b"x"
        seen.append(server.row.busy().deadline)

    app.during = lambda _environ: body()
    server.until_answered(server.client(SLOW))
    assert seen[0] == 0 < seen[1]


def test_the_access_log_does_not_wait_for_a_slow_call(worker: StartWorker, app: Slow) -> None:
    """What a worker did before it hung is found in the log, also when the worker is killed."""
    server = worker(app)
    told = threading.Event()

    class Log:
        enabled = plain = True
        parts = ()

        def add(self, *_fields: Any) -> None:
            """The call that is told of is over."""

        def flush(self) -> None:
            if threading.current_thread().name == "background-driver":
                told.set()

    server.replace(access=Log())
    heard: list[bool] = []
    app.during = lambda _environ: heard.append(told.wait(10))
    server.until_answered(server.client(SLOW))
    assert heard == [True]


def test_a_request_that_has_waited_too_long_is_turned_down(worker: StartWorker, app: Slow) -> None:
    """Under overload an answer that no client waits for any more only delays the next one."""
    server = worker(app, queue_timeout=2.0)
    late = server.client(GET)
    server.until_answered(late, 3)

    def during(_environ: dict[str, Any]) -> None:
        late.sendall(GET)
        wait_until(lambda: server.loop.calls)
        server.clock.now += 3

    app.during = during
    server.until_answered(server.client(SLOW), 2)
    answer = server.until_answered(late)
    assert b" 503 " in answer
    assert b"Retry-After" in answer


def test_what_was_yielded_before_the_call_was_slow_goes_out_too(worker: StartWorker, app: Slow) -> None:
    """When the block is kept no thread drives beside; the driver comes later and must find it."""
    server = worker(app)
    slow = server.client(SLOW, receive_buffer=65536)
    got = []

    def body() -> Iterator[bytes]:
        yield b"x" * BIG
        got.append(len(read(slow, BIG)))
        yield b"end"

    app.during = lambda _environ: body()
    server.until_answered(slow)
    assert got == [BIG]
