"""Settings that do not go together, although each of them could be meant.

Each conflict is the name of the setting to change, and the reason with the way out; loading.py raises the first one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from forkserver.config.settings import Settings
from forkserver.linux.sockets.socket_file import ABSTRACT
from forkserver.linux.syscalls import SCM_MAX_FD
from forkserver.logs.syslog import is_syslog

# A worker gets its listeners beside one message, with the two ends of the queue of connections between workers.
MOST_LISTENERS: Final = SCM_MAX_FD - 2
Conflict = tuple[str, str]  # the setting's name; the reason and the way out


def found(settings: Settings) -> Iterator[Conflict]:
    """What is wrong between the settings, the worst first."""
    yield from _addresses(settings)
    yield from _abstract(settings)
    yield from _limits(settings)
    yield from _tls(settings)
    yield from _proxies(settings)
    yield from _logs(settings)
    yield from _development(settings)


def _addresses(settings: Settings) -> Iterator[Conflict]:
    count = len(settings.bind)
    if count > MOST_LISTENERS:
        why = f"{count} addresses, and the kernel passes {MOST_LISTENERS} to a worker at most"
        yield "bind", f"{why}; leave some out, or have a second service listen there"
    files: dict[str, str] = {}
    for address in settings.bind:
        if address.startswith("unix:") and not address.startswith(ABSTRACT):
            folder, name = os.path.split(address.removeprefix("unix:"))
            other = files.setdefault(os.path.join(os.path.realpath(folder), name), address)
            if other is not address:
                yield "bind", f"{other} and {address} are the same file; name it once"


def _abstract(settings: Settings) -> Iterator[Conflict]:
    unix = [address for address in settings.bind if address.startswith("unix:")]
    if not unix or not all(address.startswith(ABSTRACT) for address in unix):
        return
    for name in ("socket_mode", "socket_group"):
        if settings.sources[name] != "default":
            yield (
                name,
                f"{unix[0]} has no file, so no permissions; bind a path such as unix:/run/myapp.sock, or leave it out",
            )


def _limits(settings: Settings) -> Iterator[Conflict]:
    for name in ("limit_request_line", "limit_request_field_size"):
        if getattr(settings, name) > settings.limit_request_head:
            yield name, f"more than limit_request_head, {settings.limit_request_head}; raise that too"
    if settings.max_body > settings.max_spool:
        yield "max_body", f"more than max_spool, {settings.max_spool}; raise that too"
    if 0 < settings.max_workers < settings.workers:
        yield "max_workers", f"fewer than workers, {settings.workers}; raise it, or leave it out"
    if settings.max_requests_jitter and not settings.max_requests:
        yield "max_requests_jitter", "there is no max_requests to add it to; set that, or leave both out"


def _tls(settings: Settings) -> Iterator[Conflict]:
    certificates, keys = len(settings.certfile), len(settings.keyfile)
    if keys not in (0, certificates):
        yield "keyfile", f"{keys} for {certificates} of certfile; give one for each, or none"
    if settings.self_signed == "on" and certificates:
        yield "self_signed", "certfile names a certificate already; leave one of them out"
    for name in ("ca_certs", "ciphers"):
        if getattr(settings, name) is not None and not settings.encrypted:
            yield name, "there is no certfile, so nothing is encrypted; give one or leave this out"
    if settings.cert_reqs != "none" and not (settings.encrypted and settings.ca_certs):
        yield "cert_reqs", "certificates of clients are checked with certfile and ca_certs; give both"
    if settings.ca_certs is not None and settings.cert_reqs == "none":
        # Who names authorities believes that clients are checked.
        yield "ca_certs", "no client is asked for a certificate; set cert_reqs to required or optional"


def _proxies(settings: Settings) -> Iterator[Conflict]:
    if "forwarded" in settings.forwarded_fields and set(settings.forwarded_fields) - {"forwarded", "script_name"}:
        why = "it is unknown which of them the proxy wrote; name forwarded alone, or the x-forwarded-* that it sets"
        yield "forwarded_fields", why


def _development(settings: Settings) -> Iterator[Conflict]:
    if settings.dev == "off" and settings.error_page == "on":
        yield "error_page", "a traceback tells of the machine, so it is shown with dev alone; set dev, or leave it out"
    if settings.dev == "off" and settings.free_port == "on":
        yield "free_port", "a service whose port changes is found by no client; set dev, or leave it out"


def _logs(settings: Settings) -> Iterator[Conflict]:
    if settings.capture_output == "off":
        return
    if is_syslog(settings.error_log):
        yield "capture_output", f"error_log is {settings.error_log}, which is no file; name one, or leave it out"
    elif settings.error_log != "-" and settings.access_log == "-":
        yield "capture_output", "access_log - is standard output, which would go to error_log too; name a file for it"
