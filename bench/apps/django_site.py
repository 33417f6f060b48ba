"""Hello under Django, in a project with the applications and the middleware that `startproject` gives it."""

from __future__ import annotations

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="for measurements only",
    ROOT_URLCONF=__name__,
    LOGGING_CONFIG=None,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    STATIC_URL="static/",
)
django.setup()

from django.contrib import admin  # noqa: E402 - needs the settings
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import path  # noqa: E402


def item(request: HttpRequest, number: int = 0) -> HttpResponse:
    seen = len(request.META.get("QUERY_STRING", "")) + len(request.headers.get("User-Agent", ""))
    return HttpResponse("Hello, world!\n", content_type="text/plain", headers={"X-Seen": f"{number} {seen}"})


urlpatterns = [path("", item), path("item/<int:number>", item), path("admin/", admin.site.urls)]
app = get_wsgi_application()
