"""Looks through a built site: ``python tests/tools/built_site.py build/docs``, the second half of ``make docs``.

Each link within the site leads to a file that is there, and to an anchor that is there. Nothing that a browser loads by
itself (scripts, styles, fonts, pictures, frames) comes from elsewhere: the site works from a folder, without a network.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {**dict.fromkeys(("script", "img", "iframe", "source", "video", "audio"), "src"), "object": "data"}
LOADED_RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload"}
IN_STYLES = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


class Page(HTMLParser):
    """Anchors, links and loaded resources of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors.update(found[name] for name in ("id", "name") if name in found)
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and LOADED_RELATIONS & set(found.get("rel", "").split()):
            self.loaded.append(found["href"])
        if LOADED.get(tag) in found:
            self.loaded.append(found[LOADED[tag]])
        self.loaded.extend(part.split()[0] for part in found.get("srcset", "").split(",") if part.strip())
        self.loaded.extend(first or second for first, second in IN_STYLES.findall(found.get("style", "")))


def _elsewhere(target: str) -> bool:
    parts = urlsplit(target)
    return bool(parts.netloc or parts.scheme in ("http", "https"))


def faults(site: Path) -> list[str]:
    """What is wrong with the site in the folder ``site``: a line for each fault."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        found.extend(f"{name}: loads {target}" for target in page.loaded if _elsewhere(target))
        for target in page.loaded + page.links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not to.exists():
                found.append(f"{name}: {target} is not there")
            elif parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].anchors:
                found.append(f"{name}: {target} has no such anchor")
    for path in sorted(site.rglob("*.css")):
        for first, second in IN_STYLES.findall(path.read_text()):
            if _elsewhere(first or second):
                found.append(f"{path.relative_to(site)}: loads {first or second}")
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    wrong = faults(folder)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    sys.exit(f"{len(wrong)} faults in {folder}" if wrong else 0)
