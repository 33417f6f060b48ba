"""The application's logging, as ``log_config`` has it: the stdlib's dictConfig in TOML or JSON, or its INI form.

It is applied before the application is imported, by the process that imports it and with its rights. So the import may
log already, and may change what was configured. A worker that was forked afterwards opens files again: what it has
inherited is one open file description for all of them. A connection is made again by its handler when it is needed.

Source: https://docs.python.org/3/library/logging.config.html
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from forkserver.errors import ConfigError
from forkserver.logs.error_log import ErrorLog

if TYPE_CHECKING:
    import logging

_handlers: Final[list[logging.Handler]] = []  # that were made here


def preload() -> None:
    """Import what is needed, by the rights that may read it."""
    import tomllib  # noqa: F401


def apply(path: str) -> None:
    """Configure the module logging by the file at ``path``. Raises ConfigError."""
    import logging
    import logging.config
    import logging.handlers

    known = {id(reference()) for reference in logging._handlerList}  # type: ignore[attr-defined]
    try:
        _configure(path)
    except Exception as error:  # dictConfig wraps whatever a handler's class has raised
        why = error.__cause__ or error
        said = (why.strerror or str(why)).lower() if isinstance(why, OSError) else str(why)
        shown = f"{error}: {said}" if why is not error else said
        raise ConfigError(f"log_config {path!r}: {shown or type(error).__name__}; correct the file") from error
    made = [reference() for reference in logging._handlerList]  # type: ignore[attr-defined]
    _handlers.extend(handler for handler in made if handler is not None and id(handler) not in known)


def _configure(path: str) -> None:
    import logging.config

    if not path.endswith((".toml", ".json")):
        if not os.access(path, os.R_OK):
            with open(path, "rb"):  # raises what is wrong: fileConfig passes over a file that is not there
                pass
        logging.config.fileConfig(path, disable_existing_loggers=False, encoding="utf-8")
        return
    with open(path, "rb") as file:
        content = file.read()
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False} | _parsed(path, content))


def _parsed(path: str, content: bytes) -> dict[str, Any]:
    if path.endswith(".json"):
        import json

        found = json.loads(content)
    else:
        import tomllib

        found = tomllib.loads(content.decode("utf-8"))
    if not isinstance(found, dict):
        raise ValueError("not a table of settings")
    return found


def descriptors() -> set[int]:
    """Descriptors of the handlers that were made here, which are opened again in each worker."""
    streams = (getattr(handler, "stream", None) for handler in _handlers)
    found = set()
    for stream in (*streams, *(getattr(handler, "sock", None) for handler in _handlers)):
        try:
            number = stream.fileno() if stream is not None else -1
        except (AttributeError, OSError, ValueError):  # not open, or no file
            continue
        if isinstance(number, int) and number > 2:
            found.add(number)
    return found


def reopen(log: ErrorLog) -> None:
    """In a worker that was forked after the import: open files again, and leave connections to their owner."""
    for handler in _handlers:
        try:
            _reopen(handler)
        except OSError as error:
            log.error(f"log_config: {handler!r} cannot be opened again: {(error.strerror or str(error)).lower()}")


def _reopen(handler: Any) -> None:
    import logging
    import logging.handlers

    handler.acquire()
    try:
        if isinstance(handler, logging.FileHandler):
            if handler.stream is not None and handler.mode.startswith("a"):  # another mode would empty the file
                handler.stream.close()
                handler.stream = None  # emit opens it where this does not
                handler.stream = handler._open()
        elif isinstance(handler, logging.handlers.SocketHandler) and handler.sock is not None:
            handler.sock.close()
            handler.sock = None
    finally:
        handler.release()
