"""Words, paths and names."""

from __future__ import annotations

import pytest

from forkserver.config import loading
from forkserver.config.values import words
from forkserver.config.values.value_type import RefusedError
from harness.settings_files import refusal


def test_a_ready_path_may_have_a_query() -> None:
    """A check that looks deeper is mostly told so by one."""
    assert loading.load(["--ready-path", "/healthz?deep=1"], {}).ready_path == "/healthz?deep=1"


def test_other_worker_classes_are_refused_with_the_reason() -> None:
    """Who passes gevent relies on something that would not happen."""
    assert "-k/--worker-class 'gevent': forkserver has one kind of worker" in refusal("-k", "gevent")


def test_gunicorns_numbers_mean_what_they_mean_there() -> None:
    argv = ["--certfile", "a", "--ca-certs", "b", "--cert-reqs", "1"]
    assert loading.load(argv, {}).cert_reqs == "optional"


def test_the_root_of_the_site_is_no_root_path() -> None:
    assert loading.load(["--root-path", "/"], {}).root_path is None


@pytest.mark.parametrize("name", ["X-Request-Id", "request_id", "X-Trace"])
def test_the_name_of_a_header_field_is_taken_as_it_is_written(name: str) -> None:
    assert words.field_name.parse(f" {name} ") == name
    assert words.field_name.parse("") is None


@pytest.mark.parametrize("name", ["a b", "a:b", "ä", "x\r\ny", "x" * 65, "Content-Length", "connection", "Set-Cookie"])
def test_what_can_be_no_name_of_a_field_of_ours_is_refused(name: str) -> None:
    """The last would cut answers off, or be taken for the application's."""
    with pytest.raises(RefusedError, match="write such as X-Request-Id"):
        words.field_name.parse(name)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("9100", "127.0.0.1:9100"),
        (9100, "127.0.0.1:9100"),
        ("[::1]:9100", "[::1]:9100"),
        ("0.0.0.0:9100", "0.0.0.0:9100"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("off", None),
        ("", None),
    ],
)
def test_the_admin_address_is_one_of_this_machine_unless_another_is_written_out(written: object, meant: str) -> None:
    assert words.admin_address.parse(written) == meant


@pytest.mark.parametrize("written", [":9100", "*:9100", "fd://3", "http://x:1", "localhost", True, "unix:"])
def test_an_admin_address_that_could_be_an_accident_is_refused(written: object) -> None:
    with pytest.raises(RefusedError, match=";"):
        words.admin_address.parse(written)
