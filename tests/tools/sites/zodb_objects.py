"""ZODB in a file that is opened, and locked, at import."""

import threading

import ZODB
import ZODB.FileStorage

database = ZODB.DB(ZODB.FileStorage.FileStorage("Data.fs"))
lock = threading.Lock()


def application(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if body:
        with lock, database.transaction() as connection:
            connection.root()[body.decode()] = True
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
