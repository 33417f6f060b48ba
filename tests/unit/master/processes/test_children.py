"""A pid is a worker's only where the kernel says so, and no process but a child of the master's gets a signal."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator

import pytest

from forkserver.linux import syscalls
from forkserver.master.model.lifecycle import Template, Worker
from forkserver.master.processes import children
from forkserver.master.processes.children import Children, NotOursError

TEMPLATE = Template(1, os.getpid(), True, 0.0)  # it runs by the rights of these tests


def forked(then: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            then()
        finally:
            os._exit(0)
    return pid


@pytest.fixture
def held() -> Iterator[Children]:
    made = Children()
    yield made
    made.close()


@pytest.fixture
def child() -> Iterator[int]:
    pid = forked(signal.pause)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def worker() -> Worker:
    return Worker(0, 1, 0, 0.0)


def test_a_child_is_signalled_through_its_pidfd(held: Children, child: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "kill", lambda *_: pytest.fail("by its number"))
    one = worker()
    held.adopt(one, child, TEMPLATE)
    assert held.signal(one, signal.SIGSTOP)
    _, status = os.waitpid(child, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    held.release(one)
    assert not held.kill(one)


def test_only_the_group_of_a_child_that_is_held_is_signalled(
    held: Children, child: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(syscalls, "kill_group", lambda group, signum: sent.append((group, signum)) or True)
    process = worker()
    process.pid = child
    assert not held.signal_group(process, signal.SIGINT)
    held.hold(process, child)
    assert held.signal_group(process, signal.SIGINT)
    assert sent == [(child, signal.SIGINT)]


def test_a_child_that_has_ended_and_was_not_reaped_is_a_child(held: Children) -> None:
    one = worker()
    pid = forked(lambda: None)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    held.adopt(one, pid, TEMPLATE)
    os.waitpid(pid, 0)
    assert not held.kill(one)


NO_CHILDREN = {
    "-1": -1,
    "0": 0,
    "init": 1,
    "ourselves": os.getpid(),
    "our parent": os.getppid(),
    "too large": 2**22 + 1,
    "largest": 2**31 - 1,
}


@pytest.mark.parametrize("pid", NO_CHILDREN.values(), ids=NO_CHILDREN)
def test_a_number_that_is_no_child_is_refused(held: Children, pid: int) -> None:
    one = worker()
    with pytest.raises(NotOursError):
        held.adopt(one, pid, TEMPLATE)
    assert not held.kill(one)


def test_a_grandchild_is_refused_until_it_is_ours(held: Children) -> None:
    """A report may come before the process between has ended."""
    named, naming = os.pipe()
    go, gate = os.pipe()

    def between() -> None:
        os.close(gate)
        inner = os.fork()
        if inner == 0:
            signal.pause()
        os.write(naming, str(inner).encode())
        os.read(go, 1)

    pid = forked(between)
    grandchild = int(os.read(named, 20))
    one = worker()
    with pytest.raises(NotOursError, match="no child"):
        held.adopt(one, grandchild, TEMPLATE)
    os.close(gate)
    os.waitpid(pid, 0)  # the tests are a subreaper, as the master is
    held.adopt(one, grandchild, TEMPLATE)
    assert held.kill(one)
    os.waitpid(grandchild, 0)
    for number in (named, naming, go):
        os.close(number)


def test_a_program_with_other_rights_is_no_worker(held: Children, child: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application may have started it by a setuid file, and left it to the master."""
    monkeypatch.setattr(children, "_credentials", lambda pid: [b"Uid:\t0" if pid == child else b"Uid:\t1000"])
    one = worker()
    with pytest.raises(NotOursError, match="rights"):
        held.adopt(one, child, TEMPLATE)
    assert not held.kill(one)


def test_a_worker_of_roots_template_may_have_given_up_its_rights(
    held: Children, child: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the hook post_fork, before the master has looked."""
    ids = {child: b"65534\t65534\t65534\t65534"}
    monkeypatch.setattr(
        children, "_credentials", lambda pid: [b"Uid:\t" + ids.get(pid, b"0\t0\t0\t0"), b"Gid:\t0\t0\t0\t0"]
    )
    held.adopt(worker(), child, TEMPLATE)


def test_without_proc_the_kernels_word_is_enough(held: Children, child: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_status", lambda _: [])
    one = worker()
    held.adopt(one, child, TEMPLATE)
    assert held.signal(one, signal.SIGCONT)


def test_the_rights_of_a_template_are_remembered(held: Children, child: int) -> None:
    """It may have ended when the pid that it has named is looked at."""
    gone = Template(1, os.getpid(), True, 0.0)
    held.note_rights(gone)
    gone.pid = 2**22 + 1
    held.adopt(worker(), child, gone)
    held.release(gone)
    with pytest.raises(NotOursError):
        held.adopt(worker(), child, gone)


def test_a_missing_descriptor_is_not_taken_for_another_processs_rights(held: Children, child: int) -> None:
    """The log would accuse the worker, and its start would never be tried at the pace of a shortage."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    one = worker()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))  # room for the pidfd alone
    try:
        with pytest.raises(OSError, match="Too many open files"):
            held.adopt(one, child, TEMPLATE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
    assert not held.signal(one, 0), "it is not held any more"
    held.adopt(one, child, TEMPLATE)


def test_children_with_endless_news_hold_up_neither_the_master_nor_those_that_are_held(
    held: Children, child: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application's orphans can stop and go on faster than that is read."""
    one = worker()
    held.adopt(one, child, TEMPLATE)
    os.kill(child, signal.SIGSTOP)
    os.waitid(os.P_PID, child, os.WSTOPPED | os.WNOWAIT)
    monkeypatch.setattr(syscalls, "reap", lambda: (1, 0xFFFF))
    changed = held.reap()
    assert changed[: children.MOST_NEWS] == [(1, 0xFFFF)] * children.MOST_NEWS
    [(pid, status)] = changed[children.MOST_NEWS :]
    assert (pid, os.WIFSTOPPED(status), os.WSTOPSIG(status)) == (child, True, signal.SIGSTOP)
    assert held.behind


def test_once_all_is_learnt_nothing_is_behind(held: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    news = [(1, 0xFFFF)] * (children.MOST_NEWS + 1)
    monkeypatch.setattr(syscalls, "reap", lambda: news.pop() if news else None)
    assert (len(held.reap()), held.behind) == (children.MOST_NEWS, True)
    assert (len(held.reap()), held.behind) == (1, False)
