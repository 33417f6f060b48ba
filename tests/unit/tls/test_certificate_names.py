"""The host names of a certificate, or an error: its owner writes it, and may write anything."""

from __future__ import annotations

import shlex
import ssl
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkserver.tls import certificate_names
from harness import credentials, needs


def der(pem: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem)


def test_all_dns_names_are_found_in_lower_case(tmp_path: Path) -> None:
    """Addresses beside them are no names, and the common name counts only where there are none."""
    files = credentials.write(tmp_path, "a.example", "*.b.example", "192.0.2.1", common="common.example")
    text = Path(files.certificate).read_text()
    end = "-----END CERTIFICATE-----"
    whole = der(text[: text.index(end) + len(end)])
    found = certificate_names.names(whole.replace(b"a.example", b"A.eXample"))
    assert found == ["a.example", "*.b.example"]


def test_a_value_that_ends_early_is_an_error() -> None:
    whole = der(credentials.authority().cert_pem.bytes().decode())
    for cut in (whole[:1], whole[:100], whole[:-1]):
        with pytest.raises(ValueError, match="a certificate that ends early"):
            certificate_names.names(cut)


@pytest.mark.parametrize(("data", "why"), [(b"", "an empty place"), (bytes((0x30, 2, 0x30, 0)), "not a certificate")])
def test_what_is_no_certificate_is_an_error(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        certificate_names.names(data)


@given(st.binary(max_size=200), st.integers(0, 1 << 16), st.integers(1, 255))
def test_half_a_certificate_is_an_error_and_not_a_crash(noise: bytes, at: int, change: int) -> None:
    whole = der(credentials.authority().cert_pem.bytes().decode())
    broken = bytearray(whole)
    broken[at % len(whole)] ^= change
    for data in (noise, whole[: at % len(whole)], bytes(broken)):
        try:
            found = certificate_names.names(data)
        except ValueError:
            continue
        assert all(isinstance(each, str) for each in found)


def _sequence(content: bytes) -> bytes:
    return bytes((0x30, 0x84)) + len(content).to_bytes(4) + content


def test_a_certificate_without_a_floor_is_an_error_and_not_a_crash() -> None:
    """OpenSSL takes a name that is sequences in sequences, and the owner of the file writes it."""
    value = b""
    for _ in range(2000):
        value = _sequence(value)
    fields = _sequence(b"") * 5 + value + _sequence(b"")
    with pytest.raises(ValueError, match="without end"):
        certificate_names.names(_sequence(_sequence(fields)))


def test_a_certificate_without_other_names_is_for_its_common_name() -> None:
    openssl = needs.program("openssl")
    command = [openssl, *shlex.split("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null")]
    for subject, names in (("/O=x/CN=Old.Example", ["old.example"]), ("/O=x", [])):
        made = subprocess.run([*command, "-subj", subject], capture_output=True, text=True, check=True)
        assert certificate_names.names(der(made.stdout)) == names
