"""What to do about a file system that is mounted read-only."""

from __future__ import annotations

import errno

from forkserver.linux.files import read_only


def test_the_folder_is_named_as_the_unit_would_name_it() -> None:
    told = read_only.way_out(OSError(errno.EROFS, "Read-only file system"), "/srv/site/run/pid")
    assert told.startswith("under systemd (ProtectSystem=strict) allow it with ReadWritePaths=/srv/site/run, ")


def test_any_other_error_has_no_way_out_here() -> None:
    assert read_only.way_out(OSError(errno.EACCES, "Permission denied"), "/srv/pid") == ""
