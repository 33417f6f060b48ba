"""Proxies in front of programs, as their users run them, and what is asked of each of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from harness import BOUND, needs
from harness.clients import Address
from harness.load import Load
from harness.program import Program

_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
{user}
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


def changed(shipped: Path, text: str, pattern: str, replacement: str) -> str:
    """``text``, from the ``shipped`` file, with one line changed; the pattern must be there exactly once."""
    new, count = re.subn(pattern, replacement, text)
    assert count == 1, f"{pattern} is {count} times in {shipped}"
    return new


@contextmanager
def running(
    command: list[str], number: int, environ: dict[str, str] | None = None, ends: tuple[int, ...] = (0, -signal.SIGTERM)
) -> Iterator[None]:
    """A proxy that inherits its listener, ``number``, until TERM; ``ends`` are the statuses it may have then."""
    proxy = subprocess.Popen(command, env=environ, pass_fds=[number], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        proxy.terminate()
        assert proxy.wait(BOUND) in ends


@contextmanager
def nginx(folder: Path, site: str, number: int) -> Iterator[None]:
    """nginx with ``site``, on the listener ``number``, which it inherits as in its own upgrades."""
    program = needs.program("nginx")
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, user=user))
    (folder / "site.conf").write_text(site)
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    with running(command, number, {"NGINX": f"{number};"}, ends=(0,)):
        yield


def replace_one_by_one(
    addresses: list[str],
    machine: Callable[[str], Program],
    in_front: Callable[..., AbstractContextManager[Address]],
) -> None:
    """Have two machines behind a proxy replaced, one after the other, under load: nothing may be lost."""
    first, second = map(machine, addresses)
    with in_front(*addresses) as front, Load(front, clients=8) as load:
        load.more(200)
        assert first.stop() == 0
        load.more(200)
        (worker,) = machine(addresses[0]).workers()
        load.until(lambda: load.answers[-1].body.endswith(f" {worker.pid}"), "an answer of the new machine")
        assert second.stop() == 0
        load.more(200)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}
