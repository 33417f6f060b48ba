"""An application whose import takes two seconds, or BENCH_SECONDS: BENCH_IMPORT says whether it waits or computes.

It tells its birth.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))

if os.environ["BENCH_IMPORT"] == "burn":
    while time.process_time() < SECONDS:
        pass
else:
    time.sleep(SECONDS)
BODY = b"Hello, world!\n"
BORN = str(time.time())


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "14"), ("X-Born", BORN)])
    return [BODY]
