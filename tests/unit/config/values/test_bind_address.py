"""Addresses to listen on."""

from __future__ import annotations

import pytest

from forkserver.config import loading
from harness.settings_files import refusal, write


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("localhost:80", "localhost:80"),
        (":80", "*:80"),
        ("*:80", "*:80"),
        ("80", "127.0.0.1:80"),
        ("tcp://10.0.0.1:80", "10.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("[0:0:0::1]:080", "[::1]:80"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("unix:///run/x.sock", "unix:/run/x.sock"),
        ("unix:@x", "unix:@x"),
        ("fd://3", "fd://3"),
    ],
)
def test_addresses_become_canonical(written: str, meant: str) -> None:
    """Who binds them should have one form to read."""
    assert loading.load(["-b", written], {}).bind == [meant]


def test_several_addresses_by_flags_commas_or_a_toml_list() -> None:
    """Each source has its own way to give several."""
    both = ["127.0.0.1:1", "unix:x"]
    assert loading.load(["-b", "127.0.0.1:1", "-b", "unix:x"], {}).bind == both
    assert loading.load([], {"FORKSERVER_BIND": "127.0.0.1:1, unix:x"}).bind == both
    write('bind = ["127.0.0.1:1", "unix:x"]')
    assert loading.load([], {}).bind == both


def test_a_unix_path_longer_than_the_kernel_takes_is_refused() -> None:
    """bind would say no more than "path too long"."""
    assert "longer than 107 bytes" in refusal("-b", f"unix:/{'x' * 107}")
