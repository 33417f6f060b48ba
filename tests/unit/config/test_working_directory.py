"""Another user who may lead root's directory elsewhere chooses no file that root opens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.config import loading, settings
from forkserver.config.working_directory import entered, refuse_chosen
from forkserver.errors import ConfigError
from harness import reach
from harness.intruder import give

as_root = pytest.mark.as_root
NAMES = (
    ("--pidfile", "app.pid"),
    ("--control-socket", "c.sock"),
    ("--access-log", "log/access.log"),
    ("--error-log", "error.log"),
    ("--certfile", "tls/certificate.pem"),
    ("-b", "unix:app.sock"),
)


@pytest.fixture
def led(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A path that another user has led to a folder of root's, which is the current directory."""
    with reach.public_folder() as public:
        for name in ("home", "precious"):
            (public / name).mkdir()
        (public / "home" / "app").symlink_to(public / "precious")
        give(public / "home", public / "home" / "app")
        monkeypatch.chdir(public / "home" / "app")
        yield public / "home" / "app"


@as_root
@pytest.mark.parametrize("words", NAMES)
def test_a_relative_name_is_refused_where_another_user_has_led_the_directory(led: Path, words: tuple[str, ...]) -> None:
    """It would be opened with root's rights in a folder of that user's choice."""
    loaded = loading.load([*words, "myapp:app"], {})
    with pytest.raises(ConfigError) as caught:
        refuse_chosen(loaded, str(led))
    assert words[1] in str(caught.value)
    assert f"relative to {led}, which leads to {led.resolve()}" in str(caught.value)
    assert f"nobody owns {led.parent}; give its whole path" in str(caught.value)


@as_root
def test_a_file_of_settings_is_refused_there_too(led: Path) -> None:
    """One of another service's would say which user the application runs as."""
    (led / settings.FILE).write_text("workers = 3\n")
    with pytest.raises(ConfigError, match=r"^forkserver\.toml of the current directory: relative to "):
        refuse_chosen(loading.load(["myapp:app"], {}), str(led))


@as_root
def test_so_is_one_that_is_named_by_a_relative_path(led: Path) -> None:
    (led / "our.toml").write_text("workers = 3\n")
    with pytest.raises(ConfigError, match=r"^config 'our\.toml': relative to .*; give its whole path$"):
        refuse_chosen(loading.load(["--config", "our.toml", "myapp:app"], {}), str(led))
    refuse_chosen(loading.load(["--config", str(led / "our.toml"), "myapp:app"], {}), str(led))


@as_root
def test_whole_paths_are_no_matter_of_the_directory(led: Path) -> None:
    words = ["--error-log", "/var/log/a", "--access-log", "-", "-b", "unix:/run/a.sock", "-b", "unix:@a", "-b", "1"]
    refuse_chosen(loading.load([*words, "myapp:app"], {}), str(led))


@as_root
def test_a_directory_within_the_users_own_folders_is_as_good_as_they_are(
    led: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deploy account's `current`: what is opened there is opened with that user's rights."""
    release = led.parent / "release"
    release.mkdir()
    give(release)
    led.unlink()
    led.symlink_to("release")
    give(led)
    monkeypatch.chdir(led)
    refuse_chosen(loading.load(["--access-log", "log", "myapp:app"], {}), str(led))


def test_links_of_our_own_may_lead_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "current").symlink_to("release")
    monkeypatch.chdir(tmp_path / "current")
    refuse_chosen(loading.load(["--access-log", "log", "myapp:app"], {}), str(tmp_path / "current"))


def test_what_fails_in_a_directory_is_left_in_the_one_of_before(tmp_path: Path) -> None:
    """Logs that are opened again later are meant from there."""
    before = os.getcwd()

    def fail() -> None:
        with entered(str(tmp_path)):
            assert os.getcwd() == str(tmp_path)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert os.getcwd() == before


def test_a_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    before = os.getcwd()
    missing = tmp_path / "missing"
    with pytest.raises(ConfigError, match="missing: cannot be entered: No such file"), entered(str(missing)):
        pass
    assert os.getcwd() == before
