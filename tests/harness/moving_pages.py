"""The tables of settings in docs/moving/, made from the rows that ``--from`` uses.

Run as a program it writes them into the pages again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from forkserver.cli.moving import gunicorn, mod_wsgi, uwsgi, waitress
from forkserver.cli.moving.rows import Counterpart, Fate, Server

TOP = Path(__file__).parents[2]
SERVERS = (gunicorn.SERVER, uwsgi.SERVER, waitress.SERVER, mod_wsgi.SERVER)
BEGIN, END = "<!-- made from the rows: begin -->", "<!-- made from the rows: end -->"


def page(server: Server) -> Path:
    return TOP / server.page


def tables(server: Server) -> str:
    """The tables of a page: what is taken, what is not needed, what there is instead, and defaults that are kept."""
    rows = list(server.rows.values())
    parts = [
        f"### Taken and renamed\n\n| {server.name} | forkserver | |\n|---|---|---|",
        *(_taken(row) for row in rows if row.keys),
        f"\n### Not needed\n\n| {server.name} | why |\n|---|---|",
        *_grouped(rows, Fate.NOT_NEEDED),
        f"\n### Not had\n\n| {server.name} | instead |\n|---|---|",
        *_grouped(rows, Fate.NOT_HAD),
    ]
    if server.defaults:
        parts.append("\n### Defaults that `--from` writes down\n\n| forkserver.toml | because |\n|---|---|")
        parts += [f"| `{each.key}` | {_cell(each.why)} |" for each in server.defaults]
    return "\n".join(parts)


def _taken(row: Counterpart) -> str:
    ours = ", ".join(f"[`{key}`](../settings.md#{key})" for key in row.keys)
    return f"| `{row.name}` | {ours} | {_cell(row.text)} |"


def _grouped(rows: list[Counterpart], fate: Fate) -> Iterator[str]:
    """One line for each text, with all the names that it is for."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.fate is fate:
            names.setdefault(row.text, []).append(row.name)
    for text, same in names.items():
        yield f"| {', '.join(f'`{name}`' for name in same)} | {_cell(text)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def in_page(server: Server) -> str:
    """What stands between the marks of the page."""
    return page(server).read_text().partition(BEGIN)[2].partition(END)[0].strip()


def write() -> None:
    for server in SERVERS:
        pattern = f"{re.escape(BEGIN)}.*{re.escape(END)}"
        made = f"{BEGIN}\n\n{tables(server)}\n\n{END}"
        page(server).write_text(
            re.sub(pattern, lambda _found, made=made: made, page(server).read_text(), flags=re.DOTALL)
        )


if __name__ == "__main__":
    write()
