"""What the master makes of certificates: contexts that go together, or a refusal that says which file is wrong."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forkserver.config.settings import defaults
from forkserver.errors import ConfigError, ForkserverError
from forkserver.linux import syscalls
from forkserver.tls import contexts
from forkserver.tls.contexts import SELF_SIGNED_SECONDS, TICKET_SECONDS, TlsContexts
from harness import credentials, needs, reach
from harness.credentials import Files, client
from harness.intruder import give


@pytest.fixture(autouse=True)
def _hook_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process opens its context once; the tests do so again and again."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)


class Talk:
    """A handshake in memory, and what either side knows afterwards."""

    def __init__(
        self,
        tls: TlsContexts,
        context: ssl.SSLContext,
        name: str | None = "localhost",
        session: ssl.SSLSession | None = None,
    ) -> None:
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        context.check_hostname = name is not None
        self.client = context.wrap_bio(back, there, server_hostname=name, session=session)
        self.server: Any = tls.open().wrap_bio(there, back, server_side=True)
        self._meet()

    def _meet(self) -> None:
        left = [self.client, self.server]
        while left:
            for side in list(left):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                left.remove(side)
        self.server.write(b"answer")  # TLS 1.3 sends its tickets with the first data
        assert self.client.read() == b"answer"

    @property
    def names(self) -> list[str]:
        shown: Any = self.client.getpeercert()
        return [name for kind, name in shown["subjectAltName"] if kind == "DNS"]


def of(*files: Files, **more: Any) -> Any:
    return defaults(certfile=[each.certificate for each in files], keyfile=[each.key for each in files], **more)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_certificate_is_chosen_by_name(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """A client without a name, or with one that no certificate has, gets the first."""
    first = credentials.write(tmp_path, "first.example", "www.first.example")
    other = credentials.write(tmp_path, "*.other.example")
    rsa = credentials.write(tmp_path, "rsa.example", rsa=True)
    tls = TlsContexts(of(first, other, rsa))
    assert sorted(tls._by_name) == ["*.other.example", "first.example", "rsa.example", "www.first.example"]
    for name, expected in (
        ("www.first.example", "first.example"),
        ("a.other.example", "*.other.example"),
        ("A.Other.Example", "*.other.example"),
        ("rsa.example", "rsa.example"),
    ):
        talk = Talk(tls, client(version=version), name)
        assert talk.names[0] == expected
        assert talk.server.sni.lower() == name.lower()
        assert talk.server.version() == ("TLSv1.2" if version is ssl.TLSVersion.TLSv1_2 else "TLSv1.3")
    assert Talk(tls, client(version=version), None).names[0] == "first.example"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        Talk(tls, client(version=version), "a.b.other.example")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_is_good_after_a_renewal(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Half of a busy site's handshakes are resumed; a renewal must not make them all whole at once."""
    context = client(version=version)
    tls = TlsContexts(of(credentials.write(tmp_path)))
    first = Talk(tls, context)
    renewed = TlsContexts(of(credentials.write(tmp_path, number=1)), tls)
    again = Talk(renewed, context, session=first.client.session)
    assert again.server.session_reused
    fresh = Talk(renewed, context)
    assert not fresh.server.session_reused
    assert fresh.client.getpeercert(True) != first.client.getpeercert(True)


def test_each_handshake_gives_one_ticket(tmp_path: Path) -> None:
    """One renews itself at each resumption, and each connection of a client brings its own."""
    context: Any = client(version=ssl.TLSVersion.TLSv1_3)
    given: list[str] = []

    def note(_connection: Any, direction: str, _version: Any, _content: Any, message: Any, _data: bytes) -> None:
        if direction == "read" and getattr(message, "name", "") == "NEWSESSION_TICKET":
            given.append(direction)

    context._msg_callback = note
    tls = TlsContexts(of(credentials.write(tmp_path)))
    first = Talk(tls, context)
    assert len(given) == 1
    again = Talk(tls, context, session=first.client.session)
    assert again.server.session_reused
    assert len(given) == 2


def test_a_renewed_certificate_with_another_kind_of_key_leaves_nothing_of_the_old(tmp_path: Path) -> None:
    """OpenSSL keeps one certificate for each kind of key: what is not replaced would be served on."""
    tls = TlsContexts(of(credentials.write(tmp_path, rsa=True)))
    renewed = TlsContexts(of(credentials.write(tmp_path)), tls)
    context = client(version=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("ECDHE+aRSA")
    Talk(tls, context)
    with pytest.raises(ssl.SSLError, match=r"(?i)no.shared.cipher|handshake.failure"):
        Talk(renewed, context)


def test_tickets_end_when_other_clients_are_let_in(tmp_path: Path) -> None:
    """A ticket stands for a certificate that was checked; by authorities that are gone it must not let in."""
    files = credentials.write(tmp_path)
    asking = {"ca_certs": credentials.authorities(tmp_path), "cert_reqs": "required"}
    context = client(own=credentials.write(tmp_path, "someone"))
    tls = TlsContexts(of(files, **asking))
    first = Talk(tls, context)
    assert Talk(TlsContexts(of(files, **asking), tls), context, session=first.client.session).server.session_reused
    (tmp_path / "authority.pem").write_bytes(credentials.authority(1).cert_pem.bytes())
    with pytest.raises(ssl.SSLError):
        Talk(TlsContexts(of(files, **asking), tls), context, session=first.client.session)


def test_old_keys_of_tickets_end_with_a_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thief of one must not read years of sessions with it."""
    settings = of(credentials.write(tmp_path))
    tls = TlsContexts(settings)
    assert TlsContexts(settings, tls).open() is tls.open()
    later = syscalls.clock() + TICKET_SECONDS
    monkeypatch.setattr(syscalls, "clock", lambda: later)
    assert TlsContexts(settings, tls).open() is not tls.open()


def test_nothing_before_tls_1_2_is_spoken(tmp_path: Path) -> None:
    tls = TlsContexts(of(credentials.write(tmp_path)))
    context = client()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        Talk(tls, context)


def test_http_1_1_is_agreed_on(tmp_path: Path) -> None:
    context = client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    assert Talk(TlsContexts(of(credentials.write(tmp_path))), context).client.selected_alpn_protocol() == "http/1.1"


def test_who_must_show_a_certificate_and_has_none_is_turned_away(tmp_path: Path) -> None:
    files, authorities = credentials.write(tmp_path), credentials.authorities(tmp_path)
    required = TlsContexts(of(files, ca_certs=authorities, cert_reqs="required"))
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        Talk(required, client())
    shown = Talk(required, client(own=credentials.write(tmp_path, "someone")))
    assert shown.server.getpeercert()["subjectAltName"] == (("DNS", "someone"),)
    assert (
        Talk(TlsContexts(of(files, ca_certs=authorities, cert_reqs="optional")), client()).server.getpeercert() is None
    )


def test_the_key_may_stand_in_the_certificates_file(tmp_path: Path) -> None:
    files = credentials.write(tmp_path)
    both = tmp_path / "both.pem"
    both.write_text(Path(files.key).read_text() + Path(files.certificate).read_text())
    assert list(TlsContexts(defaults(certfile=[str(both)]))._by_name) == ["localhost"]


def test_a_file_that_cannot_be_served_is_named_with_the_reason(tmp_path: Path) -> None:
    good, other = credentials.write(tmp_path), credentials.write(tmp_path, "other")
    text, binary = tmp_path / "text", tmp_path / "binary"
    text.write_text("hello")
    binary.write_bytes(b"\xff\xfe")
    encrypted = str(tmp_path / "encrypted.key")
    openssl = needs.program("openssl")
    subprocess.run(
        [openssl, "pkcs8", "-topk8", "-in", good.key, "-out", encrypted, "-passout", "pass:secret"], check=True
    )
    for files, why in (
        (Files("nowhere", good.key), "certfile 'nowhere': no such file"),
        (Files(good.certificate, "nowhere"), "keyfile 'nowhere': no such file"),
        (Files(str(text), good.key), f"certfile '{text}' and keyfile .*: "),
        (Files(str(binary), good.key), f"certfile '{binary}': not text"),
        (Files(good.certificate, str(text)), "give a certificate in PEM form and its private key"),
        (Files(good.certificate, other.key), "the private key is another certificate's"),
        (Files(good.certificate, encrypted), "encrypted; write it without a password"),
        (Files(good.certificate, good.certificate), "give a certificate in PEM form and its private key"),
    ):
        with pytest.raises(ConfigError, match=why):
            TlsContexts(of(files))
    with pytest.raises(ConfigError, match="it holds no private key, and keyfile is not set; name the key's file with"):
        TlsContexts(defaults(certfile=[good.certificate]))
    with pytest.raises(ConfigError, match=r"ca_certs .*: not certificates"):
        TlsContexts(of(good, ca_certs=str(text), cert_reqs="required"))
    with pytest.raises(ConfigError, match="ciphers 'NONSENSE': OpenSSL knows none of them"):
        TlsContexts(of(good, ciphers="NONSENSE"))


@pytest.mark.parametrize("name", ["certfile", "keyfile", "ca_certs"])
def test_a_fifo_in_place_of_a_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """Reading it would wait for a writer: a start would hang, and a master at HUP."""
    files = credentials.write(tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    named: dict[str, Any] = {"certfile": [str(files.certificate)], "keyfile": [str(files.key)]}
    named[name] = str(fifo) if name == "ca_certs" else [str(fifo)]
    with pytest.raises(ConfigError, match=f"{name} '{fifo}': not a regular file"):
        TlsContexts(defaults(**named))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    "name",
    [
        *(b"localhos\xd6", b"\xff\xfecalhost", b"\xc3\xa4\xc3\xb6host\xe2"),
        *(b"a\r\nb: c\x1b[", b"local hos", b"*.b.examp", b"<script>a", b"[::1]:443"),
    ],
)
def test_a_name_that_no_host_has_ends_its_handshake_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes, version: ssl.TLSVersion
) -> None:
    """The application would have it as SSL_TLS_SNI and may write it to a header or a log.

    Of one that is not ASCII the ssl module would write a traceback, and the log would grow as clients please.
    """
    assert len(name) == len(b"localhost")
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client(version=version).wrap_bio(back, there, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        asking.do_handshake()
    there.write(there.read().replace(b"localhost", name))
    server = TlsContexts(of(credentials.write(tmp_path))).open().wrap_bio(there, back, server_side=True)
    with pytest.raises(ssl.SSLError):
        server.do_handshake()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert|unrecognized.name"):
        asking.do_handshake()
    assert told == []


class Leaving:
    """What ends at once, and calls its finalizer."""


def _decode() -> None:
    b"\xd6".decode("ascii")


def _fail() -> None:
    raise ValueError


@pytest.mark.parametrize("fault", [_decode, _fail])
def test_other_faults_that_cannot_be_raised_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[], None]
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    TlsContexts(of(credentials.write(tmp_path))).open()
    weakref.finalize(Leaving(), fault)
    assert len(told) == 1


def trusting(own: Files | None = None) -> ssl.SSLContext:
    """What a client goes by that has accepted whatever it was shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if own is not None:
        context.load_cert_chain(*own)
    return context


def shown(tls: TlsContexts) -> bytes | None:
    certificate: bytes | None = Talk(tls, trusting(), None).client.getpeercert(True)
    return certificate


def test_a_self_signed_certificate_stays_the_same_over_reloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The person at the browser has accepted it once; and must not find it run out, however long the service runs."""
    needs.program("openssl")
    settings = defaults(self_signed="on")
    tls = TlsContexts(settings)
    assert list(tls._by_name) == ["localhost"]
    for passed, same in ((0.0, True), (SELF_SIGNED_SECONDS - 60, True), (SELF_SIGNED_SECONDS, False), (-3600.0, False)):
        now = time.time() + passed
        with monkeypatch.context() as later:
            later.setattr(contexts, "wall_time", lambda now=now: now)
            assert (shown(TlsContexts(settings, tls)) == shown(tls)) is same


def test_a_self_signed_certificate_goes_by_the_rules_of_its_generation(tmp_path: Path) -> None:
    """Which clients are let in is another matter than what is shown: it changes with a reload."""
    needs.program("openssl")
    (tmp_path / "other.pem").write_bytes(credentials.authority(1).cert_pem.bytes())
    ours, others = credentials.authorities(tmp_path), str(tmp_path / "other.pem")
    own = trusting(credentials.write(tmp_path, "someone"))
    tls = TlsContexts(defaults(self_signed="on", ca_certs=ours, cert_reqs="required"))
    Talk(tls, own, None)
    strict = TlsContexts(defaults(self_signed="on", ca_certs=others, cert_reqs="required"), tls)
    with pytest.raises(ssl.SSLError):
        Talk(strict, own, None)
    Talk(TlsContexts(defaults(self_signed="on", ca_certs=ours, cert_reqs="required"), strict), own, None)


def test_without_the_program_there_is_no_self_signed_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="no program openssl"):
        TlsContexts(defaults(self_signed="on"))


def test_without_a_folder_for_its_key_a_self_signed_certificate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is no mistake in the settings, and ends no master that reloads."""
    needs.program("openssl")
    monkeypatch.setattr(tempfile, "tempdir", "/no/such")
    with pytest.raises(ForkserverError, match="no folder for its key: no such file or directory; make room") as caught:
        TlsContexts(defaults(self_signed="on"))
    assert not isinstance(caught.value, ConfigError)


@pytest.mark.as_root
def test_a_key_in_a_users_folder_is_read_with_that_users_rights() -> None:
    """Workers hold the key: a link to one that root alone may read would bring it into the user's own memory."""
    with reach.public_folder() as public:
        files = credentials.write(public)
        os.chmod(files.key, 0o600)
        folder = public / "foreign"
        folder.mkdir()
        shutil.copy(files.certificate, folder / "certificate")
        (folder / "key").symlink_to(files.key)
        give(folder, folder / "key")
        asked = defaults(certfile=[str(folder / "certificate")], keyfile=[str(folder / "key")])
        with pytest.raises(ConfigError, match=rf"keyfile '{folder}/key': permission denied for nobody"):
            TlsContexts(asked)
        (folder / "key").unlink()
        shutil.copy(files.key, folder / "key")
        give(folder / "key")
        assert list(TlsContexts(asked)._by_name) == list(TlsContexts(of(files))._by_name)
        (folder / "key").unlink()
        os.mkfifo(folder / "key")
        with pytest.raises(ConfigError, match=f"keyfile '{folder}/key': .*nobody owns {folder}"):
            TlsContexts(asked)


@pytest.mark.as_root
def test_a_key_is_not_made_in_a_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    needs.program("openssl")
    with reach.public_folder() as public:
        give(public)
        monkeypatch.setattr(tempfile, "tempdir", str(public))
        with pytest.raises(ConfigError, match=f"self_signed: nobody owns {public}, where its key is made; set TMPDIR"):
            TlsContexts(defaults(self_signed="on"))
        assert os.listdir(public) == []
