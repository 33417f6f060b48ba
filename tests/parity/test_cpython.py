"""CPython's own tests of wsgiref, run with our classes in place of the stdlib's.

Two things are bent so that the tests can ask anything at all: ``wsgiref.simple_server`` holds our classes while
``test.test_wsgiref`` is imported, and the requests it writes with bare line feeds get the CRLF that RFC 9112 wants.
What still does not pass stands in a table, with its reason; a line more or less in it is a failure.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from harness import BOUND
from harness.program import clean_environment

_HEAD = "the status line says HTTP/1.1, Server says forkserver, and Date and Server follow the application's fields"
_PAGE = "the 500 page is HTML, not wsgiref's sentence"
_BODY = "the request has no Content-Length, hence no body (RFC 9112 section 6.3); wsgiref reads to the end of the file"
FAILING = {
    "IntegrationTests.test_plain_hello": _HEAD,
    "IntegrationTests.test_validated_hello": _HEAD,
    "IntegrationTests.test_bytes_validation": _HEAD,
    "IntegrationTests.test_request_length": "the refusal's status line says HTTP/1.1",
    "IntegrationTests.test_simple_validation_error": _PAGE,
    "IntegrationTests.test_status_validation_errors": _PAGE,
    "IntegrationTests.test_wsgi_input": _PAGE,
    "IntegrationTests.test_cp1252_url": "the request ends with its first line and has a byte above 127 in its target",
}
# Tests that newer releases of CPython have; each must fail where it is found.
FAILING_IN_NEWER_RELEASES = {
    "IntegrationTests.test_wsgi_input_close": _PAGE,
    "IntegrationTests.test_wsgi_input_iter": _BODY,
    "IntegrationTests.test_wsgi_input_read": _PAGE,
    "IntegrationTests.test_wsgi_input_readline": _PAGE,
    "IntegrationTests.test_wsgi_input_readlines": _PAGE,
}

RUN = """
import json, sys, unittest, wsgiref.simple_server
import forkserver
for name in ("make_server", "WSGIServer", "WSGIRequestHandler"):
    setattr(wsgiref.simple_server, name, getattr(forkserver, name))
from test import test_wsgiref as tests

run_amock = tests.run_amock
def with_crlf(app=tests.hello_app, data=b"GET / HTTP/1.0\\n\\n"):
    return run_amock(app, data.replace(b"\\n", b"\\r\\n"))
tests.run_amock = with_crlf

assert tests.MockServer.__mro__[1] is forkserver.WSGIServer
assert tests.MockHandler.__mro__[1] is forkserver.WSGIRequestHandler
result = unittest.TestResult()
suite = unittest.defaultTestLoader.loadTestsFromModule(tests)
found = [test.id() for case in suite for test in case]
suite.run(result)
told = [(getattr(test, "test_case", test).id(), text) for test, text in result.failures + result.errors]
json.dump({"run": result.testsRun, "found": found, "skipped": len(result.skipped), "failed": told}, sys.stdout)
"""


def test_cpython_tests_that_do_not_pass_are_listed_with_their_reasons() -> None:
    """The stdlib's promises, as its authors check them."""
    if importlib.util.find_spec("test") is None or importlib.util.find_spec("test.test_wsgiref") is None:
        pytest.skip("test.test_wsgiref is not installed; Debian has it in libpython3-testsuite")
    command = [sys.executable, "-W", "error", "-c", RUN]
    ran = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=3 * BOUND)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    failed = {_short(name): text for name, text in told["failed"]}
    expected = FAILING.keys() | (FAILING_IN_NEWER_RELEASES.keys() & set(map(_short, told["found"])))
    surprising = "\n".join(text for name, text in failed.items() if name not in expected)
    assert set(failed) == expected, surprising
    assert told["run"] > 3 * len(FAILING), "the tests were found"


def _short(name: str) -> str:
    return name.removeprefix("test.test_wsgiref.")
