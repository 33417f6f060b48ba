"""The extension's tests with the address and undefined-behaviour sanitizers (gcc), in a copy of the package.

python tests/tools/sanitize.py [pytest's arguments]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from mutants import FOLDER, OF_THE_COPY, TESTS, TOP, build

FLAGS = ("-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def library(name: str) -> str:
    return subprocess.run(["cc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        shutil.copytree(TOP / "forkserver", site / "forkserver", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        build(site / FOLDER, *FLAGS)
        report = site / "report"
        environ = os.environ | {
            "LD_PRELOAD": f"{library('libasan.so')}:{library('libubsan.so')}",
            "ASAN_OPTIONS": f"detect_leaks=0:log_path={report}",  # the interpreter keeps much to its end
            "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={report}",
            "PYTHONMALLOC": "malloc",
            "PYTHONPATH": str(site),
        }
        tests = arguments or [str(TOP / test) for test in TESTS]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *OF_THE_COPY, *tests]
        status = subprocess.run(command, cwd=TOP / "tests", env=environ).returncode
        for found in site.glob("report*"):
            print(found.read_text())
            status = status or 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
