"""WebSocket by Flask-Sock."""

from flask import Flask
from flask_sock import Sock

application = Flask(__name__)
sock = Sock(application)


@application.get("/")
def index():
    return "up"


@sock.route("/echo")
def echo(ws):
    while True:
        ws.send(ws.receive())
