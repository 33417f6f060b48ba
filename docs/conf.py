"""How Sphinx makes the site of the documents (``make docs``).

The sources are the Markdown files as they lie in the repository, so that each link between them is right on a forge, in
an editor and on the site: Sphinx reads from the top of the repository and takes the documents alone. ``docs/index.md``
lists the pages under headings; the sidebar is made of that list (:func:`_sidebar`). A comment ``<!-- show: FILE -->``,
which no reader of the Markdown sees, becomes the file itself on the site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

TOP = Path(__file__).parents[1]
LANGUAGES = {"Dockerfile": "docker", ".yaml": "yaml", ".json": "json", ".conf": "nginx", ".vcl": "c", ".cfg": "text"}
INDEX = "docs/index"

project = "forkserver"
author = "the forkserver authors"
copyright = "the forkserver authors"  # noqa: A001 - Sphinx' name for it
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = INDEX
source_suffix = {".md": "markdown"}
ALONE = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md"]
include_patterns = ["docs/*.md", "docs/**/*.md", *ALONE]
exclude_patterns = [".*", "build", "dist", "tests", "forkserver", "**/__pycache__", "*.egg-info"]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
myst_links_external_new_tab = False


autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "forkserver"
html_static_path = ["_site/static"]
html_css_files = ["site.css"]
html_extra_path = ["_site/root"]
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "friendly"
pygments_dark_style = "monokai"
highlight_language = "text"
smartquotes = False  # messages are quoted as they are
toc_object_entries_show_parents = "hide"


def _sidebar(text: str) -> str:
    """Each heading of the index and its list of links, as a part of the sidebar."""
    parts = []
    for heading, section in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL):
        pages = re.findall(r"^\* \[([^\]]+)\]\(([^)#:]+\.md)\)", section, re.MULTILINE)
        lines = [f"{title} <{page.removesuffix('.md')}>" for title, page in pages]
        parts.append("\n".join(["```{toctree}", ":hidden:", f":caption: {heading}", "", *lines, "```"]))
    return "\n\n".join(parts)


def _shown(found: re.Match[str]) -> str:
    name = found[1]
    language = LANGUAGES.get(Path(name).suffix or Path(name).name, "ini")
    return f"```{{literalinclude}} {name}\n:language: {language}\n```"


def _read(app: Sphinx, page: str, content: list[str]) -> None:
    text = re.sub(r"<!-- show: (\S+) -->", _shown, content[0])
    content[0] = f"{text}\n\n{_sidebar(text)}\n" if page == INDEX else text


def setup(app: Sphinx) -> None:
    if Path(app.srcdir) != TOP:
        raise ValueError(f"the sources are read from {TOP}: run `make docs` there")
    for language in ("log", "promql"):  # unknown to Pygments; a line of a log is broken where the page ends
        app.add_lexer(language, TextLexer)
    app.connect("source-read", _read)
