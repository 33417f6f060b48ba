"""What the documents promise is there: links, versions, files of the distribution."""

from __future__ import annotations

import re
from importlib import metadata, resources
from pathlib import Path

import pytest

from harness import package_tree

TOP = Path(__file__).parents[1]
FOLDERS = (".", "docs", "bench", ".github")
DOCUMENTS = sorted(path.relative_to(TOP).as_posix() for folder in FOLDERS for path in (TOP / folder).glob("*.md"))


def _anchors(document: Path) -> set[str]:
    """What the headings of ``document`` are called in links, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    document = TOP / name
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", document.read_text()):
        page = document.parent / target if target else document
        assert page.exists(), f"{name} links to {target}"
        assert not anchor or anchor in _anchors(page), f"{name} links to {target}#{anchor}"


def test_the_design_draws_every_module() -> None:
    remake = "python tests/harness/package_tree.py"
    assert package_tree.in_page() == package_tree.drawn(), f"docs/design.md has an old tree: run {remake}"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([a-z0-9_/]+\.py)`", (TOP / "docs/design.md").read_text()))))
def test_the_design_names_modules_that_there_are(path: str) -> None:
    assert (TOP / "forkserver" / path).exists() or (TOP / path).exists()


def test_the_changelog_begins_with_the_version_that_is_installed() -> None:
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", (TOP / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == metadata.version("forkserver-wsgi")


def test_the_distribution_is_typed() -> None:
    """Without the marker type checkers do not read our annotations (PEP 561)."""
    assert resources.files("forkserver").joinpath("py.typed").is_file()
