"""When a watched file counts as changed."""

from __future__ import annotations

import os
from pathlib import Path

from forkserver.worker.development.file_states import MOST_IN_FOLDERS, MOST_WHILE_LOADING, FileStates


def watched(*paths: Path) -> FileStates:
    states = FileStates()
    states.add(map(str, paths))
    return states


def write(path: Path, text: str, at: int) -> None:
    """Write ``text`` with a time of its own: two tests within the clock's resolution are two."""
    path.write_text(text)
    os.utime(path, ns=(at, at))


def test_a_file_that_is_written_again_counts_once(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    write(file, "1", 1)
    states = watched(file)
    assert states.changed() == []
    write(file, "2", 2)
    assert states.changed() == [str(file)]
    assert states.changed() == []


def test_a_file_that_is_replaced_by_one_of_the_same_time_and_size_counts(tmp_path: Path) -> None:
    """As editors do it that write another file and rename it."""
    file, other = tmp_path / "a.py", tmp_path / "b"
    write(file, "1", 1)
    write(other, "2", 1)
    states = watched(file)
    other.rename(file)
    assert states.changed() == [str(file)]


def test_a_file_that_goes_and_comes_back_counts_twice(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    write(file, "1", 1)
    states = watched(file)
    file.unlink()
    assert states.changed() == [str(file)]
    write(file, "1", 1)
    assert states.changed() == [str(file)]


def test_a_file_that_is_missing_counts_when_it_is_made(tmp_path: Path) -> None:
    """An import that failed for want of a file of its own."""
    states = watched(tmp_path / "config.json")
    assert states.changed() == []
    (tmp_path / "config.json").write_text("{}")
    assert states.changed() == [str(tmp_path / "config.json")]


def test_a_file_that_was_modified_after_its_import_began_is_late(tmp_path: Path) -> None:
    """It was saved once more while the code was loading, which may have read it before."""
    early, late = tmp_path / "a.py", tmp_path / "b.py"
    write(early, "1", 1_000)
    write(late, "1", 3_000)
    states = FileStates()
    states.loading = True
    assert states.add([str(early), str(late)], since_ns=2_000) == [str(late)]


def test_a_file_that_the_import_itself_writes_does_not_reload_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "version.py"
    write(file, "1", 1)
    states = watched(file)
    states.loading = True
    found = 0
    for at in range(2, 20):
        write(file, "1", at)
        found += bool(states.changed())
    assert found == MOST_WHILE_LOADING
    states.loading = False
    write(file, "1", 100)
    assert states.changed() == [str(file)], "a person changes it"


def test_a_new_module_counts_only_after_an_import_that_failed(tmp_path: Path) -> None:
    """It may be the one that was missing."""
    states = FileStates()
    states.look_for_modules_in([str(tmp_path)])
    (tmp_path / "unused.py").write_text("")
    assert states.changed() == []
    states.look_for_modules_in([str(tmp_path)])
    states.failed = True
    assert states.changed() == []
    (tmp_path / "helper.py").write_text("")
    (tmp_path / "package").mkdir()
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "__pycache__").mkdir()
    assert states.changed() == [str(tmp_path / "helper.py"), str(tmp_path / "package")]


def test_a_module_that_was_made_while_the_import_failed_counts(tmp_path: Path) -> None:
    """The import had looked for it before."""
    (tmp_path / "old.py").write_text("")
    before = os.stat(tmp_path / "old.py").st_ctime_ns
    states = FileStates()
    assert states.look_for_modules_in([str(tmp_path)], since_ns=before) == []
    (tmp_path / "package").mkdir()
    assert states.look_for_modules_in([str(tmp_path)], since_ns=before - 1) == [str(tmp_path / "old.py")]


def test_every_file_below_a_folder_that_was_named_counts(tmp_path: Path) -> None:
    (tmp_path / "templates" / "mail").mkdir(parents=True)
    page = tmp_path / "templates" / "mail" / "a.html"
    write(page, "1", 1)
    states = FileStates()
    states.add_roots([str(tmp_path / "templates"), str(tmp_path / "settings.ini")])
    assert states.changed() == []
    write(page, "2", 2)
    new = tmp_path / "templates" / "b.html"
    new.write_text("")
    (tmp_path / "settings.ini").write_text("")
    assert states.changed() == sorted(map(str, [page, new, tmp_path / "settings.ini"]))


def test_a_folder_too_large_is_looked_at_in_part(tmp_path: Path) -> None:
    """So that a mistaken / costs a bounded time."""
    states = FileStates(look=lambda path: os.stat("/dev/null"))
    for number in range(3):
        (tmp_path / str(number)).write_text("")
    states.add_roots([str(tmp_path)])
    assert 0 < states.count <= MOST_IN_FOLDERS


def test_folders_are_those_of_the_files_with_links_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.py").write_text("")
    (tmp_path / "linked").mkdir()
    link = tmp_path / "linked" / "a.py"
    link.symlink_to(tmp_path / "real" / "a.py")
    assert watched(link).folders() == {str(tmp_path / "linked"), str(tmp_path / "real")}
