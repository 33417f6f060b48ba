"""What docs/troubleshooting.md quotes is what the program says of that mistake, but for names and numbers."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest
import trustme

from harness.clients import Wire, get
from harness.documents import TOP
from harness.program import LaunchProgram, Program, own_address

PAGE = (TOP / "docs/troubleshooting.md").read_text()
MYAPP = """
import time
value = {}

def app(environ, start_response):
    if environ["PATH_INFO"] == "/report":
        environ["wsgi.errors"].write("a report begins\\n")
        time.sleep(60)
    name = "Content-Disposition" if environ["PATH_INFO"] == "/file" else "X"
    start_response("200 OK", [(name, "a\\nb" if environ["PATH_INFO"] == "/file" else "a")])
    return [b"ok"]
"""
FACTORY = f"{MYAPP}\n\ndef create_app():\n    return app\n"
ASGI = "async def app(scope, receive, send):\n    pass\n"
# Under which heading, what the module holds, and the command.
STARTS = {
    "no module 'myapp'": ("", ["myapp:app"]),
    "No module named 'flask', or another library": ("import no_such_flask\n", ["myapp:app"]),
    "The name is not in the module, or is not callable": (FACTORY, ["myapp:ap"]),
    "A factory without parentheses": (FACTORY, ["myapp:create_app"]),
    "An ASGI application": (ASGI, ["myapp:app"]),
    "no such address on this machine": (MYAPP, ["-b", "192.0.2.7:8000", "myapp:app"]),
    "no such flag, no such setting": (MYAPP, ["--worker-tmp-dir", "/dev/shm", "myapp:app"]),
    "the import took longer than boot_timeout": ("import time; time.sleep(60)\n", ["--boot-timeout", "1", "myapp:app"]),
}


def _quote(heading: str) -> str:
    """The message below ``heading``."""
    section = PAGE.split(f"### {heading}\n", 1)[1].split("\n### ", 1)[0]
    found = re.search(r"```log\n(.+)\n```", section)
    assert found, heading
    return found[1]


def _shape(message: str) -> str:
    """``message`` without what differs from one run to the next: numbers, ids, names of the module."""
    message = re.sub(r"request [0-9a-f-]+(…)?", "request 0", message.replace("no_such_flask", "flask"))
    return re.sub(r"\d+(\.\d+)*", "0", message)


def _says(program: Program, heading: str) -> None:
    quoted = _shape(_quote(heading))
    program.until(
        lambda: any(quoted in _shape(entry.text) for entry in program.log.entries) or program.log.ended, heading
    )
    said = [_shape(entry.text) for entry in program.log.entries]
    assert any(quoted in line for line in said), f"{quoted}\nis not in\n" + "\n".join(said)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``/srv/myapp`` of the page."""
    made = tmp_path / "myapp"
    made.mkdir()
    return made


@pytest.mark.parametrize("heading", STARTS)
def test_a_start_that_fails_says_what_the_page_quotes(heading: str, launch: LaunchProgram, folder: Path) -> None:
    module, command = STARTS[heading]
    if module:
        (folder / "myapp.py").write_text(module)
    host, port = own_address()
    address = [] if "-b" in command else ["-b", f"{host}:{port}"]
    program = launch(*address, *command, cwd=folder)
    assert program.wait() != 0
    program.until(lambda: program.log.ended, "the end of the log")
    here = "/srv/myapp" if module else "/srv"
    lines = [entry.text.replace(str(folder), here) for entry in program.log.entries]
    said = [_shape(line.replace(sys.executable, "/srv/venv/bin/python")) for line in lines]
    assert f"forkserver: {_shape(_quote(heading))}" in said


def test_a_taken_address_says_what_the_page_quotes(launch: LaunchProgram, folder: Path) -> None:
    (folder / "myapp.py").write_text(MYAPP)
    host, port = own_address()
    bind = ("-b", f"{host}:{port}")
    first = launch(*bind, "myapp:app", cwd=folder).wait_ready()
    second = launch(*bind, "myapp:app", cwd=folder)
    assert second.wait() == 1
    _says(second, "address already in use")
    assert first.stop() == 0


def test_a_key_of_another_certificate_says_what_the_page_quotes(launch: LaunchProgram, folder: Path) -> None:
    (folder / "myapp.py").write_text(MYAPP)
    authority = trustme.CA()
    for name in ("shop", "blog"):
        pair = authority.issue_cert(name)
        pair.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        pair.private_key_pem.write_to_path(folder / f"{name}.key")
    program = launch("--certfile", "shop.pem", "--keyfile", "blog.key", "myapp:app", cwd=folder)
    assert program.wait() == 2
    _says(program, "the private key is another certificate's")


def test_what_a_running_service_says_is_what_the_page_quotes(launch: LaunchProgram, folder: Path) -> None:
    (folder / "myapp.py").write_text(MYAPP)
    host, port = own_address()
    given = ("-b", f"{host}:{port}", "--timeout", "7", "--max-body", "1KiB", "--forwarded-allow-ips", "192.0.2.1")
    program = launch(*given, "myapp:app", cwd=folder, address=(host, port)).wait_ready()
    assert get(program.address, "/file").status == 500
    _says(program, "header … has a character that cannot be sent")
    with program.connect() as client:
        client.send(b"POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 2000\r\n\r\n")
        _says(program, "413, or an upload that fails")
    with program.connect() as client:
        client.get("/", headers="X-Forwarded-Proto: https\r\n")
    _says(program, "Redirects without end")
    (folder / "myapp.py").write_text("def broken(:\n")
    program.send(signal.SIGHUP)
    _says(program, "After a deploy the old code still answers")
    with program.connect() as slow, Wire(program.address) as waiting:
        waiting.get("/")  # so that the worker has the connection
        slow.send(b"GET /report HTTP/1.1\r\nHost: test\r\n\r\n")
        program.log.wait("a report begins")
        waiting.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        _says(program, "One slow request holds up all others")
        _says(program, "has taken 30.0 s, longer than it may")
