"""A Flask application with a page, a form, an upload and a stream."""

from __future__ import annotations

import hashlib
from wsgiref.validate import validator

from flask import Flask, Response, jsonify, request

site = Flask(__name__)


@site.get("/")
def page():
    return "hello from Flask"


@site.get("/query")
def query():
    return jsonify(name=request.args["name"], agent=request.headers.get("User-Agent", ""))


@site.post("/form")
def form():
    return f"{request.form['name']} is {request.form['age']}"


@site.post("/upload")
def upload():
    file = request.files["file"]
    return hashlib.sha256(file.stream.read()).hexdigest()


@site.get("/stream")
def stream():
    return Response((f"line {number}\n" for number in range(100)), mimetype="text/plain")


def _undeclared(environ, start_response):
    """Hide that the input ends by itself: Werkzeug would read it without a size, which the validator does not allow."""
    environ.pop("wsgi.input_terminated", None)
    return site(environ, start_response)


app = validator(_undeclared)
