"""What the live tests share: the program under test, its clients, and events to wait for.

It promises that nothing here sleeps or guesses a port: a wait ends with an event (a log line, a datagram, end-of-file,
a pid's death), and ``BOUND`` only keeps a broken run from hanging.
"""

from __future__ import annotations

BOUND = 120.0  # seconds; no test that passes waits this long
