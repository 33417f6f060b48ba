"""Plain applications of frameworks and libraries are shared under preload=auto, and what each may not do is seen."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import needs
from harness.clients import get
from harness.program import LaunchProgram, StartProgram, clean_environment

PLAIN = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"
FLASK = """
from flask import Flask, render_template_string
app = Flask(__name__)

@app.route("/")
def index():
    return render_template_string("{{ 1 + 1 }}")
"""
DJANGO = """
import os
from django.conf import settings
settings.configure(
    SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], STATIC_URL="static/",
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=[
        "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
        "django.contrib.messages", "django.contrib.staticfiles",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware", "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
        "OPTIONS": {"context_processors": [
            "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
            "django.contrib.messages.context_processors.messages",
        ]},
    }],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}},
)
from django.core.wsgi import get_wsgi_application
app = get_wsgi_application()
from django.contrib import admin
from django.contrib.auth.models import User
from django.urls import get_resolver, path
urlpatterns = [path("admin/", admin.site.urls)]
"""
PYRAMID = """
from pyramid.config import Configurator
config = Configurator()
config.add_route("home", "/")
config.add_view(lambda request: {}, route_name="home", renderer="json")
app = config.make_wsgi_app()
"""
FALCON = """
import falcon
app = falcon.App()

class Home:
    def on_get(self, request, response): response.text = "home"

app.add_route("/", Home())
"""
SQLALCHEMY = """
import uuid
from sqlalchemy import Column, ForeignKey, Integer, Uuid, create_engine
from sqlalchemy.orm import configure_mappers, declarative_base, relationship, sessionmaker
engine = create_engine("sqlite:///rows.db")
Session = sessionmaker(engine)
Base = declarative_base()

class Parent(Base):
    __tablename__ = "parent"
    id = Column(Integer, primary_key=True)
    name = Column(Uuid, default=uuid.uuid4)
    children = relationship("Child")

class Child(Base):
    __tablename__ = "child"
    id = Column(Integer, primary_key=True)
    parent = Column(ForeignKey("parent.id"))

configure_mappers()
"""
JINJA = """
from jinja2 import Environment
page = Environment().from_string("{% for one in range(3) %}{{ one }}{% endfor %}")
page.render()
"""
WHITENOISE = PLAIN + "from whitenoise import WhiteNoise\napp = WhiteNoise(app, root='.')\n"
NUMPY = "import numpy, numpy.random\nproduct = numpy.ones((500, 500)) @ numpy.ones((500, 500))\n"
PANDAS = "import pandas\nframe = pandas.DataFrame({'a': [1, 2, 3]}).groupby('a').sum()\n"
REQUESTS = "import requests\nsession = requests.Session()\n"
LOGGING = """
import logging.config
logging.config.dictConfig({
    "version": 1, "root": {"handlers": ["file", "stream"]},
    "handlers": {
        "file": {"class": "logging.FileHandler", "filename": "site.log"}, "stream": {"class": "logging.StreamHandler"},
    },
})
"""
SHARED = {
    "django": ("django", DJANGO),
    "falcon": ("falcon", FALCON),
    "flask": ("flask", FLASK),
    "jinja2": ("jinja2", JINJA + PLAIN),
    "logging": ("logging", LOGGING + PLAIN),
    "numpy": ("numpy", NUMPY + PLAIN),
    "pandas": ("pandas", PANDAS + PLAIN),
    "pyramid": ("pyramid", PYRAMID),
    "requests": ("requests", REQUESTS + PLAIN),
    "sqlalchemy": ("sqlalchemy", SQLALCHEMY + PLAIN),
    "whitenoise": ("whitenoise", WHITENOISE),
}
NOT_SHARED = {
    "a query of Django's": (
        "django",
        DJANGO + "from django.db import connection\nconnection.cursor().execute('SELECT 1')\n",
        r"file .*/db.sqlite3, open for writing \(django.db.backends.sqlite3.base:\d+, by mysite:\d+\)",
    ),
    "a connection of SQLAlchemy's": (
        "sqlalchemy",
        SQLALCHEMY + "Base.metadata.create_all(engine)\n" + PLAIN,
        r"file .*/rows.db, open for writing \(sqlalchemy.engine.default:\d+, by mysite:\d+\)",
    ),
    "a generator of NumPy's": (
        "numpy",
        NUMPY + "rng = numpy.random.default_rng()\n" + PLAIN,
        r"random generator numpy.random._generator.Generator \(mysite.rng\)",
    ),
    "a seed of NumPy's": ("numpy", NUMPY + "numpy.random.seed(1)\n" + PLAIN, "changed state of numpy.random"),
    "numbers of NumPy's": ("numpy", NUMPY + "x = numpy.random.rand()\n" + PLAIN, "changed state of numpy.random"),
}


def check(folder: Path, source: str) -> str:
    """What --check-config says of ``source``."""
    (folder / "mysite.py").write_text(source)
    command = [sys.executable, "-m", "forkserver", "--check-config", "mysite:app"]
    environment = clean_environment(COVERAGE_PROCESS_CONFIG="", COVERAGE_PROCESS_START="")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SHARED)
def test_a_plain_application_is_shared(tmp_path: Path, name: str) -> None:
    """An import in each worker would cost its memory and seconds for nothing."""
    module, source = SHARED[name]
    needs.module(module)
    said = check(tmp_path, source)
    assert "\nworkers share the import (preload=auto): each saves about " in said, said


@pytest.mark.parametrize("name", NOT_SHARED)
def test_what_one_left_open_is_named(tmp_path: Path, name: str) -> None:
    module, source, named = NOT_SHARED[name]
    needs.module(module)
    said = check(tmp_path, source)
    assert "workers do not share the import (preload=auto)" in said
    assert re.search(named, said), said


def test_numpy_gives_each_worker_other_numbers(program: StartProgram, tmp_path: Path) -> None:
    """Its global generator knows of no fork: without a new seed all workers would draw the same."""
    needs.module("numpy")
    (tmp_path / "mysite.py").write_text(
        "import numpy, numpy.random\n" + PLAIN + "\ndef post_fork(worker):\n"
        "    open(f'number-{worker.number}', 'w').write(str(numpy.random.rand()))\n"
    )
    unmeasured = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
    server = program("mysite:app", "-w", "3", "--hooks", "mysite", environ=unmeasured)
    server.log.wait(r"3 workers.*\(one import, shared\)")
    assert len({path.read_text() for path in tmp_path.glob("number-*")}) == 3
    assert get(server.address).status == 200
    assert server.stop() == 0


def test_gevent_s_patches_are_refused_at_once(launch: LaunchProgram, tmp_path: Path) -> None:
    needs.module("gevent")
    (tmp_path / "mysite.py").write_text("from gevent import monkey; monkey.patch_all()\n" + PLAIN)
    server = launch("mysite:app", "-b", f"unix:{tmp_path}/socket")
    assert server.wait() == 3
    server.log.wait(r"application 'mysite:app': gevent's monkey.patch_all\(\) has replaced _thread, os, select, ")
