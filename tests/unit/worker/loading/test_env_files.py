"""Files of variables for the application."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forkserver.config import settings
from forkserver.errors import ConfigError
from forkserver.worker.loading import env_files


@pytest.fixture(autouse=True)
def _nothing_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_files, "_read", {})


def variables(folder: Path, text: str, *env: str) -> list[str]:
    (folder / "env").write_text(text)
    return env_files.variables(settings.defaults(env_file=[str(folder / "env")], env=list(env)))


def test_a_relative_name_is_meant_from_the_directory_of_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master may be in that of another one, which a reload has refused."""
    for release in ("r1", "r2"):
        (tmp_path / release).mkdir()
        (tmp_path / release / ".env").write_text(f"RELEASE={release}\n")
    monkeypatch.chdir(tmp_path / "r2")
    given = settings.defaults(env_file=[".env"])
    assert env_files.variables(given, str(tmp_path / "r1")) == ["RELEASE=r1"]
    assert env_files.variables(given) == ["RELEASE=r2"]


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        ("A=1", "A=1"),
        ("  A = 1 2  ", "A=1 2"),
        ("export A=1", "A=1"),
        ("A=", "A="),
        ("A='1 # 2' # said", "A=1 # 2"),
        ('A="1 \\" \\$B \\\\ \\n2"', 'A=1 " $B \\ \n2'),
        ("A=$B#2", "A=$B#2"),
        ("A=postgres://u:p@h/d?x=1", "A=postgres://u:p@h/d?x=1"),
        ("A=ä", "A=ä"),
        ("A=1\f2\x852\u20282", "A=1\f2\x852\u20282"),
    ],
)
def test_a_line_is_a_variable(tmp_path: Path, line: str, pair: str) -> None:
    assert variables(tmp_path, f"\n# said\n{line}\n") == [pair]


def test_env_counts_more_than_a_file(tmp_path: Path) -> None:
    assert variables(tmp_path, "A=1\nB=1\n", "B=2") == ["A=1", "B=1", "B=2"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A=1\nhunter2\n", "line 2: not KEY=VALUE; write such as DEBUG=0, or # before it"),
        ("=hunter2\n", "line 1: not KEY=VALUE"),
        ("A='hunter2\n", "line 1: a quote without its end, or text behind it; close every quote"),
        ('A="1" hunter2\n', "line 1: a quote without its end, or text behind it"),
    ],
)
def test_a_mistake_is_told_without_the_value(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        variables(tmp_path, text)
    assert reason in str(caught.value)
    assert "hunter" not in str(caught.value)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(
        ConfigError, match="env_file '/no/such/file': no such file or directory; fix that or name another"
    ):
        env_files.variables(settings.defaults(env_file=["/no/such/file"]))


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(b"A=\xff\n")
    with pytest.raises(ConfigError, match="not UTF-8; write it as text"):
        env_files.variables(settings.defaults(env_file=[str(tmp_path / "env")]))


def test_a_file_that_is_too_long_is_refused_whole(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="over 1048576 characters; name a file of variables"):
        variables(tmp_path, "A=" + "1" * 1024 * 1024)


def test_a_file_is_read_once_in_a_process(tmp_path: Path) -> None:
    """The second time it may no longer be readable: root's rights are given up by then."""
    assert variables(tmp_path, "A=1\n") == ["A=1"]
    assert variables(tmp_path, "A=2\n", "B=1") == ["A=1", "B=1"]


@pytest.mark.as_root
def test_a_link_of_another_user_is_followed_with_that_users_rights(tmp_path: Path) -> None:
    """Else that user could have the application told what only root may read."""
    secret = tmp_path / "secret"
    secret.write_text("A=hunter2\n")
    secret.chmod(0o600)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    tmp_path.chmod(0o755)
    (theirs / "env").symlink_to(secret)
    os.chown(theirs, 65534, 65534)
    with pytest.raises(ConfigError, match="env_file"):
        env_files.variables(settings.defaults(env_file=[str(theirs / "env")]))
