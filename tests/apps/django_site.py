"""A whole Django project in one file, with the same pages as the Flask one."""

from __future__ import annotations

import hashlib
from wsgiref.validate import validator

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests only",
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    LOGGING_CONFIG=None,
)


def page(request):
    return HttpResponse("hello from Django")


def query(request):
    return JsonResponse({"name": request.GET["name"], "agent": request.headers.get("User-Agent", "")})


def form(request):
    return HttpResponse(f"{request.POST['name']} is {request.POST['age']}")


def upload(request):
    return HttpResponse(hashlib.sha256(request.FILES["file"].read()).hexdigest())


def stream(request):
    return StreamingHttpResponse((f"line {number}\n" for number in range(100)), content_type="text/plain")


urlpatterns = [
    path("", page),
    path("query", query),
    path("form", form),
    path("upload", upload),
    path("stream", stream),
]
app = validator(get_wsgi_application())
