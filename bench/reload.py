"""How long clients wait while an application whose import takes two seconds is reloaded under keep-alive load.

    python bench/reload.py [WORKERS [CLIENTS]]

Two imports: one that waits (as for a database) and one that burns CPU, which takes a core from the workers. For each,
two HUPs under load; it prints answers, requests lost, and the longest wait. Needs the package installed, and two cores.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness.load import Load
from harness.program import Program, listener

APP = """
import time
{work}
BODY = b"hello"

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [BODY]
"""
IMPORTS = {
    "an import that waits 2 s": "time.sleep(2)",
    "an import that burns CPU for 2 s": "end = time.process_time() + 2\nwhile time.process_time() < end: pass",
}


def measure(name: str, work: str, workers: int, clients: int) -> None:
    with tempfile.TemporaryDirectory() as folder, listener() as made:
        Path(folder, "slow.py").write_text(APP.format(work=work))
        program = Program(["slow:app", "-w", str(workers)], cwd=Path(folder), listeners=[made])
        program.address = made.getsockname()
        made.close()
        program.wait_ready()
        with Load(program.address, clients) as load:
            load.more(1000)
            quiet = load.longest()
            for _ in range(2):
                program.reload()
                load.more(1000)
        program.stop()
        program.close()
    print(
        f"{name}: {len(load.answers)} answers, {len(load.lost)} lost, longest wait {load.longest() * 1000:.1f} ms"
        f" ({quiet * 1000:.1f} ms before the first HUP)"
    )


def main() -> None:
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    clients = int(sys.argv[2]) if len(sys.argv) > 2 else 16
    for name, work in IMPORTS.items():
        measure(name, work, workers, clients)


if __name__ == "__main__":
    main()
