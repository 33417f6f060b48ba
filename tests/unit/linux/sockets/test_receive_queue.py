"""Whether the kernel can be asked to wake us for many bytes only."""

from __future__ import annotations

import os

import pytest

from forkserver.linux.sockets import receive_queue


@pytest.mark.parametrize(
    ("release", "sound"),
    [
        ("6.1.0-30-amd64", True),
        ("5.12.0", True),
        ("5.11.22-generic", False),
        ("4.18.0-553.el8", False),
        ("5.4+", False),
        ("odd", False),
    ],
)
def test_a_kernel_that_may_forget_to_wake_us_is_not_asked(release: str, sound: bool) -> None:
    """A body would wait there until its deadline."""
    assert receive_queue.is_sound(release) == sound


def test_this_kernel_is_looked_at() -> None:
    assert receive_queue.is_sound(os.uname().release) == receive_queue.SOUND
