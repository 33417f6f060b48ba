"""A Django application that redirects to HTTPS, as the documentation of a deployment behind a proxy advises."""

from __future__ import annotations

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests only",
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware"],
    SECURE_SSL_REDIRECT=True,
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    LOGGING_CONFIG=None,
)


def page(request):
    return JsonResponse({"client": request.META["REMOTE_ADDR"], "uri": request.build_absolute_uri()})


urlpatterns = [path("page", page)]
app = get_wsgi_application()
