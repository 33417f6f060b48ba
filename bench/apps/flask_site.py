"""Hello under Flask; path and one header vary as in hello.py."""

from __future__ import annotations

from flask import Flask, Response, request

app = Flask(__name__)


@app.get("/")
@app.get("/item/<int:number>")
def item(number: int = 0) -> Response:
    seen = len(request.query_string) + len(request.headers.get("User-Agent", ""))
    return Response("Hello, world!\n", mimetype="text/plain", headers={"X-Seen": f"{number} {seen}"})
