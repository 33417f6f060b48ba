"""The settings table and the values of a start."""

from __future__ import annotations

import pickle

import pytest

from forkserver.config import loading, settings, sources
from forkserver.config.settings import TABLE, Settings
from harness.intruder import INTRUDER


def test_no_flag_and_no_variable_means_two_settings() -> None:
    """The second row would never be reached."""
    flags = [flag for setting in TABLE for flag in setting.flags] + list(sources.ACTIONS)
    assert len(flags) == len(set(flags))


def test_settings_are_read_only_plain_data() -> None:
    """They are handed to every process and compared after a reload; nobody may change his copy."""
    loaded = loading.load(["myapp:app", "-w", "3"], {})
    with pytest.raises(AttributeError, match="read-only"):
        loaded.workers = 4
    assert pickle.loads(pickle.dumps(loaded)) == loaded
    assert repr(loaded) == "Settings(app='myapp:app', workers=3)"


def test_defaults_share_nothing_between_two_callers() -> None:
    """A list changed by one would be another's default."""
    settings.defaults().bind.append("fd://3")
    assert settings.defaults().bind == ["127.0.0.1:8000"]


def test_defaults_refuse_a_name_that_is_no_setting() -> None:
    """A test that sets what nobody reads proves nothing."""
    with pytest.raises(TypeError, match="wokers"):
        settings.defaults(wokers=3)


def test_the_workers_uid_is_that_of_the_user_setting() -> None:
    assert settings.defaults().service_uid == -1
    assert settings.defaults(user="4711").service_uid == 4711
    assert settings.defaults(user="nobody").service_uid == INTRUDER.pw_uid
    assert settings.defaults(user="removed-since").service_uid == -1


def test_a_setting_without_a_value_is_an_error() -> None:
    """The class has the row of the table under that name, which must not pass for a value."""
    assert Settings.workers.default == 1
    with pytest.raises(AttributeError, match="Settings without a value for workers"):
        _ = Settings({}, {}).workers
