"""One call of a WSGI application: whatever it does wrong ends here, and costs one answer, never the worker.

The application runs without the loop lock. The client learns of a fault by a 500 while nothing was sent, by a cut
connection afterwards.

Source: PEP 3333 "Specification Details".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from forkserver.errors import AppError, RequestTimeout
from forkserver.server.wsgi.response import Response, close_result, end_script
from forkserver.server.wsgi.response_sink import ClientGoneError, Sink

App = Callable[[dict[str, Any], Callable[..., Callable[[bytes], object]]], Iterable[bytes]]


def run(app: App, environ: dict[str, Any], response: Response) -> None:
    """Call ``app`` and send its answer. Raises nothing but a script's KeyboardInterrupt."""
    sink = response.sink
    result: Iterable[bytes] | None = None
    try:
        result = sink.loop_lock.lend(app, environ, response.start_response)
        response.send_result(result)
    except BaseException as error:  # SystemExit, asyncio's CancelledError: no worker ends by what one request raised
        answer_fault(response, error)
    finally:
        _close(result, sink)


def go_on(response: Response, result: Any, send: Callable[[], object], error: BaseException | None) -> None:
    """The application was called already: ``send`` what is left, or tell of ``error``; then close ``result``."""
    try:
        if error is not None:
            answer_fault(response, error)
            return
        try:
            send()
        except BaseException as fault:
            answer_fault(response, fault)
    finally:
        _close(result, response.sink)


def _close(result: Any, sink: Sink) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close_result(partial(sink.loop_lock.lend, close), sink)


def answer_fault(response: Response, error: BaseException) -> None:
    """The application, or what sends its answer, has raised ``error``: tell the client and the operator."""
    response.persistent = False
    if isinstance(error, ClientGoneError):
        return
    end_script(response.sink, error)
    if response.detached:
        if not isinstance(error, StopIteration):  # which is how libraries end such a call: gunicorn understands it
            response.sink.report("the application raised", error)
        return
    if isinstance(error, AppError):
        response.sink.report(str(error))
    elif not isinstance(error, RequestTimeout):  # of which the master has told
        response.sink.report("the application raised", error)
    if response.head_sent:
        if response.remaining != 0:
            response.sink.abort()  # else the answer is whole
        return
    if response.gone:
        return  # its client has an answer
    if isinstance(error, RequestTimeout):
        response.status = 504
    try:
        response.sent = response.sink.fail(response.status)
    except ClientGoneError:  # no client is left to be told
        return
