"""Another user's rights on files, taken for a moment."""

from __future__ import annotations

import ctypes
import os
import threading

import pytest

from forkserver.linux.files import file_permissions
from forkserver.linux.files.file_permissions import ActingError, Actor, acting_as, actor_of, is_mapped, user_name
from harness import BOUND
from harness.intruder import INTRUDER

OTHER = Actor(12345, 12346, (12346, 12347))


def identity() -> list[str]:
    """The file system's uid and gid, and the groups, as the kernel shows them for this thread."""
    with open("/proc/thread-self/status", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    return [lines["Uid"].split()[3], lines["Gid"].split()[3], *lines["Groups"].split()]


@pytest.mark.as_root
def test_uid_gid_and_groups_are_the_users_and_roots_again_afterwards() -> None:
    """A group of root's that stayed would open what is root's group's."""
    before = identity()
    with acting_as(OTHER):
        assert identity() == ["12345", "12346", "12346", "12347"]
        assert os.geteuid() == 0
    assert identity() == before


@pytest.mark.as_root
@pytest.mark.parametrize("known", [True, False])
def test_roots_rights_come_back_after_an_error(monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """Also on a machine whose number of the system call is not known here."""
    if not known:
        monkeypatch.setattr(file_permissions, "_SETGROUPS", {})
    before = identity()
    with pytest.raises(PermissionError), acting_as(OTHER):
        os.open("/etc/shadow", os.O_RDONLY)
    assert identity() == before


@pytest.mark.as_root
def test_the_process_stays_dumpable() -> None:
    """The kernel takes that away at each change of identity; cores and /proc/self go by it."""
    before = file_permissions._dumpable()
    assert before == 1
    with acting_as(OTHER):
        pass
    assert file_permissions._dumpable() == before


@pytest.mark.as_root
def test_another_thread_keeps_roots_rights() -> None:
    """The identity is the thread's: signals, control clients and psutil go on as root."""
    acting, seen = threading.Event(), threading.Event()

    def look() -> None:
        assert acting.wait(BOUND)
        os.close(os.open("/etc/shadow", os.O_RDONLY))
        seen.set()

    thread = threading.Thread(target=look)
    thread.start()
    with acting_as(actor_of(INTRUDER.pw_uid)):
        with pytest.raises(PermissionError):
            os.open("/etc/shadow", os.O_RDONLY)
        acting.set()
        thread.join()
    assert seen.is_set()


@pytest.mark.parametrize("refused", ["groups", pytest.param("uid", marks=pytest.mark.as_root)])
def test_without_the_right_to_it_nothing_is_done(monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    """A container that was given no CAP_SETUID: the user's files are not touched with root's rights instead."""
    before = identity()

    class Libc:
        """The C library in a process without the capabilities."""

        def __getattr__(self, name: str) -> object:
            return getattr(ctypes.CDLL(None, use_errno=True), name)

        def syscall(self, *_arguments: object) -> int:
            ctypes.set_errno(1)
            return -1 if refused == "groups" else 0

        def setfsuid(self, _number: object) -> int:
            return os.geteuid()

    monkeypatch.setattr(file_permissions, "_libc", Libc())
    reached = []
    told = "cannot act as 12345: the capabilities CAP_SETUID and CAP_SETGID are missing"
    with pytest.raises(ActingError, match=told), acting_as(OTHER):
        reached.append(True)
    assert reached == []
    monkeypatch.undo()
    assert identity() == before


def test_without_an_actor_nothing_changes() -> None:
    before = identity()
    with acting_as(None):
        assert identity() == before


def test_accounts_have_their_groups_and_numbers_have_one() -> None:
    found = actor_of(INTRUDER.pw_uid)
    assert (found.uid, found.gid, found.name) == (INTRUDER.pw_uid, INTRUDER.pw_gid, "nobody")
    assert INTRUDER.pw_gid in found.groups
    assert actor_of(4294967) == (4294967, 4294967, (4294967,))
    assert user_name(4294967) == "4294967"


def test_users_of_other_namespaces_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    assert is_mapped(os.getuid())
    written = f"{tmp_path}/uid_map"
    with open(written, "w", encoding="ascii") as file:
        file.write("         0       1000          1\n         1     100000      65536\n")
    monkeypatch.setattr(file_permissions, "_UID_MAP", written)
    assert [is_mapped(uid) for uid in (0, 1, 65536, 65537)] == [True, True, True, False]
    monkeypatch.setattr(file_permissions, "_UID_MAP", f"{tmp_path}/missing")
    assert is_mapped(65537)
