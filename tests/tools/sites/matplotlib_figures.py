"""Figures drawn by matplotlib without a screen."""

import io

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure


def application(environ, start_response):
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([1, 2, 4])
    out = io.BytesIO()
    figure.savefig(out, format="png")
    start_response("200 OK", [("Content-Type", "image/png")])
    return [out.getvalue()]
