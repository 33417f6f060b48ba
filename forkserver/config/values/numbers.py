"""Numbers in settings: counts, times, sizes and file modes.

Times are seconds and sizes bytes; text may carry a unit. Where 0 switches something off, or a word such as ``auto``
stands for a figure, the type says so in its messages.
"""

from __future__ import annotations

import math
import re
from typing import Final

from forkserver.config.values.value_type import RefusedError, ValueType, quoted
from forkserver.linux import cgroups
from forkserver.linux.descriptor_limit import NOFILE_AUTO, NOFILE_KEEP

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

AUTO_FREE: Final = -1  # of spool_keep_free: a part of the file system
_SIZE_UNITS: Final = {"": 1, "b": 1, "k": KIB, "kib": KIB, "m": MIB, "mib": MIB, "g": GIB, "gib": GIB}
_TIME_UNITS: Final = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0}


def _count(raw: object, low: int, high: int, way_out: str) -> int:
    if isinstance(raw, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", raw):
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise RefusedError(f"not a whole number; {way_out}")
    if not low <= raw <= high:
        raise RefusedError(f"out of range; {way_out}")
    return raw


def count(low: int, high: int) -> ValueType[int]:
    """Whole numbers from ``low`` to ``high``."""
    return ValueType("count", lambda raw: _count(raw, low, high, f"give {low} to {high}"), str)


def _workers(raw: object) -> int:
    if isinstance(raw, str) and raw.strip().lower() == "auto":
        return cgroups.usable()
    return _count(raw, 1, 4096, "give 1 to 4096, or auto (as many as processors may be used)")


def _measured(raw: object, units: dict[str, float] | dict[str, int], way_out: str) -> float:
    """A number with a unit from ``units``, in the unit that counts 1."""
    if isinstance(raw, str):
        match = re.fullmatch(r"([+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([a-z]*)", raw.strip().lower())
        if not match or match[2] not in units:
            raise RefusedError(f"not a number with a known unit; {way_out}")
        return float(match[1]) * units[match[2]]
    if isinstance(raw, bool) or not isinstance(raw, int | float) or math.isnan(raw):
        raise RefusedError(f"not a number; {way_out}")
    return raw


def _seconds(raw: object, otherwise: str = "") -> float:
    """Seconds in range; ``otherwise`` says what 0 means, where it is allowed."""
    way_out = f"give seconds, {'' if otherwise else 'or '}write 500ms, 30s, 2m, 1h{otherwise}"
    value = float(_measured(raw, _TIME_UNITS, way_out))
    if otherwise and value == 0:
        return 0.0
    if not 0.001 <= value <= 365 * 86400:
        raise RefusedError(f"out of range; give 0.001 seconds to a year{otherwise}")
    return value


def _seconds_or_never(raw: object) -> float:
    # Infinity, which TOML can write too, compares rightly with every age.
    return math.inf if raw == math.inf else _seconds(raw, ", or 0 for no limit") or math.inf


def _seconds_or_off(raw: object) -> float:
    return _seconds(raw, ", or 0 to switch it off")


def _show_seconds(value: float) -> str:
    if math.isinf(value):
        return "0"
    return str(int(value)) if value.is_integer() else repr(value)


def _size(raw: object, low: int, high: int, otherwise: str = "") -> int:
    way_out = f"give bytes from {_unquoted_size(low)} to {_unquoted_size(high)}, or write 64KiB, 10MiB, 1GiB{otherwise}"
    value = _measured(raw, _SIZE_UNITS, way_out)
    if otherwise and value == 0:
        return 0
    if not low <= value <= high:
        raise RefusedError(f"out of range; {way_out}")
    return int(value)


def _unquoted_size(value: int) -> str:
    for unit, size in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if value and value % size == 0:
            return f"{value // size}{unit}"
    return str(value)


def readable_size(value: int) -> str:
    """``value`` bytes for a message, such as ``1.5 GiB``."""
    for unit, size in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if value >= size:
            return f"{value / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{value} bytes"


def _show_size(value: int) -> str:
    text = _unquoted_size(value)
    return text if text.isdigit() else quoted(text)


def size(low: int, high: int) -> ValueType[int]:
    """Bytes from ``low`` to ``high``, with the suffixes KiB, MiB and GiB (or K, M, G)."""
    return ValueType("bytes", lambda raw: _size(raw, low, high), _show_size)


def size_or_off(low: int, high: int) -> ValueType[int]:
    """Bytes as ``size`` has them, or 0."""
    off = ", or 0 to switch it off"
    return ValueType("bytes, 0 for no limit", lambda raw: _size(raw, low, high, off), _show_size)


def _free_space(raw: object) -> int:
    if isinstance(raw, str) and raw.strip().lower() == "auto":
        return AUTO_FREE
    return _size(raw, 1, 2**62, ", or auto, or 0 to switch it off")


def _open_files(raw: object) -> int:
    word = raw.strip().lower() if isinstance(raw, str) else ""
    if word in ("auto", "keep"):
        return NOFILE_AUTO if word == "auto" else NOFILE_KEEP
    return _count(raw, 64, 2**30, "give 64 to 1073741824, auto (what worker_connections needs) or keep")


def _show_open_files(value: int) -> str:
    return quoted("auto" if value == NOFILE_AUTO else "keep") if value <= NOFILE_AUTO else str(value)


def _mode(raw: object) -> int:
    # TOML's 22 and 0o26 arrive as the same number, so what was meant cannot be told: only text says its base.
    if not isinstance(raw, str):
        raise RefusedError(f"a number whose base cannot be seen; write octal digits in quotes, {_likely_mode(raw)}")
    if not re.fullmatch(r"(0o)?[0-7]{1,4}", raw.strip()) or int(raw, 8) > 0o777:
        raise RefusedError("not octal digits up to 777; write it as chmod does, such as 022 or 660")
    return int(raw, 8)


def _likely_mode(raw: object) -> str:
    """What a mode that was written as the number ``raw`` may mean, in the words of a way out."""
    if isinstance(raw, bool) or not isinstance(raw, int) or raw < 0:
        return 'such as "022"'
    digits = str(raw)
    likely = [f'"{digits:0>4}"'] if re.fullmatch("[0-7]{1,3}", digits) else []
    if raw <= 0o777 and not (likely and raw < 8):
        likely.append(f'"{raw:04o}" where 0o{raw:o} was written')
    return ", or ".join(likely) or 'such as "022"'


workers: Final = ValueType("count or auto", _workers, str)
seconds: Final = ValueType("seconds", _seconds, _show_seconds)
seconds_or_never: Final = ValueType("seconds, 0 for no limit", _seconds_or_never, _show_seconds)
seconds_or_off: Final = ValueType("seconds, 0 for off", _seconds_or_off, _show_seconds)
free_space: Final = ValueType(
    "bytes or auto", _free_space, lambda value: quoted("auto") if value == AUTO_FREE else _show_size(value)
)
open_files: Final = ValueType("count, auto or keep", _open_files, _show_open_files)
mode: Final = ValueType("octal mode", _mode, lambda value: quoted(f"{value:04o}"))
