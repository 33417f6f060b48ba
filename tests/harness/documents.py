"""The documents' code blocks and commands, as tests look at them.

A block is what stands between two fences, or lines indented by four blanks. ``<!-- not run: REASON -->`` on the line
before a fence, which no reader of the page sees, leaves it out of what tests do with its language.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).parents[2]
PLACES = ("*.md", "docs/**/*.md", "bench/*.md", ".github/*.md")
DOCUMENTS = sorted(path.relative_to(TOP).as_posix() for place in PLACES for path in TOP.glob(place))
INDENTED = "indented"

_FENCE = re.compile(r"( *)```(\{?[\w-]*\}?)")
_EXEMPT = re.compile(r"<!-- not run: (.+) -->")
_SHELL_OPERATORS = {"&&", "||", "|", ">", ">>", "<", "2>", "2>&1", "&", ";"}


class Block(NamedTuple):
    """One code block: where it is, its language as written, its text, and why it is not run (else empty)."""

    page: str
    line: int
    language: str
    text: str
    exempt: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def file(self) -> str:
        """The name of the file that the block is, where its first line is a comment with a name; else empty."""
        named = re.match(r"# ([\w./-]+\.(?:py|toml))\n", self.text)
        return named[1] if named else ""


def blocks(page: str) -> Iterator[Block]:
    """Every code block of ``page``, a path from the top of the repository."""
    lines = (TOP / page).read_text().split("\n")
    at = 0
    while at < len(lines):
        if fence := _FENCE.fullmatch(lines[at]):
            end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
            exempt = _EXEMPT.fullmatch(lines[at - 1].strip()) if at else None
            text = "".join(line.removeprefix(fence[1]) + "\n" for line in lines[at + 1 : end])
            yield Block(page, at + 1, fence[2], text, exempt[1] if exempt else "")
            at = end + 1
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1].strip()):
            end = next((i for i in range(at, len(lines)) if lines[i] and not lines[i].startswith("    ")), len(lines))
            yield Block(page, at + 1, INDENTED, "".join(line[4:] + "\n" for line in lines[at:end]), "")
            at = end
        else:
            at += 1


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell's text: comments, redirections and prompts are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        skip = False
        for word in [*shlex.split(line.removeprefix("$ "), comments=True), ";"]:
            if skip:
                skip = False
            elif word in {">", ">>", "<", "2>"}:
                skip = True
            elif word in _SHELL_OPERATORS:
                if words:
                    yield words
                words = []
            else:
                words.append(word)
