"""A terminal with a screen: tmux keeps what a program has drawn, and types at it.

What the program writes also goes into a FIFO, so that a test waits for output and not for time.

Source: tmux(1), pipe-pane and capture-pane.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic

import psutil

from harness import BOUND, needs, processes

_CONFIGURATION = """
set -g default-terminal screen-256color
setw -g remain-on-exit on
set -g status off
set -s escape-time 0
"""


class Tmux:
    """Runs ``command`` in a terminal of so many columns and rows, in a server of its own."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        environ: Mapping[str, str] | None = None,
        columns: int = 80,
        rows: int = 24,
    ) -> None:
        self._tmux = [needs.program("tmux"), "-u", "-S", str(folder / "tmux"), "-f", str(folder / "tmux.conf")]
        (folder / "tmux.conf").write_text(_CONFIGURATION)
        os.mkfifo(folder / "output")
        self._output = os.open(folder / "output", os.O_RDWR | os.O_NONBLOCK)
        more = [f"{name}={value}" for name, value in (environ or {}).items()]
        # The command waits until its output is watched.
        os.mkfifo(folder / "begin")
        self._begin = os.open(folder / "begin", os.O_RDWR)
        line = f"read _ < {shlex.quote(str(folder / 'begin'))}; exec env {shlex.join([*more, *command])}"
        self._run("new-session", "-d", "-x", str(columns), "-y", str(rows), line)
        self._run("pipe-pane", f"cat > {shlex.quote(str(folder / 'output'))}")
        os.write(self._begin, b"\n")  # kept until it is read, whenever that is
        self.pid = int(self._run("display-message", "-p", "#{pane_pid}"))

    def _run(self, *arguments: str) -> str:
        ran = subprocess.run([*self._tmux, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def screen(self, colours: bool = False) -> str:
        """What is shown; with ``colours`` their escape sequences are in it."""
        return self._run("capture-pane", "-p", *(["-e"] if colours else []))

    def wait(self, shows: Callable[[str], object], what: str) -> str:
        """Wait until the screen ``shows`` it; looks again at each output. Returns the screen."""
        until = monotonic() + BOUND
        while not shows(screen := self.screen()):
            readable, _, _ = select.select([self._output], [], [], max(0.0, until - monotonic()))
            assert readable, f"{what} is not shown:\n{screen}"
            os.read(self._output, 65536)
        return screen

    def wait_for(self, text: str) -> str:
        """Wait until ``text`` is on the screen."""
        return self.wait(lambda screen: text in screen, text)

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names: ``r``, ``Down``, ``Escape``."""
        self._run("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        self._run("resize-window", "-x", str(columns), "-y", str(rows))

    def status(self) -> int:
        """Wait for the program's end; its exit status."""
        assert processes.wait_gone(self.pid)
        server = int(self._run("display-message", "-p", "#{pid}"))
        while not (status := self._run("display-message", "-p", "#{pane_dead_status}").strip()):
            os.kill(server, signal.SIGCHLD)  # tmux can miss an end that comes while it looks for another
        return int(status)

    def close(self) -> None:
        """End the server and all that runs in it."""
        server = psutil.Process(int(self._run("display-message", "-p", "#{pid}")))
        below = [each.pid for each in (server, *server.children(recursive=True))]
        self._run("kill-server")
        assert all(map(processes.wait_gone, below))
        os.close(self._output)
        os.close(self._begin)
