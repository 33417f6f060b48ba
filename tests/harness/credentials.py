"""Certificates for tests, from an authority of their own; made once in a run, for it takes a moment."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path
from typing import NamedTuple

import trustme


class Files(NamedTuple):
    """PEM files: a certificate with its chain, and its key."""

    certificate: str
    key: str


@cache
def authority(number: int = 0) -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@cache
def _issued(names: tuple[str, ...], common: str, number: int, rsa: bool) -> trustme.LeafCert:
    kind = trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA
    return authority().issue_cert(*names, common_name=common, key_type=kind)


def write(folder: Path, *names: str, common: str = "", number: int = 0, rsa: bool = False) -> Files:
    """A certificate for ``names`` in ``folder``; another ``number`` is another certificate, as after a renewal."""
    issued = _issued(names or ("localhost", "127.0.0.1", "::1"), common or "somebody", number, rsa)
    file = names[0].replace("*", "any") if names else "localhost"
    made = Files(str(folder / f"{file}.pem"), str(folder / f"{file}.key"))
    Path(made.certificate).write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(made.key)
    return made


def authorities(folder: Path) -> str:
    """A PEM file with the authority of all these."""
    path = folder / "authority.pem"
    authority().cert_pem.write_to_path(str(path))
    return str(path)


def server(folder: Path) -> ssl.SSLContext:
    """What a server goes by whose certificate is in ``folder``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*write(folder))
    return context


def client(*, own: Files | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """What a client goes by that trusts the authority, and shows ``own``."""
    context = ssl.create_default_context(cadata=authority().cert_pem.bytes().decode())
    if own is not None:
        context.load_cert_chain(*own)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context
