"""Coverage-guided search for bytes that forkserver.http1.proxy_protocol reads wrongly.

    python tests/fuzz/proxy.py [libFuzzer's options] [FOLDER or FILE...]          see `make fuzz`

Whatever comes is a header, the beginning of one, or a ProtocolError; where the bytes are split changes nothing, and
what follows the header neither. A find is a corpus file as it stands: move it to tests/corpus/proxy, its name beginning
with accept- or reject-.
"""

from __future__ import annotations

import sys
from ipaddress import ip_address

import atheris

with atheris.instrument_imports(include=["forkserver.http1"]):
    from forkserver.errors import ProtocolError
    from forkserver.http1.proxy_protocol import MOST_BYTES, ProxiedClient, ProxyHeader, read

OPTIONS = ["-max_len=5000", "-timeout=10"]


def look(data: bytes) -> None:
    whole = outcome(data)
    for end in {0, 1, 12, 15, 16, 28, 107, len(data) // 2, max(0, len(data) - 1)}:
        part = outcome(data[:end])
        assert part in (None, whole), f"{data!r}\nits first {end} bytes: {part}\nbut whole: {whole}"
    if isinstance(whole, ProxyHeader):
        assert 0 < whole.size <= min(len(data), MOST_BYTES)
        assert (whole.source is not None) == (whole.client is ProxiedClient.ADDRESS)
        assert outcome(data[: whole.size]) == whole
        if whole.source is not None:
            assert str(ip_address(whole.source[0])) == whole.source[0]
            assert 0 <= whole.source[1] < 65536
    else:
        assert whole == 400 or len(data) < MOST_BYTES


def outcome(data: bytes) -> object:
    try:
        return read(data)
    except ProtocolError as error:
        return error.status


if __name__ == "__main__":
    # The program's own options first: of two, libFuzzer takes the last.
    atheris.Setup([sys.argv[0], *OPTIONS, *sys.argv[1:]], look)
    atheris.Fuzz()
