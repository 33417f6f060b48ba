"""The folder in which the application's processes count with prometheus_client, in its multiprocess mode.

The application has the rights of the admin process, and may have anything there: a FIFO, a device, a link, a foreign
file, a million of them. So a file is opened without a wait (open(2), O_NONBLOCK), and read where it is a regular one;
what is read is bounded, and the library is given these bytes, not the file's name. A file that the library cannot read
is left out, with every metric in it.

Source: https://prometheus.github.io/client_python/multiprocess/ and the library's mmap_dict.py, of version 0.26.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MOST_ENTRIES: Final = 16384
MOST_BYTES: Final = 8 * 1024 * 1024  # of all files together, which takes seconds; one of a process has thousands
_SUFFIX: Final = ".db"
_LIVE_GAUGE: Final = re.compile(r"gauge_live[a-z]*_([0-9]+)\.db")
_USED_BYTES: Final = 4  # at the beginning of a file: how much of it is used
_OPEN: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
_OURS: Final = "forkserver_"

Check = Callable[[list["Metric"]], object]


class FolderError(Exception):
    """The folder, or a file in it, is not to be read; its text says why."""


def collect(folder: str, check: Check) -> tuple[list[Metric], list[str]]:
    """The application's metrics in ``folder``, and why which file was left out.

    ``check(metrics)`` raises an exception of any kind for what cannot be shown. Gauges of processes that have ended are
    removed first. Raises FolderError where nothing can be read; a folder that is not there yet has no metrics.
    """
    try:
        files, left_out = _read(folder)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        raise FolderError(str(error)) from None
    metrics = _checked(files, check)
    if isinstance(metrics, str):  # which of them is it?
        for name in list(files):
            if isinstance(why := _checked({name: files[name]}, check), str):
                left_out.append(f"{name}: {why}")
                del files[name]
        metrics = _checked(files, check)
    if isinstance(metrics, str):
        raise FolderError(metrics)
    return metrics, left_out


def _checked(files: dict[str, bytes], check: Check) -> list[Metric] | str:
    """The metrics in ``files``, or why they cannot be shown: the library raises whatever it comes to."""
    try:
        metrics = [each for each in _merge(files) if _is_its_own(each)]
        check(metrics)
    except Exception as error:
        return repr(error)
    return metrics


def _merge(files: dict[str, bytes]) -> Iterable[Metric]:
    """The metrics in ``files``, in whose place the library would open their names."""
    from prometheus_client import multiprocess  # late: it is optional

    module: Any = multiprocess
    original = module.MmapedDict
    module.MmapedDict = _Contents(files, original)
    try:
        merged: Iterable[Metric] = module.MultiProcessCollector.merge(list(files))
        return merged
    finally:
        module.MmapedDict = original


class _Contents:
    """In place of the library's MmapedDict: reads bytes that were read already."""

    def __init__(self, files: dict[str, bytes], original: Any) -> None:
        self._files = files
        self._original = original

    def read_all_values_from_file(self, name: str) -> Any:
        number = os.memfd_create("metrics", os.MFD_CLOEXEC)
        try:
            os.pwrite(number, self._files[name], 0)
        except BaseException:
            os.close(number)
            raise
        return self._original.read_all_values_from_file(number)  # which closes it


def _is_its_own(metric: Metric) -> bool:
    """Whether ``metric`` has neither a name that the server uses nor one that would begin another line."""
    names = {metric.name}
    for sample in metric.samples:
        names.add(sample.name)
        names.update(sample.labels)
    if not all(name.isprintable() for name in names):
        raise ValueError(f"a name in {metric.name!r} has control characters")
    return not any(name.startswith(_OURS) for name in (metric.name, *(sample.name for sample in metric.samples)))


def _read(folder: str) -> tuple[dict[str, bytes], list[str]]:
    """What the files in ``folder`` have, by name, and why which was left out. Raises OSError and FolderError."""
    files: dict[str, bytes] = {}
    left_out: list[str] = []
    left = MOST_BYTES
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        for name in _names(directory):
            gauge = _LIVE_GAUGE.fullmatch(name)
            try:
                if gauge and not _lives(int(gauge[1])):
                    os.unlink(name, dir_fd=directory)
                    continue
                files[name] = data = _contents(name, directory, left)
            except FileNotFoundError:  # the application has removed it
                continue
            except (OSError, ValueError) as error:
                left_out.append(f"{name}: {error}")
                continue
            left -= len(data)
    finally:
        os.close(directory)
    return files, left_out


def _names(directory: int) -> Iterable[str]:
    with os.scandir(directory) as entries:
        for count, entry in enumerate(entries):
            if count >= MOST_ENTRIES:
                raise FolderError(f"it has more than {MOST_ENTRIES} entries; empty it before each start")
            if entry.name.endswith(_SUFFIX):
                yield entry.name


def _contents(name: str, directory: int, most: int) -> bytes:
    """The part of a file that is used. Raises OSError, ValueError, and FolderError for more than ``most`` bytes."""
    number = os.open(name, _OPEN, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise ValueError("no regular file")
        used = int.from_bytes(os.pread(number, _USED_BYTES, 0), "little", signed=True)
        size = min(max(used, 2 * _USED_BYTES), os.fstat(number).st_size)
        if size > most:
            raise FolderError(f"its files have more than {MOST_BYTES} bytes; empty it before each start")
        return os.pread(number, size, 0)
    finally:
        os.close(number)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # it is another user's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
