"""The test suite of requests, asking a live httpbin under forkserver; ``make requests-suite`` runs it.

    python requests_suite.py FOLDER [ARGUMENTS OF PYTEST...]

FOLDER is the unpacked source distribution of requests; httpbin, pytest-httpbin and what else its tests import must be
installed. Everything runs in a network namespace that has a loopback device and no route: what a test reaches for
elsewhere cannot leave. Tests that do so are left out by name all the same. pytest-httpbin's HTTP server is replaced
by ours; its TLS server stays, since forkserver has none to put in its place.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
LEFT_OUT = {
    "connect_timeout": "waits for an address of a private network that does not answer",
    "total_timeout_connect": "likewise",
    "doesnotexist": "test_errors looks up a name below google.com",
    "(test_proxy_error and not on_bad_url)": "looks up a proxy's name",
    "use_proxy_from_environment": "asks for httpbin.org, and only a proxy's silence keeps it from being looked up",
}
INSIDE = "--inside"


def enter_namespace(arguments: list[str]) -> None:
    """Start this program again where there is only loopback."""
    again = 'ip link set lo up && exec "$@"'
    command = ["unshare", "--map-root-user", "--net", "sh", "-ec", again, "sh", sys.executable, __file__, INSIDE]
    os.execvp(command[0], [*command, *arguments])


def run(folder: Path, arguments: list[str]) -> int:
    sys.path.insert(0, str(TESTS))
    from harness.program import Program, listener

    with listener() as made:
        program = Program(["httpbin:app", "-w", "2"], cwd=folder, listeners=[made])
        host, port = made.getsockname()
    try:
        program.wait_ready()
        status = ask(f"http://{host}:{port}", folder, arguments)
        ended = program.stop()
    finally:
        program.close()
    print(f"forkserver left with status {ended}; its log:\n{program.log.text()}")
    return status or ended


def ask(live: str, folder: Path, arguments: list[str]) -> int:
    import pytest
    from pytest_httpbin import certs, serve

    class LiveHttpbin:
        """In place of pytest-httpbin's plugin: the same fixtures, but its HTTP server is ours."""

        url = os.environ["HTTPBIN_URL"] = live

        @pytest.fixture(scope="session")
        def httpbin(self) -> LiveHttpbin:
            return self

        @pytest.fixture(scope="session")
        def httpbin_secure(self) -> Iterator[object]:
            from httpbin import app

            with serve.SecureServer(application=app) as server:
                yield server

        @pytest.fixture
        def httpbin_ca_bundle(self, monkeypatch: pytest.MonkeyPatch) -> None:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", certs.where())

    os.chdir(folder)
    chosen = " and ".join(f"not {words}" for words in LEFT_OUT)
    options = ["-p", "no:httpbin", "-p", "no:cacheprovider", "-k", chosen]
    return int(pytest.main([*options, *arguments], plugins=[LiveHttpbin()]))


def main() -> int:
    if sys.argv[1:2] != [INSIDE]:
        enter_namespace(sys.argv[1:])
    for words, reason in LEFT_OUT.items():
        print(f"left out: {words}: {reason}")
    return run(Path(sys.argv[2]).resolve(), sys.argv[3:])


if __name__ == "__main__":
    sys.exit(main())
