"""Settings in force as a TOML file, for ``--print-config`` and ``forkserverctl config``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, Final

from forkserver.config.declaration import Setting
from forkserver.config.settings import TABLE, Settings
from forkserver.config.values.lists import looks_secret
from forkserver.config.values.value_type import quoted
from forkserver.config.version import DOCUMENTATION

_WIDTH: Final = 110
_INTRODUCTION: Final = f"""\
# forkserver.toml: every setting. Those that begin with # have their defaults; take the # away to change one.
# Times are seconds, or text with a unit: 500ms, 30s, 2m, 1h. Sizes are bytes, or text: 64KiB, 10MiB, 1GiB.
# `forkserver --check-config` tries the file. {DOCUMENTATION}
"""


def as_toml(settings: Settings) -> str:
    """``settings`` as a file that gives them again, each with its source in a comment.

    Variables whose values look secret are left out and named in the comment: a value in their place would be believed.
    """
    lines = []
    for setting in TABLE:
        value, source = getattr(settings, setting.name), settings.sources[setting.name]
        if not setting.in_file:
            continue
        if setting.value_type.secret:
            value, source = _without_secrets(value, source)
        if value is None:
            lines.append(f"# {setting.name} is not set  # {source}")
        else:
            lines.append(f"{setting.name} = {setting.value_type.show(value)}  # {source}")
    return "\n".join(lines) + "\n"


def as_complete_toml(settings: Settings) -> str:
    """A file with every setting and what it is for; what ``settings`` have by default is commented out.

    Variables whose values look secret are left out.
    """
    parts = [_INTRODUCTION]
    section = ""
    for setting in TABLE:
        if setting.in_file:
            if setting.section != section:
                section = setting.section
                parts.append(f"\n# {section}\n")
            parts.append("\n".join(_explained(setting, settings)) + "\n")
    return "\n".join(parts)


def _explained(setting: Setting[Any], settings: Settings) -> Iterator[str]:
    value, source = getattr(settings, setting.name), settings.sources[setting.name]
    for line in textwrap.wrap(setting.help, _WIDTH):
        yield f"# {line}"
    words = " or ".join(setting.value_type.choices) or setting.value_type.name
    yield f"# Kind: {words}. A change takes a {setting.applies}."
    if setting.value_type.secret:
        value, source = _without_secrets(value, source)
    if value is None:
        yield f"# {setting.name} is not set"
    elif source == "default":
        yield f"#{setting.name} = {setting.value_type.show(value)}"
    else:
        yield f"{setting.name} = {setting.value_type.show(value)}  # {source}"


def _without_secrets(pairs: list[str], source: str) -> tuple[list[str], str]:
    hidden = [quoted(pair.partition("=")[0])[1:-1] for pair in pairs if looks_secret(pair)]
    if not hidden:
        return pairs, source
    shown = [pair for pair in pairs if not looks_secret(pair)]
    return shown, f"{source}; not shown, for they look secret: {', '.join(hidden)}"
