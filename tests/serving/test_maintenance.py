"""503 in place of the application, and the application again."""

from __future__ import annotations

from typing import Any

import forkserver


class Asked(forkserver.WSGIServer):
    """A class of a user's that gives the application for each request."""

    asked = 0

    def get_app(self) -> Any:
        self.asked += 1
        return super().get_app()
