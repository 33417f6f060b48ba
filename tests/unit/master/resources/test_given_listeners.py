"""Listeners that systemd has given, of which a reload changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forkserver.config.validation import MOST_LISTENERS
from forkserver.errors import ConfigError
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets.unix_socket import bind_unix
from forkserver.master.resources.listener_set import ListenerSet, Terms

TERMS = Terms(16, 0o660, Credentials())


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("app.socket", "systemctl restart app.socket app.service"),
        ("by-its-FileDescriptorName", "systemctl restart NAME.socket NAME.service"),
    ],
)
def test_what_makes_the_socket_of_a_unit_reachable_again_is_named(tmp_path: Path, name: str, way_out: str) -> None:
    made = bind_unix(str(tmp_path / "s"), 16, 0o660, Credentials())
    given = ListenerSet((), [(os.dup(made.fileno()), name)], TERMS)
    assert given.unreachable() == []
    os.unlink(tmp_path / "s")
    assert given.unreachable() == [(f"unix:{tmp_path}/s", way_out)]
    given.close()
    made.close()


def test_more_listeners_than_a_worker_can_be_passed_are_refused() -> None:
    """Before any of them is looked at."""
    with pytest.raises(ConfigError, match=r"252 listeners given by systemd, .* 251 .*leave some out of the .socket"):
        ListenerSet((), [(-1, "many.socket")] * (MOST_LISTENERS + 1), TERMS)
