"""Reports of the application's faults: on a stream in the words of wsgiref, or as one event of the error log."""

from __future__ import annotations

import traceback
from typing import Any

from forkserver.logs.error_log import ErrorLog


def report_fault(
    stream: Any, log: ErrorLog, line: str, request_id: str, message: str, error: BaseException | None
) -> None:
    """Write ``message`` behind the request ``line`` that was asked and its id, and the traceback of ``error``.

    To ``stream``; where that is None, to ``log``.
    """
    if request_id:
        line = f"{line} (request {request_id})"
    if stream is not None:
        print(f"{line}: {message}", file=stream)
        if error is not None:
            traceback.print_exception(error, file=stream)
    elif error is None:
        log.error(f"{line}: {message}", request_id=request_id)
    else:
        log.exception(f"{line}: {message}", error, request_id)
