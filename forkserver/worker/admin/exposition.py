"""/metrics: the figures of the service, and those of the application's own prometheus_client, in one exposition.

The library prometheus_client writes the text, in Prometheus' format or in OpenMetrics as the client asks. It is an
optional dependency: without it ``missing`` says how to get it. Where the application uses the multiprocess mode of that
library, its files are merged in, and the gauges of processes that have ended are removed first.

Source: https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from forkserver.logs.error_log import ErrorLog

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_LIVE_GAUGE: Final = re.compile(r"gauge_live[a-z]*_([0-9]+)\.db")
_UNREADABLE: Final = (
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    struct.error,
)  # what a file that is cut or foreign raises
_OURS: Final = "forkserver_"


class Exposition:
    """``folder`` is where the application's processes write, None where they do not."""

    def __init__(self, missing: str = "", folder: str | None = None, log: ErrorLog | None = None) -> None:
        self.missing = missing
        self._folder = folder
        self._log = log
        self._told = ""

    def render(self, status: dict[str, Any], accept: str) -> tuple[bytes, str]:
        """The exposition for a client that asks with ``Accept: accept``: bytes and their type."""
        from prometheus_client.core import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        from forkserver.worker.admin import metrics

        found = [*metrics.of_status(status), *self._of_application()]
        encode, content_type = choose_encoder(accept)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected(found))
        return encode(registry), content_type

    def _of_application(self) -> Iterable[Metric]:
        """What the application counts, and whether that could be read; nothing where it counts nothing."""
        from prometheus_client.core import GaugeMetricFamily
        from prometheus_client.multiprocess import MultiProcessCollector

        if self._folder is None:
            return []
        found: list[Metric] = []
        try:
            if os.path.isdir(self._folder):
                remove_gauges_of_ended(self._folder)
                collector = MultiProcessCollector(None, path=self._folder)  # type: ignore[no-untyped-call]
                merged = collector.collect()  # type: ignore[no-untyped-call]
                found = [each for each in merged if not each.name.startswith(_OURS)]
            self._told = ""
        except _UNREADABLE as error:
            self._tell(f"the application's metrics in {self._folder} cannot be read: {error!r}")
            found = []
        readable = GaugeMetricFamily(
            "forkserver_application_metrics_readable",
            "Whether the files of the application's prometheus_client could be read.",
            value=not self._told,
        )
        return [*found, readable]

    def _tell(self, why: str) -> None:
        """Once, until it is well again."""
        if not self._told and self._log is not None:
            self._log.warning(why)
        self._told = why


class _Collected:
    """What a registry is given: metrics that are there already."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found


def exposition(folder: str | None, log: ErrorLog) -> Exposition:
    """An exposition, with the library loaded; where it is not installed, one that says so."""
    try:
        import prometheus_client.core
        import prometheus_client.multiprocess  # noqa: F401

        from forkserver.worker.admin import metrics  # noqa: F401
    except ImportError as error:
        why = f"no /metrics: {error}; install it with pip install 'forkserver-wsgi[metrics]'"
        log.info(why)
        return Exposition(why)
    return Exposition("", folder, log)


def remove_gauges_of_ended(folder: str) -> None:
    """Remove the files of ``live`` gauges that processes have left which have ended. Raises OSError."""
    for name in os.listdir(folder):
        found = _LIVE_GAUGE.fullmatch(name)
        if found and not _lives(int(found[1])):
            with suppress(FileNotFoundError):  # the application has done it
                os.unlink(os.path.join(folder, name))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # it is another user's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
