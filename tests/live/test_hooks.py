"""Each documented hook of the server and the handler, overridden in a script, called as the stdlib's pages say."""

from __future__ import annotations

import http.client

from harness.clients import Wire, get, request


def test_verify_request_and_process_request_are_called(script) -> None:
    run = script("""
        class Server(WSGIServer):
            count = 0
            def verify_request(self, request, client_address):
                say("verify_request", client_address[0])
                self.count += 1
                return self.count > 1
            def process_request(self, request, client_address):
                say("process_request")
                super().process_request(request, client_address)
        with make_server("127.0.0.1", 0, app, server_class=Server) as httpd:
            say(httpd.server_port)
            httpd.handle_request()
            httpd.handle_request()
    """)
    with Wire(run.address) as refused:
        refused.send(request())
        assert refused.ended(), "verify_request refused it"
    assert get(run.address).text == "ok"
    said = run.finish()[0].splitlines()
    assert said == ["verify_request 127.0.0.1", "verify_request 127.0.0.1", "process_request"]


def test_handle_timeout_is_called_when_nobody_comes(script) -> None:
    run = script("""
        class Server(WSGIServer):
            timeout = 0.01
            def handle_timeout(self):
                say("nobody came")
        with make_server("127.0.0.1", 0, app, server_class=Server) as httpd:
            say(httpd.server_port)
            httpd.handle_request()
    """)
    assert run.finish()[0] == "nobody came\n"


def test_service_actions_is_called_by_serve_forever(script) -> None:
    run = script("""
        import threading
        class Server(WSGIServer):
            def service_actions(self):
                threading.Thread(target=self.shutdown).start()
        with make_server("127.0.0.1", 0, app, server_class=Server) as httpd:
            say(httpd.server_port)
            httpd.serve_forever(poll_interval=0.01)
        say("left")
    """)
    assert run.finish()[0] == "left\n"


def test_handle_error_sees_what_a_handler_raised(script) -> None:
    run = script("""
        class Handler(WSGIRequestHandler):
            def get_environ(self):
                raise LookupError("no environ today")
        class Server(WSGIServer):
            def handle_error(self, request, client_address):
                say("handle_error", sys.exc_info()[0].__name__, client_address[0])
        with make_server("127.0.0.1", 0, app, server_class=Server, handler_class=Handler) as httpd:
            say(httpd.server_port)
            httpd.handle_request()
    """)
    with Wire(run.address) as wire:
        wire.send(request())
        wire.socket.shutdown(1)
        assert run.finish()[0] == "handle_error LookupError 127.0.0.1\n"


def test_every_documented_hook_of_the_handler_is_called(script) -> None:
    run = script("""
        import io
        class Handler(WSGIRequestHandler):
            def get_environ(self):
                environ = super().get_environ()
                say("get_environ", self.command, self.path, self.headers["X-Name"], self.client_address[0])
                environ["site.name"] = "set by the handler"
                assert environ is not super().get_environ()
                return environ
            def get_stderr(self):
                self.errors = io.StringIO()
                return self.errors
            def address_string(self):
                return "somebody"
            def log_message(self, format, *args):
                say("log", self.address_string(), format % args)
        def app(environ, start_response):
            environ["wsgi.errors"].write("heard")
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [environ["site.name"].encode()]
        with make_server("127.0.0.1", 0, validator(app), handler_class=Handler) as httpd:
            say(httpd.server_port)
            httpd.handle_request()
    """)
    with Wire(run.address) as wire:
        answer = wire.get("/path?x=1", headers="X-Name: a name\r\n")
    assert answer.text == "set by the handler"
    said, errors = run.finish()
    assert said.splitlines()[0] == "get_environ GET /path?x=1 a name 127.0.0.1"
    assert said.splitlines()[1].startswith('log somebody "GET /path?x=1 HTTP/1.1" 200')
    assert errors == ""


def test_error_hooks_shape_the_answer_to_a_bad_request(script) -> None:
    run = script("""
        class Handler(WSGIRequestHandler):
            error_message_format = "so sorry: %(code)d"
            error_content_type = "text/x-sorry"
            server_version = "Tested/1"
            sys_version = "on Python"
            def log_message(self, format, *args):
                pass
        with make_server("127.0.0.1", 0, app, handler_class=Handler) as httpd:
            say(httpd.server_port)
            httpd.handle_request()
    """)
    connection = http.client.HTTPConnection(*run.address, timeout=30)
    connection.putrequest("GET", "/" + "a" * 70000)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 414
    assert answer.headers["Content-Type"] == "text/x-sorry"
    assert answer.headers["Server"] == "Tested/1 on Python"
    assert answer.read() == b"so sorry: 414"
    connection.close()
    run.finish()


def test_do_get_of_any_other_handler_runs_the_blocking_way(script) -> None:
    """A BaseHTTPRequestHandler that is no WSGI handler at all."""
    run = script("""
        from http.server import BaseHTTPRequestHandler
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(202)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"mine")
        with make_server("127.0.0.1", 0, app, handler_class=Handler) as httpd:
            say(httpd.server_port)
            httpd.handle_request()
    """)
    answer = get(run.address)
    assert (answer.status, answer.text) == (202, "mine")
    run.finish()


def test_threading_mixin_answers_two_at_once(script) -> None:
    """The first waits inside the application for the second: one thread could never answer both."""
    run = script("""
        import threading
        from socketserver import ThreadingMixIn
        meet = threading.Barrier(2)
        def app(environ, start_response):
            meet.wait(30)
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"met"]
        class Server(ThreadingMixIn, WSGIServer):
            pass
        with make_server("127.0.0.1", 0, app, server_class=Server) as httpd:
            say(httpd.server_port)
            httpd.handle_request()
            httpd.handle_request()
    """)
    with Wire(run.address) as first, Wire(run.address) as second:
        first.ask()
        second.ask()
        assert [first.answer().text, second.answer().text] == ["met", "met"]
    run.finish()
