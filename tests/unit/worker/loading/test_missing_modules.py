"""Where a module is that an import did not find, or how it is installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from forkserver.worker.loading import missing_modules


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with no environment active and this interpreter in one."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    monkeypatch.setattr(sys, "prefix", "/srv/venv")
    monkeypatch.setattr(sys, "executable", "/srv/venv/bin/python")
    return folder


def test_a_library_is_installed_by_the_name_of_its_distribution() -> None:
    told = missing_modules.advice("yaml", ["/srv/site.py"])
    assert told == (
        "if it is a library, type /srv/venv/bin/python -m pip install PyYAML; if it is yours, add --pythonpath FOLDER"
    )


def test_requirements_of_the_project_are_what_is_installed(project: Path) -> None:
    (project / "requirements.txt").touch()
    assert "pip install -r requirements.txt;" in missing_modules.advice("yaml", [])


def test_an_interpreter_of_the_system_gets_an_environment_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's own takes no packages (PEP 668)."""
    monkeypatch.setattr(sys, "prefix", "/usr")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    told = missing_modules.advice("flask", [])
    assert "-m venv .venv, then .venv/bin/python -m pip install forkserver-wsgi flask, and start .venv/bin/" in told


def test_in_an_environment_of_pipx_the_library_is_injected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/opt/pipx/venvs/forkserver-wsgi")
    assert missing_modules.advice("flask", []).endswith("type pipx inject forkserver-wsgi flask")


def test_an_environment_that_has_it_and_forkserver_is_named_with_its_program(project: Path) -> None:
    packages = project / "venv/lib/python3.12/site-packages/flask"
    packages.mkdir(parents=True)
    (packages / "__init__.py").touch()
    (project / "venv/bin").mkdir()
    (project / "venv/bin/forkserver").touch()
    told = missing_modules.advice("flask", [])
    assert told == (
        f"it is installed in {project}/venv, and this forkserver runs in /srv/venv; "
        f"start {project}/venv/bin/forkserver instead"
    )


def test_a_module_beside_the_one_that_imports_it_is_found(project: Path) -> None:
    (project / "shop").mkdir()
    (project / "shop/models.py").touch()
    told = missing_modules.advice("models", [f"{project}/shop/wsgi.py"])
    assert told == (
        f"it is in {project}/shop, where imports do not look: write `from shop import models`, or add --pythonpath "
        f"{project}/shop"
    )


def test_a_misspelt_part_of_a_package_is_met_with_the_right_one() -> None:
    assert missing_modules.advice("json.decodr", []) == "did you mean json.decoder?"


def test_a_file_that_is_no_package_is_named(project: Path) -> None:
    assert missing_modules.advice("json.decoder.x", []).startswith("'json.decoder' is /")


def test_what_python_has_left_out_is_not_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    told = missing_modules.advice("telnetlib", [])
    assert told == "Python has it no longer since 3.13; update what imports it, or use an older Python"
    monkeypatch.setattr(sys, "version_info", (3, 12, 0))
    assert "pip install telnetlib" in missing_modules.advice("telnetlib", [])


def test_settings_that_are_nowhere_are_asked_for() -> None:
    assert missing_modules.settings_advice() == (
        "DJANGO_SETTINGS_MODULE is not set, by which Django finds its settings; set it with --env "
        "DJANGO_SETTINGS_MODULE=MODULE, and name its folder with --chdir or --pythonpath"
    )


def test_the_library_of_a_python_that_the_user_may_not_enter_is_not_to_be_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with --user and a Python below /root."""
    library = os.path.dirname(os.__file__)
    closed = os.path.dirname(library)
    monkeypatch.setattr(os, "access", lambda path, _mode: path != closed)
    told = missing_modules.advice("email", [])
    assert told.startswith(f"it is Python's own, in {library}, and user ")
    assert f" may not enter {closed}; use a Python outside of homes" in told
    monkeypatch.setattr(os, "access", lambda _path, _mode: True)
    assert "Python's own" not in missing_modules.advice("email", [])
    assert "Python's own" not in missing_modules.advice("yaml", [])
