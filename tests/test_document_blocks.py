"""The code blocks of the documents: commands are parsed, settings and configurations checked, messages compared."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from forkserver.cli import control
from forkserver.config import loading
from harness import documents, needs
from harness.documents import DOCUMENTS, INDENTED, TOP, Block
from harness.program import own_address

BLOCKS = [block for page in DOCUMENTS for block in documents.blocks(page) if page != "CHANGELOG.md"]
SHELL = ("sh", "shell", "console")
# What may stand behind a fence: the first are checked here; the last are for the eye, and Sphinx reads its own.
CHECKED = (*SHELL, "toml", "ini", "nginx", "python")
SHOWN = ("text", "log", "promql", "{eval-rst}")
# Programs of other projects: that the command is right is known to those who use them.
OTHERS = {
    *(".", "cd", "echo", "curl", "kill", "ps", "nc", "openssl", "git", "systemctl", "journalctl", "nginx", "haproxy"),
    *("chown", "cp", "ln", "rm", "useradd"),
    *("pip", "pipx", "python", "python3", "django-admin", "pre-commit", "docker", "kubectl"),
}
SHARE = 0.4  # of a quoted message: the rest is what a message puts in, such as names and numbers
LEAST = 8  # characters that are more than a common word


def _of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages and not block.exempt]


def _commands(block: Block) -> list[list[str]]:
    text = block.text
    if block.language == "console":
        text = "".join(line[2:] + "\n" for line in text.splitlines() if line.startswith("$ "))
    elif block.language == INDENTED:
        ours = r"(?:\S*/)?(?:forkserver|forkserverctl) .*|make .*"
        text = "".join(line + "\n" for line in text.splitlines() if re.fullmatch(ours, line))
    return list(documents.commands(text))


def _check_forkserver(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # commands for root are right for root
    if "--chdir" in words:  # a folder of the reader's
        at = words.index("--chdir")
        words = words[:at] + words[at + 2 :]
    if loading.action(words) in (None, "print-config", "check-config", "systemd-unit", "systemd-socket"):
        loading.load(words, {})


def _check_forkserverctl(words: list[str]) -> None:
    parser = control.command_parser()
    if len(words) == 1:  # a command is spoken of
        [commands] = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
        assert words[0] in commands
    else:
        parser.parse_args(words)


def test_each_block_has_a_language_that_is_known() -> None:
    assert not [str(block) for block in BLOCKS if block.language not in (*CHECKED, *SHOWN, INDENTED)]


@pytest.mark.parametrize("block", [block for block in _of(*SHELL, INDENTED) if _commands(block)], ids=str)
def test_each_command_of_the_documents_is_understood(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = set(re.findall(r"^([\w-]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    for words in _commands(block):
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        program = Path(words[0]).name
        if program == "forkserver":
            _check_forkserver(words[1:], tmp_path, monkeypatch)
        elif program == "forkserverctl":
            _check_forkserverctl(words[1:])
        elif program == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets, words
        else:
            assert words[0] in OTHERS, f"{block}: {words[0]}"


@pytest.mark.parametrize("block", _of("sh", "shell"), ids=str)
def test_each_shell_block_is_shell(block: Block) -> None:
    ran = subprocess.run(["sh", "-n"], input=block.text, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("block", _of("toml"), ids=str)
def test_each_settings_file_of_the_documents_is_one(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tomllib.loads(block.text)
    Path("shown.toml").write_text(block.text)
    loading.load(["--config", "shown.toml"], {})


@pytest.mark.parametrize("block", _of("python"), ids=str)
def test_each_python_block_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", _of("ini"), ids=str)
def test_each_unit_of_the_documents_has_keys_that_systemd_knows(block: Block, tmp_path: Path) -> None:
    unit = tmp_path / "shown.service"
    start = "" if "ExecStart=" in block.text else "[Service]\nExecStart=/bin/true\n"
    unit.write_text(start + block.text)
    ran = subprocess.run([needs.program("systemd-analyze"), "verify", str(unit)], capture_output=True, text=True)
    assert not [line for line in ran.stderr.splitlines() if unit.name in line]


@pytest.mark.parametrize("block", _of("nginx"), ids=str)
def test_nginx_takes_each_of_its_configurations(block: Block, tmp_path: Path) -> None:
    """What is a location alone is put into a server; certificates are a pair of the test's."""
    import trustme

    certificate = trustme.CA().issue_cert("shop.example")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "pair.pem")
    shown = re.sub(r"(ssl_certificate(?:_key)?) [^;]+;", rf"\1 {tmp_path}/pair.pem;", block.text)
    shown = re.sub(r"listen (?=\d+)", f"listen {own_address()[0]}:10", shown)  # nginx -t binds
    if not re.match(r"(?:server|upstream|map) ", shown):
        shown = f"server {{ {shown} }}"
    paths = "".join(
        f"{name}_temp_path {tmp_path}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    logs = f"error_log {tmp_path}/error.log;"
    complete = f"pid {tmp_path}/pid; {logs} events {{ }} http {{ access_log off; {paths} {shown} }}"
    (tmp_path / "nginx.conf").write_text(complete)
    command = [needs.program("nginx"), "-t", "-e", str(tmp_path / "error.log"), "-c", str(tmp_path / "nginx.conf")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@functools.cache
def _messages() -> list[str]:
    """The literal pieces of every text in the package, between what is put into it."""
    found = []
    for path in (TOP / "forkserver").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.extend(re.split("%s|\n", node.value))
    return [piece for piece in found if len(piece) >= LEAST]


@pytest.mark.parametrize("block", _of("log"), ids=str)
def test_each_message_that_the_documents_quote_is_one_of_ours(block: Block) -> None:
    quoted = " ".join(block.text.split())
    ours: set[int] = set()
    for piece in _messages():
        for found in re.finditer(re.escape(piece), quoted):
            ours.update(range(*found.span()))
    assert len(ours) >= SHARE * len(quoted)


def test_troubleshooting_has_an_entry_for_each_of_many_symptoms() -> None:
    entries = re.findall(r"^### .+\n\n(.+)", (TOP / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(entries) >= 40


@pytest.mark.parametrize("page", DOCUMENTS)
def test_each_command_within_a_sentence_is_understood(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", (TOP / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for command in re.findall(r"`((?:forkserver|forkserverctl) [^`]+)`", text):
        if re.search("…|[A-Z]{2}", command):
            continue  # a part of a command, or a place for a name
        [words] = documents.commands(command.replace("\n", " "))
        if words[0] == "forkserver":
            _check_forkserver(words[1:], tmp_path, monkeypatch)
        else:
            _check_forkserverctl(words[1:])
