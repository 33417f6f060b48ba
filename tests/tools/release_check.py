"""Everything that a release needs and that can be done without publishing it (`make release-check`).

python tests/tools/release_check.py [FOLDER]

From a clean clone of HEAD: the source distribution and the wheels (with the extension and without it), their metadata,
what they hold, and a page served by each wheel, installed by pip, pipx and uvx in environments of its own. What was
built is left in FOLDER (build/release), with a bill of materials beside it. To be run by an interpreter that has the
extra "release". The build takes setuptools from PyPI; what is installed afterwards comes from FOLDER alone.
"""

from __future__ import annotations

import contextlib
import email
import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).parents[2]
PAGE = """def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [b"served"]
"""
SECONDS = 60  # for a start; it only bounds what hangs
# What may lie in a wheel: the package, what describes it, and what a prefix gets.
IN_A_WHEEL = re.compile(r"forkserver/|forkserver_wsgi-[^/]+\.(dist-info|data/data/share)/")
NOT_IN_A_WHEEL = re.compile(r"(^|/)(tests?|bench|docs|__pycache__|conftest\.py)(/|$)|\.(c|h|pyc|orig)$")
IN_THE_SOURCE = ("tests/conftest.py", "docs/settings.md", "deploy/Dockerfile", "bench/README.md", "Makefile", "LICENSE")


class CheckError(Exception):
    """What a release must not have, in words."""


def run(*command: str | Path, **more: object) -> str:
    """The output of a command that succeeds."""
    shown = " ".join(map(str, command))
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **more)  # type: ignore[call-overload]
    if ran.returncode:
        raise CheckError(f"{shown}: status {ran.returncode}\n{ran.stdout}{ran.stderr}")
    return str(ran.stdout)


def say(text: str) -> None:
    print(f"== {text}", flush=True)


# Building


def built(clone: Path, out: Path) -> tuple[Path, list[Path]]:
    """The source distribution, and the wheels that are made of it: with the extension, and without."""
    build = (sys.executable, "-m", "build", "--outdir", out)
    run(*build, clone, env=os.environ | {"FORKSERVER_ACCELERATOR": "on"})
    run(*build, "--wheel", clone, env=os.environ | {"FORKSERVER_ACCELERATOR": "off"})
    (source,) = out.glob("*.tar.gz")
    wheels = sorted(out.glob("*.whl"))
    if not any("-none-any" in wheel.name for wheel in wheels):
        raise CheckError(f"no wheel for every interpreter: {wheels}")
    return source, wheels


def check_source(source: Path) -> None:
    """It holds all that the repository has to build, test and describe itself with, and nothing that was compiled."""
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    if missing := [name for name in IN_THE_SOURCE if name not in names]:
        raise CheckError(f"{source.name} lacks {', '.join(missing)}")
    if compiled := [name for name in names if name.endswith((".so", ".pyc"))]:
        raise CheckError(f"{source.name} holds {', '.join(compiled)}")


def check_wheel(wheel: Path, version: str) -> None:
    """It holds the package and no test, and says what it is."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (about,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        told = email.message_from_bytes(archive.read(about))
        (points,) = [name for name in names if name.endswith("/entry_points.txt")]
        programs = re.findall(r"^(\w+) = ", archive.read(points).decode(), re.MULTILINE)
    strange = [name for name in names if not IN_A_WHEEL.match(name) or NOT_IN_A_WHEEL.search(name)]
    extension = any(name.endswith(".so") for name in names)
    needs = [line for line in told.get_all("Requires-Dist", []) if "extra ==" not in line]
    faults = {
        f"it holds {', '.join(strange)}": bool(strange),
        f"its version is {told['Version']}, not {version}": told["Version"] != version,
        f"its programs are {programs}": programs != ["forkserver", "forkserverctl"],
        f"it needs {needs}": [re.split(r"[<>=]", line)[0] for line in needs] != ["setproctitle"],
        "it has no licence": not any("/licenses/LICENSE" in name for name in names),
        "it is not typed": "forkserver/py.typed" not in names,
        "it has no man page": not any(name.endswith("share/man/man1/forkserver.1") for name in names),
        "its name and the extension disagree": extension == ("-none-any" in wheel.name),
    }
    if wrong := [text for text, holds in faults.items() if holds]:
        raise CheckError(f"{wheel.name}: {'; '.join(wrong)}")


def check_changelog(clone: Path, version: str) -> str:
    """What its first heading says of ``version``."""
    heading = next(line for line in (clone / "CHANGELOG.md").read_text().splitlines() if line.startswith("## "))
    if not re.match(rf"## {re.escape(version)}(,|$)", heading):
        raise CheckError(f"CHANGELOG.md begins with {heading!r}, and the version is {version}")
    return heading.removeprefix("## ")


# Installing


def ways(wheel: Path, folder: Path, wheels: Path) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """How the program is started after each installation, and in which environment variables."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("FORKSERVER_", "PIP_", "UV_"))}
    base |= {"HOME": str(folder), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIPX_HOME": f"{folder}/pipx"}
    base |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIPX_BIN_DIR": f"{folder}/bin", "VIRTUAL_ENV": ""}
    base |= {"UV_CACHE_DIR": f"{folder}/uv", "UV_PYTHON_DOWNLOADS": "never"}
    venv = folder / "venv"
    run(sys.executable, "-m", "venv", venv)
    run(venv / "bin/python", "-m", "pip", "install", "--quiet", wheel, env=base)
    yield "pip install", [str(venv / "bin/forkserver")], base
    here = str(Path(sys.executable).parent)
    python = os.path.realpath(sys.executable)
    offline = ("--no-index", "--find-links", str(wheels))
    for name, command in {
        "pipx run": ["pipx", "run", "--python", python, "--spec", str(wheel), "forkserver"],
        "uvx": ["uvx", "--python", python, *offline, "--from", str(wheel), "forkserver"],
    }.items():
        found = shutil.which(command[0], path=os.pathsep.join((here, os.environ.get("PATH", os.defpath))))
        if found is None:
            say(f"{name}: not tried, {command[0]} is not installed")
        else:
            yield name, [found, *command[1:]], base


def check_serving(command: list[str], environ: dict[str, str], folder: Path) -> str:
    """Have the program serve a page, and stop it; what it says of itself."""
    version = run(*command, "--version", env=environ, cwd=folder).strip()
    (folder / "page.py").write_text(PAGE)
    path, pidfile = folder / "socket", folder / "pid"
    arguments = ["page:app", "--bind", f"unix:{path}", "--pidfile", str(pidfile), "--control-socket", "off"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*command, *arguments], env=environ, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            answer = page(path, process)
            os.kill(int(pidfile.read_text()), 15)  # pipx and uvx may be its parents
            status = process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()
            log.seek(0)
            said = log.read()
    if answer != b"served" or status:
        raise CheckError(f"{' '.join(command)}: answered {answer!r}, status {status}\n{said}")
    return version


def page(path: Path, process: subprocess.Popen[bytes]) -> bytes:
    """The page, as soon as the program serves; what there is of an answer else."""
    end = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < end:
        with contextlib.closing(http.client.HTTPConnection("localhost", timeout=SECONDS)) as client:
            client.sock = socket.socket(socket.AF_UNIX)
            try:
                client.sock.connect(str(path))
            except OSError:  # not yet
                time.sleep(0.05)
                continue
            client.request("GET", "/")
            return client.getresponse().read()
    return b""


def main(arguments: list[str]) -> int:
    out = Path(arguments[0] if arguments else TOP / "build/release").resolve()
    shutil.rmtree(out, ignore_errors=True)
    dist = out / "dist"
    dist.mkdir(parents=True)
    if changed := run("git", "-C", TOP, "status", "--short").splitlines():
        say(f"{len(changed)} files of the working tree are not committed, and not part of this")
    with tempfile.TemporaryDirectory(prefix="forkserver-release-") as name:
        clone = Path(name) / "clone"
        run("git", "clone", "--quiet", "--no-hardlinks", TOP, clone)
        version = tomllib.loads((clone / "pyproject.toml").read_text())["project"]["version"]
        say(
            f"forkserver-wsgi {check_changelog(clone, version)}, {run('git', '-C', clone, 'rev-parse', 'HEAD').strip()}"
        )
        source, wheels = built(clone, dist)
        check_source(source)
        for wheel in wheels:
            check_wheel(wheel, version)
        run(sys.executable, "-m", "twine", "check", "--strict", source, *wheels)
        say(f"built and looked through: {', '.join(each.name for each in (source, *wheels))}")
        needed = out / "needed"
        run(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", needed, wheels[0])
        for wheel in wheels:
            folder = Path(name) / wheel.stem
            folder.mkdir()
            for way, command, environ in ways(wheel, folder, needed):
                say(f"{wheel.name} by {way}: {check_serving(command, environ, folder)} has served a page")
        bill = out / f"forkserver_wsgi-{version}.cdx.json"
        bill.write_text(run(folder / "venv/bin/python", "-I", Path(__file__).with_name("sbom.py"), wheel))
        say(f"bill of materials: {bill}")
    shutil.rmtree(needed)
    say(f"all of it holds; it is in {dist}. PyPI takes the source and the wheel for every interpreter; the workflow")
    say("release.yml builds the wheels with the extension so that they run on other machines than this one")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except CheckError as error:
        sys.exit(f"release-check: {error}")
