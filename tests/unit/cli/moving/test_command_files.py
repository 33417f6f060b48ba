"""Command lines in files that start services."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkserver.cli.moving import command_files, source, translation
from forkserver.errors import ConfigError

UNIT = """\
[Unit]
Description=shop
[Service]
User=www-data
Environment=SECRET_KEY=hunter2
WorkingDirectory={folder}
ExecStart=-/srv/venv/bin/gunicorn --workers 3 \\
    --bind unix:/run/shop.sock -c conf.py \\
    shop.wsgi:application
"""


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words(name: str, text: str) -> list[str]:
    Path(name).write_text(text)
    return command_files.read(name).words


def test_a_unit_is_read_with_what_its_command_names(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "conf.py").write_text("timeout = 90\n")
    Path("shop.service").write_text(UNIT.format(folder=site))
    text = translation.as_toml(source.read(["shop.service"], {}))
    settings = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert settings == [
        "timeout = 90", "workers = 3", 'bind = ["unix:/run/shop.sock"]', 'app = "shop.wsgi:application"',
    ]  # fmt: skip
    assert (
        "# User=, Environment= of the unit: they stay there; forkserver --systemd-unit prints a hardened unit" in text
    )
    assert "hunter" not in text
    assert text.startswith(
        "# forkserver.toml, from shop.service: the command line of gunicorn, a configuration of gunicorn."
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('FROM x\nCMD ["gunicorn", "-w", "2", "app:app"]\n', ["gunicorn", "-w", "2", "app:app"]),
        (
            'ENTRYPOINT ["waitress-serve"]\nCMD ["--port", "5000", "app:app"]\n',
            ["waitress-serve", "--port", "5000", "app:app"],
        ),
        ("CMD gunicorn \\\n  -w 2 \\\n  app:app\n", ["gunicorn", "-w", "2", "app:app"]),
        ('CMD ["sh", "-c", "python manage.py migrate && exec gunicorn app:app"]\n', ["exec", "gunicorn", "app:app"]),
        ("CMD old\nCMD new 'a b'\n", ["new", "a b"]),
        ("cmd uwsgi --ini x.ini\n", ["uwsgi", "--ini", "x.ini"]),
    ],
)
def test_the_command_of_an_image_is_read(text: str, expected: list[str]) -> None:
    assert words("Dockerfile", text) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gunicorn app:app", ["gunicorn", "app:app"]),
        ("./migrate && gunicorn app:app &", ["gunicorn", "app:app"]),
        ("bash -lc 'gunicorn app:app'", ["gunicorn", "app:app"]),
        ("./migrate; gunicorn app:app;", ["gunicorn", "app:app"]),
    ],
)
def test_the_last_command_of_a_shell_counts(line: str, expected: list[str]) -> None:
    assert words("Procfile", f"release: x\nweb: {line}\n") == expected


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("Procfile", "worker: x\n", "no line begins with web:"),
        ("x.service", "[Service]\nUser=x\n", "no ExecStart="),
        ("Dockerfile", "FROM x\n", "no CMD and no ENTRYPOINT"),
        ("Procfile", "web: gunicorn 'app\n", "no closing quotation; close every quote"),
    ],
)
def test_a_file_without_a_command_is_told(name: str, text: str, reason: str) -> None:
    Path(name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        source.read([name], {})
    assert str(caught.value).startswith(f"{name}: {reason}")


def test_a_shells_command_on_the_command_line_is_read() -> None:
    read = source.read(["sh -c './migrate && exec gunicorn -w 2 app:app'"], {})
    assert [(each.name, each.value) for each in read.found] == [("workers", "2"), ("wsgi_app", "app:app")]


@pytest.mark.parametrize("name", ["Procfile", "app.service", "uwsgi.ini"])
def test_a_file_that_is_too_long_is_not_read_in_part(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("[uwsgi]\n" + "#" * 1024 * 1024)
    with pytest.raises(ConfigError, match="over 1048576 characters; name another"):
        source.read([str(path)], {})
