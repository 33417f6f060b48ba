"""What a worker counts for as long as it lives: answers by class, bytes of bodies, how long requests waited and took.

The figures are words of the worker's row on the scoreboard. A worker only adds to them; the master sums them up over
all workers, ended ones included, so that the sums never fall.

A histogram is a word for the sum in ns, then a word for each bound and one for what is above all of them. ``BOUNDS``
are spread evenly on a logarithmic scale, four for each power of ten.

Source: https://prometheus.io/docs/concepts/metric_types/ on histograms, whose bounds are inclusive.
"""

from __future__ import annotations

from typing import Final

_STEPS: Final = (1, 1.8, 3.2, 5.6)
BOUNDS: Final = (*(round(step * 10**decade) for decade in range(5, 11) for step in _STEPS), 10**11)  # ns
BUCKETS: Final = len(BOUNDS) + 1
_HISTOGRAM_WORDS: Final = 1 + BUCKETS

# Words of a row, behind those that scoreboard.py has.
FIRST: Final = 16
ANSWERS: Final = FIRST  # six words: of another status than 100 to 599, then by its first digit
REQUEST_BYTES: Final = FIRST + 6  # of the bodies of answered requests
ANSWER_BYTES: Final = FIRST + 7  # of the bodies of answers, as the access log counts them
HANDED_ON: Final = FIRST + 8  # connections that a sibling was given
WAITED: Final = FIRST + 9  # histogram: from when a request was whole to the call of the application
LASTED: Final = WAITED + _HISTOGRAM_WORDS  # histogram: the call, its answer on the way to the kernel included
END: Final = LASTED + _HISTOGRAM_WORDS


WORD_OF_CLASS: Final = {kind: ANSWERS + kind for kind in range(1, 6)}  # by a status' hundreds; any other has ANSWERS
