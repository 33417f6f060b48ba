"""Wheels of what is installed beside the tests, so that pip can install it again without a network."""

from __future__ import annotations

import zipfile
from importlib import metadata
from pathlib import Path

import forkserver

KEPT = ("METADATA", "WHEEL", "entry_points.txt")


def pack(name: str, folder: Path) -> Path:
    """The distribution ``name`` as a wheel in ``folder``; an editable one with the files of its source folder."""
    found = metadata.distribution(name)
    tag = next(line.removeprefix("Tag: ") for line in (found.read_text("WHEEL") or "").splitlines() if "Tag: " in line)
    stem = f"{found.metadata['Name'].replace('-', '_')}-{found.version}"
    wheel = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for place, text in _contents(found).items():
            archive.writestr(place, text)
        for kept in KEPT:
            archive.writestr(f"{stem}.dist-info/{kept}", found.read_text(kept) or "")
        archive.writestr(f"{stem}.dist-info/RECORD", "".join(f"{each},,\n" for each in archive.namelist()))
    return wheel


def _contents(found: metadata.Distribution) -> dict[str, bytes]:
    """Modules and libraries by their places in site-packages."""
    files = [file for file in found.files or () if ".." not in file.parts and "__pycache__" not in file.parts]
    contents = {
        str(file): Path(str(file.locate())).read_bytes()
        for file in files
        if not file.parts[0].endswith((".dist-info", ".pth"))
    }
    if found.metadata["Name"] == "forkserver-wsgi":
        top = Path(forkserver.__file__).parent
        contents |= {str(file.relative_to(top.parent)): file.read_bytes() for file in top.rglob("*.py")}
    return contents
