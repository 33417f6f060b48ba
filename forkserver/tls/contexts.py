"""The TLS that listeners speak: certificates, keys and authorities, read by the master, used by its workers.

What cannot be served is refused before anything has changed. A renewed certificate leaves session tickets good.

A session ticket is sealed with keys that OpenSSL draws for a context and keeps (SSL_CTX_set_tlsext_ticket_keys
has no place in the ssl module). So connections begin in one context, the *door*, which lives as long as the master, is
copied to workers by their fork, and has no certificate. When the client has said which name it wants, the connection
goes on in the context of a certificate, of which each generation has its own.

Source: the stdlib's page on ssl; SSL_CTX_set_tlsext_servername_callback(3); RFC 9325 for versions and ciphers.
"""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

from forkserver.config.settings import Settings
from forkserver.errors import ConfigError, ForkserverError
from forkserver.linux import syscalls
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.files import trusted_files, trusted_paths
from forkserver.linux.syscalls import wall_time
from forkserver.tls import certificate_names

PROTOCOLS: Final = ["http/1.1"]
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")  # as DNS has them, and "_", which some use
# TLS 1.2 with forward secrecy and authenticated encryption; those of 1.3 are all so.
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
TICKET_SECONDS: Final = 24 * 3600.0  # a reload renews keys of tickets that are older: RFC 9325 section 3.4
_SELF_SIGNED_DAYS: Final = 30
SELF_SIGNED_SECONDS: Final = _SELF_SIGNED_DAYS * 86400 / 2  # at half its life a reload makes another
_OPENSSL_SECONDS: Final = 20.0
_VERIFY: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_OPENSSL: Final = (
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -subj /CN=localhost "
    "-addext subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1 -addext basicConstraints=critical,CA:FALSE"
)


def _refused_name(unraisable: Any) -> bool:
    """Whether the ssl module could not decode the server name (SNI) that a client sent.

    The module ends that handshake with an alert and reports a UnicodeDecodeError as unraisable, raised by its C code in
    a frame of ``ssl.py``. The frame tells it apart from other faults in every version; the text and ``object`` of the
    report changed with CPython 3.14. Source: ``_servername_callback`` in CPython's Modules/_ssl.c.
    """
    trace = unraisable.exc_traceback
    return (
        isinstance(unraisable.exc_value, UnicodeDecodeError)
        and trace is not None
        and trace.tb_next is None
        and trace.tb_frame.f_globals is vars(ssl)
    )


def _report(report: Callable[[Any], object], unraisable: Any) -> None:
    """Pass on every unraisable fault but a server name that is not ASCII: clients must not fill the log with those."""
    if not _refused_name(unraisable):
        report(unraisable)


Certificate = tuple[list[str], ssl.SSLContext]  # the names it is for


class HandshakeContext(NamedTuple):
    """The context in which connections begin; ``authorities`` and ``demand`` are what its tickets are good for."""

    context: ssl.SSLContext
    authorities: str | None
    demand: str
    made_at: float


class Own(NamedTuple):
    """A self-signed certificate, its context made by ``rules``.

    ``made_at`` is by the clock on the wall, as its end is: the other one stands still while a machine sleeps.
    """

    certificate: Certificate
    rules: tuple[str | None, ...]
    made_at: float


class TlsContexts:
    """What one generation speaks; ``before`` is what the last one did. Raises ConfigError, with nothing changed."""

    def __init__(self, settings: Settings, before: TlsContexts | None = None) -> None:
        authorities = None
        if settings.ca_certs is not None:
            with _readable(settings.ca_certs, "ca_certs", settings.service_uid) as (_, text):
                authorities = text
        self._contexts: list[Certificate]
        self._own: Own | None = None
        if settings.self_signed == "on":
            self._own = _own(settings, authorities, before._own if before is not None else None)
            self._contexts = [self._own.certificate]
        else:
            keys: Sequence[str | None] = settings.keyfile or [None] * len(settings.certfile)
            pairs = zip(settings.certfile, keys, strict=True)
            self._contexts = [_with_certificate(settings, authorities, *pair) for pair in pairs]
        self._by_name = {name: context for names, context in reversed(self._contexts) for name in names}
        self._door: HandshakeContext = _door(settings, authorities, before._door if before is not None else None)

    def open(self) -> ssl.SSLContext:
        """The context for connections of this process, which is one of this generation's."""
        sys.unraisablehook = partial(_report, sys.unraisablehook)
        context = self._door.context
        context.sni_callback = self._choose
        return context

    def _choose(self, connection: Any, name: str | None, _door: ssl.SSLContext) -> int | None:
        """Go on with the certificate for ``name``, or with the first; called in each handshake, without a name too.

        Gives the alert that ends the handshake where ``name`` can be no host's: it would be text of the client's choice
        in SSL_TLS_SNI (RFC 6066 section 3).
        """
        context = self._contexts[0][1]
        if name is not None:
            if not _HOST_NAME.fullmatch(name):
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            connection.sni = name
            name = name.lower()
            found = self._by_name.get(name) or self._by_name.get(f"*.{name.partition('.')[2]}")
            context = found or context
        connection.context = context
        return None


def _door(settings: Settings, authorities: str | None, before: HandshakeContext | None) -> HandshakeContext:
    """The last door, unless its tickets would let in who is not let in any more, or its keys are old."""
    now = syscalls.clock()
    if (
        before is not None
        and (authorities, settings.cert_reqs) == before[1:3]
        and now - before.made_at < TICKET_SECONDS
    ):
        return before
    return HandshakeContext(_context(settings, authorities), authorities, settings.cert_reqs, now)


def _context(settings: Settings, authorities: str | None) -> ssl.SSLContext:
    """A context without a certificate. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(PROTOCOLS)
    context.num_tickets = 1  # each costs a handshake some 16 µs; a session that is resumed gives its client another
    try:
        context.set_ciphers(settings.ciphers or CIPHERS)
    except ssl.SSLError:
        raise ConfigError(
            f"ciphers {settings.ciphers!r}: OpenSSL knows none of them; see what `openssl ciphers -v` takes"
        ) from None
    if authorities is not None:
        try:
            context.load_verify_locations(cadata=authorities)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"ca_certs {settings.ca_certs!r}: not certificates: {_reason(error)}; give a PEM file of authorities"
            ) from None
    context.verify_mode = _VERIFY[settings.cert_reqs]
    return context


def _with_certificate(settings: Settings, authorities: str | None, certfile: str, keyfile: str | None) -> Certificate:
    context = _context(settings, authorities)
    with ExitStack() as opened:
        certificate, text = opened.enter_context(_readable(certfile, "certfile", settings.service_uid))
        key = None
        if keyfile is not None:
            key, _ = opened.enter_context(_readable(keyfile, "keyfile", settings.service_uid))
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
            begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
            first = text[text.index(begin) : text.index(end) + len(end)]
            return certificate_names.names(ssl.PEM_cert_to_DER_cert(first)), context
        except (ssl.SSLError, ValueError) as error:
            if keyfile is None and "PRIVATE KEY-----" not in text:
                raise ConfigError(
                    f"certfile {certfile!r}: it holds no private key, and keyfile is not set; name the key's file with "
                    "--keyfile"
                ) from None
            with_key = f" and keyfile {keyfile!r}" if keyfile is not None else ""
            raise ConfigError(
                f"certfile {certfile!r}{with_key}: {_reason(error)}; give a certificate in PEM form and its private key"
            ) from None


def _no_password() -> str:
    """No person is there to type it."""
    raise ValueError("the private key is encrypted; write it without a password")


@contextmanager
def _readable(path: str, name: str, service: int) -> Iterator[tuple[str, str]]:
    """A name to read the setting ``name``'s file ``path`` by, and its text. Raises ConfigError.

    Both with the rights of the user that may change it. Workers hold the key: what root alone may read must not become
    theirs by a link in a folder of their user.
    """
    with ExitStack() as opened:
        try:
            readable = opened.enter_context(trusted_files.readable(path, service))
            with open(trusted_files.open_regular(readable), encoding="utf-8") as file:
                text = file.read()
        except trusted_paths.UntrustedPathError as error:
            raise ConfigError(f"{name} {path!r}: {error}") from None
        except BlockingIOError:
            raise ForkserverError(
                f"{name} {path!r}: another process holds a lease on it (fcntl(2), F_SETLEASE); end that process"
            ) from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(f"{name} {path!r}: {reason}; name a file that the master may read") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{name} {path!r}: not text; give it in PEM form") from None
        yield readable, text


_REASONS: Final = {
    "KEY_VALUES_MISMATCH": "the private key is another certificate's",
    "NO_START_LINE": "there is no such thing in it",
    "EE_KEY_TOO_SMALL": "the key is too short to be safe",
    "CA_MD_TOO_WEAK": "it is signed by a hash that is not safe",
}


def _reason(error: Exception) -> str:
    known = getattr(error, "reason", None) or ""
    return _REASONS.get(known) or known.replace("_", " ").lower() or str(error)


def _own(settings: Settings, authorities: str | None, before: Own | None) -> Own:
    """The last one, so that who has accepted it is not asked again, unless it nears its end or the rules are others."""
    now, rules = wall_time(), (authorities, settings.cert_reqs, settings.ciphers)
    if before is not None and before.rules == rules and 0 <= now - before.made_at < SELF_SIGNED_SECONDS:
        return before
    try:
        return Own(_self_signed(settings, authorities), rules, now)
    except OSError as error:  # a full disk
        reason = (error.strerror or str(error)).lower()
        raise ForkserverError(f"self_signed: no folder for its key: {reason}; make room, or set TMPDIR") from None


def _self_signed(settings: Settings, authorities: str | None) -> Certificate:
    """A certificate for localhost that no authority has signed; its key is nowhere but in our memory."""
    program = shutil.which("openssl")
    if program is None:
        raise ConfigError(
            "self_signed: there is no program openssl to make a certificate; install it, or give certfile"
        )
    with tempfile.TemporaryDirectory(prefix="forkserver-") as folder:  # of mode 0700
        certificate, key = f"{folder}/certificate", f"{folder}/key"
        if reason := trusted_paths.why_guarded(certificate):
            raise ConfigError(f"self_signed: {reason}, where its key is made; set TMPDIR, to /tmp perhaps")
        files = ["-days", str(_SELF_SIGNED_DAYS), "-out", certificate, "-keyout", key]
        command = [program, *_OPENSSL.split(), *files]
        try:
            made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_OPENSSL_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"self_signed: {error}; give certfile instead") from None
        if made.returncode:
            said = (made.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ConfigError(f"self_signed: openssl made no certificate: {said}; fix that, or give certfile")
        return _with_certificate(settings, authorities, certificate, key)
