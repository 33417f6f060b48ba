"""An SQLite connection in WAL mode, opened when the module is imported."""

import sqlite3
import threading

database = sqlite3.connect("rows.db", timeout=60, check_same_thread=False)
database.execute("pragma journal_mode=wal")
lock = threading.Lock()


def application(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if body:
        with lock, database:
            database.execute("insert into rows values (?)", [body.decode()])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
