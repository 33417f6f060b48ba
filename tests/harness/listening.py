"""What the fixtures of tests/unit/linux/sockets give: listeners that a test opens, clients that it connects."""

from __future__ import annotations

import socket
from collections.abc import Callable

from forkserver.linux.sockets.listening_socket import ListeningSocket

Open = Callable[..., list[ListeningSocket]]
Connect = Callable[[ListeningSocket], socket.socket]
