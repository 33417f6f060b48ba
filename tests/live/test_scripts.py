"""Scripts as the stdlib's wsgiref page writes them: serve_forever, handle_request, several applications.

Each is run with wsgiref and with forkserver, as a program of its own; the answers must agree.
"""

from __future__ import annotations

from harness.clients import Wire, get


def test_serve_forever_answers_until_shutdown(script) -> None:
    """The page's first example, with an end."""
    run = script("""
        import threading
        with make_server("127.0.0.1", 0, validator(demo_app)) as httpd:
            say(httpd.server_port)
            class Stop:
                def __call__(self, environ, start_response):
                    if environ["PATH_INFO"] == "/stop":
                        threading.Thread(target=httpd.shutdown).start()
                    return demo_app(environ, start_response)
            httpd.set_app(Stop())
            httpd.serve_forever()
        say("left")
    """)
    for _ in range(3):
        assert get(run.address).text.startswith("Hello world!")
    get(run.address, "/stop")
    assert run.finish()[0] == "left\n"


def test_handle_request_answers_one_and_returns(script) -> None:
    run = script("""
        with make_server("127.0.0.1", 0, app) as httpd:
            say(httpd.server_port)
            httpd.handle_request()
        say("left")
    """)
    with Wire(run.address) as wire:
        assert wire.get().text == "ok"
        assert wire.ended(), "the script does not come back to it"
    assert run.finish()[0] == "left\n"


def test_handle_request_in_a_loop_answers_each(script) -> None:
    run = script("""
        with make_server("127.0.0.1", 0, app) as httpd:
            say(httpd.server_port)
            for number in range(5):
                httpd.handle_request()
                say(number)
    """)
    for _ in range(5):
        assert get(run.address).text == "ok"
    assert run.finish()[0] == "0\n1\n2\n3\n4\n"


def test_set_app_and_base_environ_show_on_the_next_request(script) -> None:
    run = script("""
        def second(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [environ["site.name"].encode()]
        with make_server("127.0.0.1", 0, app) as httpd:
            say(httpd.server_port)
            assert httpd.get_app() is app
            httpd.handle_request()
            httpd.set_app(second)
            httpd.base_environ["site.name"] = "a name"
            httpd.handle_request()
    """)
    assert get(run.address).text == "ok"
    assert get(run.address).text == "a name"
    run.finish()


def test_several_applications_are_mounted_with_shift_path_info(script) -> None:
    """As the page suggests it: one application that hands on by the first part of the path."""
    run = script("""
        from wsgiref.util import shift_path_info
        def shown(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [f"{environ['SCRIPT_NAME']} {environ['PATH_INFO']}".encode()]
        def missing(environ, start_response):
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"no such application"]
        mounted = {"blog": validator(shown), "shop": validator(shown)}
        def front(environ, start_response):
            return mounted.get(shift_path_info(environ), missing)(environ, start_response)
        with make_server("127.0.0.1", 0, validator(front)) as httpd:
            say(httpd.server_port)
            for _ in range(3):
                httpd.handle_request()
    """)
    assert get(run.address, "/blog/2026/first").text == "/blog /2026/first"
    assert get(run.address, "/shop/").text == "/shop /"
    assert get(run.address, "/other").status == 404
    run.finish()


def test_a_port_in_use_is_an_oserror(script) -> None:
    run = script("""
        with make_server("127.0.0.1", 0, app) as httpd:
            try:
                class Strict(WSGIServer):
                    allow_reuse_address = False
                make_server("127.0.0.1", httpd.server_port, app, server_class=Strict)
            except OSError as error:
                refused = error.errno
            say(httpd.server_port)
        import errno
        say(errno.errorcode[refused])
    """)
    assert run.finish()[0] == "EADDRINUSE\n"
