"""NumPy and pandas with their native thread pools, and a random generator made at import."""

import numpy
import pandas

frame = pandas.DataFrame({"key": list("abab"), "value": [1, 2, 3, 4]})
random = numpy.random.default_rng()


def application(environ, start_response):
    assert frame.groupby("key").value.sum().to_dict() == {"a": 4, "b": 6}
    square = numpy.ones((200, 200))
    assert (square @ square)[0, 0] == 200
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(random.integers(2**63)).encode()]
