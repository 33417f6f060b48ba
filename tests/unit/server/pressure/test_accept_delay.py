"""How long connections have waited to be accepted: when the kernel is asked, and what is made of its answer."""

from __future__ import annotations

import errno

import pytest

from forkserver.server.pressure import accept_delay
from forkserver.server.pressure.accept_delay import AcceptDelay

NOW = 5000.0


class Accepted:
    fd = 7
    backlog_seconds = 0.0


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[float | OSError]:
    """What the kernel says, the last first."""
    answers: list[float | OSError] = []

    def waiting_seconds(descriptor: int) -> float:
        assert descriptor == Accepted.fd
        answer = answers.pop()
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(accept_delay, "waiting_seconds", waiting_seconds)
    return answers


def test_each_connection_is_looked_at_as_long_as_they_wait(told: list[float | OSError]) -> None:
    delay = AcceptDelay()
    assert delay.look_at <= NOW, "the first one is"
    told += [0.4, 1.5]
    for seconds in (1.5, 0.4):
        accepted = Accepted()
        delay.measure(accepted, NOW)
        assert accepted.backlog_seconds == seconds
        assert delay.look_at == NOW


@pytest.mark.parametrize("answer", [0.0, 0.008, OSError(errno.EPERM, "a sandbox")])
def test_where_they_do_not_wait_the_next_look_is_later(told: list[float | OSError], answer: float | OSError) -> None:
    """It costs two system calls, and the usual connection is accepted at once."""
    delay, accepted = AcceptDelay(), Accepted()
    told.append(answer)
    delay.measure(accepted, NOW)
    assert accepted.backlog_seconds == 0
    assert delay.look_at == pytest.approx(NOW + 0.05)
