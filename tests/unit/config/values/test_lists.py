"""Lists of values."""

from __future__ import annotations

import pytest

from forkserver.config import loading
from harness.settings_files import refusal, write


def test_variables_for_the_application_in_every_source() -> None:
    """Values may hold spaces and commas, wherever they are written."""
    pairs = ["A=1,2", "B=x y"]
    assert loading.load(["-e", "A=1,2", "-eB=x y"], {}).env == pairs
    assert loading.load([], {"FORKSERVER_ENV": "A=1,2 'B=x y'"}).env == pairs
    write('[env]\nA = "1,2"\nB = "x y"')
    assert loading.load([], {}).env == pairs


@pytest.mark.parametrize(
    "argv",
    [
        ["-e", "A=1", "-e", "hunter2"],
        ["-e", "A=1", "-e", "hunter 2=x"],
        ["-e", "\0SECRET=hunter2"],
        ["m:a", "SECRET=hunter2"],
        ["-w", "x", "-e", "hunter2"],
    ],
)
def test_no_complaint_tells_what_may_be_a_secret(argv: list[str]) -> None:
    """It goes to the journal, and from there to whom nobody knows."""
    message = refusal(*argv)
    assert "hunter" not in message
    assert ";" in message
    write('[env]\nSECRET = "hunter2"\nDEBUG = 1')
    assert "hunter" not in refusal(*(["m:a"] if argv[0] == "m:a" else argv))


def test_peers_are_listed_with_commas_or_again() -> None:
    loaded = loading.load(["--proxy-allow-ips", "unix, 10.0.0.0/8", "--proxy-allow-ips", "::0:1,*"], {})
    assert loaded.proxy_allow_ips == ["unix", "10.0.0.0/8", "::1", "*"]


def test_names_of_hosts_are_compared_in_one_spelling() -> None:
    loaded = loading.load(["--admin-hosts", "Ops.Example.ORG., metrics", "--admin-hosts", "a_b"], {})
    assert loaded.admin_hosts == ["ops.example.org", "metrics", "a_b"]


@pytest.mark.parametrize("name", ["http://x", "x:80", "*", "a..b", "a.-x", "x" * 64])
def test_what_names_no_host_is_refused(name: str) -> None:
    assert "not the name of a host" in refusal("--admin-hosts", name)
