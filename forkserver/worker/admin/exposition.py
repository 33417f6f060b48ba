"""/metrics: the figures of the service, and those of the application's own prometheus_client, in one exposition.

The library prometheus_client writes the text, in Prometheus' format or in OpenMetrics as the client asks. It is an
optional dependency: without it ``missing`` says how to get it. Where the application uses the multiprocess mode of that
library, its files are merged in (``multiprocess_folder.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from forkserver.logs.error_log import ErrorLog
from forkserver.worker.admin.multiprocess_folder import Check, FolderError, collect

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class Exposition:
    """``folder`` is where the application's processes write, None where they do not."""

    def __init__(self, missing: str = "", folder: str | None = None, log: ErrorLog | None = None) -> None:
        self.missing = missing
        self._folder = folder
        self._log = log
        self._told = ""

    def render(self, status: dict[str, Any], accept: str) -> tuple[bytes, str]:
        """The exposition for a client that asks with ``Accept: accept``: bytes and their type."""
        from prometheus_client.exposition import choose_encoder

        from forkserver.worker.admin import metrics

        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # of a version that is no number
            encode, content_type = choose_encoder("")
        application = self._of_application(lambda found: encode(_registry(found)))
        return encode(_registry([*metrics.of_status(status), *application])), content_type

    def _of_application(self, check: Check) -> Iterable[Metric]:
        """What the application counts, and whether that could be read; nothing where it counts nothing."""
        from prometheus_client.core import GaugeMetricFamily

        if self._folder is None:
            return []
        found: list[Metric] = []
        try:
            found, left_out = collect(self._folder, check)
        except FolderError as error:
            self._tell(f"the application's metrics in {self._folder} cannot be read: {error}")
        else:
            self._tell(self._leaves_out(left_out) if left_out else "")
        readable = GaugeMetricFamily(
            "forkserver_application_metrics_readable",
            "Whether the files of the application's prometheus_client could be read.",
            value=not self._told,
        )
        return [*found, readable]

    def _leaves_out(self, files: list[str]) -> str:
        others = f", and neither {'is' if len(files) == 2 else 'are'} {len(files) - 1} more" if files[1:] else ""
        return (
            f"{files[0]}: this file in {self._folder} is not shown with the application's metrics{others}; "
            "remove what prometheus_client has not written"
        )

    def _tell(self, why: str) -> None:
        """Once, until it is well again; empty where it is."""
        if why and not self._told and self._log is not None:
            self._log.warning(why)
        self._told = why


class _Collected:
    """What a registry is given: metrics that are there already."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found


def _registry(found: list[Metric]) -> Any:
    from prometheus_client.core import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(found))
    return registry


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
