"""A real browser without a window: Chromium, driven over pipes by its DevTools protocol.

Source: https://chromedevtools.github.io/devtools-protocol/, `--remote-debugging-pipe` (messages end with a NUL byte).
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
from typing import Any

import psutil

from harness import BOUND, needs, processes

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update",
    "--no-proxy-server", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One browser with one page. ``requests`` are the addresses that it has asked for, ``complaints`` its errors."""

    def __init__(self) -> None:
        chromium = needs.program("chromium")
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._folder = tempfile.mkdtemp(prefix="fs-browser-")
        told, self._orders = os.pipe()
        self._events, tells = os.pipe()
        command = [chromium, *_FLAGS, f"--user-data-dir={self._folder}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{told} 4>&{tells}', "bash", *command],
            pass_fds=(told, tells),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(told)
        os.close(tells)
        self._came = b""
        self._serial = 0
        self._loads = 0
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of one command; AssertionError with what the browser says against it."""
        self._serial += 1
        order = {"id": self._serial, "method": method, "params": parameters}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._serial:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._came:
            assert select.select([self._events], [], [], BOUND)[0], "the browser says nothing"
            data = os.read(self._events, 1 << 16)
            assert data, "the browser has ended"
            self._came += data
        message, _, self._came = self._came.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Page.loadEventFired":
                self._loads += 1
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.complaints.append(parameters["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(parameters["exceptionDetails"]))

    def open(self, address: str, width: int = 1200, dark: bool = False) -> None:
        """Go to ``address`` in a window of ``width`` pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._load("Page.navigate", url=address)

    def reload(self) -> None:
        """As F5."""
        self._load("Page.reload")

    def _load(self, method: str, **parameters: Any) -> None:
        before = self._loads
        self.call(method, **parameters)
        self.await_load(before)

    @property
    def loads(self) -> int:
        """How many pages were loaded."""
        return self._loads

    def await_load(self, before: int) -> None:
        """Return when a page was loaded beyond the ``before`` that there were, as one that loads another by itself."""
        while self._loads == before:
            self._note(self._next())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, what it comes to."""
        told = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, expression: str) -> None:
        """Return when ``expression`` is true in the page."""
        look = f"new Promise(done => {{const look = () => ({expression}) ? done(1) : setTimeout(look, 20); look()}})"
        self.evaluate(look)

    def text(self) -> str:
        """What a person reads."""
        return str(self.evaluate("document.body.innerText"))

    def close(self) -> None:
        helpers = [each.pid for each in psutil.Process(self._process.pid).children(recursive=True)]
        try:
            self._session = ""
            self.call("Browser.close")
        except (AssertionError, OSError):
            self._process.kill()
        self._process.wait(BOUND)
        for pid in helpers:  # some outlast it by a moment, and come to us then
            assert processes.wait_gone(pid)
            processes.reap(pid)
        os.close(self._orders)
        os.close(self._events)
        shutil.rmtree(self._folder, ignore_errors=True)
