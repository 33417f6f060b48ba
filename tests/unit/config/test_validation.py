"""Settings that do not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkserver.config import loading
from forkserver.errors import ConfigError
from forkserver.ipc.channel import MAX_DESCRIPTORS
from harness.settings_files import refusal


def test_script_name_goes_with_either_kind_of_field() -> None:
    for fields in ("forwarded,script_name", "x-forwarded-for=whole,x-forwarded-proto,script_name"):
        assert loading.load(["--forwarded-fields", fields], {}).forwarded_fields == fields.split(",")
    assert "forwarded_fields" in refusal("--forwarded-fields", "forwarded,x-forwarded-for=whole")
    assert "name script_name in --forwarded-fields" in refusal("--forwarder-headers", "SCRIPT_NAME")


@pytest.mark.as_user
def test_only_root_may_become_another_user() -> None:
    """It would fail after the workers were promised."""
    assert "only root may become another user" in refusal("--user", "root")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--certfile", "a,b", "--keyfile", "a"], "keyfile .*1 for 2 of certfile"),
        (["--self-signed", "--certfile", "a"], "self_signed .*leave one of them out"),
        (["--ciphers", "HIGH"], "ciphers .*nothing is encrypted"),
        (["--certfile", "a", "--cert-reqs", "2"], "cert_reqs 'required' .*give both"),
        (["--certfile", "a", "--ca-certs", "b"], "ca_certs .*no client is asked"),
        (["--forwarded-fields", "forwarded,x-forwarded-for"], "forwarded_fields .*it is unknown which"),
        (["--forwarded-fields", "x-real-ip"], "not one of forwarded, x-forwarded-for"),
        (["--forwarded-allow-ips", "10.0.0.1/8"], "10.0.0.1/8 has host bits set"),
        (["--forwarded-allow-ips", "proxy"], "'proxy' does not appear to be"),
        (["--root-path", "/shop/"], "without a / at its end"),
        (["--root-path", "/a%20b"], "write it decoded"),
        (["--cert-reqs", "3"], "not one of none, optional, required"),
    ],
)
def test_what_would_be_believed_or_checked_wrongly_is_refused(argv: list[str], told: str) -> None:
    """Who asks for a check that cannot be made, or names a peer that nobody is, must hear of it at the start."""
    with pytest.raises(ConfigError, match=told):
        loading.load(argv, {})


def test_permissions_apply_where_one_unix_socket_has_a_file() -> None:
    loaded = loading.load(["-b", "unix:@a", "-b", "unix:b", "--socket-mode", "600"], {})
    assert loaded.socket_mode == 0o600


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--error-log", "syslog"], "capture_output .*which is no file"),
        (["--error-log", "x", "--access-log", "-"], "capture_output .*would go to error_log too"),
    ],
)
def test_what_is_printed_is_captured_into_a_file(argv: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        loading.load(["--capture-output", *argv], {})
    assert loading.load(["--capture-output"], {}).capture_output == "on"


def test_more_addresses_than_one_message_to_a_worker_carries_are_refused() -> None:
    """With the two ends of its queue, a worker gets its listeners beside one message: unix(7), SCM_MAX_FD."""
    flags = [f"--bind=127.0.0.1:{port}" for port in range(8000, 8252)]
    assert len(loading.load(flags[1:], {}).bind) == MAX_DESCRIPTORS - 2
    told = refusal(*flags)
    assert "252 addresses, and the kernel passes 251 to a worker at most; leave some out" in told
    assert len(told) < 500, "the value is shortened"


def test_one_socket_file_by_two_paths_is_refused(tmp_path: Path) -> None:
    """At the start the second would find the first one there, as of a server that runs."""
    (tmp_path / "link").symlink_to(tmp_path)
    paths = [f"unix:{tmp_path}/s", f"unix:{tmp_path}/link/s"]
    assert f"{paths[0]} and {paths[1]} are the same file; name it once" in refusal("-b", paths[0], "-b", paths[1])
    assert loading.load(["-b", paths[0], "-b", f"unix:{tmp_path}/t", "-b", "unix:@s"], {}).bind
