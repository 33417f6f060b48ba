"""A Flask application that speaks WebSocket by Flask-Sock, and answers plain requests beside."""

from __future__ import annotations

import os

from flask import Flask
from flask_sock import Sock
from simple_websocket import Server

site = Flask(__name__)
sock = Sock(site)
if seconds := os.environ.get("PING_SECONDS"):
    site.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": float(seconds)}


@sock.route("/ws/echo")
def echo(ws: Server) -> None:
    while True:
        ws.send(ws.receive())


@sock.route("/ws/pid")
def tell_pid(ws: Server) -> None:
    ws.receive()  # first: simple-websocket's client does not see a message that comes with the 101
    ws.send(str(os.getpid()))
    ws.receive()


@site.get("/pid")
def pid() -> str:
    return str(os.getpid())
