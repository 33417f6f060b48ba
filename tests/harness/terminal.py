"""A terminal that a program under test is started at."""

from __future__ import annotations

import os


class Terminal:
    """A terminal: what is typed at ``keyboard`` is read at ``screen``."""

    def __init__(self) -> None:
        self.keyboard, self.screen = os.openpty()

    def type(self, text: str) -> None:
        os.write(self.keyboard, text.encode())

    def close(self) -> None:
        """Hang up, as a window or a connection that is closed."""
        for number in (self.keyboard, self.screen):
            if number >= 0:
                os.close(number)
        self.keyboard = self.screen = -1
