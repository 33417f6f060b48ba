"""Coverage-guided search for heads that the extension reads otherwise than the Python code.

    python tests/fuzz/plain.py [libFuzzer's options] [FOLDER or FILE...]          see `make fuzz`

Input is the raw bytes of one read. A find belongs in tests/unit/server/wsgi/accelerator/test_reading.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["forkserver.http1", "forkserver.server.proxy"]):
    from harness.corpus import SMALL
    from harness.plain_reading import PROXY, STRANGER, BothReaders

READERS = (BothReaders(), BothReaders(SMALL), BothReaders(trust=None))
OPTIONS = ["-max_len=1024", "-timeout=10", f"-dict={Path(__file__).with_name('http.dict')}"]


def look(data: bytes) -> None:
    for readers in READERS:
        readers.check(data, PROXY)
        readers.check(data, STRANGER)


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *OPTIONS, *sys.argv[1:]], look)
    atheris.Fuzz()
