"""Which threads of a worker serve, and what they are seen at: application threads, the loop, and threads of a class."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from socketserver import ThreadingMixIn
from typing import Any

import pytest

from forkserver import WSGIServer
from forkserver.server.loop.event_loop import EventLoop
from forkserver.worker.stacks.serving_threads import ServingThreads, ThreadAtWork
from harness import BOUND
from harness.worker import Slow, StartWorker, Worker


def turning(worker: Worker) -> None:
    """In place of Serving.run."""
    worker.turn()


def seen_by_another_thread(worker: Worker, lines: bool = True) -> list[ThreadAtWork]:
    """What the profiler's thread sees at this moment."""
    threads = ServingThreads(worker.httpd, worker.row, turning.__code__)
    found: list[ThreadAtWork] = []
    looking = threading.Thread(target=lambda: found.extend(threads.at_work(sys._current_frames, lines)))
    looking.start()
    looking.join(BOUND)
    return found


def names(thread: ThreadAtWork) -> list[str]:
    """Of its functions, the outermost first."""
    return [frame.f_code.co_name for frame in reversed(thread.frames)]


def test_a_call_is_seen_from_the_loop_on_with_the_path_of_its_request(worker: StartWorker, app: Slow) -> None:
    made = worker(app)
    found: list[ThreadAtWork] = []
    app.during = lambda _: found.extend(seen_by_another_thread(made))
    made.client(b"GET /slow?secret=1 HTTP/1.1\r\nHost: a\r\n\r\n")
    turning(made)
    (seen,) = found
    assert names(seen)[0] == "turn"
    assert "__call__" in names(seen)
    assert seen.line == "GET /slow"
    assert seen.since > 0


def test_paths_are_not_looked_up_where_they_are_not_asked_for(worker: StartWorker, app: Slow) -> None:
    made = worker(app)
    found: list[ThreadAtWork] = []
    app.during = lambda _: found.extend(seen_by_another_thread(made, lines=False))
    made.client(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    turning(made)
    assert [each.line for each in found] == [""]


def test_application_threads_are_seen_and_idle_ones_are_not(worker: StartWorker, app: Slow) -> None:
    made = worker(app, threads=2)
    inside, leave = threading.Event(), threading.Event()

    def wait(_: object) -> None:
        inside.set()
        leave.wait(BOUND)

    app.during = wait
    client = made.client(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    made.turn_until(inside.is_set)
    seen = [each for each in seen_by_another_thread(made) if each.since]
    leave.set()
    made.until_answered(client)
    assert [(each.line, names(each)[0], "wait" in names(each)) for each in seen] == [("GET /slow", "serve_next", True)]


def test_a_loop_that_waits_is_idle(worker: StartWorker, app: Slow) -> None:
    made = worker(app)
    threads = ServingThreads(made.httpd, made.row, turning.__code__)
    entered = threading.Event()

    def turn() -> None:
        threads._main = threading.get_ident()
        entered.set()
        made.loop.turn(BOUND)

    looping = threading.Thread(target=turn)
    looping.start()
    entered.wait(BOUND)
    while sys._current_frames()[threads._main].f_code is not EventLoop._wait.__code__:
        continue
    found = threads.at_work(sys._current_frames, True)
    made.loop.wake()
    looping.join(BOUND)
    assert found == []


class Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = True


@pytest.fixture
def parked() -> Iterator[threading.Event]:
    made = threading.Event()
    yield made
    made.set()


def test_a_thread_that_a_class_starts_for_a_request_is_seen(
    worker: StartWorker, app: Slow, parked: threading.Event
) -> None:
    """Other threads of the application are not: they serve no request."""
    made = worker(app)
    server = Threading.__new__(Threading)
    vars(server).update(vars(made.httpd))
    threads = ServingThreads(server, made.row, turning.__code__)
    assert threads.several
    here, there = threading.Event(), threading.Event()

    class Serving(Threading):
        def __init__(self) -> None:
            """Only its method is called."""

        def finish_request(self, request: Any, client_address: Any) -> None:
            here.set()
            parked.wait(BOUND)

        def shutdown_request(self, request: Any) -> None:
            """There is none."""

    def wait() -> None:
        there.set()
        parked.wait(BOUND)

    background = threading.Thread(target=wait, daemon=True)
    request = threading.Thread(target=Serving().process_request_thread, args=(None, None), daemon=True)
    for each in (background, request):
        each.start()
    assert here.wait(BOUND)
    assert there.wait(BOUND)
    threads._main = 0
    (seen,) = threads.at_work(sys._current_frames, True)
    assert names(seen)[:2] == ["process_request_thread", "finish_request"]


def test_no_garbage_is_collected_while_frames_of_others_are_walked(
    worker: StartWorker, app: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CPython 3.11 a finalizer could let the other thread go on in the middle of that: memory is overwritten."""
    made = worker(app)
    threads = ServingThreads(made.httpd, made.row, turning.__code__)
    enabled: list[bool] = []
    walk = ServingThreads._walk

    def noted(self: ServingThreads, frame: Any) -> Any:
        enabled.append(gc.isenabled())
        return walk(self, frame)

    monkeypatch.setattr(ServingThreads, "_walk", noted)
    threads._main = 0
    looking = threading.Thread(target=lambda: threads.at_work(lambda: {0: sys._getframe()}, False))
    looking.start()
    looking.join(BOUND)
    assert enabled
    assert set(enabled) == {sys.version_info >= (3, 12)}
    assert gc.isenabled()


def test_a_thread_that_has_gone_on_meanwhile_is_looked_at_again(worker: StartWorker, app: Slow) -> None:
    """Else a stack could be half of one call and half of the next."""
    made = worker(app)
    threads = ServingThreads(made.httpd, made.row, turning.__code__)
    threads._main = 1
    first, second = sys._getframe(), sys._getframe(1)
    answers = iter([first, second, second, second])
    (seen,) = threads.at_work(lambda: {1: next(answers)}, False)
    assert seen.frames[0] is second
