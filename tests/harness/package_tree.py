"""The tree of packages in docs/design.md, drawn from the files and from the first line of each ``__init__.py``.

``python tests/harness/package_tree.py`` writes it into the page.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "design.md"
LAYERS = ("cli", "master", "worker", "server", "http1", "tls", "ipc", "config", "logs", "linux")  # from the top down
DRAWN = re.compile(r"(?<=```text\nforkserver/).*?(?=\n```)", re.DOTALL)
WIDTH = 116


def drawn() -> str:
    """The tree as the files have it."""
    return "\n".join(_lines(REPOSITORY / "forkserver", 0)).removeprefix("forkserver/")


def in_page() -> str:
    """The tree as the page has it."""
    found = DRAWN.search(PAGE.read_text())
    assert found, f"{PAGE.name} has no tree of forkserver/"
    return found[0]


def write() -> None:
    PAGE.write_text(DRAWN.sub(lambda _found: drawn(), PAGE.read_text(), count=1))


def _lines(folder: Path, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth + folder.name + '/':<20} {_purpose(folder)}"
    modules = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    indent = "  " * (depth + 3)
    yield from textwrap.wrap("  ".join(modules), WIDTH, initial_indent=indent, subsequent_indent=indent)
    packages = sorted(path.parent for path in folder.glob("*/__init__.py"))
    for package in sorted(packages, key=_layer) if depth == 0 else packages:
        yield from _lines(package, depth + 1)


def _purpose(package: Path) -> str:
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    return docstring.partition("\n")[0].removeprefix("forkserver: ").replace("``", "").rstrip(".")


def _layer(package: Path) -> int:
    return LAYERS.index(package.name)


if __name__ == "__main__":
    write()
