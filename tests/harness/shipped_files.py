"""What the wheel installs below share/: man pages, completions and the schema, all made from the settings table.

Run as a program it writes them into the folder share/ of the repository again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from forkserver.cli import settings_schema
from harness import completions, man_pages

FOLDER = Path(__file__).parents[2] / "share"
FILES: dict[str, Callable[[], str]] = {
    "man/man1/forkserver.1": man_pages.program,
    "man/man1/forkserverctl.1": man_pages.control_program,
    "man/man5/forkserver.toml.5": man_pages.settings_file,
    "bash-completion/completions/forkserver": completions.bash_program,
    "bash-completion/completions/forkserverctl": completions.bash_control,
    "zsh/site-functions/_forkserver": completions.zsh_program,
    "zsh/site-functions/_forkserverctl": completions.zsh_control,
    "fish/vendor_completions.d/forkserver.fish": completions.fish_program,
    "fish/vendor_completions.d/forkserverctl.fish": completions.fish_control,
    "forkserver/forkserver.schema.json": settings_schema.as_json,
}


def write() -> None:
    for name, made in FILES.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made())


if __name__ == "__main__":
    write()
