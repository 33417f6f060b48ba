"""Records of a profile arrive as they were written, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkserver.ipc.messages import MessageError
from forkserver.ipc.profile_records import (
    RECORD_BYTES,
    TEXT_BYTES,
    ProfiledCall,
    ProfiledFunction,
    ProfiledPath,
    ProfileEnd,
    ProfileLoss,
    ProfileRecord,
    ProfileSample,
    decode_records,
    encode_record,
)

EVERY: list[ProfileRecord] = [
    ProfiledFunction(12, "shop.views", "Basket.total", "/srv/shop/views.py"),
    ProfiledCall(3, 7),
    ProfiledPath("GET /caf\u00e9"),
    ProfileSample(9, 2, 10_000_000),
    ProfileLoss(41),
    ProfileEnd("no thread"),
]


def test_every_record_survives_the_way() -> None:
    assert decode_records(b"".join(map(encode_record, EVERY))) == EVERY
    assert decode_records(b"") == []


def test_a_text_too_long_loses_its_end() -> None:
    function = ProfiledFunction(1, "m" * 9000, "n" * 9000, "f" * 9000)
    data = encode_record(function)
    assert len(data) < RECORD_BYTES
    (read,) = decode_records(data)
    assert isinstance(read, ProfiledFunction)
    assert (read.module, read.name, read.file) == tuple(each * TEXT_BYTES for each in "mnf")


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"\xff" + bytes(100),
        encode_record(EVERY[3])[:-1],
        encode_record(EVERY[0])[:-1],
        b"\x03\xff\xff" + bytes(0xFFFF),  # a text longer than any is
        b"\x03\x05",
    ],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode_records(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_refused(data: bytes) -> None:
    try:
        decode_records(data)
    except MessageError:
        return
