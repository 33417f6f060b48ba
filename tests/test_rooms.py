"""The picture of the rooms, drawn from the code: imports run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import forkserver

TOP = Path(forkserver.__file__).parent
# From the street to the ground floor; a room may use its own and those to the right of it.
ORDER = ("program", "supervision", "worker", "front", "serving", "wire", "ground")
PROGRAM = {"cli", "ctl", "__main__"}
# Where the two wings meet: the only module of supervision that knows serving.
MEETING_POINT = "forkserver.worker.worker"


def module_name(path: Path) -> str:
    parts = path.relative_to(TOP.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    parts = module.split(".")
    if len(parts) == 1:
        return "front"
    if parts[1] in ORDER:
        return parts[1]
    return "program" if parts[1] in PROGRAM else "ground"


def imported(path: Path) -> Iterator[str]:
    """Modules of ours that ``path`` imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.split(".")[0] == "forkserver")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "forkserver":
            for each in node.names:
                whole = f"{node.module}.{each.name}"
                is_module = (TOP.parent / Path(*whole.split("."))).with_suffix(".py").exists()
                is_package = (TOP.parent / Path(*whole.split("."))).is_dir()
                yield whole if is_module or is_package else str(node.module)


def test_imports_run_one_way() -> None:
    """Whoever changes a lower room must not have to read a higher one."""
    wrong = []
    for path in sorted(TOP.rglob("*.py")):
        here = module_name(path)
        for there in imported(path):
            upwards = ORDER.index(room(there)) < ORDER.index(room(here))
            meets = (
                room(here) == "supervision" and room(there) in ("serving", "wire", "front") and here != MEETING_POINT
            )
            if upwards or meets:
                wrong.append(f"{here} imports {there}")
    assert not wrong, "\n".join(wrong)


# What a master needs later or never, or only its template: each of these takes milliseconds to load.
LATER = {
    *("psutil", "shutil", "tempfile", "importlib.metadata", "tomllib", "difflib", "encodings.idna"),
    *("ssl", "http", "email", "wsgiref", "forkserver.server"),
}


def test_a_start_does_not_wait_for_what_is_needed_later() -> None:
    """The first answer comes when master, template and worker have loaded what they need, one after the other."""
    loading = (
        "import forkserver.cli.serve, forkserver.config.settings, forkserver.master.master, sys; print(*sys.modules)"
    )
    paths = f"import sys; sys.path[:] = {sys.path!r}; "  # without .pth files, which tools for tests load themselves by
    command = [sys.executable, "-I", "-S", "-c", paths + loading]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert LATER.isdisjoint(shown.stdout.split())
