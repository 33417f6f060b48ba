"""Django with SQLite as its documentation sets it up: a connection for each thread, opened when first used."""

from pathlib import Path

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    SECRET_KEY="for a test alone",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path("rows.db").absolute(),
            "OPTIONS": {"timeout": 60, "transaction_mode": "IMMEDIATE"},
        }
    },
)


def add(request: HttpRequest) -> HttpResponse:
    from django.db import connection

    if request.body:
        with connection.cursor() as cursor:
            cursor.execute("insert into rows values (%s)", [request.body.decode()])
    return HttpResponse(request.body)


urlpatterns = [path("", add)]
application = get_wsgi_application()
