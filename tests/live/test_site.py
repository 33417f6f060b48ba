"""The site of the documents, built as `make docs` does and opened from its folder, without a server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import needs
from harness.browser import Browser
from harness.documents import TOP
from tools import built_site

PHONE = 390  # pixels


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs.module("sphinx")
    folder = tmp_path_factory.mktemp("site")
    given = ("--quiet", "--fail-on-warning", "--conf-dir", str(TOP / "docs"), "--doctree-dir", str(folder / "trees"))
    command = [sys.executable, "-m", "sphinx", *given, str(TOP), str(folder / "html")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    made = Browser()
    yield made
    made.close()


def test_each_link_of_the_site_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    assert built_site.faults(site) == []


def test_no_page_is_wider_than_a_phone(site: Path, browser: Browser) -> None:
    """Tables and code scroll within themselves."""
    wide = []
    for page in sorted(site.glob("docs/**/*.html")):
        browser.open(page.as_uri(), width=PHONE)
        if browser.evaluate("document.documentElement.scrollWidth") > PHONE:
            wide.append(page.name)
    assert not wide
    assert not [asked for asked in browser.requests if not asked.startswith(("file:", "data:"))]


def test_the_search_finds_a_symptom_without_a_server(site: Path, browser: Browser) -> None:
    browser.open((site / "search.html").as_uri() + "?q=readonly+database")
    browser.until("document.querySelector('#search-results')?.innerText.includes('Troubleshooting')")


def test_a_reader_who_prefers_dark_pages_gets_them(site: Path, browser: Browser) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    browser.open((site / "docs/index.html").as_uri())
    light = browser.evaluate(colour)
    browser.open((site / "docs/index.html").as_uri(), dark=True)
    assert browser.evaluate(colour) != light
