"""Coverage-guided search for bytes that forkserver.http1 reads wrongly.

    python tests/fuzz/wire.py [libFuzzer's options] [FOLDER or FILE...]          see `make fuzz`

Whatever a client sends is requests or a ProtocolError; where the bytes are split changes nothing. Input is the raw
bytes of a connection, so a find is a corpus file as it stands: move it to tests/corpus/reject or accept, named for what
it is about, and give it its line in tests/corpus/index.toml.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["forkserver.http1"]):
    from harness.corpus import LIMITS, SMALL, Stream, bytewise, read

REFUSALS = (None, 400, 413, 414, 417, 431, 501, 505)
BYTEWISE = 300  # longer ones are cut at some places only: byte by byte costs their square
OPTIONS = ["-max_len=2048", "-timeout=10", f"-dict={Path(__file__).with_name('http.dict')}"]


def look(data: bytes) -> None:
    for limits in (LIMITS, SMALL):
        whole = read([data], limits)
        assert whole.refused in REFUSALS, whole
        for pieces in splits(data):
            same(data, whole, read(pieces, limits), f"split in {len(pieces)}")


def splits(data: bytes) -> list[list[bytes]]:
    """Ways in which the bytes may arrive; the same ones for the same bytes, or a find could not be shown again."""
    chance = random.Random(data)
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(4))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [pieces, bytewise(data)] if len(data) <= BYTEWISE else [pieces]


def same(data: bytes, one: Stream, other: Stream, what: str) -> None:
    if one != other:
        raise AssertionError(f"{data!r}\n{what}: {other}\nbut whole: {one}")


if __name__ == "__main__":
    # The program's own options first: of two, libFuzzer takes the last.
    atheris.Setup([sys.argv[0], *OPTIONS, *sys.argv[1:]], look)
    atheris.Fuzz()
