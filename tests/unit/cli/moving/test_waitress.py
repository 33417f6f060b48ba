"""waitress' adjustments, and the command line of waitress-serve."""

from __future__ import annotations

import pytest

from forkserver.cli.moving import source, translation, waitress
from harness import needs


def lines(command: str) -> list[str]:
    text = translation.as_toml(source.read([f"waitress-serve {command}"], {}))
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_every_adjustment_of_the_newest_waitress_has_a_row_and_a_flag() -> None:
    needs.module("waitress")
    from waitress import adjustments

    options = waitress.options()
    for name, kind in adjustments.Adjustments._params:
        assert name in waitress.SERVER.rows
        assert options[f"--{name.replace('_', '-')}"].words == (0 if kind.__name__ == "asbool" else 1), name


def test_what_waitress_does_by_default_is_written_down() -> None:
    """A service that listened everywhere, on 8080, with four threads, goes on doing so."""
    assert lines("app:app") == [
        'app = "app:app"', 'bind = ["0.0.0.0:8080"]', "threads = 4", "timeout = 0", 'max_body = "1GiB"',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("--port 5000 app:app", 'bind = ["0.0.0.0:5000"]'),
        ("--host=::1 app:app", 'bind = ["[::1]:8080"]'),
        ("--listen='127.0.0.1:1 [::1]:2' app:app", 'bind = ["127.0.0.1:1", "[::1]:2"]'),
        ("--unix-socket=/run/app.sock --unix-socket-perms=660 app:app", 'bind = ["unix:/run/app.sock"]'),
        ("--unix-socket=/run/app.sock --unix-socket-perms=660 app:app", 'socket_mode = "0660"'),
        ("--call app:make", 'app = "app:make()"'),
        ("--no-log-socket-errors app:app", 'app = "app:app"'),
        ("--channel-timeout 20 app:app", "keep_alive = 20"),
        ("--ident= app:app", 'server_header = ""'),
    ],
)
def test_flags_mean_what_they_mean_to_waitress(command: str, expected: str) -> None:
    assert expected in lines(command)


def test_a_flag_without_its_value_is_told() -> None:
    with pytest.raises(
        Exception, match="--port in the command line that --from names: no value; write it whole, in quotes"
    ):
        lines("app:app --port")
