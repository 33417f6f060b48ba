"""Settings in force as a TOML file, for ``--print-config`` and ``forkserverctl config``."""

from __future__ import annotations

from forkserver.config.settings import TABLE, Settings
from forkserver.config.values.lists import looks_secret
from forkserver.config.values.value_type import quoted


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


def _without_secrets(pairs: list[str], source: str) -> tuple[list[str], str]:
    hidden = [quoted(pair.partition("=")[0])[1:-1] for pair in pairs if looks_secret(pair)]
    if not hidden:
        return pairs, source
    shown = [pair for pair in pairs if not looks_secret(pair)]
    return shown, f"{source}; not shown, for they look secret: {', '.join(hidden)}"
