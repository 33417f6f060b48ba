"""A gunicorn.conf.py, executed in a process of its own to read what it sets.

``read`` starts this module as a program, which executes the file as gunicorn does and writes its names to a pipe, as
JSON. What the file prints goes to standard error. The process has the rights of the user who asks; root executes only a
file that no other user may write, or put another in its place, and imports nothing from a folder where that is not so:
the rule for the forkserver.toml of the current directory (config/sources.py).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Final

from forkserver.errors import ConfigError

_PRINTED: Final = 200  # characters of a value that JSON has no form for
_MOST_BYTES: Final = 1024 * 1024


def read(path: str) -> tuple[dict[str, Any], str]:
    """What the Python file ``path`` sets, by its public names, and its text. Raises ConfigError.

    Functions are ``{"function": NAME}``, other objects ``{"object": TEXT}``.
    """
    import subprocess

    number = _opened(path)
    folder = "" if _chosen_by_another(os.getcwd()) else os.getcwd()
    try:
        text = _text(number)
        reading, writing = os.pipe()
        command = [sys.executable, "-P", "-m", __name__, path, folder, str(writing)]
        with open(reading, "rb") as answer:
            try:
                child = subprocess.Popen(command, stdin=number, stdout=2, pass_fds=[writing])  # 1 is for the answer
            finally:
                os.close(writing)
            written = answer.read(_MOST_BYTES + 1)
        child.wait()  # after the pipe was closed, into which it may still write
    finally:
        os.close(number)
    if len(written) > _MOST_BYTES:
        raise ConfigError(f"{path} cannot be read: what it sets is longer than 1 MiB; leave out what is no setting")
    if child.returncode or not written:
        raise ConfigError(
            f"{path} cannot be read: it failed when it was executed (above); fix it, or start it where it works"
        )
    return json.loads(written), text


def _opened(path: str) -> int:
    """A descriptor of the file, from which it is read and executed, so that both see the same."""
    from forkserver.linux.files import trusted_files, trusted_paths

    try:
        number = trusted_files.open_trusted(path) if os.geteuid() == 0 else trusted_files.open_regular(path)
    except trusted_paths.UntrustedPathError as error:
        raise ConfigError(
            f"{path}: not executed by root, {error.reason}; run --from as its user, or give the file and its folder "
            "to root"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {(error.strerror or str(error)).lower()}; name another") from None
    if number is None:
        raise ConfigError(f"cannot read {path}: no such file; name another")
    return number


def _chosen_by_another(folder: str) -> bool:
    from forkserver.linux.files import trusted_paths

    return os.geteuid() == 0 and bool(trusted_paths.why_guarded(os.path.join(folder, "module")))


def _text(number: int) -> str:
    with open(number, "rb", closefd=False) as file:
        data = file.read(_MOST_BYTES)
    os.lseek(number, 0, os.SEEK_SET)
    return data.decode("utf-8", "replace")


# In the child


def _plain(value: Any) -> Any:
    """``value`` as JSON has it."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return value.real  # an IntEnum, as the ssl module has them, is its number
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if callable(value):
        return {"function": getattr(value, "__name__", type(value).__name__)}
    return {"object": repr(value)[:_PRINTED]}


def main(path: str, folder: str, writing: str) -> None:
    """Execute the file on standard input, which is called ``path``, and write what it sets to the pipe ``writing``."""
    import types

    if folder:
        sys.path.insert(0, folder)
    source = sys.stdin.buffer.read()
    module = types.ModuleType("__config__")
    module.__file__ = os.path.abspath(path)
    sys.modules["__config__"] = module
    exec(compile(source, path, "exec"), module.__dict__)
    names = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    plain = {name: _plain(value) for name, value in names.items() if not isinstance(value, (types.ModuleType, type))}
    with open(int(writing), "w") as answer:
        json.dump(plain, answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
