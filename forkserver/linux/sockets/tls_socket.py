"""Whether a socket speaks TLS by itself, asked without the module ssl: where that was never loaded, none does.

Loading it, and OpenSSL with it, takes a start 7 ms and each process memory.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    import ssl


def socket_class() -> type[ssl.SSLSocket] | None:
    """The class ssl.SSLSocket, or None where ssl is not loaded."""
    loaded = sys.modules.get("ssl")
    found: type[ssl.SSLSocket] | None = getattr(loaded, "SSLSocket", None)
    return found


def is_tls(sock: object) -> TypeGuard[ssl.SSLSocket]:
    """Whether ``sock`` is an ssl.SSLSocket."""
    found = socket_class()
    return found is not None and isinstance(sock, found)
