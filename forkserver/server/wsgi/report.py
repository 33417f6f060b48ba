"""Reports of the application's faults on a stream, in the words of wsgiref."""

from __future__ import annotations

import traceback
from typing import Any


def report_to_stream(stream: Any, line: str, message: str, error: BaseException | None) -> None:
    """Write ``message`` to ``stream``, beneath the request ``line`` that was asked, and the traceback of ``error``."""
    print(f"{line}: {message}", file=stream)
    if error is not None:
        traceback.print_exception(error, file=stream)
