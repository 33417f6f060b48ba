"""Why a write to a file has failed, in words, with the limit of its size where that is the reason.

A file that would grow beyond RLIMIT_FSIZE (``ulimit -f``, systemd: ``LimitFSIZE``) is refused with EFBIG, whose text
"File too large" does not say so. The signal SIGXFSZ, which comes with it, is ignored by the interpreter.

Source: getrlimit(2), write(2).
"""

from __future__ import annotations

import os
import resource
from errno import EFBIG


def why_unwritten(error: OSError) -> str:
    """What ``error`` says, with RLIMIT_FSIZE and how to raise it where that is reached."""
    why = error.strerror or str(error)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if error.errno != EFBIG or soft == resource.RLIM_INFINITY:
        return why
    command = "ulimit -f" if soft != hard else "ulimit -Hf"
    return f"{why} (RLIMIT_FSIZE is {soft} bytes; raise LimitFSIZE= of the unit, or {command})"


def of_log(error: OSError) -> str:
    """The same as a log says it, within a sentence, and in the C library's words."""
    plain = OSError(error.errno or 0, os.strerror(error.errno or 0).lower())
    return why_unwritten(plain)
