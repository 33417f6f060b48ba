"""What the documents promise is there: links, versions, files of the distribution."""

from __future__ import annotations

import re
from importlib import metadata, resources
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness import package_tree
from harness.documents import DOCUMENTS, TOP
from tools import built_site

# Links are not fetched: a page that moves elsewhere breaks no build of ours. A new host is a decision.
HOSTS = {
    "docs.python.org",
    "flask-sock.readthedocs.io",
    "flask-socketio.readthedocs.io",
    "prometheus.io",
    "simple-websocket.readthedocs.io",
    "www.speedscope.app",
}


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


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_to_elsewhere_are_https_and_of_known_hosts(name: str) -> None:
    links = [urlsplit(link) for link in re.findall(r"(?:\]\(|<)(https?:[^)>]+)[)>]", (TOP / name).read_text())]
    assert not [link.geturl() for link in links if link.scheme != "https" or link.netloc not in HOSTS]


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.startswith("docs/") and name != "docs/index.md"])
def test_every_page_is_in_the_index(name: str) -> None:
    """The sidebar of the site is made of the lists in docs/index.md."""
    assert f"]({name.removeprefix('docs/')})" in (TOP / "docs/index.md").read_text(), f"list {name} in docs/index.md"


def test_a_built_page_that_loads_from_elsewhere_or_leads_nowhere_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "good.html").write_text('<p id="here"><a href="#here">a</a> <a href="https://example.org/">b</a>')
    assert built_site.faults(tmp_path) == []
    (tmp_path / "bad.html").write_text(
        '<script src="//cdn.example/x.js"></script><img src="none.png"><a href="good.html#there">a</a>'
    )
    (tmp_path / "bad.css").write_text("@font-face { src: url(https://fonts.example/f.woff2) }")
    assert built_site.faults(tmp_path) == [
        "bad.html: loads //cdn.example/x.js",
        "bad.html: none.png is not there",
        "bad.html: good.html#there has no such anchor",
        "bad.css: loads https://fonts.example/f.woff2",
    ]


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
