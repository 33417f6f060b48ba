"""A process pool whose tasks have process pools, made anew by each request."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

HANGS = 30.0  # seconds


def inner(text):
    return text


def outer(text):
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        return pool.submit(inner, text).result(HANGS)


def application(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        text = pool.submit(outer, body.decode()).result(HANGS)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
